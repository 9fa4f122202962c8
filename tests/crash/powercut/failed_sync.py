"""What this kernel makes of a write that the disk refused, and whether our rule survives it.

Owns: the experiment, evenings in which one write fails, the command line. Refuses to know: how a disk fails (`block_device`), what is
right (`oracle`).

Theory of operation: journal, blobs and snapshots never sync a file again that failed once, because the kernel may say that all is well
while nothing is. Whether it does is a matter of kernel and file system, so it is looked at: one block is refused, the sync is tried three
times, the block is read, another one is written, and all is read again after the file system was mounted anew. That is printed and
nobody's promise. The promise is ours: in evenings in which the n-th write of the disk fails, whatever it was, what was confirmed is
there, on the disk that was mounted again and after cuts that follow the failure.

Run it as root: ``python -m tests.crash.powercut.failed_sync --fs ext4 xfs btrfs --evenings 10 --seed 7``.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.crash.powercut import block_device as devices
from tests.crash.powercut.bench import Tally, play
from tests.crash.powercut.block_device import FAULTS, FILE_SYSTEMS, IMAGE, Fault, attached, mounted, settle, why_not
from tests.crash.powercut.real_disk import cut_after_fault, orderly, workers
from tests.crash.powercut.user_mounts import NOT_OVER
from tests.crash.powercut.user_mounts import mounted as serving

WRITES: Final = 150
"""Writes that an evening makes at least, on any file system."""
_BLOCK_BYTES: Final = 4096
_REFUSED: Final = b"refused!" * (_BLOCK_BYTES // 8)


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one block that the disk refused once, in words."""

    kind: str
    syncs: tuple[str, ...]
    """What fdatasync said, three times; the disk was well again after the first."""
    cached: str
    """What was read then."""
    next_sync: str
    """What became of another block behind it."""
    later: str
    """The refused block after the file system was mounted again."""
    next_later: str
    """The block behind it."""

    def __str__(self) -> str:
        return (
            f"{self.kind}: fdatasync three times: {', '.join(self.syncs)}; a read of the block: {self.cached}; the next block: "
            f"{self.next_sync}; after a remount the block: {self.later}, the next one: {self.next_later}"
        )


def look(kind: str, folder: Path) -> Seen:
    """Have a disk refuse one block of a file, once, and see what the kernel says."""
    system = FILE_SYSTEMS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    device, point = folder / "device", folder / "mnt"
    with serving(devices.__name__, device, str(system.size), str(folder / "log")):
        with attached(device / IMAGE, direct=True) as disk:
            if devices.run(*system.make, disk) != 0:
                raise OSError(f"{system.make[0]} failed")
            with mounted(disk, point, system):
                handle = os.open(point / "file", os.O_CREAT | os.O_RDWR, 0o600)
                try:
                    os.pwrite(handle, b"first..." * (_BLOCK_BYTES // 8), 0)
                    os.fsync(handle)
                    settle(point)
                    (device / FAULTS).write_text(Fault(1, _REFUSED[:64]).line())
                    os.pwrite(handle, _REFUSED, _BLOCK_BYTES)
                    syncs = tuple(_sync(handle) for _ in range(3))
                    cached = _read(handle, _BLOCK_BYTES)
                    os.pwrite(handle, b"behind.." * (_BLOCK_BYTES // 8), 2 * _BLOCK_BYTES)
                    next_sync = _sync(handle)
                except OSError as error:
                    cached, next_sync, syncs = _word(error), _word(error), ()
                finally:
                    os.close(handle)
        with attached(device / IMAGE, direct=True) as disk, mounted(disk, point, system):
            handle = os.open(point / "file", os.O_RDONLY)
            try:
                later, next_later = _read(handle, _BLOCK_BYTES), _read(handle, 2 * _BLOCK_BYTES)
            finally:
                os.close(handle)
    return Seen(kind, syncs, cached, next_sync, later, next_later)


def _sync(handle: int) -> str:
    try:
        os.fdatasync(handle)
    except OSError as error:
        return _word(error)
    return "ok"


def _read(handle: int, offset: int) -> str:
    try:
        data = os.pread(handle, _BLOCK_BYTES, offset)
    except OSError as error:
        return _word(error)
    if not data:
        return "beyond the end"
    return "zeros" if not any(data) else "as written" if data[:8] in (_REFUSED[:8], b"behind..") else "something else"


def _word(error: OSError) -> str:
    return os.strerror(error.errno or 0)


@dataclass(frozen=True, slots=True)
class Struck:
    """An evening in which one write failed."""

    kind: str
    write: int
    gave_up: str
    """How the evening ended when the disk did not get better, empty when it came to its end."""
    tally: Tally


def strike(kind: str, folder: Path, write: int, seed: int) -> Struck:
    """Play an evening in which that write of the disk fails, and judge what is left."""
    evening = play(kind, folder, fault=Fault(write))
    tally = cut_after_fault(evening, folder / "bench", seed)
    if evening.failure.startswith(NOT_OVER):
        tally.violations.append(f"the evening was {evening.failure}")
    return Struck(kind, write, evening.failure.splitlines()[-1] if evening.failure else "", tally)


def strike_some(
    pool: ProcessPoolExecutor, folder: Path, kinds: Sequence[str], evenings: int, seed: int
) -> tuple[list[Seen], list[Struck]]:
    """Look at each file system, and play so many evenings on each."""
    rng = random.Random(seed)
    looks = [pool.submit(look, kind, folder / f"look-{kind}") for kind in kinds]
    strikes = [
        pool.submit(strike, kind, folder / f"{kind}-write-{write}", write, seed)
        for kind in kinds
        for write in rng.sample(range(1, WRITES), evenings)
    ]
    return [one.result() for one in looks], [one.result() for one in strikes]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--fs", nargs="+", choices=sorted(FILE_SYSTEMS), default=["ext4", "xfs", "btrfs"])
    parser.add_argument("--evenings", type=int, default=10, help="evenings on each, each with another write that fails")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    if reason := why_not(*arguments.fs):
        sys.exit(f"no disk can be made to fail here: {reason}")
    print(f"writes that fail, seed {arguments.seed}, Linux {os.uname().release}\n")
    with orderly(), workers() as (pool, folder):
        seen, struck = strike_some(pool, folder, arguments.fs, arguments.evenings, arguments.seed)
    for one in seen:
        print(f"  {one}")
    print()
    violations = 0
    for kind in arguments.fs:
        these = [one for one in struck if one.kind == kind]
        broken = [f"write {one.write}: {text}" for one in these for text in one.tally.violations]
        violations += len(broken)
        gave_up = sum(bool(one.gave_up) for one in these)
        cuts = sum(one.tally.cuts for one in these)
        print(
            f"  {kind}: {len(these)} evenings, {gave_up} of them on a disk that took nothing more; {cuts} states judged"
        )
        for text in broken[:20]:
            print(f"    VIOLATION {text}")
    print("\nnothing was lost" if not violations else f"\n{violations} VIOLATIONS")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
