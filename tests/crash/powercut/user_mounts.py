"""File systems in user space that write down what is asked of them, each in a process of its own.

Owns: starting such a process, its end however the starter goes, the log that it leaves, whether any of this works here. Refuses
to know: what is recorded (`fuse_recorder`, `block_device`).

Theory of operation: a file system that is served by the process that uses it would wait for itself, so it is a child. The child
serves one request at a time, so whatever it writes down has one total order; it keeps the log in memory and writes it into a
file when it is unmounted. It is out of the terminal's reach, since an interrupt must let the disk live until what is mounted on it is
unmounted, and the kernel ends it with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]
"""Where ``tests`` can be imported from."""
MOST_BYTES: Final = 128 * 1024
"""The longest write that arrives in one piece."""
_PATIENCE_S: Final = 30.0
_PDEATHSIG: Final = 1
_DETACH: Final = 2


def why_not() -> str:
    """Return why no file system in user space can be served here, empty when it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse to be opened"
    try:
        import_library()
    except (ImportError, OSError, AttributeError) as error:
        return f"libfuse cannot be used (Debian: fuse3): {error}"
    return ""


def import_library() -> Any:
    """Return the library that speaks to the kernel's FUSE."""
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    import mfusepy

    return mfusepy


def serve(operations: object, mount: str) -> None:
    """Serve a file system in this process until somebody unmounts it."""
    fuse = import_library()
    fuse.FUSE(
        operations,
        mount,
        raw_fi=True,
        foreground=True,
        nothreads=True,
        hard_remove=True,
        use_ino=True,
        attr_timeout=0,
        entry_timeout=0,
        fsname="aftertone-recorder",
    )


@contextlib.contextmanager
def mounted(module: str, mount: Path, *arguments: str) -> Iterator[None]:
    """Run ``main`` of ``module`` with MOUNT ARGUMENTS in a child while its file system is used; then unmount and end it.

    Raises OSError when it does not start.
    """
    mount.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        # Not "-m": what a log is made of must be found again under the module's own name.
        [sys.executable, "-c", f"from {module} import main; main()", str(mount), *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not os.path.ismount(mount):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise OSError(errno.EIO, f"{module} did not mount its file system")
            time.sleep(0.005)
        yield
    finally:
        unmount(mount)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def unmount(mount: Path) -> None:
    """Unmount what is mounted there, if anything; what is busy for a second is let go of by force."""
    for _ in range(200):
        if not os.path.ismount(mount):
            return
        command = ["umount", str(mount)] if os.geteuid() == 0 else ["fusermount3", "-u", str(mount)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return
        time.sleep(0.005)
    if os.geteuid() == 0:
        _libc().umount2(os.fsencode(mount), _DETACH)
    else:
        subprocess.run(["fusermount3", "-uz", str(mount)], capture_output=True)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when the one that started it is gone."""
    parent = os.getppid()
    _libc().prctl(_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


PATIENCE_S: Final = 300
"""An evening takes a second or two."""
NOT_OVER: Final = "not over"
"""How the word on an evening begins that was ended from outside."""


def play_evening(mount: Path, words: Path, mutant: str = "none") -> str:
    """Play the evening in ``mount``, in a process of its own that writes each word into ``words``.

    Returns how it failed, empty when it came to its end.
    """
    command: Sequence[str] = (sys.executable, "-m", "tests.crash.powercut.evening", str(mount), str(words), mutant)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"{NOT_OVER} after {PATIENCE_S} s"
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
