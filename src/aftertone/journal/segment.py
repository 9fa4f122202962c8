"""Segments: their names and the header that each begins with.

Owns: file names, the header record and its second copy, the seed of a segment's checksums, the block that commits are
aligned to, and the floor under the clock that a header carries. Refuses to know: how segments are opened, written or read,
and what a clock is.

Specification: docs/journal-format.md.

Theory of operation: a segment is named by epoch and number, never by a clock. The first two blocks each hold the same
header record, because the header carries the boot id without which no checksum of the segment can be verified: one bad
block must not cost a segment. Records start at `DATA_OFFSET`; each commit starts at a multiple of `BLOCK_BYTES`, so that a
block that holds something acknowledged is never written again.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from aftertone.journal.record import HEADER_BYTES, Kind, extend_crc, pack_header, parse_header, parse_record

FORMAT_VERSION: Final = 1
BLOCK_BYTES: Final = 4096
"""The unit that disks and page caches write as a whole."""
DATA_OFFSET: Final = 2 * BLOCK_BYTES
BOOT_ID_BYTES: Final = 16
LAST_NUMBER: Final = 2**32 - 1
"""Highest epoch and highest segment number."""

_NAME: Final = re.compile(r"e([0-9a-f]{8})-n([0-9a-f]{8})\.journal(\.damaged)?")
_HEADER: Final = struct.Struct("<IIIQ16sQQ")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What a segment is called; compares in the order of writing."""

    epoch: int
    number: int

    def __str__(self) -> str:
        """Return the file name."""
        return f"e{self.epoch:08x}-n{self.number:08x}.journal"

    @property
    def aside(self) -> str:
        """The file name under which a damaged segment is kept for a person, and which no reader opens."""
        return f"{self}.damaged"

    @staticmethod
    def parse(file_name: str, *, aside: bool = False) -> SegmentName | None:
        """Read a file name; None for anything that is no segment. ``aside`` takes segments that were put aside too."""
        match = _NAME.fullmatch(file_name)
        if match is None or (match[3] and not aside):
            return None
        return SegmentName(int(match[1], 16), int(match[2], 16))


@dataclass(frozen=True, slots=True)
class Floor:
    """What is known of the time before a segment was made, so that a clock that starts again too low is noticed.

    0 in either field says that it is not known, as in headers that were written before these fields were.
    """

    id_ms: int = 0
    """No id that was minted before has a later time in it."""
    clock_ms: int = 0
    """What the wall clock was last taken for, milliseconds since 1970."""


NO_FLOOR: Final = Floor()


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What the first blocks of a segment say."""

    name: SegmentName
    boot_id: bytes
    """16 bytes that name the boot of the machine: monotonic times compare only within one."""
    first_sequence: int
    """Sequence of the first record that was to be written here; everything below it was durable before."""
    version: int = FORMAT_VERSION
    floor: Floor = NO_FLOOR

    @property
    def seed(self) -> int:
        """Where the checksums of this segment's records start."""
        return seed_of(self.boot_id, self.name)


def seed_of(boot_id: bytes, name: SegmentName) -> int:
    """Return the seed of a segment: different for each segment, unknown to anybody who cannot read the folder."""
    return extend_crc(0, boot_id + struct.pack("<II", name.epoch, name.number))


def pack_segment_header(header: SegmentHeader) -> bytes:
    """Return the first `DATA_OFFSET` bytes of a segment: the same block twice."""
    payload = _HEADER.pack(
        header.version,
        header.name.epoch,
        header.name.number,
        header.first_sequence,
        header.boot_id,
        header.floor.id_ms,
        header.floor.clock_ms,
    ).ljust(BLOCK_BYTES - HEADER_BYTES, b"\0")
    block = pack_header(Kind.SEGMENT, payload, seed=0, epoch=header.name.epoch, sequence=0, durable=0) + payload
    return block + block


def parse_segment_header(data: bytes, name: SegmentName) -> SegmentHeader | None:
    """Read the header from the first `DATA_OFFSET` bytes of a segment, from whichever copy is intact.

    None when neither is, or when both belong to another segment. A header of a later version is returned as it is; only
    its version means anything then.
    """
    for start in (0, BLOCK_BYTES):
        frame = parse_header(data, start, seed=0, epoch=name.epoch)
        if frame is None or frame.kind != Kind.SEGMENT or frame.length < _HEADER.size:
            continue
        payload_start = start + HEADER_BYTES
        record = parse_record(frame, data[payload_start : payload_start + frame.length])
        if record is None:
            continue
        version, epoch, number, first_sequence, boot_id, id_ms, clock_ms = _HEADER.unpack_from(record.payload)
        if (epoch, number) == (name.epoch, name.number):
            return SegmentHeader(name, boot_id, first_sequence, version, Floor(id_ms, clock_ms))
    return None
