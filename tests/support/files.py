"""A file system in memory that fails and loses power on demand.

Owns: `MemoryFiles`, an implementation of the journal's `Files` that keeps apart what programs see and what the disk holds,
and that can say what may be left after a power cut. Refuses to know: what the files mean.

Theory of operation (the strictest portable reading of POSIX, not the kindness of one file system):
- A write is seen at once. After a cut each 512-byte sector of what was not synced is there or not, on its own, and the size
  is its own effect: a grown file may hold zeros.
- fdatasync makes data and size of a file durable, not its name. A failed fdatasync dooms what was pending: no later sync
  brings it back, reads go on showing it, and after a cut any block that was to be written may be garbage.
- Each change of a directory (make, remove, rename) is durable or not on its own until the directory is synced.
Every call counts one in a total order; a fault or a cut can stand before any of them.
"""

from __future__ import annotations

import enum
import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aftertone.files import IOV_MAX, Buffer, LockHeldError

SECTOR_BYTES = 512
BLOCK_BYTES = 4096


class Fault(enum.Enum):
    """What may go wrong with one call."""

    EIO = "EIO"
    ENOSPC = "ENOSPC"
    SHORT = "short"
    EINTR = "EINTR"
    CUT = "cut"
    """The power goes before the call."""


class PowerCut(BaseException):
    """The machine is dark, which is no error that a program may catch; only `MemoryFiles.after_cut` goes on from here."""


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance_ms(self, milliseconds: float) -> None:
        self.now_ns += int(milliseconds * 1_000_000)


@dataclass
class Inode:
    """One file: what programs see, what the disk holds, what hangs between."""

    seen: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    doomed: list[tuple[int, bytes]] = field(default_factory=list)
    reserved_bytes: int = 0
    """Blocks that were asked for in advance."""

    @property
    def allocated_bytes(self) -> int:
        """Blocks that it holds, in bytes."""
        return max(self.reserved_bytes, -(-len(self.seen) // BLOCK_BYTES) * BLOCK_BYTES)


@dataclass
class _Open:
    inode: int
    position: int = 0
    locks: str = ""


Change = tuple[str, dict[str, int | None]]
"""A directory and what one operation in it does to names: an inode number, or None for gone."""
DIRECTORY = 0
"""Stands for an inode number where the name is a directory."""

Injector = Callable[[int, str], Fault | None]


def nowhere(call: int, operation: str) -> Fault | None:
    """Inject nothing."""
    return None


def at_call(number: int, fault: Fault, *operations: str) -> Injector:
    """Inject one fault at the n-th call, counted from 1, of these operations or of all."""
    count = itertools.count(1)

    def inject(call: int, operation: str) -> Fault | None:
        if operations and operation not in operations:
            return None
        return fault if next(count) == number else None

    return inject


class MemoryFiles:
    """`Files` in memory; see the module."""

    def __init__(self, inject: Injector = nowhere, clock: Clock | None = None) -> None:
        self.inject = inject
        self.clock = clock
        self.calls = 0
        self.fired = 0
        self.dark = False
        self.log: list[str] = []
        self.free = 1 << 40
        self.capacity: int | None = None
        """The size of the disk; None: it never fills up, and `free` is only what it says."""
        self.sync_ms = 1.0
        self.inodes: dict[int, Inode] = {}
        self.names: dict[str, int] = {"/": DIRECTORY}
        self.disk_names: dict[str, int] = {"/": DIRECTORY}
        self.pending_names: list[Change] = []
        self._open: dict[int, _Open] = {}
        self._next = itertools.count(1)
        self._next_handle = itertools.count(3)
        self._locks: dict[str, int] = {}

    # -- Files

    def make_directory(self, path: Path) -> bool:
        self._enter("make_directory", path)
        if str(path) in self.names:
            return False
        self._need_directory(path.parent)
        self._change(path.parent, {str(path): DIRECTORY})
        return True

    def sync_directory(self, path: Path) -> None:
        self._enter("sync_directory", path)
        self._need_directory(path)
        self._pass_time()
        kept = []
        for parent, changes in self.pending_names:
            if parent == str(path):
                _apply(self.disk_names, changes)
            else:
                kept.append((parent, changes))
        self.pending_names = kept

    def list_directory(self, path: Path) -> list[str]:
        self._enter("list_directory", path)
        self._need_directory(path)
        return [Path(name).name for name in self.names if name != "/" and Path(name).parent == path]

    def open_new(self, path: Path) -> int:
        self._enter("open_new", path)
        self._need_directory(path.parent)
        if str(path) in self.names:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        number = next(self._next)
        self.inodes[number] = Inode()
        self._change(path.parent, {str(path): number})
        return self._handle(number)

    def open_read(self, path: Path) -> int:
        self._enter("open_read", path)
        number = self.names.get(str(path))
        if not number:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self._handle(number)

    def open_existing(self, path: Path) -> int:
        self._enter("open_existing", path)
        number = self.names.get(str(path))
        if not number:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self._handle(number)

    def preallocate(self, handle: int, size_bytes: int) -> None:
        self._enter("preallocate", handle)
        inode = self.inodes[self._open[handle].inode]
        wanted = -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        if self._room_bytes() < wanted - inode.allocated_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        inode.reserved_bytes = max(inode.reserved_bytes, wanted)

    def write(self, handle: int, buffers: Sequence[Buffer]) -> int:
        fault = self._enter("write", handle, harmless=(Fault.SHORT,))
        assert 0 < len(buffers) <= IOV_MAX
        data = b"".join(buffers)
        if fault is Fault.SHORT:
            data = data[: max(1, len(data) // 2)]
        opened = self._open[handle]
        inode = self.inodes[opened.inode]
        # As in a kernel: what fits is written, and only the next write says that the disk is full.
        fits = inode.allocated_bytes + self._room_bytes() // BLOCK_BYTES * BLOCK_BYTES - opened.position
        if fits <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._append(handle, data[:fits])

    def fdatasync(self, handle: int) -> None:
        inode = self.inodes[self._open[handle].inode]
        try:
            self._enter("fdatasync", handle)
        except InterruptedError:
            raise
        except OSError:
            inode.doomed += inode.pending
            inode.pending = []
            raise
        self._pass_time()
        _write_pieces(inode.disk, inode.pending)
        inode.pending = []

    def size(self, handle: int) -> int:
        self._enter("size", handle)
        return len(self.inodes[self._open[handle].inode].seen)

    def read(self, handle: int, offset: int, length: int) -> bytes:
        fault = self._enter("read", handle, harmless=(Fault.SHORT,))
        if fault is Fault.SHORT:
            length = max(1, length // 2)
        return bytes(self.inodes[self._open[handle].inode].seen[offset : offset + length])

    def close(self, handle: int) -> None:
        try:
            self._enter("close", handle)
        except OSError:
            self._forget(handle)  # the descriptor is gone all the same: close(2)
            raise
        self._forget(handle)

    def _forget(self, handle: int) -> None:
        self._locks.pop(self._open.pop(handle).locks, None)

    def unlink(self, path: Path) -> None:
        self._enter("unlink", path)
        if str(path) not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        self._change(path.parent, {str(path): None})

    def rename(self, old: Path, new: Path) -> None:
        self._enter("rename", old)
        self._change(old.parent, {str(old): None, str(new): self.names[str(old)]})

    def free_bytes(self, path: Path) -> int:
        self._enter("free_bytes", path)
        return self.free if self.capacity is None else self._room_bytes()

    def disk_bytes(self, path: Path) -> int:
        self._enter("disk_bytes", path)
        return self.free if self.capacity is None else self.capacity

    def allocated_bytes(self, path: Path) -> int:
        self._enter("allocated_bytes", path)
        number = self.names.get(str(path))
        return self.inodes[number].allocated_bytes if number else 0

    def lock(self, path: Path) -> int:
        self._enter("lock", path)
        if str(path) in self._locks:
            raise LockHeldError(path, self._locks[str(path)])
        if str(path) not in self.names:
            number = next(self._next)
            self.inodes[number] = Inode()
            self._change(path.parent, {str(path): number})
        handle = self._handle(self.names[str(path)])
        self._open[handle].locks = str(path)
        self._locks[str(path)] = 4711
        return handle

    def is_locked(self, path: Path) -> bool:
        self._enter("is_locked", path)
        return str(path) in self._locks

    # -- what tests ask

    @property
    def open_handles(self) -> int:
        """How many handles nobody has given back."""
        return len(self._open)

    def kill_programs(self) -> None:
        """End every program: handles and locks are gone, what was written stays to be seen."""
        self._open.clear()
        self._locks.clear()
        self.dark = False

    def contents(self, path: Path) -> bytearray:
        """What programs see in a file; may be changed by a test."""
        return self.inodes[self.names[str(path)]].seen

    def after_cut(self, rng: random.Random) -> MemoryFiles:
        """Return one file system that may be left when the power goes now."""
        likely = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        names = [change for change in self.pending_names if rng.random() < likely]
        pieces: dict[int, list[tuple[int, bytes]]] = {}
        for number, inode in self.inodes.items():
            kept = []
            for offset, data in itertools.chain(inode.doomed, inode.pending):
                kept += [piece for piece in _sectors(offset, data) if rng.random() < likely]
                if rng.random() < likely:
                    kept.append((offset + len(data), b""))
            kept += self._garbage(inode, rng)
            pieces[number] = kept
        return self._rebuild(names, pieces)

    def every_cut(self, limit: int = 64) -> Iterator[MemoryFiles]:
        """Yield the file systems of all subsets of pending effects, writes taken whole; at most ``limit`` of them."""
        effects: list[tuple[int, object]] = [(-1, change) for change in self.pending_names]
        for number, inode in self.inodes.items():
            effects += [(number, piece) for piece in itertools.chain(inode.doomed, inode.pending)]
        for mask in itertools.islice(range(2 ** min(len(effects), 20)), limit):
            names: list[Change] = []
            pieces: dict[int, list[tuple[int, bytes]]] = {}
            for bit, (number, effect) in enumerate(effects):
                if mask >> bit & 1:
                    (names if number < 0 else pieces.setdefault(number, [])).append(effect)  # type: ignore[arg-type]
            yield self._rebuild(names, pieces)

    # -- inside

    def _rebuild(self, names: list[Change], pieces: dict[int, list[tuple[int, bytes]]]) -> MemoryFiles:
        left = MemoryFiles(clock=self.clock)
        left._next = self._next
        left.names = dict(self.disk_names)
        for _, changes in names:
            _apply(left.names, changes)
        # a name below a folder that was lost is lost with it
        left.names = {
            name: number
            for name, number in left.names.items()
            if all(str(parent) in left.names for parent in Path(name).parents)
        }
        for number in set(left.names.values()) - {DIRECTORY}:
            data = bytearray(self.inodes[number].disk)
            _write_pieces(data, pieces.get(number, []))
            left.inodes[number] = Inode(bytearray(data), bytearray(data))
            left.inodes[number].reserved_bytes = self.inodes[number].reserved_bytes
        left.capacity = self.capacity
        left.disk_names = dict(left.names)
        return left

    @staticmethod
    def _garbage(inode: Inode, rng: random.Random) -> Iterator[tuple[int, bytes]]:
        for offset, data in inode.doomed:
            for block in range(offset // BLOCK_BYTES, -(-(offset + len(data)) // BLOCK_BYTES)):
                if rng.random() < 0.1:
                    yield block * BLOCK_BYTES, rng.randbytes(BLOCK_BYTES)

    def _enter(self, operation: str, what: object, harmless: tuple[Fault, ...] = ()) -> Fault | None:
        if self.dark:
            raise PowerCut
        self.calls += 1
        fault = self.inject(self.calls, operation)
        if fault is None:
            self.log.append(f"{operation} {what}")
            return None
        if fault is Fault.CUT:
            self.dark = True
            raise PowerCut
        if fault is Fault.SHORT and fault not in harmless:
            return None
        if fault is Fault.EINTR and operation not in {"write", "fdatasync", "read"}:
            return None
        self.fired += 1
        self.log.append(f"{operation} {what} -> {fault.value}")
        if fault in harmless:
            return fault
        if fault is Fault.EINTR:
            raise InterruptedError(errno.EINTR, "interrupted")
        code = errno.EIO if fault is Fault.EIO else errno.ENOSPC
        raise OSError(code, os.strerror(code), operation)

    def _room_bytes(self) -> int:
        """What the disk still takes; files that have no name are there as long as they are open."""
        if self.capacity is None:
            return 1 << 40
        alive = {*self.names.values(), *(opened.inode for opened in self._open.values())} - {DIRECTORY}
        return max(0, self.capacity - sum(self.inodes[number].allocated_bytes for number in alive))

    def _append(self, handle: int, data: bytes) -> int:
        opened = self._open[handle]
        inode = self.inodes[opened.inode]
        inode.pending.append((opened.position, data))
        _write_pieces(inode.seen, [(opened.position, data)])
        opened.position += len(data)
        return len(data)

    def _handle(self, number: int) -> int:
        handle = next(self._next_handle)
        self._open[handle] = _Open(number)
        return handle

    def _change(self, parent: Path, changes: dict[str, int | None]) -> None:
        _apply(self.names, changes)
        self.pending_names.append((str(parent), changes))

    def _need_directory(self, path: Path) -> None:
        if self.names.get(str(path)) != DIRECTORY:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path))

    def _pass_time(self) -> None:
        if self.clock is not None:
            self.clock.advance_ms(self.sync_ms)


def _apply(names: dict[str, int], changes: dict[str, int | None]) -> None:
    for name, number in changes.items():
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number


def _write_pieces(data: bytearray, pieces: list[tuple[int, bytes]]) -> None:
    for offset, piece in pieces:
        end = offset + len(piece)
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        data[offset:end] = piece


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        step = min(SECTOR_BYTES - (offset + at) % SECTOR_BYTES, len(data) - at)
        yield offset + at, data[at : at + step]
        at += step
