"""From a record to what it says.

Owns: the one table of kinds and their payloads. Refuses to know: files.

Theory of operation: framing never depends on the kind, so a reader delivers records of kinds and versions that it does not
know; here is where they are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aftertone.errors import DamagedError
from aftertone.journal.batch import PacketBatch, unpack_batch
from aftertone.journal.record import RECORD_VERSION, Begin, End, Event, Kind, Record, Refused, Signalling

Entry = Begin | PacketBatch | Event | End | Refused | Signalling

_UNPACK: Final[Mapping[int, Callable[[bytes], Entry]]] = {
    Kind.BEGIN: Begin.unpack,
    Kind.PACKETS: unpack_batch,
    Kind.EVENT: Event.unpack,
    Kind.END: End.unpack,
    Kind.REFUSED: Refused.unpack,
    Kind.SIGNALLING: Signalling.unpack,
}


def unpack(record: Record) -> Entry:
    """Return what a record says; raises DamagedError when its kind or version is unknown or its payload does not add up."""
    read = _UNPACK.get(record.kind)
    if read is None or record.version != RECORD_VERSION:
        raise DamagedError(
            f"record {record.sequence} of epoch {record.epoch} has kind {record.kind} in version {record.version}, "
            "which this version of Aftertone does not know: read it with the version that wrote it"
        )
    return read(record.payload)
