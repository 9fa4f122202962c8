"""What recordings cost: the real line under 1, 100 and 1,000 calls, beside the goals.

    python bench/recordings.py [--quick] [--calls 1,100,1000] [--seconds 15] [--folder DIR]

Owns: starting the line (and delivery), measuring them from outside, the account of lost packets, the table. Refuses to
know: the inside of the line; what it prints is what /proc, the status file and the journal say.

Theory of operation: each row of the table is a line of its own with an empty data folder on loopback, called by
``callers.py`` in another process. After all calls are up and a pause, a steady window is measured: processor time of all
threads of the line from /proc/PID/stat, and the packets whose arrival in the journal lies inside the window. Then all hang
up, the line is stopped, and the journal is read: every packet that was sent after the first one journalled must be there.

The callers share the processor with the line; the figures are processor time and not wall time because of that. How much
the callers took is printed too. The pauses between the windows are part of no figure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftertone.audio.flac import write_flac
from aftertone.files import OsFiles
from aftertone.journal import Begin, JournalReader, Kind, unpack_batch
from aftertone.model import Mailbox
from aftertone.roles.folder import Folder, read_status
from aftertone.roles.mounts import mount_of
from aftertone.voicemail import directory

RTP_PORTS = range(14000, 30000)
CALLS_A_SECOND = 200.0
IDLE_S = 3.0
SETTLE_S = 2.5
"""Greeting, beep, and the first commits of the last call are over by then."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Window:
    """What a process used between two moments."""

    began_ns: int
    ended_ns: int
    user_s: float
    system_s: float

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.began_ns) / 1e9

    @property
    def core_share(self) -> float:
        return (self.user_s + self.system_s) / self.seconds


@dataclass(frozen=True, slots=True)
class Account:
    """What the journal holds of what was sent."""

    in_window: int
    lost: int
    twice: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    calls: int
    delivery_share: float | None
    idle: Window
    window: Window
    account: Account
    idle_kib: int
    kib: int
    threads: int
    descriptors: int
    oldest_ms: float
    sync_ms: float
    late_ticks: int
    kernel_drops: int
    answer_ms: Sequence[float]
    bye_ms: Sequence[float]
    callers_share: float
    callers_late_ms: float
    failures: Sequence[str]

    @property
    def us_per_packet(self) -> float:
        return self.window.core_share * self.window.seconds / max(1, self.account.in_window) * 1e6

    @property
    def cpu_per_call_minute(self) -> float:
        return self.window.core_share * 60 / self.calls

    @property
    def marginal(self) -> float:
        return (self.window.core_share - self.idle.core_share) * 60 / self.calls


class Process:
    """A running process, seen from outside."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def cpu_s(self) -> tuple[float, float]:
        """Return user and system time of all threads."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S

    def resident_kib(self) -> int:
        return int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def threads(self) -> int:
        return sum(1 for _ in (self._folder / "task").iterdir())

    def descriptors(self) -> int:
        return sum(1 for _ in (self._folder / "fd").iterdir())

    def window(self, seconds: float, look: Callable[[], None]) -> Window:
        """Let ``seconds`` pass, looking four times a second, and return what was used."""
        user_s, system_s = self.cpu_s()
        began_ns = time.monotonic_ns()
        while (left_s := seconds - (time.monotonic_ns() - began_ns) / 1e9) > 0:
            time.sleep(min(0.25, left_s))
            look()
        user_end_s, system_end_s = self.cpu_s()
        return Window(began_ns, time.monotonic_ns(), user_end_s - user_s, system_end_s - system_s)


class Status:
    """What the line says of itself while it is watched."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._since_ns = folder, time.monotonic_ns()
        self.oldest_ms = 0.0
        self.late_ticks = 0
        self._syncs: list[tuple[float, float]] = []

    def look(self) -> None:
        status = read_status(self._folder, "line")
        if status is None:
            return
        metrics, at_ns = status["metrics"], status["at_monotonic_ns"]
        assert isinstance(metrics, dict)
        assert isinstance(at_ns, int)
        self.late_ticks = int(metrics["late_ticks_total"])
        self._syncs.append((metrics["journal_sync_seconds_count"], metrics["journal_sync_seconds_sum"]))
        # The status covers the second before it.
        if at_ns - self._since_ns > 1_100_000_000:
            self.oldest_ms = max(self.oldest_ms, metrics["oldest_audio_not_durable_ms"])

    def sync_ms(self) -> float:
        """Return how long the disk took for one sync on average."""
        if len(self._syncs) < 2 or self._syncs[0][0] == self._syncs[-1][0]:
            return 0.0
        (count, sum_s), (count_end, sum_end_s) = self._syncs[0], self._syncs[-1]
        return (sum_end_s - sum_s) / (count_end - count) * 1000


@contextlib.contextmanager
def run_role(name: str, folder: Folder, settings: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a role's process; yields its id and what it said when it was ready."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AFTERTONE_")}
    read_end, write_end = os.pipe()
    with (folder.root / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"aftertone.roles.{name}", "--data", str(folder.root), "--ready-fd", str(write_end)],
            env={**clean, **{f"AFTERTONE_{key}": value for key, value in settings.items()}},
            pass_fds=(write_end,),
            stdout=log,
            stderr=log,
        )
    os.close(write_end)
    try:
        with os.fdopen(read_end, "rb") as ready:
            facts = ready.readline()
        if not facts:
            raise SystemExit(f"the {name} did not start:\n{(folder.root / f'{name}.log').read_text()}")
        yield process.pid, json.loads(facts)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Callers:
    """The load, in its own process."""

    def __init__(self, port: int, calls: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("callers.py")), str(port), str(calls), str(CALLS_A_SECOND)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def hear(self) -> dict[str, Any]:
        """Wait for the next thing they say."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the callers ended with status {self._process.wait()}")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def hang_up(self) -> dict[str, Any]:
        """Let all of them hang up and return their last words."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        facts = self.hear()
        self._process.wait(10)
        return facts

    def stop(self) -> None:
        """End them, however far they are."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def publish_short_greeting(folder: Folder) -> None:
    """Give the default mailbox a greeting of 100 ms, so that recordings begin at once."""
    audio = io.BytesIO()
    write_flac(audio, np.full(800, 100, np.int16), 8000)
    boxes = {"main": Mailbox("main", 0, "short.flac")}
    directory.publish(folder.directory, directory.Directory(1, "main", boxes), {"short.flac": audio.getvalue()})


def kernel_drops() -> int:
    """Return how many datagrams the kernel has dropped at the sockets that are open now in our range of ports."""
    drops = 0
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) in RTP_PORTS:
            drops += int(fields[-1])
    return drops


def read_journal(folder: Folder, sent: Sequence[int], window: Window) -> Account:
    """Compare the journal with what each call sent, from its first recorded packet on."""
    callers: dict[int, int] = {}
    seen: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    in_window = 0
    reader = JournalReader(OsFiles(), folder.journal)
    for _, record in reader.poll():
        if record.kind == Kind.BEGIN:
            begin = Begin.unpack(record.payload)
            call_id = json.loads(begin.envelope_json)["call_id"]
            callers[begin.call] = int(call_id.removeprefix("bench-").partition("@")[0])
        elif record.kind == Kind.PACKETS:
            batch = unpack_batch(record.payload)
            seen.append(batch.call.astype(np.int64) << 16 | batch.sequence)
            in_window += int(((batch.arrival_ns >= window.began_ns) & (batch.arrival_ns < window.ended_ns)).sum())
    reader.close()
    every = np.concatenate(seen)
    distinct = np.unique(every)
    calls, first = np.unique(distinct >> 16, return_index=True)
    first_packets = {callers[int(call)]: int(distinct[at]) & 0xFFFF for call, at in zip(calls, first, strict=True)}
    # A call that has nothing in the journal has lost everything.
    expected = sum(packets - first_packets.get(caller, 0) for caller, packets in enumerate(sent))
    return Account(in_window, expected - len(distinct), len(every) - len(distinct))


def measure(calls: int, *, delivery: bool, seconds: float, parent: Path | None) -> Row:
    """Run one line under ``calls`` calls and return its row."""
    with tempfile.TemporaryDirectory(prefix="aftertone-bench-", dir=parent) as root, contextlib.ExitStack() as stack:
        folder = Folder(Path(root))
        folder.make()
        publish_short_greeting(folder)
        settings = {
            "SIP__HOST": "127.0.0.1",
            "SIP__PORT": "0",
            "RTP__PORTS": f"{RTP_PORTS.start}-{RTP_PORTS.stop - 1}",
            "CALLS__AT_ONCE": str(max(calls, 100)),
            "CALLS__RINGS": "0",
            "STORAGE__LOW_WATER_MB": "20",
            # All of the load comes from one address, which would be a flood.
            "DEFENCE__MESSAGES_A_SECOND": "100000",
            "DEFENCE__CALLS_A_SECOND": "10000",
            "DEFENCE__CALLS_AT_ONCE": "20000",
            "DEFENCE__UNANSWERED_CALLS": "20000",
        }
        pid, facts = stack.enter_context(run_role("line", folder, settings))
        line = Process(pid)
        delivery_pid = stack.enter_context(run_role("delivery", folder, settings))[0] if delivery else 0
        deliverer = Process(delivery_pid) if delivery else None
        say(f"{calls} calls{' with delivery' if delivery else ''}: the line rests")
        time.sleep(1.0)
        idle, idle_kib = line.window(IDLE_S, lambda: None), line.resident_kib()
        callers = Callers(facts["port"], calls)
        stack.callback(callers.stop)
        up = callers.hear()
        say(f"{len(up['answer_ms'])} calls are up; measuring for {seconds:.0f} s")
        time.sleep(SETTLE_S)
        status, load = Status(folder), Process(callers.pid)
        load_before_s, delivery_before_s = sum(load.cpu_s()), sum(deliverer.cpu_s()) if deliverer else 0.0
        window = line.window(seconds, status.look)
        load_s = sum(load.cpu_s()) - load_before_s
        delivery_s = sum(deliverer.cpu_s()) - delivery_before_s if deliverer else 0.0
        kib, threads, descriptors, drops = line.resident_kib(), line.threads(), line.descriptors(), kernel_drops()
        if delivery:
            # Before anything is over: delivery would remove the segments that are to be counted.
            os.kill(delivery_pid, signal.SIGKILL)
        say("hanging up")
        down = callers.hang_up()
        stack.close()
        say("reading the journal")
        account = read_journal(folder, down["packets"], window)
    return Row(
        calls=calls,
        delivery_share=delivery_s / window.seconds if deliverer else None,
        idle=idle,
        window=window,
        account=account,
        idle_kib=idle_kib,
        kib=kib,
        threads=threads,
        descriptors=descriptors,
        oldest_ms=status.oldest_ms,
        sync_ms=status.sync_ms(),
        late_ticks=status.late_ticks,
        kernel_drops=drops,
        answer_ms=up["answer_ms"],
        bye_ms=down["bye_ms"],
        callers_share=load_s / window.seconds,
        callers_late_ms=down["latest_ms"],
        failures=down["failures"],
    )


def say(text: str) -> None:
    """Tell whoever waits what happens."""
    print(f"  ... {text}", file=sys.stderr, flush=True)


COLUMNS: tuple[tuple[str, str, Callable[[Row], str]], ...] = (
    ("recordings", "", lambda r: f"{r.calls:,}" + (" + delivery" if r.delivery_share is not None else "")),
    ("packets/s", "", lambda r: f"{r.account.in_window / r.window.seconds:,.0f}"),
    ("lost", "0", lambda r: f"{r.account.lost}"),
    ("CPU-s per call-min", "<= 0.010", lambda r: f"{r.cpu_per_call_minute:.4f}"),
    ("marginal", "<= 0.010", lambda r: f"{r.marginal:.4f}"),
    ("= on one core", ">= 6,000", lambda r: f"{60 / r.marginal:,.0f}" if r.marginal > 0 else "-"),
    ("us/packet", "", lambda r: f"{r.us_per_packet:.2f}"),
    ("core", "", lambda r: f"{r.window.core_share:.1%}"),
    ("in kernel", "", lambda r: f"{r.window.system_s / max(1e-9, r.window.user_s + r.window.system_s):.0%}"),
    ("KiB/call", "<= 32", lambda r: f"{(r.kib - r.idle_kib) / r.calls:.1f}" if r.calls >= 100 else "-"),
    ("threads", "<= 8", lambda r: f"{r.threads}"),
    ("oldest ms", "< 200", lambda r: f"{r.oldest_ms:.0f}"),
    ("sync ms", "", lambda r: f"{r.sync_ms:.1f}"),
    ("200 p50/p99 ms", "<= 3 / 15", lambda r: percentiles(r.answer_ms)),
    ("BYE p50/p99 ms", "", lambda r: percentiles(r.bye_ms)),
    ("callers", "", lambda r: f"{r.callers_share:.0%}"),
    ("delivery", "", lambda r: "-" if r.delivery_share is None else f"{r.delivery_share:.0%}"),
)
"""Heading, goal, and the figure of a row."""


def percentiles(values: Sequence[float]) -> str:
    """Return the middle and the 99th of 100 as text."""
    if not values:
        return "-"
    return f"{np.percentile(values, 50):.1f} / {np.percentile(values, 99):.1f}"


def table(rows: Sequence[Row]) -> str:
    """Return rows and goals, one line each."""
    lines = [[name for name, _, _ in COLUMNS], *([figure(row) for _, _, figure in COLUMNS] for row in rows)]
    lines.append(["goal", *(goal for _, goal, _ in COLUMNS[1:])])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def notes(rows: Sequence[Row]) -> list[str]:
    """Return what the table does not say."""
    found = []
    alone = sorted((row for row in rows if row.delivery_share is None), key=lambda row: row.calls)
    if len(alone) > 1 and alone[-1].calls > alone[0].calls:
        low, high = alone[-2:]
        slope = (high.kib - low.kib) / (high.calls - low.calls)
        found.append(
            f"memory from {low.calls:,} to {high.calls:,} recordings: {slope:.1f} KiB each (resident, goal <= 32)"
        )
    if alone:
        shares = ", ".join(f"{row.idle.core_share:.1%}" for row in alone)
        found.append(f"a line without calls takes {shares} of a core and {alone[-1].idle_kib // 1024} MiB")
    for row in rows:
        name = f"{row.calls:,} recordings"
        if row.account.lost or row.kernel_drops or row.account.twice:
            text = f"{row.account.lost} packets are missing, {row.kernel_drops} dropped at full sockets"
            found.append(f"{name}: {text}, {row.account.twice} journalled twice")
        if row.late_ticks:
            found.append(f"{name}: {row.late_ticks} ticks came more than 200 ms late")
        if row.failures:
            found.append(f"{name}: {len(row.failures)} failures, first: {row.failures[0]}")
        if row.callers_late_ms > 100:
            found.append(f"{name}: the callers themselves were {row.callers_late_ms:.0f} ms late at worst")
    return found


def machine(folder: Path) -> str:
    """Say what this was measured on."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
        mount = mount_of(folder)
        return (
            f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores shared with the callers, "
            f"Linux {platform.release()}, journal on {mount.kind if mount else 'unknown storage'}, "
            f"Python {platform.python_version()}, load before {os.getloadavg()[0]:.2f}"
        )
    return platform.platform()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CPU, memory and durability of recordings, beside the goals")
    parser.add_argument("--quick", action="store_true", help="short windows, and delivery beside the largest row only")
    parser.add_argument("--calls", default="1,100,1000", help="recordings at once, separated by commas")
    parser.add_argument("--seconds", type=float, help="length of a window (15; 5 when quick)")
    parser.add_argument("--folder", type=Path, help="where the data folders are made (the system's temporary folder)")
    parser.add_argument("--no-delivery", action="store_true", help="only the line")
    options = parser.parse_args()
    sizes = [int(text) for text in options.calls.split(",")]
    seconds = options.seconds or (5.0 if options.quick else 15.0)
    plan = [(size, False) for size in sizes]
    if not options.no_delivery:
        plan += [(size, True) for size in (sizes[-1:] if options.quick else sizes)]
    print(machine(options.folder or Path(tempfile.gettempdir())), flush=True)
    rows = []
    for size, delivery in plan:
        rows.append(measure(size, delivery=delivery, seconds=seconds, parent=options.folder))
    print(table(rows))
    for text in notes(rows):
        print(text)
    if any(row.account.lost or row.failures for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
