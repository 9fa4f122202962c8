"""Records what any program does to a folder, from outside: a file system in user space that passes everything on.

Owns: that file system, an evening on it, and what may differ between its log and the one that `recorder` makes inside the
process. Refuses to know: what becomes of the log.

Theory of operation: everything happens to another folder, with the same calls, and is reported to a `Recorder` in the order in which
the kernel asks for it. Every file but one kind is opened with direct I/O, so that each write arrives when it is made, and as it
is made; SQLite's shared memory is mapped, which direct I/O forbids, and its fate does not matter. The words go to ``/.words`` in the same
mount: each write to it is one word or more, so operations and words share one order. What the kernel holds a sync of is not
synced below: the log is what counts, and no power is cut for real.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.crash.powercut.operations import (
    Create,
    Log,
    MakeDirectory,
    Operation,
    Rename,
    Sync,
    SyncDirectory,
    Unlink,
    Write,
    is_watched,
    load,
    save,
)
from tests.crash.powercut.recorder import Recorder, truncated
from tests.crash.powercut.recording import memory
from tests.crash.powercut.user_mounts import end_with_parent, mounted, play_evening, serve

WORDS: Final = "/.words"
_MAPPED: Final = "-shm"
_NO_HANDLE: Final = 2**32
"""The handle of ``/.words``, which is no file below."""
_STAT: Final = (
    "st_mode",
    "st_ino",
    "st_nlink",
    "st_uid",
    "st_gid",
    "st_size",
    "st_blocks",
    "st_atime_ns",
    "st_mtime_ns",
    "st_ctime_ns",
)
_STATVFS: Final = (
    "f_bsize",
    "f_frsize",
    "f_blocks",
    "f_bfree",
    "f_bavail",
    "f_files",
    "f_ffree",
    "f_favail",
    "f_namemax",
)


class Folder:
    """The file system: what the kernel may ask for. Paths begin at the mount; errors are plain OSErrors."""

    use_ns = True

    def __init__(self, below: Path, log: Path) -> None:
        self._below = below
        self._log = log
        self._recorder = Recorder(below)

    # -- looking

    def getattr(self, path: str | None, file: Any = None) -> dict[str, Any]:
        """Return what stat says."""
        if path == WORDS:
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_ino": 2**40}
        found = self._at(path).lstat() if file is None else os.fstat(file.fh)
        return _attributes(found)

    def readdir(self, path: str, _handle: int) -> list[tuple[str, dict[str, int], int]]:
        """Return the names of a folder. A name without an inode number counts for deleted."""
        with os.scandir(self._at(path)) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        own = self._at(path).lstat()
        return [(name, _attributes(what), 0) for name, what in [(".", own), ("..", own), *found]]

    def statfs(self, path: str) -> dict[str, int]:
        """Return how much room there is."""
        found = os.statvfs(self._at(path))
        return {name: getattr(found, name) for name in _STATVFS}

    def read(self, _path: str, count: int, offset: int, file: Any) -> bytes:
        """Read."""
        return b"" if file.fh == _NO_HANDLE else os.pread(file.fh, count, offset)

    # -- files

    def create(self, path: str, mode: int, file: Any) -> int:
        """Make a file and open it."""
        file.fh = os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        file.direct_io = not path.endswith(_MAPPED)
        self._recorder.created(self._at(path), os.fstat(file.fh).st_ino)
        return 0

    def open(self, path: str, file: Any) -> int:
        """Open what is there. The kernel does the appending, and asks for a truncation here."""
        file.direct_io = not path.endswith(_MAPPED)
        if path == WORDS:
            file.fh = _NO_HANDLE
            return 0
        file.fh = os.open(self._at(path), os.O_RDWR | file.flags & os.O_TRUNC)
        if file.flags & os.O_TRUNC:
            truncated(self._recorder, os.fstat(file.fh).st_ino, 0)
        return 0

    def write(self, _path: str, data: bytes, offset: int, file: Any) -> int:
        """Write, or hear words."""
        if file.fh == _NO_HANDLE:
            for line in data.decode().splitlines():
                self._recorder.say(line)
            return len(data)
        written = os.pwrite(file.fh, data, offset)
        serial = self._serial(file)
        if serial is not None:
            self._recorder.add(Write(serial, offset, data[:written]))
        return written

    def truncate(self, path: str, size: int, _file: Any = None) -> int:
        """Give a file another size."""
        if path != WORDS:
            os.truncate(self._at(path), size)
            truncated(self._recorder, self._at(path).lstat().st_ino, size)
        return 0

    def fallocate(self, _path: str, mode: int, _offset: int, _size: int, _file: Any) -> int:
        """Promise room, as the recorder inside the process does: nothing that a cut could show."""
        if mode != 1:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return 0

    def fsync(self, _path: str, _data_only: int, file: Any) -> int:
        """Sync a file."""
        serial = None if file.fh == _NO_HANDLE else self._serial(file)
        if serial is not None:
            self._recorder.add(Sync(serial))
        return 0

    def release(self, _path: str, file: Any) -> int:
        """Close."""
        if file.fh != _NO_HANDLE:
            os.close(file.fh)
        return 0

    # -- names

    def mkdir(self, path: str, mode: int) -> int:
        """Make a folder."""
        self._at(path).mkdir(mode)
        self._add(MakeDirectory, path)
        return 0

    def unlink(self, path: str) -> int:
        """Remove a name."""
        self._at(path).unlink()
        self._add(Unlink, path)
        return 0

    def rename(self, old: str, new: str) -> int:
        """Give a file another name."""
        self._at(old).rename(self._at(new))
        if is_watched(old) and is_watched(new):
            self._recorder.add(Rename(old, new))
        return 0

    def fsyncdir(self, path: str, _data_only: int, _handle: int) -> int:
        """Sync the names of a folder."""
        self._add(SyncDirectory, path)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """Change who may read: SQLite gives its files the mode of the database."""
        self._at(path).chmod(mode)
        return 0

    def chown(self, path: str, user: int, group: int) -> int:
        """Change the owner."""
        os.chown(self._at(path), user, group)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None) -> int:
        """Change the times."""
        os.utime(self._at(path), ns=times or (time.time_ns(), time.time_ns()))
        return 0

    def destroy(self, _path: str) -> None:
        """Keep the log: this is over."""
        save(self._recorder.log, self._log)

    def _at(self, path: str | None) -> Path:
        if path is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._below / path[1:]

    def _serial(self, file: Any) -> int | None:
        return self._recorder.serial(os.fstat(file.fh).st_ino)

    def _add(self, kind: type[MakeDirectory | Unlink | SyncDirectory], path: str) -> None:
        if is_watched(path):
            self._recorder.add(kind(path))


def _attributes(found: os.stat_result) -> dict[str, int]:
    return {name.removesuffix("_ns"): getattr(found, name) for name in _STAT}


def record_from_outside(mutant: str = "none") -> Log:
    """Play the evening on the file system and return what happened. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="aftertone-outside-", dir=memory(), ignore_cleanup_errors=True) as folder:
        mount, below, log = (Path(folder) / name for name in ("mount", "below", "log"))
        below.mkdir(mode=0o700)
        with mounted(__name__, mount, str(below), str(log)):
            failure = play_evening(mount, mount / WORDS[1:], mutant)
        if failure:
            raise OSError(errno.EIO, f"the evening failed: {failure}")
        return load(log)


# -- the same evening, seen by two


def normal(log: Log) -> Log:
    """Return a log without what may differ between two recordings of the same evening.

    Serials count files in the order in which they appear. Pieces of a file that were written one behind the other, with
    nothing between, are one write: the kernel hands on a long write in pieces. The salts of SQLite's log, and the checksums that
    depend on them, are zeros: they are random.
    """
    return list(_numbered(_merged(log)))


def _merged(log: Log) -> Log:
    found: Log = []
    for operation in log:
        before = found[-1] if found else None
        if (
            isinstance(operation, Write)
            and isinstance(before, Write)
            and before.serial == operation.serial
            and before.offset + len(before.data) == operation.offset
        ):
            found[-1] = Write(before.serial, before.offset, before.data + operation.data)
        else:
            found.append(operation)
    return found


def _numbered(log: Log) -> Iterator[Operation]:
    numbers: dict[int, int] = {}
    random: dict[int, Callable[[int], Iterable[tuple[int, int]]]] = {}
    for operation in log:
        if isinstance(operation, Create):
            numbers[operation.serial] = len(numbers) + 1
            for ending, spans in _RANDOM.items():
                if operation.path.endswith(ending):
                    random[operation.serial] = spans
            yield Create(_nameless(operation.path), numbers[operation.serial])
        elif isinstance(operation, Write):
            data = bytearray(operation.data)
            for start, end in random.get(operation.serial, _nothing)(operation.offset + len(data)):
                inside = range(max(start - operation.offset, 0), min(end - operation.offset, len(data)))
                data[inside.start : max(inside.stop, inside.start)] = bytes(len(inside))
            yield Write(numbers[operation.serial], operation.offset, bytes(data))
        elif isinstance(operation, Rename):
            yield Rename(_nameless(operation.old), operation.new)
        elif isinstance(operation, Unlink):
            yield Unlink(_nameless(operation.path))
        elif hasattr(operation, "serial"):
            yield type(operation)(**{**_fields(operation), "serial": numbers[operation.serial]})
        else:
            yield operation


def _nameless(path: str) -> str:
    return re.sub(r"/\.tmp-\d+-", "/.tmp-", path)


def _fields(operation: Any) -> dict[str, Any]:
    return {name: getattr(operation, name) for name in operation.__slots__}


def _nothing(_size: int) -> Iterator[tuple[int, int]]:
    return iter(())


def _random_in_wal(size: int) -> Iterator[tuple[int, int]]:
    """Yield where SQLite's log has salts and checksums. Spec: https://www.sqlite.org/fileformat2.html#walformat."""
    yield 16, 32
    for frame in range(32, size, 24 + _PAGE_BYTES):
        yield frame + 8, frame + 24


def _random_in_journal(size: int) -> Iterator[tuple[int, int]]:
    """Yield where SQLite's rollback journal has its nonce and checksums.

    Spec: https://www.sqlite.org/fileformat2.html#rollbackjournal.
    """
    yield 12, 16
    for page in range(512, size, 8 + _PAGE_BYTES):
        yield page + 4 + _PAGE_BYTES, page + 8 + _PAGE_BYTES


_PAGE_BYTES: Final = 4096
_RANDOM: Final = {"-wal": _random_in_wal, "-journal": _random_in_journal}


def main() -> None:
    """Serve the file system: ``MOUNT BELOW LOG``."""
    end_with_parent()
    mount, below, log = sys.argv[1:4]
    serve(Folder(Path(below), Path(log)), mount)
