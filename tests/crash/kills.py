"""Random kills of the real program while calls are being recorded: nothing that was promised may be missing.

Owns: the rounds, the ledger of what each caller was promised, the judgement. Refuses to know: what is inside the machine.

Theory of operation: each round a few callers call at random moments; at another random moment something is killed with
SIGKILL (the line, everything, delivery or the desk), and the machine is started again if need be. Then the ledger is held
against the messages: who heard the beep is there exactly once; whose hang-up was confirmed has every millisecond; of the
others at most 250 ms of what had been sent before the kill are missing, and the message says that it was cut off; earlier
messages are as they were. The seed makes the choices repeatable, not the scheduling of the machine.

Run it: ``make crash``, or ``python -m tests.crash.kills --kills 20 --seed 7``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from aftertone.audio.clips import Clip
from aftertone.model import Codec
from aftertone.roles.caller import TestCaller, Wish
from tests.support.machine import Machine, speech, speech_file, wait_until

LOSS_MS: Final = 250
FRAME_MS: Final = 20
CALLERS: Final = 4
TARGETS: Final = ("line", "line", "line", "everything", "everything", "delivery", "desk")


@dataclass
class Caller:
    """One caller of a round and what it was promised."""

    number: str
    after_s: float
    seconds: float
    codec: Codec
    tester: TestCaller | None = None
    task: asyncio.Task[Any] | None = None

    async def live(self, uri: str) -> None:
        """Wait, call, speak, hang up."""
        await asyncio.sleep(self.after_s)
        clip = Clip("speech", speech(self.seconds), 8000)
        wish = Wish(uri, clip, self.codec, from_uri=f"sip:{self.number}@127.0.0.1")
        self.tester = TestCaller(wish, lambda _: None)
        await self.tester.run()

    @property
    def beep_heard(self) -> bool:
        return self.tester is not None and self.tester.outcome.beep_heard

    @property
    def confirmed(self) -> bool:
        return self.tester is not None and self.tester.outcome.bye_status == 200

    def sent_before_ms(self, moment_ns: int) -> int:
        """How much sound had been sent when something was killed."""
        return 0 if self.tester is None else FRAME_MS * sum(1 for t in self.tester.sent_ns if t <= moment_ns)


@dataclass
class Tally:
    """What happened in all rounds."""

    kills: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    confirmed: int = 0
    cut_off: int = 0
    worst_loss_ms: int = 0
    violations: list[str] = field(default_factory=list)


def judge(caller: Caller, killed_ns: int, rows: list[dict[str, Any]], target: str, tally: Tally) -> None:
    """Hold one caller's promises against the rows with its number."""
    name = f"{caller.number} ({target})"
    tally.calls += 1
    if len(rows) > 1:
        tally.violations.append(f"{name}: {len(rows)} messages of one call")
    if not rows:
        if caller.beep_heard:
            tally.violations.append(f"{name}: heard the beep, and there is no message")
        return
    row = rows[0]
    sent_ms = caller.sent_before_ms(time.monotonic_ns() if caller.confirmed else killed_ns)
    missing_ms = sent_ms - int(row["audio_ms"])
    if caller.confirmed:
        tally.confirmed += 1
        if missing_ms > FRAME_MS or row["cut_off"]:
            tally.violations.append(f"{name}: confirmed, but {missing_ms} ms are missing, cut_off={row['cut_off']}")
        return
    tally.worst_loss_ms = max(tally.worst_loss_ms, missing_ms)
    tally.cut_off += bool(row["cut_off"])
    if missing_ms > LOSS_MS:
        tally.violations.append(f"{name}: {missing_ms} of {sent_ms} ms are missing")
    if target in ("line", "everything") and sent_ms > 0 and not row["cut_off"] and row["end_reason"] == "cut_off":
        tally.violations.append(f"{name}: ended as cut_off without the mark")


async def play_round(machine: Machine, number: int, seed: int, tally: Tally) -> None:
    """Play one round: calls, one kill, start again, judge."""
    rng = random.Random(seed * 100_003 + number)
    callers = [
        Caller(f"k{number}x{i}", rng.uniform(0, 0.8), rng.uniform(0.5, 2.5), rng.choice(list(Codec)))
        for i in range(CALLERS)
    ]
    before = {m["id"]: m for m in await asyncio.to_thread(every, machine)}
    for caller in callers:
        caller.task = asyncio.create_task(caller.live(machine.uri))
    await asyncio.sleep(rng.uniform(0.2, 3.5))
    target = rng.choice(TARGETS)
    tally.kills[target] += 1
    killed_ns = time.monotonic_ns()
    if target == "everything":
        await asyncio.to_thread(machine.kill)
    else:
        machine.kill_role(target)
    if target in ("line", "everything"):
        for caller in callers:
            if caller.task is not None:
                # What a caller sends from now on reaches nobody; a restarted line does not know its call.
                caller.task.cancel()
    await asyncio.gather(*(c.task for c in callers if c.task is not None), return_exceptions=True)
    if target == "everything":
        await asyncio.to_thread(machine.start)
    expected = {c.number for c in callers if c.beep_heard}
    rows = await asyncio.to_thread(settled, machine, expected, set(before))
    for caller in callers:
        judge(caller, killed_ns, [r for r in rows.values() if r["caller"]["number"] == caller.number], target, tally)
    for message_id, row in before.items():
        if rows.get(message_id) != row:
            tally.violations.append(
                f"round {number} ({target}): message {message_id} changed: {row} -> {rows.get(message_id)}"
            )


def settled(machine: Machine, expected: set[str], known: set[str]) -> dict[str, dict[str, Any]]:
    """Wait until everyone in ``expected`` has a message; return all rows by id."""
    deadline_s = time.monotonic() + 20

    def look() -> dict[str, dict[str, Any]] | None:
        try:
            rows = {str(m["id"]): m for m in every(machine)}
        except (httpx.HTTPError, OSError):
            return None
        there = {m["caller"]["number"] for i, m in rows.items() if i not in known}
        # A caller without a message is judged, not waited for: the judgement names it.
        return rows if expected <= there or time.monotonic() > deadline_s else None

    return wait_until(look, "the desk to answer", 60)


def every(machine: Machine) -> list[dict[str, Any]]:
    """Return all messages, however many."""
    found: list[dict[str, Any]] = []
    while True:
        page = machine.messages(**({"before": found[-1]["id"]} if found else {}))
        found += page
        if len(page) < 200:
            return found


def balance(machine: Machine, tally: Tally) -> None:
    """Look at the whole at the end: the books balance, and no call has two messages."""
    wait_until(lambda: machine.run("verify", check=False).returncode == 0, "the books to balance", 30)
    numbers = Counter(m["caller"]["number"] for m in every(machine))
    tally.violations += [f"{number} has {count} messages" for number, count in numbers.items() if count > 1]


async def play(kills: int, seed: int, data: Path, *, show: bool) -> Tally:
    """Play ``kills`` rounds on one machine; returns the tally, violations included."""
    tally = Tally()
    machine = Machine(data, {"AFTERTONE_LOG__LEVEL": "warning"})
    await asyncio.to_thread(machine.start)
    try:
        greeting = speech_file(data.parent / "greeting.wav", 0.2)
        await asyncio.to_thread(machine.run, "mailbox", "greeting", "set", "main", str(greeting))
        for number in range(kills):
            await play_round(machine, number, seed, tally)
            if show:
                print(
                    f"\r{number + 1}/{kills} kills, {tally.calls} calls, {tally.confirmed} confirmed, "
                    f"{tally.cut_off} cut off, worst loss {tally.worst_loss_ms} ms, {len(tally.violations)} violations",
                    end="",
                    flush=True,
                )
        await asyncio.to_thread(balance, machine, tally)
    finally:
        if machine.process is not None:
            await asyncio.to_thread(machine.kill)
    return tally


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aftertone-kills-", ignore_cleanup_errors=True) as folder:
        tally = asyncio.run(play(arguments.kills, arguments.seed, Path(folder) / "var", show=True))
    print(f"\n\nseed {arguments.seed}, {time.monotonic() - began_s:.0f} s")
    for target, count in sorted(tally.kills.items()):
        print(f"  killed {target:11} {count:4}")
    print(f"  calls {tally.calls}, of these confirmed and complete {tally.confirmed}, cut off {tally.cut_off}")
    print(f"  worst loss of unconfirmed speech {tally.worst_loss_ms} ms (promised: at most {LOSS_MS})")
    for violation in tally.violations:
        print(f"  VIOLATION {violation}")
    print("nothing was lost" if not tally.violations else f"{len(tally.violations)} VIOLATIONS")
    sys.exit(1 if tally.violations else 0)


if __name__ == "__main__":
    main()
