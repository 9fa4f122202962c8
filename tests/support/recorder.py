"""A line without calls: writes a real journal, record by record, in one thread."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from aftertone.files import OsFiles
from aftertone.journal import Begin, End, Event, Kind, PacketBatch, Refused, pack_batch
from aftertone.journal.committer import Committer
from aftertone.journal.segment import NO_FLOOR, Floor
from aftertone.model import Caller, EndReason, Envelope
from tests.support.recordings import Row, a_batch

BOOT_ID = bytes(range(16))


class Recorder:
    """One epoch of a journal. Everything is committed at once."""

    def __init__(
        self, folder: Path, *, segment_bytes: int = 1 << 20, floor: Callable[[], Floor] = lambda: NO_FLOOR
    ) -> None:
        ticks = itertools.count(10**12, 10**9)
        self.committer = Committer(
            OsFiles(),
            folder,
            boot_id=BOOT_ID,
            notify=lambda _: None,
            clock_ns=lambda: next(ticks),
            segment_bytes=segment_bytes,
            floor=floor,
        )
        self.epoch = self.committer.open()

    def write(self, kind: Kind, payload: bytes) -> None:
        """Write one record."""
        self.committer.append(kind, payload)
        while self.committer.due_ns() is not None:
            self.committer.step()

    def begin(self, envelope: Envelope, call: int = 7) -> None:
        """Begin a recording."""
        text = json.dumps(envelope.to_json()).encode()
        self.write(Kind.BEGIN, Begin(envelope.id, call, text, b"INVITE", 10**9, envelope.started_unix_ms).pack())

    def packets(self, rows: Sequence[Row], call: int = 7, *, each: int = 10) -> None:
        """Write packets, ``each`` in a record."""
        for start in range(0, len(rows), each):
            self.batch(a_batch(rows[start : start + each], call))

    def batch(self, batch: PacketBatch) -> None:
        """Write one batch."""
        self.write(Kind.PACKETS, pack_batch(batch))

    def key(self, digit: str, call: int = 7) -> None:
        """Write that a key was pressed."""
        self.write(Kind.EVENT, Event(call, 2 * 10**9, "digit", digit).pack())

    def end(self, call: int = 7, reason: str = EndReason.CALLER_HUNG_UP, last_sound_ns: int = 0) -> None:
        """End a recording."""
        self.write(Kind.END, End(call, 9 * 10**9, 1_750_000_009_000, reason, last_sound_ns).pack())

    def recording(self, envelope: Envelope, rows: Sequence[Row], call: int = 7) -> None:
        """Write a whole recording."""
        self.begin(envelope, call)
        self.packets(rows, call)
        self.end(call)

    def refuse(self, number: int, status: int = 486) -> None:
        """Write that a call was refused."""
        refused = Refused(UUID(int=number), 1_750_000_000_000, status, "busy", Caller("1", "Eve"), "sip:x@example.com")
        self.write(Kind.REFUSED, refused.pack())

    def stop(self) -> None:
        """Let go of the folder, as the end of a process does."""
        self.committer.close()
