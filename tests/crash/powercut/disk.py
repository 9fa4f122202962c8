"""A disk that loses power: which states a log of operations may leave behind.

Owns: the model, the choice of states, writing one into a folder. Refuses to know: what the files mean.

Theory of operation (the strictest portable reading of POSIX, not the kindness of one file system):
- Each 512-byte sector of an unsynced write is there or not, on its own. That a file has grown is an effect of its own: the new
  size may be there with zeros for data.
- A sync makes a file's data and size durable, not its name. A failed sync dooms what was pending: the kernel holds those pages
  for clean, so that no later sync brings them back, though they may have reached the disk.
- Each change of a folder is durable or not on its own until that folder is synced; a rename is one change.
- What lies below a folder whose name was lost is lost with it.

At each point of the log a handful of states is chosen: nothing of what is pending, all of it, every subset while few are
pending, else each alone, each left out, each beginning, and some at random; also writes torn at sectors and sizes without
data. The choice is a function of the seed and the point.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

from tests.crash.powercut.operations import (
    Create,
    MakeDirectory,
    Operation,
    Rename,
    Said,
    Sync,
    SyncDirectory,
    SyncFailed,
    Truncate,
    Unlink,
    Write,
)

SECTOR_BYTES: Final = 512
DIRECTORY: Final = 0
"""Stands for a file's serial where a name is a folder's."""


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes that a file may hold."""

    serial: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Growth:
    """A size that a file may have at least."""

    serial: int
    size: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A size that a file may have exactly."""

    serial: int
    size: int


@dataclass(frozen=True, slots=True)
class Names:
    """What one operation does to the names of a folder: a serial, or None for gone."""

    folder: str
    changes: tuple[tuple[str, int | None], ...]


Effect: TypeAlias = Data | Growth | Cut | Names
Unit: TypeAlias = tuple[Effect, ...]
"""The effects of one operation."""


@dataclass(slots=True)
class Disk:
    """What is durable, and what may be."""

    files: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=lambda: {"/": DIRECTORY})
    pending: list[Unit] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=lambda: {"/": DIRECTORY})
    """The names that programs see."""

    def take(self, operation: Operation) -> None:
        """Go on by one operation."""
        match operation:
            case Write(serial, offset, data):
                self.pending.append((Data(serial, offset, data), Growth(serial, offset + len(data))))
            case Truncate(serial, size):
                self.pending.append((Cut(serial, size),))
            case Create(path, serial):
                self.files.setdefault(serial, b"")
                self._rename(path, ((path, serial),))
            case MakeDirectory(path):
                self._rename(path, ((path, DIRECTORY),))
            case Unlink(path):
                self._rename(path, ((path, None),))
            case Rename(old, new):
                self._rename(new, ((old, None), (new, self.seen[old])))
            case Sync(serial):
                self._settle(lambda effect: not isinstance(effect, Names) and effect.serial == serial)
            case SyncFailed(serial):
                self._doom(serial)
            case SyncDirectory(path):
                self._settle(lambda effect: isinstance(effect, Names) and effect.folder == path)
            case Said():
                return

    def _rename(self, path: str, changes: tuple[tuple[str, int | None], ...]) -> None:
        _apply_names(self.seen, changes)
        self.pending.append((Names(str(PurePosixPath(path).parent), changes),))

    def _settle(self, durable) -> None:  # type: ignore[no-untyped-def]
        kept = []
        for unit in self.pending:
            if durable(unit[0]):
                for effect in unit:
                    apply(effect, self.files, self.names)
            else:
                kept.append(unit)
        self.pending = kept

    def _doom(self, serial: int) -> None:
        """Let what was pending for a file reach the disk only by chance, but for sizes, which live in another block."""
        kept: list[Unit] = []
        for unit in self.pending:
            if not isinstance(unit[0], Names) and unit[0].serial == serial:
                kept += [(Names("", ()), effect) if isinstance(effect, Data) else (effect,) for effect in unit]
            else:
                kept.append(unit)
        self.pending = kept


@dataclass(slots=True)
class State:
    """One legal state of the disk after a cut: path to contents, None for a folder."""

    files: dict[str, bytes | None]

    @property
    def key(self) -> bytes:
        """A digest that equal states share."""
        digest = hashlib.blake2b(digest_size=16)
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + (b"/" if content is None else _digest(content)))
        return digest.digest()

    def write(self, root: Path) -> None:
        """Make the folder ``root`` hold this state and nothing else."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for path, content in sorted(self.files.items()):
            target = root / path[1:]
            if content is None:
                target.mkdir(mode=0o700)
            else:
                target.write_bytes(content)


_digests: dict[bytes, bytes] = {}


def _digest(content: bytes) -> bytes:
    found = _digests.get(content)
    if found is None:
        if len(_digests) > 5_000:
            _digests.clear()
        found = _digests[content] = hashlib.blake2b(content, digest_size=12).digest()
    return found


def apply(effect: Effect, files: dict[int, bytes], names: dict[str, int]) -> None:
    """Let one effect have reached the disk."""
    match effect:
        case Data(serial, offset, data):
            old = files.get(serial, b"").ljust(offset, b"\0")
            files[serial] = old[:offset] + data + old[offset + len(data) :]
        case Growth(serial, size):
            files[serial] = files.get(serial, b"").ljust(size, b"\0")
        case Cut(serial, size):
            files[serial] = files.get(serial, b"")[:size].ljust(size, b"\0")
        case Names(_, changes):
            _apply_names(names, changes)


def _apply_names(names: dict[str, int], changes: Sequence[tuple[str, int | None]]) -> None:
    for path, serial in changes:
        if serial is None:
            names.pop(path, None)
        else:
            names[path] = serial


def state_of(disk: Disk, effects: Sequence[Effect]) -> State:
    """Return the state in which of all that is pending exactly ``effects`` have reached the disk."""
    files, names = dict(disk.files), dict(disk.names)
    for effect in effects:
        apply(effect, files, names)
    found: dict[str, bytes | None] = {}
    for path, serial in sorted(names.items()):
        if path == "/":
            continue
        parent = str(PurePosixPath(path).parent)
        if parent == "/" or found.get(parent, b"") is None:
            found[path] = None if serial == DIRECTORY else files.get(serial, b"")
    return State(found)


def choices(disk: Disk, rng: random.Random, *, full: int = 5, some: int = 6) -> Iterator[list[Effect]]:
    """Yield which pending effects reach the disk: see the module. ``full``: so many have all their subsets tried."""
    units = disk.pending
    count = len(units)

    def flat(chosen: Sequence[Unit]) -> list[Effect]:
        return [effect for unit in chosen for effect in unit]

    yield []
    if not count:
        return
    yield flat(units)
    if count <= full:
        for mask in range(1, 2**count - 1):
            yield flat([unit for bit, unit in enumerate(units) if mask >> bit & 1])
    else:
        for index in _spread(count, 3 * some):
            yield flat([units[index]])
            yield flat([*units[:index], *units[index + 1 :]])
            yield flat(units[:index])
        for _ in range(some):
            likely = rng.choice((0.2, 0.5, 0.8))
            yield flat([unit for unit in units if rng.random() < likely])
    for index in {count - 1, rng.randrange(count)}:
        yield from _torn(units, index, rng)


def _spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` indices, the last ones and some from everywhere."""
    if count <= most:
        return list(range(count))
    return sorted({*range(count - most // 3, count), *(index * count // most for index in range(most * 2 // 3))})


def _torn(units: Sequence[Unit], index: int, rng: random.Random) -> Iterator[list[Effect]]:
    """Yield states in which one write is torn at sectors, or has its size without its data."""
    write = next((effect for effect in units[index] if isinstance(effect, Data)), None)
    before = [effect for unit in units[:index] for effect in unit]
    if write is None:
        return
    growth = [effect for effect in units[index] if isinstance(effect, Growth)]
    yield [*before, *growth]
    first = SECTOR_BYTES - write.offset % SECTOR_BYTES
    edges = list(range(first, len(write.data), SECTOR_BYTES))
    if not edges:
        return
    edge = rng.choice(edges)
    for start, end in ((0, edge), (edge, len(write.data))):
        piece = Data(write.serial, write.offset + start, write.data[start:end])
        yield [*before, piece]
        yield [*before, *growth, piece]
    pieces = zip([0, *edges], [*edges, len(write.data)], strict=True)
    holes = [Data(write.serial, write.offset + a, write.data[a:b]) for a, b in pieces if rng.random() < 0.5]
    yield [*before, *growth, *holes]
