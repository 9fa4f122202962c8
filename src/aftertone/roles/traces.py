"""Traces of the line's calls: into the journal when a call is over, into a file while somebody watches.

Owns: which calls are kept, the record of a finished one, and the lease and the file by which a watcher is served. Refuses to know:
what is blanked and how much is kept (``sip.trace``), and how a trace looks to a person.

Theory of operation: a call is kept from its first ring, so that no flood pushes it out, and is journalled when its last answer has
gone out. For that nobody waits and nothing fails: a trace that the journal does not take is gone. Whoever watches writes
``run/trace.json`` again and again, as a role does with its status; while that is fresh, the line appends what passes to
``run/trace.jsonl``, the last calls first, and a few times a second. The file has a bound; beyond it, it begins anew, which a
reader sees by its length. See decision 0027.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from aftertone.config import Trace
from aftertone.journal.record import Signalling
from aftertone.roles.clerk import Clerk
from aftertone.roles.clock import LineClock
from aftertone.roles.folder import Folder, read_status
from aftertone.roles.notes import Notes
from aftertone.sip.trace import CallTrace, Recorder, Traced, message_to_json, pack_trace

WATCHER: Final = "trace"
"""Name of the status by which a watcher says that it is there."""
FILE: Final = "trace.jsonl"
FILE_BYTES: Final = 4 * 1024 * 1024
"""Length at which the file begins anew: some thousand messages, so that no reader is left behind."""
FLUSH_S: Final = 0.2
FLUSH_BYTES: Final = 256 * 1024
"""What is written at once; messages beyond it are counted and not shown, for a watcher must not cost a caller anything."""


class Traces:
    """What becomes of the traces of one line. Everything happens on the event loop's thread."""

    def __init__(self, settings: Trace, recorder: Recorder, clock: LineClock) -> None:
        self.recorder = recorder
        self._is_kept, self._clock = settings.keep, clock

    def keep(self, call_id: str) -> None:
        """A call rings: it may become a message, with which its signalling is kept if that is wanted."""
        if self._is_kept:
            self.recorder.keep(call_id)

    def forget(self, call_id: str) -> None:
        """It did not; the trace is one of the last calls' from now on."""
        self.recorder.take(call_id)

    def keeps(self, call_id: str) -> bool:
        """Tell whether there is something to write about a call."""
        return self.recorder.keeps(call_id)

    def write(self, notes: Notes, message_id: UUID, call: int, call_id: str) -> None:
        """An answered call is over: journal what was said."""
        trace = self.recorder.take(call_id)
        if trace is None:
            return
        document = pack_trace(trace, now_ns=time.monotonic_ns(), unix_ms=self._clock.now().unix_ms)
        notes.signalling(Signalling(message_id, call, document))


class Watch:
    """Serves whoever watches, by files in the data folder. ``look`` is called once a second."""

    def __init__(
        self,
        folder: Folder,
        recorder: Recorder,
        *,
        clerk: Clerk,
        unix_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._folder, self._recorder, self._unix_us, self._clerk = folder, recorder, unix_us, clerk
        self._path = folder.run / FILE
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._offset_us = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._missed = 0
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def is_on(self) -> bool:
        """Tell whether somebody watches."""
        return self._timer is not None

    def look(self) -> None:
        """Begin when somebody watches, end when nobody does any more."""
        is_wanted = read_status(self._folder, WATCHER) is not None
        if is_wanted and not self.is_on:
            self._begin()
        elif not is_wanted and self.is_on:
            self.end()

    def end(self) -> None:
        """Stop writing, and leave nothing behind."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._recorder.watcher = None
        self._waiting, self._waiting_bytes = [], 0
        # In place of what may still wait to be appended.
        self._clerk.write(FILE, lambda: self._path.unlink(missing_ok=True))

    def _begin(self) -> None:
        self._offset_us = self._unix_us() - time.monotonic_ns() // 1000
        every = [(trace, message) for trace in self._recorder.latest() for message in trace.messages]
        for trace, message in sorted(every, key=lambda one: one[1].at_ns):
            self._heard(trace, message)
        self._recorder.watcher = self._heard
        self._flush()

    def _heard(self, trace: CallTrace, message: Traced) -> None:
        if self._waiting_bytes > FLUSH_BYTES:
            self._missed += 1
            return
        value = {
            "call_id": trace.call_id.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "is_call": trace.is_call,
            **message_to_json(message, self._offset_us),
        }
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _flush(self) -> None:
        self._timer = self._loop.call_later(FLUSH_S, self._flush)
        if not self._clerk.is_free(FILE):
            # The disk is slow: what comes meanwhile waits, and beyond FLUSH_BYTES is missed.
            return
        if self._missed:
            self._waiting.append(json.dumps({"missed": self._missed}).encode() + b"\n")
        data = b"".join(self._waiting)
        self._waiting, self._waiting_bytes, self._missed = [], 0, 0
        if data:
            self._clerk.write(FILE, lambda: self._append(data))

    def _append(self, data: bytes) -> None:
        # A disk that takes nothing costs the watcher what it would have seen, and nobody else anything.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size + len(data) > FILE_BYTES:
                    os.ftruncate(descriptor, 0)
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
