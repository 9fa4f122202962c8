"""Small disks that a test may fill up.

Owns: mounting them, and filling them. Refuses to know: what is kept there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Self

import pytest


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"a small disk takes root and its tools: {error}")
    if done.returncode:
        pytest.skip(f"a small disk takes root and a system that lets it mount: {done.stderr.strip()}")


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int, kind: str = "ext4") -> Iterator[Path]:
    """A file system of its own, ``ext4`` over a file or ``tmpfs``; where it cannot be mounted, the test is skipped."""
    point = folder / "disk"
    point.mkdir()
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(point))
    else:
        image = folder / "disk.image"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        # No blocks for root alone: the tests run as root, and would not meet the end of the disk. Blocks as large disks have
        # them: SQLite's shared memory has holes on smaller ones, and touching a hole on a full disk is a SIGBUS.
        _run(f"mkfs.{kind}", "-q", "-m", "0", "-b", "4096", str(image))
        _run("mount", "-o", "loop", str(image), str(point))
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write into a folder, not even root."""
    _run("mount", "--bind", str(folder), str(folder))
    try:
        _run("mount", "-o", "remount,ro,bind", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def free_bytes(folder: Path) -> int:
    """Return the room that is left."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Fill a disk up to ``leave_bytes``; returns the file to delete."""
    path = folder / "ballast"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while (left := free_bytes(folder) - leave_bytes) > 0:
            file.write(bytes(min(left, 1 << 20)))
    return path


class Glutton:
    """Fills a disk and takes every block that anybody gives back, until it is made to stop. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = Event()
        self._thread = Thread(target=self._eat, daemon=True)

    def __enter__(self) -> Self:
        fill(self._folder)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        (self._folder / "ballast").unlink()

    def _eat(self) -> None:
        with (self._folder / "ballast").open("ab", buffering=0) as file:
            while not self._stop.wait(0.001):
                with contextlib.suppress(OSError):
                    file.write(bytes(4096))
