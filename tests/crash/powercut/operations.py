"""What a program does to a disk, as values in one total order.

Owns: the operations of a log and how a log is kept in a file. Refuses to know: who recorded them and what a disk makes of them.

Theory of operation: paths are relative to the recorded folder, which is ``/``. Files are known by serial numbers that are
never used twice, because a name may come to mean another file and the kernel uses its inode numbers again. What the program
says to the world stands between its operations (`Said`), so that each cut knows what had been promised before it.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Create:
    """A name for a new, empty file."""

    path: str
    serial: int


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A new folder."""

    path: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes of a file."""

    serial: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """Another size of a file."""

    serial: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync of a file that returned 0."""

    serial: int


@dataclass(frozen=True, slots=True)
class SyncFailed:
    """A sync of a file that returned an error."""

    serial: int


@dataclass(frozen=True, slots=True)
class Rename:
    """A file under another name of the same folder, whatever was there before."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Unlink:
    """A name that is gone."""

    path: str


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    """A sync of a folder's names that returned 0."""

    path: str


@dataclass(frozen=True, slots=True)
class Said:
    """A word to the world: an acknowledgement, or what the judge needs to know."""

    text: str


Operation: TypeAlias = (
    Create | MakeDirectory | Write | Truncate | Sync | SyncFailed | Rename | Unlink | SyncDirectory | Said
)
Log: TypeAlias = list[Operation]


def save(log: Log, path: Path) -> None:
    """Keep a log in a file."""
    path.write_bytes(pickle.dumps(log, protocol=5))


def load(path: Path) -> Log:
    """Read a log that `save` wrote."""
    log: Log = pickle.loads(path.read_bytes())
    return log


def is_watched(path: str) -> bool:
    """Tell whether a file's fate matters: SQLite's shared memory and lock files are worthless after a power cut."""
    return not path.endswith(("-shm", "/lock", ".lock"))
