"""A disk whose every write and flush is written down, and real file systems on it.

Owns: the recorded disk, loop devices, making, mounting and checking a file system, what may be missing for all that. Refuses to
know: what is played on it, cuts.

Theory of operation: the kernel's file system writes to a loop device, which with direct I/O hands every request on to one file of a
file system in user space (`user_mounts`), in the order in which the disk would get them: writes as writes, flushes as fsyncs; a
write that must reach the medium at once comes as a write and a flush, since a loop device offers nothing better. The words of
the evening go to another file of the same file system, so that they stand between the disk's requests. A write that was served
before a flush counts as covered by it. A third file tells the disk which write is to fail.

Whoever mounts does so in a mount namespace of its own (`stand_apart`), and loop devices let go by themselves with their last user, so
whatever ends a process, nothing stays mounted or attached.
Specification: linux/loop.h (LOOP_CONFIGURE), mount(2), unshare(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.crash.powercut.operations import Said
from tests.crash.powercut.recording import memory
from tests.crash.powercut.user_mounts import end_with_parent, serve
from tests.crash.powercut.user_mounts import why_not as why_no_fuse

IMAGE: Final = "disk.img"
WORDS: Final = "words"
FAULTS: Final = "faults"


@dataclass(frozen=True, slots=True)
class BlockWrite:
    """Bytes that the disk took, into its cache."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BlockWriteFailed:
    """Bytes that the disk refused with an error."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything before this is on the medium."""


Entry: TypeAlias = BlockWrite | BlockWriteFailed | Flush | Said
BlockLog: TypeAlias = list[Entry]


def load(path: Path) -> BlockLog:
    """Read the log that a recorded disk left."""
    log: BlockLog = pickle.loads(path.read_bytes())
    return log


# -- the recorded disk


@dataclass(slots=True)
class Fault:
    """The ``number``-th write from now on that contains ``mark`` fails, once."""

    number: int
    mark: bytes = b""

    def line(self) -> str:
        """Return it as `FAULTS` takes it."""
        return f"{self.number} {self.mark.hex()}"

    def strikes(self, data: bytes) -> bool:
        """Tell whether this write is the one."""
        if self.number > 0 and self.mark in data:
            self.number -= 1
            return self.number == 0
        return False


class Device:
    """The file system that has the disk in it: what the kernel may ask for."""

    use_ns = True
    _FILES: Final = {f"/{name}": number for number, name in enumerate((IMAGE, WORDS, FAULTS), 2)}

    def __init__(self, size: int, log: Path) -> None:
        self._path = log
        self._size = size
        self._log: BlockLog = []
        self._fault = Fault(0)
        self._blank: dict[int, bytes] = {}
        self._image = os.open(memory() or "/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
        os.ftruncate(self._image, size)

    def getattr(self, path: str, _file: Any = None) -> dict[str, int]:
        """Return what stat says."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2, "st_ino": 1}
        number = self._FILES.get(path)
        if number is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        size = self._size if path == f"/{IMAGE}" else 0
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_ino": number, "st_size": size}

    def open(self, path: str, file: Any) -> int:
        """Open one of the files."""
        file.fh = self._FILES[path]
        file.direct_io = path != f"/{IMAGE}"
        return 0

    def read(self, path: str, count: int, offset: int, _file: Any) -> bytes:
        """Read from the disk."""
        return os.pread(self._image, count, offset) if path == f"/{IMAGE}" else b""

    def write(self, path: str, data: bytes, offset: int, _file: Any) -> int:
        """Write to the disk, hear words, or learn what is to fail."""
        if path == f"/{WORDS}":
            self._log += [Said(line) for line in data.decode().splitlines()]
        elif path == f"/{FAULTS}":
            number, _, mark = data.decode().strip().partition(" ")
            self._fault = Fault(int(number), bytes.fromhex(mark))
        elif self._fault.strikes(data):
            self._log.append(BlockWriteFailed(offset, len(data)))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        else:
            os.pwrite(self._image, data, offset)
            self._log.append(BlockWrite(offset, data if any(data) else self._zeros(len(data))))
        return len(data)

    def _zeros(self, length: int) -> bytes:
        """Return the same object for the same length: the log of a file system that zeroes its own is small then."""
        return self._blank.setdefault(length, bytes(length))

    def truncate(self, _path: str, _size: int, _file: Any = None) -> int:
        """Do nothing: shells truncate what they write words to."""
        return 0

    def fsync(self, path: str, _data_only: int, _file: Any) -> int:
        """Flush."""
        if path == f"/{IMAGE}":
            self._log.append(Flush())
        return 0

    def destroy(self, _path: str) -> None:
        """Keep the log: this is over."""
        self._path.write_bytes(pickle.dumps(self._log, protocol=5))


# -- file systems


@dataclass(frozen=True, slots=True)
class FileSystem:
    """One kind of file system: how it is made, mounted, and checked when it cannot be mounted."""

    name: str
    size: int
    """Of the disk, bytes."""
    make: tuple[str, ...]
    options: str
    boot: tuple[tuple[str, ...], ...]
    """The check that a boot runs when it is needed, if there is one."""
    by_hand: tuple[tuple[str, ...], ...]
    """What a person runs when that does not help."""

    @property
    def missing(self) -> list[str]:
        """Programs that it needs and that are not installed."""
        programs = {self.make[0], *(check[0] for check in (*self.boot, *self.by_hand))}
        return sorted(program for program in programs if _program(program) is None)


FILE_SYSTEMS: Final = {
    one.name: one
    for one in (
        FileSystem(
            "ext4",
            # With less than two groups of blocks there is no second superblock for a check to find.
            256 << 20,
            ("mkfs.ext4", "-q", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
            "nodiscard,noinit_itable",
            (("e2fsck", "-p"),),
            (("e2fsck", "-fy"),),
        ),
        FileSystem(
            "xfs",
            320 << 20,
            ("mkfs.xfs", "-q", "-K"),
            # A copy has the identity of its original, and another copy may be mounted at the same time.
            "nodiscard,nouuid",
            (),
            (("xfs_repair",), ("xfs_repair", "-L")),
        ),
        FileSystem(
            "btrfs",
            256 << 20,
            ("mkfs.btrfs", "-q", "-K"),
            "nodiscard",
            (),
            (("btrfs", "rescue", "super-recover", "-y"), ("btrfs", "check", "--repair", "--force")),
        ),
    )
}


def why_not(*kinds: str) -> str:
    """Return why these file systems cannot be played here, empty when they can."""
    if os.geteuid() != 0:
        return "mounting takes root"
    if reason := why_no_fuse():
        return reason
    if not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        return "there is no /dev/loop-control to be opened"
    known = Path("/proc/filesystems").read_text().split()
    for kind in kinds:
        if missing := FILE_SYSTEMS[kind].missing:
            return f"not installed: {', '.join(missing)}"
        if kind not in known and subprocess.run(["modprobe", "-q", kind], capture_output=True).returncode:
            return f"this kernel has no {kind}"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    return f"this process may not mount: {tried.stderr.strip()}" if tried.returncode else ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def run(*command: str) -> int:
    """Run a program of the system and return its exit status."""
    found = _program(command[0])
    if found is None:
        raise FileNotFoundError(command[0])
    return subprocess.run([found, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True).returncode


# -- mounts


_LOOP_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CONFIG_BYTES: Final = 304
_FLAGS_AT: Final = 60
_AUTOCLEAR: Final = 4
_DIRECT_IO: Final = 16
_LOOP_MAJOR: Final = 7
_NEW_MOUNTS: Final = 0x20000
_RECURSIVE_PRIVATE: Final = 0x4000 | 0x40000
_NO_TIMES: Final = 0x400 | 0x800
_DETACH: Final = 2
_TRIES: Final = 400


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def stand_apart() -> None:
    """Give this process mounts of its own, which end with it and its children. Raises OSError."""
    _check(_libc().unshare(_NEW_MOUNTS), "unshare")
    _check(_libc().mount(b"none", b"/", None, _RECURSIVE_PRIVATE, None), "/")


@contextlib.contextmanager
def attached(image: Path, *, direct: bool = False) -> Iterator[str]:
    """Make a disk of a file; yields its device. ``direct``: past the page cache, each request as it comes."""
    with contextlib.ExitStack() as stack:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, control)
        file = os.open(image, os.O_RDWR | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
        stack.callback(os.close, file)
        config = bytearray(_LOOP_CONFIG_BYTES)
        struct.pack_into("<II", config, 0, file, 512)
        struct.pack_into("<I", config, _FLAGS_AT, _AUTOCLEAR | (_DIRECT_IO if direct else 0))
        for last in (*[False] * _TRIES, True):
            number = fcntl.ioctl(control, _LOOP_GET_FREE)
            device = Path(f"/dev/loop{number}")
            try:
                if not device.exists():
                    with contextlib.suppress(FileExistsError):
                        os.mknod(device, 0o600 | stat.S_IFBLK, os.makedev(_LOOP_MAJOR, number))
                loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                if last:
                    raise
                continue
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, bytes(config))
            except OSError:  # somebody else was faster
                os.close(loop)
                if last:
                    raise
                time.sleep(0.005)
                continue
            stack.callback(os.close, loop)
            break
        yield str(device)


@contextlib.contextmanager
def mounted(device: str, point: Path, kind: FileSystem) -> Iterator[Path]:
    """Mount a device. Raises OSError when the kernel refuses it."""
    point.mkdir(parents=True, exist_ok=True)
    libc, where = _libc(), os.fsencode(point)
    _check(libc.mount(device.encode(), where, kind.name.encode(), _NO_TIMES, kind.options.encode()), kind.name)
    try:
        yield point
    finally:
        for _ in range(_TRIES):
            if libc.umount2(where, 0) == 0 or ctypes.get_errno() != errno.EBUSY:
                break
            time.sleep(0.005)
        else:
            _check(libc.umount2(where, _DETACH), str(point))


def settle(point: Path) -> None:
    """Make everything on a mounted file system durable."""
    handle = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_libc().syncfs(handle), "syncfs")
    finally:
        os.close(handle)


@dataclass(slots=True)
class Repairs:
    """How often which check was run to make a file system mountable, and how often none helped."""

    boot: int = 0
    by_hand: int = 0
    beyond: int = 0


@contextlib.contextmanager
def repaired(device: str, point: Path, kind: FileSystem, repairs: Repairs) -> Iterator[Path]:
    """Mount a device, after a check if need be. Raises OSError when nothing helps."""
    with contextlib.ExitStack() as stack:
        checks = (None, *kind.boot, *kind.by_hand)
        for done, check in enumerate(checks, 1):
            if check is not None:
                run(*check, device)
            try:
                stack.enter_context(mounted(device, point, kind))
                break
            except OSError:
                if done == len(checks):
                    repairs.beyond += 1
                    raise
        repairs.boot += check in kind.boot
        repairs.by_hand += check in kind.by_hand
        yield point


def main() -> None:
    """Serve the disk: ``MOUNT SIZE LOG``."""
    end_with_parent()
    mount, size, log = sys.argv[1:4]
    serve(Device(int(size), Path(log)), mount)
