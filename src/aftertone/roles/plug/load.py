"""The load: the machine's own ways to write, without a pause, each confirmation told at once.

Owns: the order of writes, their pace, the measured syncs. Refuses to know: who hears of the confirmations, when it ends.

Theory of operation: as in the machine, the journal's writer thread commits groups of records while another thread stores a
file, then its row, then a mark on the row. ``confirmed`` is called after the call that made the thing durable has returned:
for records on the writer's thread, for all others on the caller's.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from aftertone.errors import StorageError
from aftertone.files import OsFiles, machine_boot_id
from aftertone.journal.record import Kind
from aftertone.journal.stats import WriterState
from aftertone.journal.writer import JournalWriter
from aftertone.model import Action
from aftertone.roles.plug.evidence import Scratch, file, message_id, record, row
from aftertone.roles.storage import percentile
from aftertone.store.blobs import DirectoryBlobs, message_key
from aftertone.store.catalog import Catalog

RECORDS_A_ROUND: Final = 8
ROUND_S: Final = 0.05
"""A round that was faster waits: a disk of any speed is asked for about half a megabyte a second."""
MOST_WAITING: Final = 1000
"""Records that may wait for the disk before a round waits for them."""
_SYNCS_KEPT: Final = 2000


class TimedFiles(OsFiles):
    """The kernel's calls, with the duration of each sync."""

    def __init__(self) -> None:
        self.sync_ms: deque[float] = deque(maxlen=_SYNCS_KEPT)

    def fdatasync(self, handle: int) -> None:
        """Call fdatasync once."""
        began_s = time.perf_counter()
        super().fdatasync(handle)
        self.sync_ms.append((time.perf_counter() - began_s) * 1000)


class Load:
    """Writes in ``scratch`` for the run of that name."""

    def __init__(self, scratch: Scratch, run: str, confirmed: Callable[[str, int], None]) -> None:
        self._scratch, self._run, self._confirmed = scratch, run, confirmed
        self._files = TimedFiles()
        self._durable = 0

    def sync_ms(self) -> tuple[float, float]:
        """Return p50 and p99 of the last syncs in milliseconds, 0 before the first. Any thread."""
        with contextlib.suppress(RuntimeError):  # the writer's thread added one while we copied
            times = sorted(self._files.sync_ms)
            return percentile(times, 0.5), percentile(times, 0.99)
        return 0.0, 0.0

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Write until ``goes_on``, asked before each round, says no; what was begun is finished and confirmed.

        Raises StorageError when the disk fails or is full, and whatever ``goes_on`` raises.
        """
        journal = JournalWriter(self._files, self._scratch.journal, boot_id=_boot_id(), notify=self._on_durable)
        blobs = DirectoryBlobs(self._scratch.blobs)
        catalog = Catalog.open(self._scratch.catalog)
        try:
            journal.open()
            try:
                self._write(journal, blobs, catalog, goes_on)
            finally:
                journal.close()
        finally:
            catalog.close()

    def _write(
        self, journal: JournalWriter, blobs: DirectoryBlobs, catalog: Catalog, goes_on: Callable[[], bool]
    ) -> None:
        number = sequence = 0
        while goes_on():
            began_s = time.monotonic()
            number += 1
            for _ in range(RECORDS_A_ROUND if sequence - self._durable < MOST_WAITING else 0):
                sequence = journal.append(Kind.PACKETS, record(self._run, sequence + 1))
            key = message_key(message_id(self._run, number))
            facts = blobs.put(key, file(self._run, number))
            self._confirmed("file", number)
            message = row(self._run, number, facts)
            catalog.record_delivery(message)
            self._confirmed("row", number)
            catalog.act(message.id, Action.HEAR, message.delivered_unix_ms)
            self._confirmed("mark", number)
            stats = journal.stats()
            if stats.state is not WriterState.OK:
                raise StorageError(f"the disk under {self._scratch.root} failed: {stats.last_error}")
            time.sleep(max(0.0, began_s + ROUND_S - time.monotonic()))

    def _on_durable(self, sequence: int) -> None:
        self._durable = sequence
        self._confirmed("record", sequence)


def _boot_id() -> bytes:
    try:
        return machine_boot_id()
    except OSError:
        return secrets.token_bytes(16)
