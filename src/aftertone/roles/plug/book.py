"""The witness's book: what it was told, durably, in one file.

Owns: the file, its format, its bounds. Refuses to know: who told it.

Theory of operation: JSON lines, one each time a run has got further; the last one of a run holds. A line is appended and
synced, nothing is rewritten, and half a line at the end, which a crash may leave, is cut off. The file is locked, so that
two witnesses never share it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from aftertone.errors import BusyError, PeerError, StorageError, UsageError
from aftertone.files import OS_FILES, sync, write_all
from aftertone.roles.plug.protocol import KINDS, Counts, RunState, name_in, number_in

FILE_BYTES: Final = 64 * 1024 * 1024
"""Dozens of runs; beyond, no new run is taken."""
MOST_RUNS: Final = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """One run as the witness knows it."""

    name: str
    place: str
    boot: str
    state: RunState = RunState.OPEN
    counts: Counts = field(default_factory=Counts)


class Book:
    """The runs in ``file``, which is made when missing. One owner at a time."""

    def __init__(self, file: Path) -> None:
        """Read the file. Raises UsageError when it is no book or another witness has it, StorageError."""
        self._file = file
        self.runs: dict[str, Run] = {}
        """By name, oldest first."""
        try:
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            OS_FILES.sync_directory(file.absolute().parent)
        except OSError as error:
            raise StorageError(f"cannot open {file}: {error.strerror}; name another with --file") from None
        try:
            self._read()
        except BaseException:
            os.close(self._handle)
            raise

    def _read(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._bytes = os.fstat(self._handle).st_size
            content = os.pread(self._handle, FILE_BYTES, 0) if self._bytes <= FILE_BYTES else b"too long\n"
        except BlockingIOError:
            raise UsageError(f"another witness keeps {self._file}: stop it, or name another with --file") from None
        except OSError as error:
            raise StorageError(f"cannot read {self._file}: {error.strerror}") from None
        *lines, rest = content.split(b"\n")
        try:
            for line in lines:
                if line:
                    self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PeerError):
            raise UsageError(f"{self._file} is not a file of a witness: name another with --file") from None
        if rest:
            self._cut_off(len(rest))

    def _cut_off(self, count: int) -> None:
        self._bytes -= count
        try:
            os.ftruncate(self._handle, self._bytes)
            sync(OS_FILES, self._handle)
        except OSError as error:
            raise StorageError(f"cannot write {self._file}: {error.strerror}") from None

    def _take(self, value: dict[str, Any]) -> None:
        counts = Counts(*(number_in(value, kind) for kind in KINDS))
        name, place, boot = (name_in(value, key) for key in ("run", "place", "boot"))
        self.runs[name] = Run(name, place, boot, RunState(value["state"]), counts)

    def find(self, name: str, place: str) -> Run | None:
        """Return the run of that name, or else the newest open one of that place."""
        if name in self.runs:
            return self.runs[name]
        found = (run for run in reversed(self.runs.values()) if run.place == place and run.state is RunState.OPEN)
        return next(found, None)

    def keep(self, run: Run) -> None:
        """Write down how far a run is; durable on return.

        Raises BusyError when the book is full, StorageError.
        """
        if run.name not in self.runs and (len(self.runs) >= MOST_RUNS or self._bytes > FILE_BYTES // 2):
            raise BusyError(f"{self._file} is full: start the witness with another --file")
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "run": run.name,
            "place": run.place,
            "boot": run.boot,
            "state": run.state.value,
            **asdict(run.counts),
        }
        self._append(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
        self.runs[run.name] = run

    def _append(self, content: bytes) -> None:
        if self._bytes + len(content) > FILE_BYTES:
            raise BusyError(f"{self._file} is full: start the witness with another --file")
        try:
            write_all(OS_FILES, self._handle, [content])
            sync(OS_FILES, self._handle)
        except OSError as error:
            raise StorageError(f"cannot write {self._file}: {error.strerror}") from None
        self._bytes += len(content)

    def close(self) -> None:
        """Give the file back."""
        with contextlib.suppress(OSError):
            os.close(self._handle)
