"""What a power cut leaves of a disk that has a write cache.

Owns: reading the log in which QEMU writes down every write and every flush of a disk, and making the disk that remains
after a cut. Refuses to know: file systems, the guest, what is on the disk.

Specification: the log is that of Linux' dm-log-writes, as QEMU's block driver ``blklogwrites`` writes it: a sector that
names the format, then one sector an entry (first sector, count of sectors, flags), followed by the data of a write. Only
flushes bring the count of entries in the first sector up to date, so it is not used: the log ends where an entry is empty.

Theory of operation: what was written before the last flush is on the disk. What was written after it was answered to the
guest and yet is in the cache alone, and each block of ``ATOM_BYTES`` of it may be there or not, whatever its order. The
last entry may be half in the log; as it came after the last flush, a disk without it is a legal one, so it is left out.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

SECTOR_BYTES: Final = 512
ATOM_BYTES: Final = 4096
"""What a disk writes wholly or not at all; smaller pieces would tear even the superblock of ext4."""
MAGIC: Final = 0x6A736677736872
SUPER: Final = struct.Struct("<QQQI")
ENTRY: Final = struct.Struct("<QQQQ")
FLUSH: Final = 1
"""The one flag that the guest's disk can bring about: it offers neither discards nor writes that bypass the cache."""
ENTRIES_AT_ONCE: Final = 200
"""So many are read in about a millisecond."""
FATES: Final = ("lost", "some", "some", "kept")


class LogError(Exception):
    """The log is not what this module can read: the disk cannot be rebuilt from it."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write: where on the disk, how long, and where in the log its data is."""

    offset: int
    length: int
    data_at: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything before this is on the disk."""


@dataclass(frozen=True, slots=True)
class Loss:
    """How many blocks were in the cache at the cut, and how many of them are gone."""

    cached: int = 0
    lost: int = 0


def read_log(log: BinaryIO) -> list[Write | Flush]:
    """Return the entries of a log in their order. Raises LogError for a log of another kind."""
    log.seek(0)
    head = log.read(SUPER.size)
    if head.strip(b"\0"):
        magic, version, _, sector_bytes = SUPER.unpack(head)
        if (magic, version, sector_bytes) != (MAGIC, 1, SECTOR_BYTES):
            raise LogError(f"magic {magic:#x}, version {version}, sectors of {sector_bytes} bytes")
    return [entry for entry, _ in _entries(log, SECTOR_BYTES)]


def _entries(log: BinaryIO, at: int) -> Iterator[tuple[Write | Flush, int]]:
    """Yield entries from ``at`` on, each with the place where the next one begins."""
    while True:
        log.seek(at)
        header = log.read(ENTRY.size)
        if not header.strip(b"\0") or len(header) < ENTRY.size:
            return
        sector, sectors, flags, _ = ENTRY.unpack(header)
        if flags & ~FLUSH or (flags and sectors):
            raise LogError(f"the entry at {at} has flags {flags:#x} and {sectors} sectors")
        data_at = at + SECTOR_BYTES
        at = data_at + sectors * SECTOR_BYTES
        yield Flush() if flags else Write(sector * SECTOR_BYTES, sectors * SECTOR_BYTES, data_at), at


class LogTail:
    """Follows a log while it is written. Use it as a context."""

    def __init__(self, path: Path) -> None:
        self._log = path.open("rb", buffering=0)
        self._at = SECTOR_BYTES
        self.cached = 0
        """Writes since the last flush, as far as was read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def advance(self) -> bool:
        """Read on, ``ENTRIES_AT_ONCE`` at most; tells whether the end of the log was reached."""
        for count, (entry, at) in enumerate(_entries(self._log, self._at), 1):
            self._at = at
            self.cached = 0 if isinstance(entry, Flush) else self.cached + 1
            if count == ENTRIES_AT_ONCE:
                return False
        return True


def flushed_and_cached(entries: Sequence[Write | Flush]) -> tuple[list[Write], list[Write]]:
    """Return the writes that are surely on the disk, and those that may be, without the last entry."""
    last = max((index for index, entry in enumerate(entries) if isinstance(entry, Flush)), default=-1)
    flushed = [entry for entry in entries[: last + 1] if isinstance(entry, Write)]
    cached = [entry for entry in entries[last + 1 :] if isinstance(entry, Write)]
    return flushed, cached[:-1]


def atoms(write: Write) -> Iterator[Write]:
    """Cut a write at the borders of blocks: each piece is lost or kept as a whole."""
    done = 0
    while done < write.length:
        start = write.offset + done
        length = min(write.length - done, ATOM_BYTES - start % ATOM_BYTES)
        yield Write(start, length, write.data_at + done)
        done += length


def leave_what_remains(image: Path, log: Path, rng: random.Random) -> Loss:
    """Turn ``image``, the disk as it was when the log began, into the disk after the cut.

    Of what the cache held everything is lost, or everything is kept, or each block has its chance.
    """
    share_lost = {"lost": 1.0, "kept": 0.0}.get(rng.choice(FATES), rng.random())
    with log.open("rb") as source, image.open("r+b") as target:
        flushed, cached = flushed_and_cached(read_log(source))
        pieces = [piece for write in cached for piece in atoms(write)]
        kept = [piece for piece in pieces if rng.random() >= share_lost]
        for piece in (*flushed, *kept):
            source.seek(piece.data_at)
            target.seek(piece.offset)
            target.write(source.read(piece.length))
    return Loss(len(pieces), len(pieces) - len(kept))
