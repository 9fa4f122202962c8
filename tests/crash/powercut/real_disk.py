"""Cuts the power of real file systems: the same evening on ext4, xfs and btrfs, cut between and inside the disk's writes.

Owns: which cuts are tried, what counts as a violation, the work of several processes, the table, the command line. Refuses to know:
how one cut is tried (`bench`), what a disk may do (`block_cuts`).

Theory of operation: an evening is recorded, cuts are chosen from its whole length by a seed, and processes with mounts of their own try
them. Where one evening has fewer distinct cuts than asked for, another one is recorded.

A disk that cannot be mounted is checked first, as a boot does, and when that does not help as a person would; both are counted. With
atoms of 4096 bytes the second must not be needed. With atoms of 512 bytes the file system's own superblock may be torn, which is between
it and the disk: after a boot's check it is judged like any other, but a check by hand may go back to an old superblock and lose what was
synced since (btrfs does), so what is lost then is counted and no violation, just as a file system that nothing repairs.

A disk that lies (the last flushes were not done) loses what was promised, and nothing can be done about that: it is counted how often
something was lost, and the machine must start and say so, or start anew; anything but an error of its own kind is a violation.

Run it: ``make crash``, or as root ``python -m tests.crash.powercut.real_disk --fs ext4 --cuts 300 --seed 7``.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aftertone.journal.record import MAGIC
from tests.crash.powercut import block_device as devices
from tests.crash.powercut.bench import Bench, Evening, Tally, crashed, play
from tests.crash.powercut.block_cuts import ATOM_BYTES, BEGINNING, SECTOR_BYTES, Selection, choose, epochs, selections
from tests.crash.powercut.block_device import FILE_SYSTEMS, BlockLog, BlockWriteFailed, Fault, stand_apart, why_not
from tests.crash.powercut.mutants import MUTANTS, Mutant, named
from tests.crash.powercut.operations import Said
from tests.crash.powercut.oracle import judge
from tests.crash.powercut.recording import memory
from tests.crash.powercut.user_mounts import end_with_parent

EVENINGS: Final = 20
"""Evenings that are played at most to find enough distinct cuts."""
WORKERS: Final = 2
CHUNK: Final = 25
"""Cuts that a worker tries in one go: short, so that an interrupt does not take long."""
LIES: Final = 3
"""Flushes that a lying disk has not done."""
HUNTED: Final = 150
"""Cuts that are tried to find what a mutant breaks."""
FAILING_WRITES: Final = 6
"""Writes of the journal that fail, one in each evening, for mutants that need it."""
EPOCHS_AFTER_FAULT: Final = 12
"""Flushes after a failed write that the power is cut at."""
UNSEEN: Final = ("no-directory-sync", "rename-first", "in-place")
"""Mutants that this harness need not catch: today's file systems are kinder than POSIX. The model of the disk catches them."""


# -- work that a process apart does


_bench: tuple[Path, Bench] | None = None


def prepare() -> None:
    """Make this process one that may mount, and that ends with whoever started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
    stand_apart()


def try_cuts(evening: Evening, chosen: Sequence[Selection], lenient: bool) -> Tally:
    """Try some cuts of an evening."""
    global _bench  # noqa: PLW0603 - the log and the durable disk are kept from one chunk to the next
    if _bench is None or _bench[0] != evening.log:
        if _bench is not None:
            _bench[1].close()
        _bench = (evening.log, Bench(evening, evening.log.parent / f"bench-{os.getpid()}"))
    tally = Tally()
    for selection in chosen:
        _bench[1].cut(selection, tally, lenient=lenient)
    return tally


@dataclass(slots=True)
class Hunt:
    """What became of a mutant."""

    mutant: str
    tried: int = 0
    seen: str = ""
    """The first promise that it broke."""


def hunt(kind: str, folder: Path, name: str, seed: int, most: int) -> Hunt:
    """Let a mutant live through an evening and look for one thing that it breaks."""
    mutant = named(name)
    if mutant.needs_fault:
        return _hunt_with_faults(kind, folder, mutant, seed)
    evening = play(kind, folder, name)
    with contextlib.closing(Bench(evening, folder / "bench")) as bench:
        found = Hunt(name)
        chosen = choose(bench.log, ATOM_BYTES, most * 4, seed)
        rng = random.Random(seed)
        rng.shuffle(chosen)
        # When nothing of what is pending is there, a missing sync shows best.
        chosen.sort(key=lambda selection: selection.how != "nothing")
        for selection in chosen[:most]:
            tally = Tally()
            bench.cut(selection, tally)
            found.tried += 1
            if tally.violations:
                found.seen = tally.violations[0]
                break
    return found


def _hunt_with_faults(kind: str, folder: Path, mutant: Mutant, seed: int) -> Hunt:
    found = Hunt(mutant.name)
    for number in range(1, FAILING_WRITES + 1):
        evening = play(kind, folder, mutant.name, Fault(number, MAGIC))
        tally = cut_after_fault(evening, folder / "bench", seed)
        found.tried += tally.cuts
        if tally.violations:
            found.seen = f"{tally.violations[0]}, write {number} of the journal failed"
            break
    return found


def cut_after_fault(evening: Evening, folder: Path, seed: int) -> Tally:
    """Judge an evening in which a write failed: on the disk that was mounted again, and after cuts that follow the failure.

    What was confirmed must be there. Unfinished speech must be there as far as ever when the disk got better, so that the evening came
    to its end; a disk that takes nothing any more cannot keep that promise.
    """
    assert evening.found is not None
    with contextlib.closing(Bench(evening, folder)) as bench:
        tally = Tally(cuts=1, crashed=crashed(evening.found))
        tally.violations += judge(evening.found, bench.story.end, 0 if evening.failure else None)
        failed = next((at for at, entry in enumerate(bench.log) if isinstance(entry, BlockWriteFailed)), len(bench.log))
        after = [one for one in epochs(bench.log) if one.end > failed][:EPOCHS_AFTER_FAULT]
        for epoch in after:
            nothing = next(selections(bench.log, epoch, ATOM_BYTES, random.Random(seed)))
            bench.cut(nothing, tally, keeps_time=not evening.failure)
    return tally


# -- several processes


@contextlib.contextmanager
def workers() -> Iterator[tuple[ProcessPoolExecutor, Path]]:
    """Yield processes that may mount, and a folder for what they do; nothing is left of either."""
    with tempfile.TemporaryDirectory(prefix="aftertone-disk-", dir=memory(), ignore_cleanup_errors=True) as folder:
        pool = ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), prepare)
        try:
            yield pool, Path(folder)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Let an interrupt or a termination end this program only when everything is cleaned up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("\nterminated"))
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")


@dataclass(slots=True)
class Row:
    """One line of the table."""

    kind: str
    atom: int
    lies: int
    evenings: int = 0
    entries: int = 0
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        """What must not have happened. A disk that lies loses what was promised; that may be."""
        if not self.lies:
            return self.tally.violations
        return [text for text in self.tally.violations if text.startswith("recovery crashed")]


class Evenings:
    """Plays evenings of one file system when they are needed, and keeps them."""

    def __init__(self, pool: ProcessPoolExecutor, folder: Path, kind: str) -> None:
        self._pool, self._folder, self._kind = pool, folder, kind
        self._played: list[tuple[Evening, BlockLog]] = []

    def evening(self, number: int) -> tuple[Evening, BlockLog]:
        """Return one evening and its log."""
        while len(self._played) <= number:
            folder = self._folder / f"{self._kind}-{len(self._played)}"
            evening = self._pool.submit(play, self._kind, folder).result()
            self._played.append((evening, devices.load(evening.log)))
        return self._played[number]


def search(
    pool: ProcessPoolExecutor, evenings: Evenings, kind: str, atom: int, cuts: int, seed: int, lies: int = 0
) -> Row:
    """Try ``cuts`` distinct cuts of as many evenings as have them."""
    began_s = time.monotonic()
    row = Row(kind, atom, lies)
    pending: list[Future[Tally]] = []
    left = cuts
    while left > 0 and row.evenings < EVENINGS:
        evening, log = evenings.evening(row.evenings)
        chosen = choose(log, atom, left, seed + row.evenings, lies)
        row.evenings += 1
        row.entries += len(log) - log.index(Said(BEGINNING))
        left -= len(chosen)
        # Where sectors are torn or flushes were not done, a file system may lose itself.
        lenient = atom < ATOM_BYTES or lies > 0
        pending += [
            pool.submit(try_cuts, evening, chosen[start : start + CHUNK], lenient)
            for start in range(0, len(chosen), CHUNK)
        ]
    for part in pending:
        row.tally.add(part.result())
    row.seconds = time.monotonic() - began_s
    return row


def hunt_all(pool: ProcessPoolExecutor, folder: Path, kind: str, seed: int, names: Sequence[str]) -> Iterator[Hunt]:
    """Hunt mutants, and yield each as it is done, in their order."""
    hunts = [pool.submit(hunt, kind, folder / f"mutant-{name}", name, seed, HUNTED) for name in names]
    for one in hunts:
        yield one.result()


# -- the command line

_COLUMNS: Final = (
    ("file system", 11),
    ("atom", 6),
    ("lies", 5),
    ("evenings", 9),
    ("log", 7),
    ("cuts", 7),
    ("judged", 7),
    ("fsck", 6),
    ("by hand", 8),
    ("beyond", 7),
    ("lost", 6),
    ("violations", 11),
    ("s", 6),
)


def _line(cells: Sequence[object]) -> str:
    return " ".join(str(cell).rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


def _cells(row: Row) -> tuple[object, ...]:
    tally, repairs = row.tally, row.tally.repairs
    return (
        row.kind,
        row.atom,
        row.lies,
        row.evenings,
        row.entries,
        tally.cuts,
        tally.judgements,
        repairs.boot,
        repairs.by_hand,
        repairs.beyond,
        tally.lost,
        len(row.violations),
        f"{row.seconds:.0f}",
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--fs", nargs="+", choices=sorted(FILE_SYSTEMS), default=["ext4", "xfs", "btrfs"])
    parser.add_argument("--cuts", type=int, default=1000, help="distinct cuts of each file system and atom; 0: none")
    parser.add_argument("--atom", type=int, nargs="+", default=[ATOM_BYTES, SECTOR_BYTES])
    parser.add_argument("--lying-cuts", type=int, default=200, help="cuts of a disk that lies about flushes; 0: none")
    parser.add_argument("--mutants", action="store_true", help="hunt deliberate bugs on the first file system")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    if reason := why_not(*arguments.fs):
        sys.exit(f"real file systems cannot be cut here: {reason}")
    print(f"cuts of real file systems, seed {arguments.seed}\n")
    with orderly(), workers() as (pool, folder):
        sys.exit(_play_all(pool, folder, arguments))


def _play_all(pool: ProcessPoolExecutor, folder: Path, arguments: argparse.Namespace) -> int:
    print(_line([name for name, _ in _COLUMNS]))
    violations: list[str] = []
    for kind in arguments.fs:
        evenings = Evenings(pool, folder, kind)
        rows = [(atom, arguments.cuts, 0) for atom in arguments.atom if arguments.cuts]
        if arguments.lying_cuts:
            rows.append((ATOM_BYTES, arguments.lying_cuts, LIES))
        for atom, cuts, lies in rows:
            row = search(pool, evenings, kind, atom, cuts, arguments.seed, lies)
            print(_line(_cells(row)), flush=True)
            violations += [f"{kind}, atom {atom}: {text}" for text in row.violations]
    for text in violations[:50]:
        print(f"  VIOLATION {text}")
    missed = 0
    if arguments.mutants:
        print(f"\nmutants on {arguments.fs[0]}")
        for found in hunt_all(pool, folder, arguments.fs[0], arguments.seed, [mutant.name for mutant in MUTANTS]):
            missed += not found.seen and found.mutant not in UNSEEN
            print(f"  {found.mutant:20} {_verdict(found)}", flush=True)
    print("\nnothing was lost" if not violations else f"\n{len(violations)} VIOLATIONS")
    if missed:
        print(f"{missed} MUTANTS WERE NOT CAUGHT")
    return 1 if violations or missed else 0


def _verdict(found: Hunt) -> str:
    if found.seen:
        return f"caught at try {found.tried}: {found.seen}"
    return f"not seen here in {found.tried} tries" + ("" if found.mutant in UNSEEN else ", and must be")


if __name__ == "__main__":
    main()
