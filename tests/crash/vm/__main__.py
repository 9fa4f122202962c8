"""``make crash-vm``: a guest boots Aftertone from systemd, takes calls, is cut in mid-call, boots again and delivers.

Owns: the command line, the table, the look at the books at the end. Refuses to know: everything else (see ``rounds``).

Theory of operation: the image is built with the network of this machine, everything else happens in a network of its own.
Exit status: 0 nothing was lost, 1 a promise was broken, 2 it cannot run here.

Run it: ``make crash-vm``, or as root ``python -m tests.crash.vm --cuts 5 --seed 7``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from tests.crash.vm import guest as guests
from tests.crash.vm.guest import Guest
from tests.crash.vm.image import BuildError, Image, build
from tests.crash.vm.judge import EMULATED_LOSS_MS, LOSS_MS
from tests.crash.vm.rounds import Cut, GuestError, House, Round, moments

MIRROR: Final = "http://deb.debian.org/debian"
HEADER: Final = (
    "cut",
    "moment",
    "calls",
    "confirmed",
    "cut off",
    "loss ms",
    "as sent ms",
    "told ms",
    "cache lost",
    "boot s",
    "verdict",
)


def table(cuts: Sequence[Cut]) -> str:
    """Return the cuts as a table in Markdown."""
    rows = [HEADER, *(_cells(cut) for cut in cuts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cells(cut: Cut) -> tuple[str, ...]:
    verdict = cut.verdict
    return (
        *(str(cut.number), cut.moment, str(verdict.calls), str(verdict.confirmed), str(verdict.cut_off)),
        *(
            str(verdict.worst_loss_ms),
            str(verdict.worst_unsaved_ms),
            f"{cut.told_ms:.0f}",
            f"{cut.loss.lost} of {cut.loss.cached}",
            f"{cut.boot_s:.0f}",
        ),
        f"{len(verdict.violations)} VIOLATIONS" if verdict.violations else "ok, slow" if verdict.slow else "ok",
    )


async def play(guest: Guest, count: int, seed: int, cuts: list[Cut]) -> None:
    """Play the rounds; ``cuts`` grows with each. Raises GuestError when the guest does not come up."""
    house = House(guest)
    print(f"first boot: {await house.boot():.0f} s", flush=True)
    await house.prepare()
    for number, moment in enumerate(moments(count, seed), 1):
        cut = await Round(house, number, moment, seed).play()
        cuts.append(cut)
        print(
            f"{time.strftime('%H:%M:%S')}  " + " | ".join(f"{h} {c}" for h, c in zip(HEADER, _cells(cut), strict=True)),
            flush=True,
        )
        for violation in cut.verdict.violations:
            print(f"  VIOLATION {violation}", flush=True)


def books(data_disk: Path, folder: Path) -> list[str]:
    """Run ``aftertone verify`` on the data disk; returns what is wrong, nothing when the books balance."""
    mounted = folder / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", str(data_disk), str(mounted)], check=True)
    try:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AFTERTONE_")}
        command = [sys.executable, "-m", "aftertone", "verify", "--json", "--data", str(mounted)]
        done = subprocess.run(command, env=clean, cwd=folder, capture_output=True, text=True)
        print(f"aftertone verify: {json.dumps(json.loads(done.stdout))}" if done.stdout else done.stderr)
        return [] if done.returncode == 0 else [f"the books do not balance: {done.stdout or done.stderr}"]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def summary(cuts: Sequence[Cut], violations: Sequence[str], seed: int, accel: str, took_s: float) -> str:
    """Return what happened in all rounds, as text."""
    verdicts = [cut.verdict for cut in cuts]
    calls, confirmed = sum(v.calls for v in verdicts), sum(v.confirmed for v in verdicts)
    boots = sorted(cut.boot_s for cut in cuts) or [0.0]
    cached, lost = sum(cut.loss.cached for cut in cuts), sum(cut.loss.lost for cut in cuts)
    worst = max((v.worst_loss_ms for v in verdicts), default=0)
    unsaved = max((v.worst_unsaved_ms for v in verdicts), default=0)
    lines = [
        f"{len(cuts)} cuts of a QEMU guest ({accel}), seed {seed}, {took_s:.0f} s",
        f"calls {calls}, of these confirmed and complete {confirmed}, cut off {sum(v.cut_off for v in verdicts)}",
        f"worst loss of unconfirmed speech {worst} ms of what had reached the machine, {unsaved} ms of what had been sent",
        f"  promised {LOSS_MS} ms; limit here {EMULATED_LOSS_MS if accel == 'tcg' else LOSS_MS} ms, with accelerator {accel}",
        f"  longest wait for the disk by the line's own measure {max((cut.told_ms for cut in cuts), default=0):.0f} ms",
        f"of {cached} blocks of 4 kB that were in the disk's cache at the cuts, {lost} were lost",
        f"from power on to taking calls: median {boots[len(boots) // 2]:.0f} s, longest {boots[-1]:.0f} s",
        *(f"VIOLATION {text}" for text in violations),
        f"{len(violations)} VIOLATIONS" if violations else _good_end(sum(v.slow for v in verdicts)),
    ]
    return "\n".join(lines)


def _good_end(slow: int) -> str:
    if not slow:
        return "every promise was kept"
    return f"nothing confirmed was lost; {slow} callers lost more than {LOSS_MS} ms, within the limit of an emulated processor"


def run(arguments: argparse.Namespace, image: Image, accel: str) -> int:
    """Play all rounds and report; returns the exit status."""
    began_s = time.monotonic()
    cuts: list[Cut] = []
    trouble: list[str] = []
    with tempfile.TemporaryDirectory(prefix="aftertone-crash-vm-", ignore_cleanup_errors=True) as name:
        guest = Guest(Path(name), image, accel, barriers=not arguments.without_barriers)
        try:
            asyncio.run(play(guest, arguments.cuts, arguments.seed, cuts))
        except (GuestError, httpx.HTTPError) as error:
            trouble.append(f"after {len(cuts)} cuts: {str(error) or repr(error)}")
        finally:
            if guest.is_on():
                guest.power_off()
                guest.settle(random.Random(arguments.seed))
        if not trouble:
            trouble += books(guest.data_disk, Path(name))
        if arguments.console is not None:
            arguments.console.write_bytes(guest.console.read_bytes())
    violations = [text for cut in cuts for text in cut.verdict.violations] + trouble
    report = f"{table(cuts)}\n\n{summary(cuts, violations, arguments.seed, accel, time.monotonic() - began_s)}\n"
    print(f"\n{report}", end="")
    if arguments.report is not None:
        arguments.report.write_text(report)
    return 1 if violations else 0


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="make crash-vm", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "aftertone-crash-vm")
    parser.add_argument("--mirror", default=MIRROR, help="where Debian comes from")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument(
        "--without-barriers", action="store_true", help="a disk that is never told to flush: this must find violations"
    )
    parser.add_argument("--report", type=Path, help="write the table to this file as well")
    parser.add_argument("--console", type=Path, help="write what the guest said on its console to this file")
    arguments = parser.parse_args()
    # So that the guest's disks go away with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if lacks := guests.missing():
        print("crash-vm needs, and this machine lacks:", *(f"  {lack}" for lack in lacks), sep="\n", file=sys.stderr)
        sys.exit(2)
    try:
        image = build(arguments.cache.absolute(), arguments.mirror, lambda text: print(text, flush=True))
    except BuildError as error:
        print(f"the image of the guest cannot be built: {error}", file=sys.stderr)
        sys.exit(2)
    accel = guests.accelerator(image.kernel) if arguments.accel == "auto" else arguments.accel
    guests.isolate()
    sys.exit(run(arguments, image, accel))


if __name__ == "__main__":
    main()
