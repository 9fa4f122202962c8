"""The few filesystem calls by which anything becomes durable, behind one seam.

Owns: the `Files` protocol, `OsFiles`, its one implementation on a real kernel, and the three orders of calls that keep a
promise: folders that survive, writing the whole length, a file that is there whole or not at all. Refuses to know: segments,
blobs, snapshots, who calls, and what to do about an error: every call raises the plain OSError of the kernel.

Theory of operation: each method is one system call, or the fewest that make sense together, so that a test can put a fault
behind any of them, record them in one total order, and rebuild every state that a disk may have after a power cut. Nothing
in `OsFiles` retries, buffers or remembers; loops over short writes and interrupted calls are the functions below it. Handles
are plain descriptors. SQLite makes its own calls; what it does is in `store.engine`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar, cast
from uuid import UUID

IOV_MAX: Final = 1024
"""The most buffers that one ``Files.write`` takes (Linux, writev(2))."""
_INTERRUPTIONS: Final = 1000
"""Signals in a row that one call survives; more are an error and not an endless loop."""

_FALLOC_FL_KEEP_SIZE: Final = 1
_FLOCK: Final = struct.Struct("hhqqi0q")
"""struct flock of fcntl(2): type, whence, start, length, pid; native sizes and alignment."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

Buffer = bytes | memoryview
_T = TypeVar("_T")


class LockHeldError(OSError):
    """Somebody else holds the lock; ``pid`` is what the holder wrote into the file, None when it is not a number."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(errno.EWOULDBLOCK, f"{path} is locked by {'another process' if pid is None else pid}")
        self.pid = pid


class Files(Protocol):
    """What is asked of a file system. Every method raises OSError; handles are small integers."""

    def make_directory(self, path: Path) -> bool:
        """Make one directory, private to its owner; False when it is there already."""

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""

    def list_directory(self, path: Path) -> list[str]:
        """Return the names in a directory, in no order."""

    def open_new(self, path: Path) -> int:
        """Make a file that does not exist yet and open it for writing."""

    def open_read(self, path: Path) -> int:
        """Open an existing file for reading."""

    def open_existing(self, path: Path) -> int:
        """Open an existing file for writing, at its beginning."""

    def preallocate(self, handle: int, size_bytes: int) -> None:
        """Reserve blocks for a file without changing its size; an error changes nothing."""

    def write(self, handle: int, buffers: Sequence[Buffer]) -> int:
        """Append at most `IOV_MAX` buffers and return how many bytes were taken, which may be fewer than given."""

    def fdatasync(self, handle: int) -> None:
        """Return when everything written through this handle, and the size, is durable."""

    def size(self, handle: int) -> int:
        """Return the present size of an open file in bytes."""

    def read(self, handle: int, offset: int, length: int) -> bytes:
        """Read at an offset; fewer bytes than asked at the end of the file."""

    def close(self, handle: int) -> None:
        """Give a handle back, and with a lock's handle the lock."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name in the same directory, atomically."""

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes an ordinary user may still write on this file system."""

    def disk_bytes(self, path: Path) -> int:
        """Return how many bytes this file system has in all."""

    def allocated_bytes(self, path: Path) -> int:
        """Return how many bytes of disk a file holds, reserved ones included; 0 when there is no such file."""

    def lock(self, path: Path) -> int:
        """Take the exclusive lock of a file, made when missing, and write our process id into it.

        The lock lives until its handle is closed or the process ends. Raises LockHeldError at once when it is taken.
        """

    def is_locked(self, path: Path) -> bool:
        """Say whether anybody holds the lock, without ever taking it; a missing file is not locked."""


class OsFiles:
    """`Files` on the running kernel. Stateless, so any thread may use it."""

    def make_directory(self, path: Path) -> bool:
        """Make one directory with mode 0700; False when it is there already."""
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            return False
        return True

    def sync_directory(self, path: Path) -> None:
        """Fsync a directory."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def list_directory(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]

    def open_new(self, path: Path) -> int:
        """Open with O_EXCL and mode 0600: what callers say is private."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def open_read(self, path: Path) -> int:
        """Open for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_existing(self, path: Path) -> int:
        """Open for writing what is there; never through a symbolic link."""
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def preallocate(self, handle: int, size_bytes: int) -> None:
        """Call fallocate(FALLOC_FL_KEEP_SIZE); ENOSYS where the C library has none."""
        if _fallocate is None:
            raise OSError(errno.ENOSYS, "this C library has no fallocate")
        if _fallocate(handle, _FALLOC_FL_KEEP_SIZE, 0, size_bytes) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def write(self, handle: int, buffers: Sequence[Buffer]) -> int:
        """Call writev once."""
        return os.writev(handle, buffers)

    def fdatasync(self, handle: int) -> None:
        """Call fdatasync once."""
        os.fdatasync(handle)

    def size(self, handle: int) -> int:
        """Call fstat."""
        return os.fstat(handle).st_size

    def read(self, handle: int, offset: int, length: int) -> bytes:
        """Call pread once."""
        return os.pread(handle, length, offset)

    def close(self, handle: int) -> None:
        """Close the descriptor."""
        os.close(handle)

    def unlink(self, path: Path) -> None:
        """Remove the name."""
        path.unlink()

    def rename(self, old: Path, new: Path) -> None:
        """Rename within a directory."""
        old.rename(new)

    def free_bytes(self, path: Path) -> int:
        """Ask statvfs: what an unprivileged user may still take."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def disk_bytes(self, path: Path) -> int:
        """Ask statvfs."""
        status = os.statvfs(path)
        return status.f_blocks * status.f_frsize

    def allocated_bytes(self, path: Path) -> int:
        """Ask stat, whose blocks have 512 bytes on every file system."""
        try:
            return path.lstat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def lock(self, path: Path) -> int:
        """Take an open file description lock: one that can be asked about without being taken."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            text = os.pread(handle, 32, 0).strip()
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise LockHeldError(path, int(text) if text.isdigit() else None) from None
            raise
        return handle

    def is_locked(self, path: Path) -> bool:
        """Ask with F_OFD_GETLK, so that a reader that looks never makes a starting writer fail."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(handle)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


OS_FILES: Final[Files] = OsFiles()
"""What everything but tests uses."""


def write_all(files: Files, handle: int, buffers: Sequence[Buffer]) -> int:
    """Append every byte of ``buffers`` and return how many there were; durable only after `sync`.

    Loops over short and interrupted writes and over the kernel's bound on buffers. Raises OSError, also when the kernel takes
    nothing without saying why; how much was written is not known then.
    """
    left: list[Buffer] = [buffer for buffer in buffers if buffer]
    total = first = 0
    while first < len(left):
        written = _uninterrupted(partial(files.write, handle, left[first : first + IOV_MAX]))
        if written <= 0:
            raise OSError(errno.EIO, "the kernel accepted none of the bytes")
        total += written
        while first < len(left) and written >= len(left[first]):
            written -= len(left[first])
            first += 1
        if written:
            left[first] = memoryview(left[first])[written:]
    return total


def sync(files: Files, handle: int) -> None:
    """Return when everything written through ``handle`` is durable. After an OSError the file is never to be trusted again."""
    _uninterrupted(partial(files.fdatasync, handle))


def make_directories(files: Files, path: Path) -> None:
    """Make ``path`` and its missing parents (mode 0700), durably. Raises OSError.

    The parent is synced even when the folder was there already: whoever made it may have died before its own sync.
    """
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        files.make_directory(folder)
        files.sync_directory(folder.parent)


def write_whole(files: Files, path: Path, content: bytes) -> None:
    """Write or replace a file as one step: after a power cut there is the old content or the new one. Durable on return.

    Goes by a temporary file beside it, ``.<name>.tmp``, which an error removes and a power cut may leave; the next write
    replaces it. One writer a path. Raises OSError: then nothing is promised of the new content, which may be seen already.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        files.unlink(temporary)
    handle = files.open_new(temporary)
    try:
        try:
            write_all(files, handle, [content])
            sync(files, handle)
        finally:
            files.close(handle)
        files.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise
    files.sync_directory(path.parent)


def _uninterrupted(call: Callable[[], _T]) -> _T:
    for _ in range(_INTERRUPTIONS):
        try:
            return call()
        except InterruptedError:  # python retries most of them itself (PEP 475); a wrapped `Files` may not
            continue
    raise OSError(errno.EIO, "interrupted without end")


def machine_boot_id() -> bytes:
    """Return the 16 random bytes by which this boot of the machine is known; raises OSError where there is no /proc."""
    return UUID(_BOOT_ID.read_text(encoding="ascii").strip()).bytes


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    library = ctypes.CDLL(None, use_errno=True)
    for name in ("fallocate64", "fallocate"):
        if hasattr(library, name):
            function = library[name]
            function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
            function.restype = ctypes.c_int
            return cast("Callable[[int, int, int, int], int]", function)
    return None


_fallocate = _find_fallocate()
