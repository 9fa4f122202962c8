"""Group commit without a thread: gather, write, sync, publish.

Owns: the queue of what is not durable yet, sequence numbers, the order of a commit, what happens after an error. Refuses to
know: threads, sleeping, where the time comes from; `writer` drives it, simulations drive it step by step.

Specification: docs/journal-format.md, "Writing".

Theory of operation: `append` numbers a record and queues it. `step`, called when `due_ns` says so, takes what has gathered,
writes it to the open segment, syncs, and only then publishes the sequence number that everything up to is durable. After an
error the segment is given up for ever, because a kernel that failed a sync reports success to the next one without having
written anything; the batch goes to a new segment under the same sequence numbers, and readers drop what they meet twice. On
a full disk that segment is made of the reserve (`reserve`), so that calls in progress go on. A second error in a row, or a
full disk without a reserve, makes the state FAILED: the batch is kept, appends are taken up to a bound, and a new segment is
tried at fixed intervals. `append` and the getters may be called from any thread; `step`, `open` and `close` from one at a time.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aftertone.errors import BusyError, StateError, StorageError, StorageFullError
from aftertone.files import Files, LockHeldError
from aftertone.journal.floor import read_floor
from aftertone.journal.output import SegmentOutput
from aftertone.journal.record import HEADER_BYTES, MAX_PAYLOAD_BYTES, Kind, pack_header
from aftertone.journal.reserve import Reserve, says_full
from aftertone.journal.segment import (
    BLOCK_BYTES,
    BOOT_ID_BYTES,
    DATA_OFFSET,
    LAST_NUMBER,
    NO_FLOOR,
    Floor,
    SegmentHeader,
    SegmentName,
)
from aftertone.journal.stats import Histogram, WriterState, WriterStats

LOCK_NAME: Final = "lock"
SEGMENT_BYTES: Final = 16 * 1024 * 1024
COMMIT_INTERVAL_MS: Final = 50
QUEUE_BYTES: Final = 64 * 1024 * 1024
"""What may wait for the disk: about a minute of a hundred calls, and memory that a small board has."""
NOTES: Final = frozenset({Kind.REFUSED, Kind.SIGNALLING})
"""Kinds on which no promise rests: they may take half of the queue, so that the ends of calls always find the other half."""
RETRY_NS: Final = 2_000_000_000
_NOT_OURS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL})
"""Answers to the sync of a folder above: one that we may not read, or that cannot change, was not made by us."""


class JournalFull(BusyError):
    """The disk has not kept up and the queue is full; the record was not taken."""


class JournalInUse(StorageError):
    """Another process writes in this folder; waiting does not help, a person must choose."""

    retry = False


@dataclass(frozen=True, slots=True)
class _Waiting:
    sequence: int
    kind: int
    payload: bytes
    arrival_ns: int | None

    @property
    def cost_bytes(self) -> int:
        return HEADER_BYTES + len(self.payload)


class Committer:
    """The journal's writing side, one step at a time."""

    def __init__(
        self,
        files: Files,
        directory: Path,
        *,
        boot_id: bytes,
        notify: Callable[[int], None],
        clock_ns: Callable[[], int],
        segment_bytes: int = SEGMENT_BYTES,
        commit_interval_ms: int = COMMIT_INTERVAL_MS,
        queue_bytes: int = QUEUE_BYTES,
        reserve_bytes: int = 0,
        floor: Callable[[], Floor] = lambda: NO_FLOOR,
        resume: Callable[[Floor], None] = lambda _: None,
    ) -> None:
        """Remember the settings; nothing is touched before `open`, and the reserve is not made before `tend_reserve`.

        ``boot_id`` is 16 bytes that nobody outside can guess; ``notify`` hears each new durable sequence number on the
        thread that steps; ``clock_ns`` is monotonic. ``resume`` hears, on the thread that opens and before the first segment
        is made, what the journal of earlier epochs said of the time; ``floor`` is asked when a segment is made, for what its
        header says of the time before it. Raises ValueError for sizes that cannot work.
        """
        if len(boot_id) != BOOT_ID_BYTES:
            raise ValueError(f"a boot id has {BOOT_ID_BYTES} bytes")
        if segment_bytes < DATA_OFFSET + BLOCK_BYTES:
            raise ValueError("a segment has room for its header and one block at least")
        self._files = files
        self._directory = directory.absolute()
        self._boot_id = boot_id
        self._notify = notify
        self._clock_ns = clock_ns
        self._floor = floor
        self._resume = resume
        self.found_floor = NO_FLOOR
        """What the journal of earlier epochs said of the time; known when `open` has returned."""
        self._segment_bytes = segment_bytes
        self._interval_ns = commit_interval_ms * 1_000_000
        self._queue_limit_bytes = queue_bytes
        self._reserve = Reserve(files, self._directory, reserve_bytes)
        self._mutex = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []
        self._queued_bytes = 0
        self._urgent = False
        self._oldest_queued_ns: int | None = None
        self._oldest_batch_ns: int | None = None
        self._longest_wait_ns = 0
        self._state = WriterState.CLOSED
        self._epoch = 0
        self._appended = 0
        self._durable = 0
        self._began_ns = 0
        self._retry_ns = 0
        self._lock_handle: int | None = None
        self._segment: SegmentOutput | None = None
        self._number = 0
        self._worthless: list[Path] = []
        self._histogram = Histogram()
        self._commits = 0
        self._written_bytes = 0
        self._retired = 0
        self._last_error = ""
        self._full = False
        """The last error said that there is no room."""

    # -- opening

    def open(self) -> int:
        """Take the folder, begin a new epoch with a new segment, and return the epoch.

        On return the segment, its name and the folders above it are durable. Raises JournalInUse when another process
        holds the folder (the message names it), StorageFullError when there is no room for a segment, StorageError when two
        in a row could not be made; nothing stays open or locked then, and it may be tried again. The reserve is not
        touched: no call is in progress yet. Raises StateError when open already.
        """
        if self._state is not WriterState.CLOSED or self._epoch:
            raise StateError(f"the journal in {self._directory} was opened before: make a new writer for a new epoch")
        try:
            self._make_directories()
            self._lock_handle = self._files.lock(self._directory / LOCK_NAME)
            listed = self._files.list_directory(self._directory)
            self.found_floor = read_floor(self._files, self._directory, listed)
            self._resume(self.found_floor)
            self._epoch = self._next_epoch(listed)
            try:
                self._segment = self._new_segment()
            except OSError as error:
                self._retire(error)
                self._segment = self._new_segment()
        except LockHeldError as error:
            holder = "another process" if error.pid is None else f"process {error.pid}"
            raise JournalInUse(
                f"the journal in {self._directory} is in use by {holder}: stop it, or give this line its own folder"
            ) from error
        except OSError as error:
            kind = StorageFullError if says_full(error) else StorageError
            raise kind(f"the journal in {self._directory} cannot be opened: {error}") from error
        finally:
            if self._segment is None:
                self._epoch = self._number = 0
                self._release()
        self._began_ns = self._clock_ns() - self._interval_ns
        self._reserve.look()
        with self._mutex:
            self._full = False
            self._state = WriterState.OK
        return self._epoch

    def _make_directories(self) -> None:
        # Every name on the way is synced at each start and not only when it was made just now: the process that made it
        # may have died before its sync.
        chain = [self._directory, *self._directory.parents]
        for path in reversed(chain[:-1]):
            self._files.make_directory(path)
        for path in chain[1:]:
            try:
                self._files.sync_directory(path)
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise

    def _next_epoch(self, listed: list[str]) -> int:
        names = (SegmentName.parse(name, aside=True) for name in listed)
        epoch = max((name.epoch for name in names if name is not None), default=0) + 1
        if epoch > LAST_NUMBER:
            raise StorageError(f"the journal in {self._directory} has used up its epochs: move its segments away")
        return epoch

    # -- appending

    def append(self, kind: Kind, payload: bytes, *, arrival_ns: int | None = None, urgent: bool = False) -> int:
        """Queue a record and return its sequence number; it is durable once that number is published.

        Any thread; never waits for the disk. ``arrival_ns`` is the monotonic arrival time of the oldest sound in it;
        ``urgent`` asks for a commit now. Raises JournalFull beyond the queue's bound, which is half as much for ``NOTES``,
        ValueError for a payload above 4 MiB or a kind that no record has, StateError when the journal is not open.
        """
        # Whatever could fail when the record is framed has to fail here: in the writer it would stop everybody's calls.
        payload = bytes(payload)
        if not 0 < kind <= 255:
            raise ValueError(f"a record's kind is a number from 1 to 255, not {kind}")
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a record holds at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}")
        with self._mutex:
            if self._state is WriterState.CLOSED:
                raise StateError("the journal is not open")
            limit_bytes = self._queue_limit_bytes // 2 if kind in NOTES else self._queue_limit_bytes
            if self._queued_bytes + HEADER_BYTES + len(payload) > limit_bytes:
                raise JournalFull(
                    f"the disk under {self._directory} has not kept up: {self._queued_bytes} bytes wait to be written"
                )
            self._appended += 1
            self._queue.append(_Waiting(self._appended, kind, payload, arrival_ns))
            self._queued_bytes += HEADER_BYTES + len(payload)
            self._urgent = self._urgent or urgent
            self._oldest_queued_ns = _oldest(self._oldest_queued_ns, arrival_ns)
            return self._appended

    # -- committing

    def due_ns(self) -> int | None:
        """Return the monotonic time at which `step` has something to do, None while nothing waits. Any thread."""
        with self._mutex:
            if not self._queue and not self._batch:
                return None
            if self._state is WriterState.FAILED:
                return self._retry_ns
            return self._began_ns if self._urgent else self._began_ns + self._interval_ns

    def step(self) -> bool:
        """Commit what has gathered if that is due; True when something became durable. Never raises OSError."""
        due_ns = self.due_ns()
        if due_ns is None or self._clock_ns() < due_ns:
            return False
        return self._commit()

    def _commit(self) -> bool:
        with self._mutex:
            self._began_ns = self._clock_ns()
            if not self._batch:
                self._gather()
            attempts = 1 if self._state is WriterState.FAILED else 2
        reserve_tried = False
        while attempts:
            attempts -= 1
            try:
                self._write_batch()
            except (OSError, MemoryError) as error:
                self._retire(error)
                if self._full and not reserve_tried and self._reserve.look():
                    # A full disk is what the reserve is for, whichever attempt met it.
                    attempts, reserve_tried = max(attempts, 1), True
                continue
            self._publish()
            return True
        self._fail()
        return False

    def _gather(self) -> None:
        room_bytes = self._segment_bytes - DATA_OFFSET
        while self._queue and (not self._batch or self._queue[0].cost_bytes <= room_bytes):
            waiting = self._queue.popleft()
            room_bytes -= waiting.cost_bytes
            self._batch.append(waiting)
        self._oldest_batch_ns = _oldest(*(waiting.arrival_ns for waiting in self._batch))
        self._oldest_queued_ns = _oldest(*(waiting.arrival_ns for waiting in self._queue))
        self._urgent = bool(self._queue)  # what did not fit into one segment has waited long enough

    def _write_batch(self) -> None:
        batch_bytes = sum(waiting.cost_bytes for waiting in self._batch)
        segment = self._segment
        if segment is not None and not segment.is_empty and segment.size_bytes + batch_bytes > segment.limit_bytes:
            segment.abandon()
            segment = self._segment = None
        if segment is None:
            segment = self._segment = self._new_segment(spend_reserve=self._full)
        seed = segment.header.seed
        buffers: list[bytes] = []
        for waiting in self._batch:
            header = pack_header(
                waiting.kind,
                waiting.payload,
                seed=seed,
                epoch=self._epoch,
                sequence=waiting.sequence,
                durable=self._durable,
            )
            buffers += (header, waiting.payload)
        before_bytes = segment.size_bytes
        segment.write(buffers)
        began_ns = self._clock_ns()
        segment.sync()
        took_ns = self._clock_ns() - began_ns
        segment.acknowledged += 1
        with self._mutex:
            self._histogram.add(took_ns / 1e9)
            self._commits += 1
            self._written_bytes += segment.size_bytes - before_bytes

    def _publish(self) -> None:
        with self._mutex:
            self._durable = self._batch[-1].sequence
            self._queued_bytes -= sum(waiting.cost_bytes for waiting in self._batch)
            self._batch = []
            if self._oldest_batch_ns is not None:
                self._longest_wait_ns = max(self._longest_wait_ns, self._clock_ns() - self._oldest_batch_ns)
            self._oldest_batch_ns = None
            self._state = WriterState.OK
            self._full = False
            durable = self._durable
        self._notify(durable)

    # -- segments

    def tend_reserve(self, keep_free_bytes: int) -> None:
        """Make the reserve if it is missing and ``keep_free_bytes`` stay free beside it. On the thread that steps.

        Durable on return when `stats` says that it is there; never raises for the disk, `stats` says what is wrong.
        """
        if self._state is WriterState.OK:
            self._reserve.tend(keep_free_bytes, self._clock_ns())

    def _new_segment(self, *, spend_reserve: bool = False) -> SegmentOutput:
        if self._number >= LAST_NUMBER:
            raise StorageError(f"epoch {self._epoch} of the journal has used up its segment numbers: restart the line")
        self._number += 1
        now, found = self._floor(), self.found_floor
        floor = Floor(max(now.id_ms, found.id_ms), now.clock_ms or found.clock_ms)
        header = SegmentHeader(SegmentName(self._epoch, self._number), self._boot_id, self._durable + 1, floor=floor)
        limit_bytes = self._segment_bytes
        segment = None
        if spend_reserve:
            limit_bytes = max(limit_bytes, self._reserve.look())
            segment = self._reserve.become(header)
        if segment is None:
            segment = SegmentOutput.create(self._files, self._directory, header)
        # A file that could not be made is not in the list of those to remove: its name may be given again, when opening
        # is tried once more, and then it is the segment that holds everything.
        try:
            segment.settle()
            # From here on the new name is durable, so an empty predecessor is not needed to remember the epoch. On a full
            # disk this keeps one file of a row of failed attempts, not thousands.
            self._drop_worthless()
            segment.prepare(limit_bytes)
        except BaseException:
            segment.abandon()
            self._worthless.append(segment.path)
            raise
        return segment

    def _drop_worthless(self) -> None:
        for path in self._worthless:
            with contextlib.suppress(OSError):
                self._files.unlink(path)
        self._worthless = []

    def _retire(self, error: BaseException) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.abandon()
            if not segment.acknowledged:
                self._worthless.append(segment.path)
        with self._mutex:
            self._retired += 1
            self._last_error = f"{type(error).__name__}: {error}"
            self._full = says_full(error)

    def _fail(self) -> None:
        with self._mutex:
            self._state = WriterState.FAILED
            self._retry_ns = self._clock_ns() + RETRY_NS

    def give_up_segment(self, error: BaseException) -> None:
        """Treat an error that nobody foresaw like two failed writes, so that a driving thread goes on trying."""
        self._retire(error)
        self._fail()

    # -- closing

    def close(self) -> None:
        """Commit everything, then give the folder back. Closing twice does nothing.

        Raises StorageError when something could not be made durable; the folder is given back all the same.
        """
        if self._state is WriterState.CLOSED:
            return
        try:
            while self.due_ns() is not None and self._commit():
                pass
        finally:
            with self._mutex:
                left = self._appended - self._durable
                self._state = WriterState.CLOSED
            self._release()
        if left:
            raise StorageError(
                f"the journal in {self._directory} was closed with {left} records that the disk did not take: "
                f"{self._last_error}"
            )

    def _release(self) -> None:
        if self._segment is not None:
            self._segment.abandon()
            self._segment = None
        if self._lock_handle is not None:
            with contextlib.suppress(OSError):
                self._files.close(self._lock_handle)
            self._lock_handle = None

    # -- looking

    def durable_sequence(self) -> int:
        """Return the number up to which every record is durable; 0 before the first. Any thread."""
        with self._mutex:
            return self._durable

    def oldest_pending_ns(self) -> int | None:
        """Return the arrival time of the oldest sound that is not durable, None when all is. Any thread."""
        with self._mutex:
            return _oldest(self._oldest_queued_ns, self._oldest_batch_ns)

    def take_longest_wait_ns(self) -> int:
        """Return the longest time from a sound's arrival until it was durable, since this was asked last. Any thread."""
        with self._mutex:
            longest_ns, self._longest_wait_ns = self._longest_wait_ns, 0
        return longest_ns

    def free_bytes(self) -> int:
        """Return the free space under the journal in bytes; raises StorageError when the disk does not say."""
        try:
            return self._files.free_bytes(self._directory)
        except OSError as error:
            raise StorageError(f"the disk under {self._directory} does not tell its free space: {error}") from error

    def disk_bytes(self) -> int:
        """Return the size of the disk under the journal in bytes; raises StorageError when it does not say."""
        try:
            return self._files.disk_bytes(self._directory)
        except OSError as error:
            raise StorageError(f"the disk under {self._directory} does not tell its size: {error}") from error

    def stats(self) -> WriterStats:
        """Return a snapshot of the figures. Any thread."""
        segment = self._segment
        with self._mutex:
            return WriterStats(
                state=self._state,
                epoch=self._epoch,
                segment="" if segment is None else str(segment.header.name),
                appended_sequence=self._appended,
                durable_sequence=self._durable,
                queued_bytes=self._queued_bytes,
                commits=self._commits,
                written_bytes=self._written_bytes,
                retired_segments=self._retired,
                last_error=self._last_error,
                full=self._full,
                reserve_bytes=self._reserve.held_bytes,
                reserve_why=self._reserve.why,
                sync_counts=tuple(self._histogram.counts),
                sync_sum_s=self._histogram.sum_s,
            )


def _oldest(*times_ns: int | None) -> int | None:
    return min((time_ns for time_ns in times_ns if time_ns is not None), default=None)
