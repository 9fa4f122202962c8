"""SQLite's own calls to the disk, recorded and failed in this process, by its own interface for that.

Owns: the hooks. Refuses to know: databases, what a log is for.

Theory of operation: SQLite's layer below is a table of functions that a program may replace (`xSetSystemCall`), but for the
sync of a file, which is a method of each open file (`sqlite3_io_methods.xSync`) and is replaced when the file is opened. The
hooks pass everything on to the functions that were there before, and report to the `Recorder` that listens, if any. They stay
for the life of the process, since files that are open point to them. This needs Python's sqlite3 to be linked with a shared
SQLite, as every distribution's is; where it is not, `why_not` says so.
Spec: https://www.sqlite.org/c3ref/vfs.html, https://www.sqlite.org/c3ref/io_methods.html.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_ssize_t, c_void_p
from pathlib import Path
from typing import Any, Final

from tests.crash.powercut.operations import Sync, SyncDirectory, SyncFailed, Unlink, Write
from tests.crash.powercut.recorder import Recorder, truncated
from tests.support.files import Fault, PowerCut

_IOERR_FSYNC: Final = 1034


class _Vfs(Structure):
    _fields_ = (
        ("version", c_int),
        ("file_bytes", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("others", c_void_p * 12),
        ("set_system_call", CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)),
        ("get_system_call", CFUNCTYPE(c_void_p, c_void_p, c_char_p)),
        ("next_system_call", c_void_p),
    )


class _Methods(Structure):
    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 13),
    )


class _File(Structure):
    _fields_ = (("methods", POINTER(_Methods)),)


# The name is passed on as the address it is: SQLite goes on using that memory until the file is closed.
_OPEN_FILE = CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(_File), c_int, c_void_p)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_OPEN = CFUNCTYPE(c_int, c_char_p, c_int, c_int, use_errno=True)
_WRITE_AT = CFUNCTYPE(c_ssize_t, c_int, c_void_p, c_size_t, c_int64, use_errno=True)
_WRITE = CFUNCTYPE(c_ssize_t, c_int, c_void_p, c_size_t, use_errno=True)
_TRUNCATE = CFUNCTYPE(c_int, c_int, c_int64, use_errno=True)
_UNLINK = CFUNCTYPE(c_int, c_char_p, use_errno=True)
_OPEN_DIRECTORY = CFUNCTYPE(c_int, c_char_p, POINTER(c_int), use_errno=True)


class _Hooks:
    """All hooks of this process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.listener: Recorder | None = None
        self._kept: list[Any] = []
        self._patched: dict[int, Any] = {}
        self._paths: dict[int, str] = {}
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = (c_char_p,)
        self._vfs = library.sqlite3_vfs_find(None).contents
        if self._vfs.version < 3 or self._vfs.name != b"unix":
            raise OSError("SQLite's default layer below is not the one for Unix")
        self._before: dict[str, Any] = {}
        for name, kind, hook in (
            ("open", _OPEN, self._open),
            ("pread", _WRITE_AT, self._read_at),
            ("pread64", _WRITE_AT, self._read_at64),
            ("pwrite", _WRITE_AT, self._write_at),
            ("pwrite64", _WRITE_AT, self._write_at64),
            ("write", _WRITE, self._write),
            ("ftruncate", _TRUNCATE, self._truncate),
            ("unlink", _UNLINK, self._unlink),
            ("openDirectory", _OPEN_DIRECTORY, self._open_directory),
        ):
            self._replace(name, kind, hook)
        before_open = _OPEN_FILE(self._vfs.open)

        def open_file(vfs: int, name: int | None, file: Any, flags: int, out: int) -> int:
            result: int = before_open(vfs, name, file, flags, out)
            if result == 0 and name is not None and file.contents.methods:
                self._patch_sync(file, os.fsdecode(ctypes.string_at(name)))
            return result

        self._keep(hook := _OPEN_FILE(open_file))
        self._vfs.open = ctypes.cast(hook, c_void_p).value

    def _keep(self, thing: object) -> None:
        self._kept.append(thing)

    def _replace(self, name: str, kind: Any, hook: Callable[..., int]) -> None:
        address = self._vfs.get_system_call(ctypes.addressof(self._vfs), name.encode())
        if not address:
            return  # not in this build
        self._before[name] = kind(address)
        self._keep(callback := kind(hook))
        self._vfs.set_system_call(ctypes.addressof(self._vfs), name.encode(), ctypes.cast(callback, c_void_p))

    def _patch_sync(self, file: Any, path: str) -> None:
        address = ctypes.addressof(file.contents)
        self._paths[address] = path
        methods = file.contents.methods
        original = ctypes.addressof(methods.contents)
        if any(original == ctypes.addressof(copy) for copy, _ in self._patched.values()):
            return
        if original not in self._patched:
            copy = _Methods.from_buffer_copy(methods.contents)
            before = _SYNC(copy.sync)

            def sync(at: int, flags: int) -> int:
                return self._sync(before, at, flags)

            callback = _SYNC(sync)
            copy.sync = ctypes.cast(callback, c_void_p).value
            self._patched[original] = (copy, callback)
        file.contents.methods = ctypes.pointer(self._patched[original][0])

    # -- what SQLite calls

    def _fault(self, operation: str, what: object) -> Fault | None:
        """Return what is to go wrong, an errno set; a cut is no error that SQLite could be told of."""
        if self.listener is None:
            return None
        try:
            fault = self.listener.enter(operation, what)
        except PowerCut:
            return Fault.EIO
        code = {Fault.EIO: errno.EIO, Fault.ENOSPC: errno.ENOSPC, Fault.EINTR: errno.EINTR}.get(fault or Fault.SHORT)
        if code is not None:
            ctypes.set_errno(code)
        return fault

    def _open(self, path: bytes, flags: int, mode: int) -> int:
        listener, name = self.listener, os.fsdecode(path)
        if listener is None or not flags & os.O_CREAT or listener.name(name) is None:
            return int(self._before["open"](path, flags, mode))
        is_new = not Path(name).exists()
        if is_new and self._fault("sqlite open", name) in (Fault.EIO, Fault.ENOSPC):
            return -1
        handle = int(self._before["open"](path, flags, mode))
        if handle >= 0 and is_new:
            listener.created(name, os.fstat(handle).st_ino)
        return handle

    def _read_at(self, handle: int, buffer: int, count: int, offset: int, name: str = "pread") -> int:
        if self.listener is not None and self.listener.serial(os.fstat(handle).st_ino) is not None:
            fault = self._fault("sqlite read", handle)
            if fault in (Fault.EIO, Fault.EINTR):
                return -1
        return int(self._before[name](handle, buffer, count, offset))

    def _read_at64(self, handle: int, buffer: int, count: int, offset: int) -> int:
        return self._read_at(handle, buffer, count, offset, "pread64")

    def _write_at(self, handle: int, buffer: int, count: int, offset: int, name: str = "pwrite") -> int:
        return self._record(handle, buffer, count, offset, lambda n: self._before[name](handle, buffer, n, offset))

    def _write_at64(self, handle: int, buffer: int, count: int, offset: int) -> int:
        return self._write_at(handle, buffer, count, offset, "pwrite64")

    def _write(self, handle: int, buffer: int, count: int) -> int:
        if self.listener is None or not stat.S_ISREG(os.fstat(handle).st_mode):
            return int(self._before["write"](handle, buffer, count))
        offset = os.lseek(handle, 0, os.SEEK_CUR)
        return self._record(handle, buffer, count, offset, lambda n: self._before["write"](handle, buffer, n))

    def _record(self, handle: int, buffer: int, count: int, offset: int, call: Callable[[int], Any]) -> int:
        listener = self.listener
        serial = None if listener is None else listener.serial(os.fstat(handle).st_ino)
        if listener is None or serial is None:
            return int(call(count))
        fault = self._fault("sqlite write", handle)
        if fault in (Fault.EIO, Fault.ENOSPC, Fault.EINTR):
            return -1
        written = int(call(max(1, count // 2) if fault is Fault.SHORT else count))
        if written > 0:
            listener.add(Write(serial, offset, ctypes.string_at(buffer, written)))
        return written

    def _truncate(self, handle: int, size: int) -> int:
        if self.listener is not None and self._fault("sqlite truncate", handle) in (Fault.EIO, Fault.ENOSPC):
            return -1
        result = int(self._before["ftruncate"](handle, size))
        if result == 0 and self.listener is not None:
            truncated(self.listener, os.fstat(handle).st_ino, size)
        return result

    def _unlink(self, path: bytes) -> int:
        listener, name = self.listener, os.fsdecode(path)
        watched = None if listener is None else listener.name(name)
        if watched is not None and self._fault("sqlite unlink", name) in (Fault.EIO, Fault.ENOSPC):
            return -1
        result = int(self._before["unlink"](path))
        if result == 0 and listener is not None and watched is not None:
            listener.add(Unlink(watched))
        return result

    def _open_directory(self, path: bytes, out: Any) -> int:
        # SQLite syncs a folder right after it opened it, and passes over a folder that it could not open.
        result = int(self._before["openDirectory"](path, out))
        if result == 0 and self.listener is not None:
            name = self.listener.name(Path(os.fsdecode(path)).parent)
            if name is not None:
                self.listener.add(SyncDirectory(name))
        return result

    def _sync(self, before: Callable[[int, int], int], at: int, flags: int) -> int:
        listener = self.listener
        if listener is None:
            return before(at, flags)
        try:
            serial = listener.serial(Path(self._paths[at]).stat().st_ino)
        except OSError:
            serial = None
        if serial is None:
            return before(at, flags)
        if self._fault("sqlite sync", self._paths[at]) in (Fault.EIO, Fault.ENOSPC):
            listener.add(SyncFailed(serial))
            return _IOERR_FSYNC
        listener.add(Sync(serial))
        return before(at, flags)


_hooks: _Hooks | None = None
_reason = ""


def _install() -> _Hooks | None:
    global _hooks, _reason  # noqa: PLW0603 - hooks belong to the process
    if _hooks is None and not _reason:
        try:
            import _sqlite3

            _hooks = _Hooks(ctypes.CDLL(getattr(_sqlite3, "__file__", None)))
        except (OSError, AttributeError, ImportError) as error:
            _reason = f"SQLite's calls cannot be seen in this Python: {error}"
    return _hooks


def why_not() -> str:
    """Return why SQLite's calls cannot be recorded here, empty when they can."""
    _install()
    return _reason


@contextlib.contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Report SQLite's calls of this process to ``recorder`` meanwhile."""
    hooks = _install()
    if hooks is None:
        raise OSError(_reason)
    before, hooks.listener = hooks.listener, recorder
    try:
        yield
    finally:
        hooks.listener = before
