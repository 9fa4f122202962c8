"""Deliberate bugs: each breaks one rule of storage, and a harness that does not notice it proves nothing.

Owns: the switches. They live here and nowhere else: the product has no test mode. Refuses to know: what finds them.

Theory of operation: a mutant is a context manager around the product's own functions, or around the seam to the disk, and works
wherever the evening runs, in this process or in another.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from unittest import mock

from aftertone.delivery.deliver import Deliverer
from aftertone.delivery.ledger import Ledger
from aftertone.files import Files
from aftertone.journal.committer import Committer
from aftertone.journal.output import SegmentOutput
from aftertone.journal.reader import JournalReader
from aftertone.journal.segment import DATA_OFFSET, SegmentHeader, SegmentName, parse_segment_header
from aftertone.store import engine
from aftertone.store.blobs import BlobFacts, DirectoryBlobs
from aftertone.store.catalog import Catalog

Wrap = Callable[[Files], Files]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug."""

    name: str
    says: str
    """The rule that it breaks, in words."""
    patch: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    wrap: Wrap = lambda files: files
    needs_fault: bool = False
    """It shows only when a sync of the journal fails."""
    needs_second_life: bool = False
    """It shows only in what is recorded after a cut."""


class _Passing:
    """Passes every call on to the files below."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)


class _NoSync(_Passing):
    def fdatasync(self, handle: int) -> None:
        return

    def sync_directory(self, path: Path) -> None:
        return


class _NoDirectorySync(_Passing):
    def sync_directory(self, path: Path) -> None:
        return


class _RenameFirst(_Passing):
    """Syncs what goes by a temporary name only after it was renamed."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._temporary: dict[Path, int] = {}
        self._late: set[int] = set()

    def open_new(self, path: Path) -> int:
        handle = self.files.open_new(path)
        if path.name.startswith("."):
            self._temporary[path] = handle
        return handle

    def fdatasync(self, handle: int) -> None:
        if handle in self._temporary.values():
            self._late.add(handle)
        else:
            self.files.fdatasync(handle)

    def close(self, handle: int) -> None:
        # What is synced late is closed by us, after that, or with the process.
        if handle not in self._late:
            with contextlib.suppress(OSError):
                self.files.close(handle)
            self._temporary = {path: one for path, one in self._temporary.items() if one != handle}

    def rename(self, old: Path, new: Path) -> None:
        self.files.rename(old, new)
        handle = self._temporary.pop(old, None)
        if handle is not None and handle in self._late:
            self.files.fdatasync(handle)
            self._late.discard(handle)
            self.files.close(handle)


class _InPlace(_Passing):
    """Writes what should go by a temporary name under its own name at once."""

    def open_new(self, path: Path) -> int:
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            final = path.with_name(path.name[1:-4])
            with contextlib.suppress(FileNotFoundError):
                self.files.unlink(final)
            return self.files.open_new(final)
        return self.files.open_new(path)

    def rename(self, old: Path, new: Path) -> None:
        if not (old.name.startswith(".") and old.name.endswith(".tmp")):
            self.files.rename(old, new)


def _wrapping(kind: type[_Passing]) -> Wrap:
    return lambda files: cast(Files, kind(files))


@contextlib.contextmanager
def _sqlite_level(word: str) -> Iterator[None]:
    honest = engine.Database._prepare

    def prepare(self: engine.Database, raw: Any, entry: Any) -> None:
        honest(self, raw, entry)
        raw.execute(f"PRAGMA synchronous={word}")

    with mock.patch.object(engine.Database, "_prepare", prepare):
        yield


@contextlib.contextmanager
def _acknowledge_first() -> Iterator[None]:
    """Publish each commit before it is synced, and sync it with the next."""
    honest_write, honest_sync = SegmentOutput.write, SegmentOutput.sync
    late: set[int] = set()

    def write(self: SegmentOutput, buffers: Sequence[bytes]) -> None:
        if id(self) in late:
            honest_sync(self)
        honest_write(self, buffers)
        late.add(id(self))

    def sync(self: SegmentOutput) -> None:
        if id(self) not in late:
            honest_sync(self)

    with mock.patch.multiple(SegmentOutput, write=write, sync=sync):
        yield


@contextlib.contextmanager
def _sync_again() -> Iterator[None]:
    honest = SegmentOutput.sync

    def sync(self: SegmentOutput) -> None:
        try:
            honest(self)
        except OSError:
            honest(self)

    with mock.patch.object(SegmentOutput, "sync", sync):
        yield


@contextlib.contextmanager
def _row_first() -> Iterator[None]:
    """Add the row before the recording is stored."""
    honest_put, honest_record = DirectoryBlobs.put, Catalog.record_delivery
    late: list[tuple[DirectoryBlobs, str, bytes]] = []

    def put(self: DirectoryBlobs, key: str, data: Any) -> BlobFacts:
        if not key.startswith("messages/"):
            return honest_put(self, key, data)
        import hashlib

        late.append((self, key, data))
        return BlobFacts(key, hashlib.sha256(data).hexdigest(), len(data))

    def record(self: Catalog, message: Any) -> bool:
        added = honest_record(self, message)
        while late:
            blobs, key, data = late.pop()
            honest_put(blobs, key, io.BytesIO(data))
        return added

    with mock.patch.object(DirectoryBlobs, "put", put), mock.patch.object(Catalog, "record_delivery", record):
        yield


@contextlib.contextmanager
def _slow_commits() -> Iterator[None]:
    honest = Committer.__init__

    def init(self: Committer, *args: Any, **settings: Any) -> None:
        honest(self, *args, **{**settings, "commit_interval_ms": 400})

    with mock.patch.object(Committer, "__init__", init):
        yield


@contextlib.contextmanager
def _append_behind_the_tail() -> Iterator[None]:
    """Go on in the newest segment that is found at start, as if nothing could be wrong with its end."""
    honest = Committer._new_segment

    def next_epoch(self: Committer, *_: Any) -> int:
        names = [SegmentName.parse(name) for name in self._files.list_directory(self._directory)]
        return max((name.epoch for name in names if name is not None), default=1)

    def new_segment(self: Committer, **how: Any) -> SegmentOutput:
        names = [SegmentName.parse(name) for name in self._files.list_directory(self._directory)]
        there = [name for name in names if name is not None and name.epoch == self._epoch]
        if self._number or not there:
            self._number = max([self._number, *(name.number for name in there)])
            return honest(self, **how)
        newest = max(there)
        path = self._directory / str(newest)
        content = path.read_bytes()
        header = parse_segment_header(content[:DATA_OFFSET], newest)
        if header is None:
            self._number = newest.number
            return honest(self, **how)
        segments = JournalReader(self._files, self._directory)
        numbers = [record.sequence for name, record in segments.poll() if name.epoch == self._epoch]
        segments.close()
        self._number = newest.number
        self._appended = self._durable = max(numbers, default=0)
        import os

        handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        output = SegmentOutput(self._files, path, SegmentHeader(newest, header.boot_id, header.first_sequence), handle)
        output.size_bytes = len(content)
        return output

    with mock.patch.multiple(Committer, _next_epoch=next_epoch, _new_segment=new_segment):
        yield


@contextlib.contextmanager
def _forget_first() -> Iterator[None]:
    """Let the journal forget a segment as soon as it was read."""
    honest = Deliverer._tidy

    def tidy(self: Deliverer) -> None:
        with mock.patch.object(Ledger, "removable", lambda ledger: ledger.segments()):
            honest(self)

    with mock.patch.object(Deliverer, "_deliver_due", _tidying_first(Deliverer._deliver_due, tidy)):
        yield


def _tidying_first(
    honest: Callable[[Deliverer, int], int], tidy: Callable[[Deliverer], None]
) -> Callable[[Deliverer, int], int]:
    def deliver(self: Deliverer, now_ns: int) -> int:
        tidy(self)
        return honest(self, now_ns)

    return deliver


MUTANTS: Final = (
    Mutant("no-sync", "nothing is ever synced", lambda: _sqlite_level("OFF"), _wrapping(_NoSync)),
    Mutant("acknowledge-first", "a commit is acknowledged before its sync", _acknowledge_first),
    Mutant("sync-again", "a sync that failed is tried again on the same file", _sync_again, needs_fault=True),
    Mutant("no-directory-sync", "the names of folders are never synced", wrap=_wrapping(_NoDirectorySync)),
    Mutant("rename-first", "files are renamed before they are synced", wrap=_wrapping(_RenameFirst)),
    Mutant("in-place", "the snapshot is written in place, without a temporary file", wrap=_wrapping(_InPlace)),
    Mutant("sqlite-normal", "SQLite runs with synchronous=NORMAL", lambda: _sqlite_level("NORMAL")),
    Mutant("row-first", "the row is added before the recording is stored", _row_first),
    Mutant("forget-first", "a segment of the journal goes before its recordings are delivered", _forget_first),
    Mutant("slow-commits", "the journal is committed every 400 ms", _slow_commits),
    Mutant(
        "append-behind-tail", "a line goes on in the segment it finds", _append_behind_the_tail, needs_second_life=True
    ),
)
"""Every bug that must be caught; the rules are in docs/reliability.md."""


SOUND: Final = Mutant("none", "the product as it is")


def named(name: str) -> Mutant:
    """Return a mutant by its name. Raises KeyError."""
    return {mutant.name: mutant for mutant in (SOUND, *MUTANTS)}[name]
