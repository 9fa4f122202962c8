"""The journal's reader: tails all segments in order, drops repetitions, reports damage, removes what is done with.

Owns: the order of segments, which records were seen, what counts as damage, closed epochs, removal. Refuses to know: what
records mean and which of them are still needed.

Specification: docs/journal-format.md, "Reading".

Theory of operation: segments are read in the order of their names, each to its end, the newest again and again. A segment
is finished once a later name exists, because the writer never returns to one. A batch whose sync failed is written again to
the next segment under the same sequence numbers, so a record counts once per (epoch, sequence), whichever copy is intact.

What is missing is judged by sequence numbers, and whether it matters by what later records say: each carries the highest
sequence that was durable when it was written. A hole above that number is the torn end of a commit that nobody was
promised: a power cut leaves those. A hole at or below it is the loss of something acknowledged.

Records of the newest segment are delivered before they are durable. That is safe: nothing is confirmed to a caller on a
reader's word, an epoch that had a record is never used again, so what a power cut takes back is never replaced by something
else under the same number; a consumer that has stored it already holds more than was promised.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aftertone.errors import StateError, StorageError
from aftertone.files import Files
from aftertone.journal.committer import LOCK_NAME
from aftertone.journal.record import Record
from aftertone.journal.scan import Found, SegmentScanner, Skipped, Unreadable
from aftertone.journal.segment import FORMAT_VERSION, NO_FLOOR, Floor, SegmentHeader, SegmentName

READ_PATIENCE: Final = 20
"""For a follower that polls twice a second: ten seconds until a block that cannot be read is given up."""
DAMAGE_LIMIT: Final = 1000
"""Damage kept for showing; `damage_count` goes on counting. Nobody reads a longer list, and the segments are kept."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in a segment is not what was written."""

    segment: SegmentName
    offset: int
    why: str
    acknowledged: bool
    """True when something durable was lost or may have been; False for the torn end of an unfinished commit."""
    first_sequence: int = 0
    last_sequence: int = 0
    """The sequence numbers that are missing, 0 and 0 when none are known to be."""


class SequenceSet:
    """Sequence numbers seen so far, as ranges: one range as long as nothing is missing."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, sequence: int) -> bool:
        """Take a number in; False when it is there already."""
        at = bisect_right(self._starts, sequence) - 1
        if at >= 0 and sequence <= self._ends[at]:
            return False
        joins_left = at >= 0 and self._ends[at] == sequence - 1
        joins_right = at + 1 < len(self._starts) and self._starts[at + 1] == sequence + 1
        if joins_left and joins_right:
            self._ends[at] = self._ends.pop(at + 1)
            del self._starts[at + 1]
        elif joins_left:
            self._ends[at] = sequence
        elif joins_right:
            self._starts[at + 1] = sequence
        else:
            self._starts.insert(at + 1, sequence)
            self._ends.insert(at + 1, sequence)
        return True

    def covers(self, first: int, last: int) -> bool:
        """Say whether every number from ``first`` to ``last`` is there."""
        at = bisect_right(self._starts, first) - 1
        return at >= 0 and last <= self._ends[at]


class JournalReader:
    """Reads a journal folder from its beginning and follows its growth. One thread; holds one descriptor."""

    def __init__(self, files: Files, directory: Path, *, patience: int = 0) -> None:
        """Remember the folder; nothing is touched.

        ``patience``: so many times in each segment a read that the disk refuses ends a poll with StorageError, to be tried again,
        before what cannot be read is given up and reported as damage. A cable that was loose for a moment costs nothing then.
        """
        self._patience = patience
        self.damage: list[Damage] = []
        self.damage_count = 0
        self._files = files
        self._directory = directory
        self._scanner: SegmentScanner | None = None
        self._finished: SegmentName | None = None
        self._spoiled: set[SegmentName] = set()
        self._seen = SequenceSet()
        self._expected: int | None = None
        self._skip_start: int | None = None

    # -- following

    def poll(self) -> Iterator[tuple[SegmentName, Record]]:
        """Yield every record since the last poll, in the order of segments and offsets.

        Within an epoch that is the order of sequence numbers, except that a record whose first copy was torn comes where
        its second copy stands. May be given up at any point: what was yielded counts as delivered. Reads in chunks of
        1 MiB; costs one listing and one fstat when nothing is new. A folder that does not exist yet is empty. Raises
        StorageError when the folder or a segment cannot be opened or read; polling again goes on where it stopped.
        """
        try:
            names = self._names()
            while (scanner := self._enter(names)) is not None:
                finished = names[-1] > scanner.name
                if self._ready(scanner, names, finished=finished):
                    for item in scanner.advance():
                        record = self._judge(scanner.name, item)
                        if record is not None:
                            yield scanner.name, record
                if not finished:
                    return
                self._leave(scanner)
        except OSError as error:
            raise StorageError(f"the journal in {self._directory} cannot be read: {error}") from error

    def _names(self) -> list[SegmentName]:
        try:
            found = self._files.list_directory(self._directory)
        except FileNotFoundError:
            return []
        return sorted(name for name in map(SegmentName.parse, found) if name is not None)

    def _enter(self, names: list[SegmentName]) -> SegmentScanner | None:
        if not names:
            return None
        if self._scanner is not None:
            return self._scanner
        for name in names:
            if self._finished is not None and name <= self._finished:
                continue
            try:
                self._scanner = SegmentScanner(self._files, self._directory, name, self._patience)
            except FileNotFoundError:
                continue  # an empty segment that the writer gave up between our listing and now
            if self._finished is None or self._finished.epoch != name.epoch:
                self._seen = SequenceSet()
            if self._finished is None or name != SegmentName(self._finished.epoch, self._finished.number + 1):
                self._expected = None  # what stood between was removed, or is another epoch's
            return self._scanner
        return None

    def _leave(self, scanner: SegmentScanner) -> None:
        scanner.close()
        self._finished = scanner.name
        self._scanner = None
        self._skip_start = None

    def close(self) -> None:
        """Give the descriptor back; polling again starts the present segment anew."""
        if self._scanner is not None:
            self._scanner.close()
            self._scanner = None

    # -- judging

    def _ready(self, scanner: SegmentScanner, names: list[SegmentName], *, finished: bool) -> bool:
        """Make sure that the segment's header is known; False when there is nothing to read in it."""
        if scanner.header is not None:
            return scanner.header.version == FORMAT_VERSION
        header = scanner.load_header()
        if header is None:
            # The name is durable before the header and the header before any record, so in a segment of no more than a
            # header a missing one is the beginning that a crash cut short.
            if not finished or not scanner.has_data():
                return False
            self._report(Damage(scanner.name, 0, "both copies of the segment's header are damaged", True))
            header = scanner.header = self._borrow_header(scanner.name, names)
            self._expected = None
            return header is not None
        if header.version != FORMAT_VERSION:
            why = f"written in format {header.version}, which this version of Aftertone does not know"
            self._report(Damage(scanner.name, 0, why, True))
            return False
        self._check_join(header)
        self._expected = header.first_sequence
        return True

    def _check_join(self, header: SegmentHeader) -> None:
        """Everything below the first sequence of a segment was durable: see that the segment before brought it."""
        first, last = self._expected, header.first_sequence - 1
        if first is None or self._finished is None or first > last or self._seen.covers(first, last):
            return
        self._report(Damage(self._finished, 0, "its last records are missing", True, first, last))

    def _borrow_header(self, name: SegmentName, names: list[SegmentName]) -> SegmentHeader | None:
        """The boot id is that of the epoch: take it from any other segment, so that the records can be verified."""
        for other in names:
            if other.epoch != name.epoch or other == name:
                continue
            with contextlib.suppress(FileNotFoundError):
                neighbour = SegmentScanner(self._files, self._directory, other)
                try:
                    header = neighbour.load_header()
                finally:
                    neighbour.close()
                if header is not None and header.version == FORMAT_VERSION:
                    return SegmentHeader(name, header.boot_id, 0)
        return None

    def _judge(self, name: SegmentName, item: Found | Skipped | Unreadable) -> Record | None:
        if isinstance(item, Unreadable):
            self._report(Damage(name, item.offset, f"the disk cannot read it: {item.why}", True))
            return None
        if isinstance(item, Skipped):
            self._skip_start = item.start
            return None
        record, expected = item.record, self._expected
        offset = item.offset if self._skip_start is None else self._skip_start
        if expected is not None and record.sequence > expected and not self._seen.covers(expected, record.sequence - 1):
            acknowledged = record.durable >= expected
            why = "acknowledged records are missing" if acknowledged else "an unfinished commit was torn"
            self._report(Damage(name, offset, why, acknowledged, expected, record.sequence - 1))
        elif self._skip_start is not None:
            self._report(Damage(name, offset, "bytes between two records are not padding", expected is None))
        self._skip_start = None
        self._expected = record.sequence + 1
        return record if self._seen.add(record.sequence) else None

    def _report(self, damage: Damage) -> None:
        self.damage_count += 1
        if damage.acknowledged:
            self._spoiled.add(damage.segment)
        if len(self.damage) < DAMAGE_LIMIT:
            self.damage.append(damage)

    # -- epochs and removal

    def epochs(self) -> tuple[int, ...]:
        """Return the epochs that have segments, oldest first. Raises StorageError."""
        try:
            return tuple(sorted({name.epoch for name in self._names()}))
        except OSError as error:
            raise StorageError(f"the journal in {self._directory} cannot be listed: {error}") from error

    def closed_epochs(self) -> frozenset[int]:
        """Return the epochs to which nothing will be added: a later one exists, or nobody holds the folder.

        A poll that begins after this call delivers everything there is of them. Raises StorageError.
        """
        epochs = self.epochs()
        try:
            open_epochs = epochs[-1:] if self._files.is_locked(self._directory / LOCK_NAME) else ()
        except OSError as error:
            raise StorageError(f"the lock of the journal in {self._directory} cannot be read: {error}") from error
        return frozenset(epochs).difference(open_epochs)

    def floor(self, segment: SegmentName) -> Floor:
        """Return what a segment's header says of the time before it; zeros when it says nothing or is gone.

        Raises StorageError.
        """
        try:
            try:
                scanner = SegmentScanner(self._files, self._directory, segment)
            except FileNotFoundError:
                return NO_FLOOR
            try:
                header = scanner.load_header()
            finally:
                scanner.close()
        except OSError as error:
            raise StorageError(f"segment {segment} in {self._directory} cannot be read: {error}") from error
        return NO_FLOOR if header is None or header.version != FORMAT_VERSION else header.floor

    def records(self, segment: SegmentName) -> Iterator[Record]:
        """Yield the intact records of one segment again, from its start, apart from `poll`.

        Repetitions in it and damage are passed over in silence: `poll` has judged them. Nothing when the segment is gone
        or has no readable header. Raises StorageError.
        """
        try:
            try:
                scanner = SegmentScanner(self._files, self._directory, segment)
            except FileNotFoundError:
                return
            try:
                header = scanner.load_header()
                if header is None:
                    header = scanner.header = self._borrow_header(segment, self._names())
                if header is not None and header.version == FORMAT_VERSION:
                    yield from (item.record for item in scanner.advance() if isinstance(item, Found))
            finally:
                scanner.close()
        except OSError as error:
            raise StorageError(f"segment {segment} in {self._directory} cannot be read: {error}") from error

    def remove(self, segment: SegmentName) -> None:
        """Forget a segment that this reader has read to its end; durable on return, nothing when it is gone already.

        A segment that lost something acknowledged is not deleted but put aside under `SegmentName.aside`. The newest
        segment of all is never removed: its name is what the next epoch is counted from. Raises StateError for that one
        and for one that was not read to its end, StorageError when the disk refuses.
        """
        try:
            names = self._names()
            if segment not in names:
                return
            if segment == names[-1]:
                raise StateError(f"segment {segment} is the newest of the journal and stays")
            if self._finished is None or segment > self._finished:
                raise StateError(f"segment {segment} has not been read to its end")
            # The later name has to be durable before this one goes, or a power cut could take both.
            self._files.sync_directory(self._directory)
            if segment in self._spoiled:
                self._files.rename(self._directory / str(segment), self._directory / segment.aside)
            else:
                self._files.unlink(self._directory / str(segment))
            self._files.sync_directory(self._directory)
        except OSError as error:
            raise StorageError(f"segment {segment} in {self._directory} cannot be removed: {error}") from error
