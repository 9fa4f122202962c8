"""The journal: what was heard, written down before anything else happens with it.

Owns: the files under the journal folder, their format, their durability. Refuses to know: calls, codecs, messages.

Specification: docs/journal-format.md. Start reading at `committer` (how something becomes durable) and `reader` (how it is
found again).
"""

from __future__ import annotations

from aftertone.journal.batch import BATCH_BYTES, ROW_BYTES, PacketBatch, join_batches, pack_batch, unpack_batch
from aftertone.journal.committer import JournalFull
from aftertone.journal.entry import Entry, unpack
from aftertone.journal.floor import read_floor
from aftertone.journal.reader import Damage, JournalReader
from aftertone.journal.record import MAX_PAYLOAD_BYTES, Begin, End, Event, Kind, Record, Refused, Signalling
from aftertone.journal.segment import Floor, SegmentName
from aftertone.journal.stats import SYNC_BOUNDS_S, WriterState, WriterStats
from aftertone.journal.writer import JournalWriter

__all__ = [
    "BATCH_BYTES",
    "MAX_PAYLOAD_BYTES",
    "ROW_BYTES",
    "SYNC_BOUNDS_S",
    "Begin",
    "Damage",
    "End",
    "Entry",
    "Event",
    "Floor",
    "JournalFull",
    "JournalReader",
    "JournalWriter",
    "Kind",
    "PacketBatch",
    "Record",
    "Refused",
    "SegmentName",
    "Signalling",
    "WriterState",
    "WriterStats",
    "join_batches",
    "pack_batch",
    "read_floor",
    "unpack",
    "unpack_batch",
]
