"""What a disk with a write cache may hold after a cut, by the log of its requests.

Owns: the model, the choice of cuts, the disk as it is after one. Refuses to know: file systems, what the bytes mean.

Theory of operation: what was written before the last flush is there. Of each write since then any of its atoms (the pieces that a
disk writes wholly or not at all) is there or not, on its own, whatever the order. The time between two flushes is an epoch; in each a
handful of selections is chosen: nothing, everything, every subset while few writes are pending, else each alone, each left out, each
beginning and some at random; and writes torn between atoms. A selection is legal from its last write until the flush, so it is
judged against every word of that time. What is there when everything of an epoch was written is what the next one begins with,
so that is left to the next, unless something was said between the last write and the flush.

A disk that lies has not done what it said for the last flushes: `epochs` has the number of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tests.crash.powercut.block_device import BlockLog, BlockWrite, Flush
from tests.crash.powercut.operations import Said

BEGINNING: Final = '["mounted"]'
"""The word from which on the power may go; before it the file system is being made."""
ATOM_BYTES: Final = 4096
"""What today's disks write wholly or not at all."""
SECTOR_BYTES: Final = 512
"""What the oldest and the worst do. The superblock of ext4 has two of them."""
_FULL: Final = 4
"""So many pending writes have all their subsets tried."""
_TORN: Final = 6
"""So many writes of an epoch are torn."""

Piece: TypeAlias = tuple[int, int, int]
"""A part of a write: its index in the log, where the part starts in it, where it ends."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The time from one flush to the next."""

    number: int
    start: int
    """Index of its first entry in the log."""
    end: int
    """Index of the flush that ends it, or the length of the log."""
    durable: int
    """Everything before this index is on the medium."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One distinct cut: an epoch, and what of that which is pending has reached the medium."""

    epoch: Epoch
    pieces: tuple[Piece, ...]
    how: str
    """How it was chosen."""

    @property
    def first_point(self) -> int:
        """The index from which on the cut may have come."""
        return max(self.epoch.start, max((index for index, _, _ in self.pieces), default=0))


def epochs(log: BlockLog, lies: int = 0) -> list[Epoch]:
    """Return the epochs since the beginning. ``lies``: so many of the last flushes were not done."""
    beginning = log.index(Said(BEGINNING))
    flushes = [index for index, entry in enumerate(log) if isinstance(entry, Flush)]
    honest = max((index for index in flushes if index < beginning), default=0)
    starts = [beginning, *(index for index in flushes if index > beginning)]
    ends = [*starts[1:], len(log)]
    durables = [honest] * (lies + 1) + starts[1:]
    return [
        Epoch(number, start, end, durable)
        for number, (start, end, durable) in enumerate(zip(starts, ends, durables[: len(starts)], strict=True))
    ]


def selections(log: BlockLog, epoch: Epoch, atom: int, rng: random.Random) -> Iterator[Selection]:
    """Yield the distinct cuts of an epoch: nothing first, then the others."""
    pending = [index for index in range(epoch.durable, epoch.end) if isinstance(log[index], BlockWrite)]
    seen: set[tuple[Piece, ...]] = set()
    if pending and not _is_silent(log, pending[-1], epoch):
        seen.add(_whole(log, pending))
    for how, pieces in _chosen(log, pending, atom, rng):
        if pieces not in seen:
            seen.add(pieces)
            yield Selection(epoch, pieces, how)


def _is_silent(log: BlockLog, after: int, epoch: Epoch) -> bool:
    """Tell whether the next epoch does not begin with what is there when everything was written."""
    is_last = epoch.end == len(log)
    return is_last or epoch.durable < epoch.start or any(isinstance(e, Said) for e in log[after : epoch.end])


def _whole(log: BlockLog, indices: Sequence[int]) -> tuple[Piece, ...]:
    return tuple((index, 0, len(_data(log, index))) for index in indices)


def _data(log: BlockLog, index: int) -> bytes:
    entry = log[index]
    assert isinstance(entry, BlockWrite)
    return entry.data


def _chosen(
    log: BlockLog, pending: Sequence[int], atom: int, rng: random.Random
) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    count = len(pending)
    yield "nothing", ()
    if not count:
        return
    yield "everything", _whole(log, pending)
    if count <= _FULL:
        for mask in range(1, 2**count - 1):
            yield "some", _whole(log, [index for bit, index in enumerate(pending) if mask >> bit & 1])
    else:
        for at, index in enumerate(pending):
            yield "one alone", _whole(log, [index])
            yield "one left out", _whole(log, [*pending[:at], *pending[at + 1 :]])
            yield "the first ones", _whole(log, pending[:at])
        for _ in range(_FULL):
            likely = rng.choice((0.3, 0.5, 0.8))
            yield "some at random", _whole(log, [index for index in pending if rng.random() < likely])
    tearable = [at for at, index in enumerate(pending) if len(_data(log, index)) > atom]
    for at in rng.sample(tearable, min(_TORN, len(tearable))):
        for pieces in _torn(pending[at], len(_data(log, pending[at])), atom, rng):
            yield "a torn one behind all before it", (*_whole(log, pending[:at]), *pieces)
            if at:
                yield "a torn one alone", pieces


def _torn(index: int, size: int, atom: int, rng: random.Random) -> Iterator[tuple[Piece, ...]]:
    """Yield a write's beginning, its end, and what has holes."""
    edge = rng.randrange(1, -(-size // atom)) * atom
    yield ((index, 0, edge),)
    yield ((index, edge, size),)
    for likely in (0.5, 0.8):
        kept = tuple((index, at, min(at + atom, size)) for at in range(0, size, atom) if rng.random() < likely)
        if kept:
            yield kept


def choose(log: BlockLog, atom: int, count: int, seed: int, lies: int = 0) -> list[Selection]:
    """Return ``count`` distinct cuts of a log, or all there are, in the order of time."""
    found = [list(selections(log, epoch, atom, random.Random(f"{seed} {epoch.number}"))) for epoch in epochs(log, lies)]
    bare = [of_epoch[0] for of_epoch in found]
    others = [selection for of_epoch in found for selection in of_epoch[1:]]
    rng = random.Random(seed)
    if len(bare) > count // 2:
        bare = rng.sample(bare, count // 2)
    chosen = [*bare, *rng.sample(others, min(len(others), count - len(bare)))]
    return sorted(chosen, key=lambda one: one.epoch.number)


class Medium:
    """Makes the disk as it is after a cut, in a file; quick when the cuts come in the order of time."""

    def __init__(self, log: BlockLog, size: int, folder: Path) -> None:
        self.path = folder / "cut.img"
        self._log = log
        self._size = size
        self._base = os.open(folder / "durable.img", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._cut = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._durable = 0
        os.ftruncate(self._base, size)

    def become(self, selection: Selection) -> None:
        """Make `path` the disk after this cut."""
        self._go_to(selection.epoch.durable)
        os.ftruncate(self._cut, 0)
        os.ftruncate(self._cut, self._size)
        _copy(self._base, self._cut)
        for index, start, end in selection.pieces:
            entry = self._log[index]
            assert isinstance(entry, BlockWrite)
            os.pwrite(self._cut, entry.data[start:end], entry.offset + start)

    def _go_to(self, durable: int) -> None:
        if durable < self._durable:
            os.ftruncate(self._base, 0)
            os.ftruncate(self._base, self._size)
            self._durable = 0
        for entry in self._log[self._durable : durable]:
            if isinstance(entry, BlockWrite):
                _write_sparsely(self._base, entry)
        self._durable = durable

    def close(self) -> None:
        """Give the files back."""
        os.close(self._base)
        os.close(self._cut)


def _write_sparsely(handle: int, write: BlockWrite) -> None:
    """Write, but for zeros where there is a hole: file systems zero their logs when they are made."""
    if write.data.count(0) == len(write.data) and os.lseek(handle, 0, os.SEEK_END) > write.offset:
        try:
            hole = os.lseek(handle, write.offset, os.SEEK_DATA) >= write.offset + len(write.data)
        except OSError:
            hole = True
        if hole:
            return
    os.pwrite(handle, write.data, write.offset)


def _copy(source: int, target: int) -> None:
    end = 0
    while True:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        at = start
        while at < end:
            at += os.sendfile(target, source, at, end - at)
