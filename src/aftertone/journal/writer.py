"""The journal's writer: one thread that drives the committer.

Owns: the thread, when it sleeps and wakes. Refuses to know: how a commit works (`committer`).

Theory of operation: the thread sleeps until the committer says that something is due. An append that is urgent, or the
first one after a pause, wakes it; every other append only takes a mutex. The thread is the only one that touches the disk.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from aftertone.errors import StateError
from aftertone.files import Files
from aftertone.journal.committer import COMMIT_INTERVAL_MS, QUEUE_BYTES, SEGMENT_BYTES, Committer
from aftertone.journal.record import Kind
from aftertone.journal.segment import NO_FLOOR, Floor
from aftertone.journal.stats import WriterStats

_log = logging.getLogger(__name__)


class JournalWriter:
    """Appends records to a journal folder and says when they are durable. Good for one epoch: `open`, then `close`."""

    def __init__(
        self,
        files: Files,
        directory: Path,
        *,
        boot_id: bytes,
        notify: Callable[[int], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        segment_bytes: int = SEGMENT_BYTES,
        commit_interval_ms: int = COMMIT_INTERVAL_MS,
        queue_bytes: int = QUEUE_BYTES,
        reserve_bytes: int = 0,
        floor: Callable[[], Floor] = lambda: NO_FLOOR,
        resume: Callable[[Floor], None] = lambda _: None,
    ) -> None:
        """Remember the settings.

        ``notify`` is called on the writer thread with each new durable sequence number; it must be quick, and what it
        raises is logged and otherwise ignored. ``boot_id``: see `files.machine_boot_id`. ``floor`` is asked on the writer
        thread when a segment is made, and before that once on the thread that opens.
        """
        self._heard = notify
        self._clock_ns = clock_ns
        self._committer = Committer(
            files,
            directory,
            boot_id=boot_id,
            notify=self._tell,
            clock_ns=clock_ns,
            segment_bytes=segment_bytes,
            commit_interval_ms=commit_interval_ms,
            queue_bytes=queue_bytes,
            reserve_bytes=reserve_bytes,
            floor=floor,
            resume=resume,
        )
        self._wake = threading.Condition()
        self._sleeping_long = False
        self._stopping = False
        self._keep_free_bytes: int | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def open(self) -> int:
        """Take the folder, begin a new epoch, start the thread, and return the epoch. Errors: see `Committer.open`."""
        epoch = self._committer.open()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()
        return epoch

    def append(self, kind: Kind, payload: bytes, *, arrival_ns: int | None = None, urgent: bool = False) -> int:
        """Queue a record and return its sequence number; durable once `notify` heard that number or a higher one.

        Any thread; never waits for the disk. ``arrival_ns`` is the monotonic arrival time of the oldest sound in the
        record; ``urgent`` asks for a commit now and not at the next interval. Raises JournalFull beyond the queue's bound,
        ValueError for a payload above 4 MiB, StateError when the journal is not open, and in a forked child, which has no
        writer thread.
        """
        if not self._pid:
            raise StateError("the journal is not open")
        if os.getpid() != self._pid:
            raise StateError("the journal is not open in this process: a forked child must not write to it")
        sequence = self._committer.append(kind, payload, arrival_ns=arrival_ns, urgent=urgent)
        if urgent or self._sleeping_long:
            with self._wake:
                self._wake.notify()
        return sequence

    def durable_sequence(self) -> int:
        """Return the number up to which every record is durable; 0 before the first. Any thread."""
        return self._committer.durable_sequence()

    def oldest_pending_ns(self) -> int | None:
        """Return the arrival time of the oldest sound that is not durable yet, None when all is. Any thread."""
        return self._committer.oldest_pending_ns()

    def take_longest_wait_ns(self) -> int:
        """Return the longest time from a sound's arrival until it was durable, since this was asked last. Any thread."""
        return self._committer.take_longest_wait_ns()

    def free_bytes(self) -> int:
        """Return the free space under the journal in bytes; raises StorageError when the disk does not say."""
        return self._committer.free_bytes()

    def disk_bytes(self) -> int:
        """Return the size of the disk under the journal in bytes; raises StorageError when it does not say."""
        return self._committer.disk_bytes()

    def keep_reserve(self, keep_free_bytes: int) -> None:
        """Have the reserve made if it is missing and ``keep_free_bytes`` stay free beside it; `stats` tells what came of it.

        Any thread; returns at once. While the journal is not open it is done after `open`.
        """
        with self._wake:
            self._keep_free_bytes = keep_free_bytes
            self._wake.notify()

    def stats(self) -> WriterStats:
        """Return a snapshot of the figures. Any thread."""
        return self._committer.stats()

    def close(self) -> None:
        """Stop the thread, commit everything, give the folder back. Closing twice does nothing.

        Raises StorageError when something could not be made durable; the folder is given back all the same.
        """
        if self._thread is None or os.getpid() != self._pid:
            return
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self._thread = None
        self._committer.close()

    def _run(self) -> None:
        while True:
            try:
                self._committer.step()
                if (keep_free_bytes := self._keep_free_bytes) is not None:
                    self._keep_free_bytes = None
                    self._committer.tend_reserve(keep_free_bytes)
            except Exception as error:  # a bug, but a dead thread would lose calls in silence
                _log.exception("the journal writer met an error that nobody foresaw")
                self._committer.give_up_segment(error)
            with self._wake:
                # Set before looking: an append after the look finds the flag and wakes us, one before it is seen.
                self._sleeping_long = True
                due_ns = self._committer.due_ns()
                if self._stopping:
                    return
                if self._keep_free_bytes is not None:
                    continue
                if due_ns is None:
                    self._wake.wait()
                else:
                    self._sleeping_long = False
                    self._wake.wait(max(0, due_ns - self._clock_ns()) / 1e9)
                self._sleeping_long = False

    def _tell(self, durable_sequence: int) -> None:
        try:
            self._heard(durable_sequence)
        except Exception:  # the records are durable all the same
            _log.exception("the journal could not tell that record %d is durable", durable_sequence)
