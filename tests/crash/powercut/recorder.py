"""Records what a program in this process does to one folder, and lets single calls fail.

Owns: the log while it grows, serial numbers of files, the order of calls, faults. Refuses to know: who calls: `files` (the
seam of the product) and `sqlite_calls` (SQLite's own seam) both report here, so that their operations share one order.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from aftertone.files import Buffer, OsFiles
from tests.crash.powercut.disk import DIRECTORY, Disk
from tests.crash.powercut.operations import (
    Create,
    Log,
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
    is_watched,
)
from tests.support.files import Fault, Injector, PowerCut, nowhere


class Recorder:
    """One log of one folder; see the module."""

    def __init__(self, root: Path, inject: Injector = nowhere) -> None:
        self.root = root
        self.log: Log = []
        self.calls: list[str] = []
        """What was called, as far as a fault could have struck it."""
        self.struck = ""
        """The call that a fault struck last."""
        self._inject = inject
        self._serials: dict[int, int] = {}
        self._next = 1

    def enter(self, operation: str, what: object) -> Fault | None:
        """Count a call that is about to be made and return what is to go wrong with it. Raises PowerCut."""
        self.calls.append(operation)
        fault = self._inject(len(self.calls), operation)
        if fault is Fault.CUT:
            raise PowerCut
        if fault is not None:
            self.struck = f"{operation} {what}"
        return fault

    def add(self, operation: Operation) -> None:
        """Write one operation into the log."""
        self.log.append(operation)

    def say(self, text: str) -> None:
        """Write into the log what was said to the world."""
        self.log.append(Said(text))

    def name(self, path: str | Path) -> str | None:
        """Return a path as the log knows it; None when it is outside, or of a file whose fate does not matter."""
        text, root = os.fspath(path), str(self.root)
        if text == root:
            return "/"
        inside = text[len(root) :] if text.startswith(root + "/") else ""
        return inside if inside and is_watched(inside) else None

    def created(self, path: str | Path, inode: int) -> None:
        """Note that a new file has a name."""
        name = self.name(path)
        self._serials.pop(inode, None)
        if name is not None:
            self._serials[inode] = self._next
            self.add(Create(name, self._next))
            self._next += 1

    def found(self) -> Disk:
        """Note everything that is there already, and return it as a disk on which all of it is durable."""
        disk = Disk()
        for path in sorted(self.root.rglob("*")):
            name = self.name(path)
            if name is None:
                continue
            serial = DIRECTORY
            if not path.is_dir():
                serial, self._next = self._next, self._next + 1
                self._serials[path.stat().st_ino] = serial
                disk.files[serial] = path.read_bytes()
            disk.names[name] = disk.seen[name] = serial
        return disk

    def serial(self, inode: int) -> int | None:
        """Return the serial of a file, None for one that is not watched."""
        return self._serials.get(inode)


class RecordingFiles(OsFiles):
    """The product's seam to the disk, recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def make_directory(self, path: Path) -> bool:
        self._enter("make_directory", path)
        made = super().make_directory(path)
        name = self.recorder.name(path)
        if made and name is not None:
            self.recorder.add(MakeDirectory(name))
        return made

    def sync_directory(self, path: Path) -> None:
        self._enter("sync_directory", path)
        super().sync_directory(path)
        name = self.recorder.name(path)
        if name is not None:
            self.recorder.add(SyncDirectory(name))

    def open_new(self, path: Path) -> int:
        self._enter("open_new", path)
        handle = super().open_new(path)
        self.recorder.created(path, os.fstat(handle).st_ino)
        return handle

    def open_read(self, path: Path) -> int:
        self._enter("open_read", path)
        return super().open_read(path)

    def write(self, handle: int, buffers: Sequence[Buffer]) -> int:
        fault = self._enter("write", handle)
        if fault is Fault.SHORT:
            first = next(buffer for buffer in buffers if buffer)
            buffers = [first[: max(1, len(first) // 2)]]
        offset = os.fstat(handle).st_size  # the product only appends
        written = super().write(handle, buffers)
        serial = self._serial(handle)
        if serial is not None:
            self.recorder.add(Write(serial, offset, b"".join(bytes(buffer) for buffer in buffers)[:written]))
        return written

    def fdatasync(self, handle: int) -> None:
        serial = self._serial(handle)
        try:
            self._enter("fdatasync", handle)
        except InterruptedError:
            raise
        except OSError:
            if serial is not None:
                self.recorder.add(SyncFailed(serial))
            raise
        super().fdatasync(handle)
        if serial is not None:
            self.recorder.add(Sync(serial))

    def preallocate(self, handle: int, size_bytes: int) -> None:
        self._enter("preallocate", handle)

    def unlink(self, path: Path) -> None:
        self._enter("unlink", path)
        super().unlink(path)
        name = self.recorder.name(path)
        if name is not None:
            self.recorder.add(Unlink(name))

    def rename(self, old: Path, new: Path) -> None:
        self._enter("rename", old)
        super().rename(old, new)
        before, after = self.recorder.name(old), self.recorder.name(new)
        if before is not None and after is not None:
            self.recorder.add(Rename(before, after))

    def read(self, handle: int, offset: int, length: int) -> bytes:
        fault = self._enter("read", handle)
        return super().read(handle, offset, max(1, length // 2) if fault is Fault.SHORT else length)

    def _serial(self, handle: int) -> int | None:
        return self.recorder.serial(os.fstat(handle).st_ino)

    def _enter(self, operation: str, what: object) -> Fault | None:
        fault = self.recorder.enter(operation, what)
        if fault is Fault.EINTR:
            if operation in ("write", "fdatasync", "read"):
                raise InterruptedError(errno.EINTR, "interrupted")
            return None
        if fault in (Fault.EIO, Fault.ENOSPC):
            code = errno.EIO if fault is Fault.EIO else errno.ENOSPC
            raise OSError(code, os.strerror(code), str(what))
        return fault


def truncated(recorder: Recorder, inode: int, size: int) -> None:
    """Note another size of a file."""
    serial = recorder.serial(inode)
    if serial is not None:
        recorder.add(Truncate(serial, size))
