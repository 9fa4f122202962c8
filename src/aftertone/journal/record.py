"""Records: the frame that every entry of the journal has, and the payloads of the small kinds.

Owns: the record header, its two checksums, the kinds, and how begin, event, end, refused and signalling records are packed. Refuses to
know: files and segments; the columns of packet records are in `batch`.

Specification: docs/journal-format.md. CRC-32C is the Castagnoli polynomial of RFC 3720 section 12.1.

Theory of operation: both checksums start from a seed that belongs to one segment and that no caller can know. So bytes
that arrived from the network never look like a record, even when a reader has to search for one inside a damaged segment,
and neither do stale disk blocks of another segment. The header has a checksum of its own, which makes its length safe to
follow and a false candidate cost 40 bytes and not 4 MiB.
"""

from __future__ import annotations

import enum
import json
import struct
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import google_crc32c

from aftertone.errors import DamagedError
from aftertone.model import Caller

MAGIC: Final = b"\xf5Atj"
RECORD_VERSION: Final = 1
MAX_PAYLOAD_BYTES: Final = 4 * 1024 * 1024
"""Longest payload: ten ticks of 2,000 calls. A length above it is damage, so a reader's memory stays bounded."""

_HEADER: Final = struct.Struct("<4sIIBBHQQII")
_CHECKED: Final = struct.Struct("<4sIIBBHQQ")
HEADER_BYTES: Final = _HEADER.size

_BEGIN: Final = struct.Struct("<16sIqqII")
_EVENT: Final = struct.Struct("<IqHH")
_END: Final = struct.Struct("<IqqqH")
_SIGNALLING: Final = struct.Struct("<16sII")


class Kind(enum.IntEnum):
    """What a record says. The numbers are stored: add, never renumber."""

    SEGMENT = 0
    """The header of a segment; never delivered by a reader."""
    BEGIN = 1
    PACKETS = 2
    EVENT = 3
    END = 4
    REFUSED = 5
    SIGNALLING = 6


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The fixed part of a record, whose own checksum held."""

    kind: int
    version: int
    length: int
    epoch: int
    sequence: int
    durable: int
    header_crc: int
    crc: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record as a reader delivers it, checksums verified."""

    kind: int
    """A `Kind`, or a number from a later version, which a consumer reports and skips."""
    epoch: int
    sequence: int
    """Counts from 1 in each epoch."""
    durable: int
    """Highest sequence that was durable when this record was written."""
    payload: bytes
    version: int = RECORD_VERSION


def extend_crc(crc: int, data: bytes) -> int:
    """Continue a CRC-32C over ``data``."""
    return int(google_crc32c.extend(crc, data))


def pack_header(kind: int, payload: bytes, *, seed: int, epoch: int, sequence: int, durable: int) -> bytes:
    """Return the 40 bytes that stand before ``payload``; raises ValueError when the payload is too long."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a record holds at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}")
    checked = _CHECKED.pack(MAGIC, len(payload), epoch, kind, RECORD_VERSION, 0, sequence, durable)
    header_crc = extend_crc(seed, checked)
    return checked + struct.pack("<II", header_crc, extend_crc(header_crc, payload))


def parse_header(data: bytes, offset: int, *, seed: int, epoch: int) -> RecordHeader | None:
    """Read the header at ``offset``, or return None when no header of this segment stands there."""
    if not data.startswith(MAGIC, offset) or len(data) - offset < HEADER_BYTES:
        return None
    _, length, found_epoch, kind, version, _, sequence, durable, header_crc, crc = _HEADER.unpack_from(data, offset)
    if length > MAX_PAYLOAD_BYTES or found_epoch != epoch:
        return None
    if extend_crc(seed, data[offset : offset + _CHECKED.size]) != header_crc:
        return None
    return RecordHeader(kind, version, length, found_epoch, sequence, durable, header_crc, crc)


def parse_record(header: RecordHeader, payload: bytes) -> Record | None:
    """Join a header and its payload, or return None when the payload is not what was written."""
    if len(payload) != header.length or extend_crc(header.header_crc, payload) != header.crc:
        return None
    return Record(header.kind, header.epoch, header.sequence, header.durable, payload, header.version)


@dataclass(frozen=True, slots=True)
class Begin:
    """A call was answered and will be recorded."""

    message_id: UUID
    call: int
    """Names the call in the records that follow; unique within the epoch, 32 bits."""
    envelope_json: bytes
    invite: bytes
    """The INVITE as it arrived, with asterisks in the place of keys for SRTP."""
    at_ns: int
    unix_ms: int

    def pack(self) -> bytes:
        """Return the payload of a begin record."""
        fixed = _BEGIN.pack(
            self.message_id.bytes, self.call, self.at_ns, self.unix_ms, len(self.envelope_json), len(self.invite)
        )
        return b"".join((fixed, self.envelope_json, self.invite))

    @staticmethod
    def unpack(payload: bytes) -> Begin:
        """Read what ``pack`` made; raises DamagedError on anything else."""
        fields = _unpack_fixed(_BEGIN, payload, "begin")
        envelope, invite = _split(payload, _BEGIN.size, (fields[4], fields[5]), "begin")
        return Begin(UUID(bytes=fields[0]), fields[1], envelope, invite, fields[2], fields[3])


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened in a call: a digit, a mark."""

    call: int
    at_ns: int
    name: str
    detail: str = ""

    def pack(self) -> bytes:
        """Return the payload of an event record; each text is at most 65,535 bytes of UTF-8 (struct.error beyond)."""
        name, detail = self.name.encode(), self.detail.encode()
        return b"".join((_EVENT.pack(self.call, self.at_ns, len(name), len(detail)), name, detail))

    @staticmethod
    def unpack(payload: bytes) -> Event:
        """Read what ``pack`` made; raises DamagedError on anything else."""
        call, at_ns, name_bytes, detail_bytes = _unpack_fixed(_EVENT, payload, "event")
        name, detail = _split(payload, _EVENT.size, (name_bytes, detail_bytes), "event")
        return Event(call, at_ns, _text(name, "event"), _text(detail, "event"))


@dataclass(frozen=True, slots=True)
class End:
    """A recording ended on purpose. A call without one was cut off."""

    call: int
    at_ns: int
    unix_ms: int
    reason: str
    """A `model.EndReason` value."""
    last_sound_ns: int = 0
    """Arrival time of the last packet that belongs to the message; 0 means all of it does."""

    def pack(self) -> bytes:
        """Return the payload of an end record."""
        reason = self.reason.encode()
        return _END.pack(self.call, self.at_ns, self.unix_ms, self.last_sound_ns, len(reason)) + reason

    @staticmethod
    def unpack(payload: bytes) -> End:
        """Read what ``pack`` made; raises DamagedError on anything else."""
        call, at_ns, unix_ms, last_sound_ns, reason_bytes = _unpack_fixed(_END, payload, "end")
        (reason,) = _split(payload, _END.size, (reason_bytes,), "end")
        return End(call, at_ns, unix_ms, _text(reason, "end"), last_sound_ns)


@dataclass(frozen=True, slots=True)
class Refused:
    """An INVITE was refused for a reason that the owner should see."""

    id: UUID
    at_unix_ms: int
    status: int
    reason: str
    caller: Caller
    request_uri: str

    def pack(self) -> bytes:
        """Return the payload of a refused record: JSON in UTF-8."""
        return json.dumps(
            {
                "id": str(self.id),
                "at_unix_ms": self.at_unix_ms,
                "status": self.status,
                "reason": self.reason,
                "caller": {"number": self.caller.number, "name": self.caller.name},
                "request_uri": self.request_uri,
            },
            separators=(",", ":"),
        ).encode()

    @staticmethod
    def unpack(payload: bytes) -> Refused:
        """Read what ``pack`` made, ignoring keys it does not know; raises DamagedError on anything else."""
        try:
            data = json.loads(payload)
            caller = data["caller"]
            return Refused(
                UUID(data["id"]),
                int(data["at_unix_ms"]),
                int(data["status"]),
                str(data["reason"]),
                Caller(str(caller["number"]), str(caller["name"])),
                str(data["request_uri"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"a refused record of the journal cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Signalling:
    """What was said about a call on the wire, written when all of it was said. The call is known to be over by then."""

    message_id: UUID
    call: int
    document: bytes
    """As it is stored beside the message; see docs/storage.md. The journal does not read it."""

    def pack(self) -> bytes:
        """Return the payload of a signalling record."""
        return _SIGNALLING.pack(self.message_id.bytes, self.call, len(self.document)) + self.document

    @staticmethod
    def unpack(payload: bytes) -> Signalling:
        """Read what ``pack`` made; raises DamagedError on anything else."""
        message_id, call, document_bytes = _unpack_fixed(_SIGNALLING, payload, "signalling")
        (document,) = _split(payload, _SIGNALLING.size, (document_bytes,), "signalling")
        return Signalling(UUID(bytes=message_id), call, document)


def _unpack_fixed(layout: struct.Struct, payload: bytes, what: str) -> tuple[Any, ...]:
    if len(payload) < layout.size:
        raise DamagedError(f"a {what} record of the journal is too short: {len(payload)} bytes")
    return layout.unpack_from(payload)


def _split(payload: bytes, start: int, lengths: tuple[int, ...], what: str) -> list[bytes]:
    if start + sum(lengths) != len(payload):
        raise DamagedError(f"a {what} record of the journal does not add up: {len(payload)} bytes")
    parts = []
    for length in lengths:
        parts.append(payload[start : start + length])
        start += length
    return parts


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DamagedError(f"a {what} record of the journal holds text that is not UTF-8") from error
