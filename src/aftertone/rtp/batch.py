"""RTP headers of a whole batch of datagrams at once.

Owns: the checks that make a datagram an RTP packet and where its payload lies. Refuses to know: calls, codecs, sources.

Theory of operation: the batch is a matrix of bytes, one datagram a row. The fixed header is read as three big-endian words
a row; header extensions and padding, which are rare, are worked out for the rows that have them. Nothing is copied but the
columns, and no datagram can raise: what is no RTP has ``valid`` False, and the reasons are counted.

RTP and RTCP may share a port. A second byte of 192 to 223 is RTCP (RFC 5761 section 4), which costs RTP the payload types
64 to 95 with the marker set; nobody may assign those.

Spec: RFC 3550 section 5.1 and appendix A.1, RFC 5761.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

HEADER_BYTES: Final = 12
_PADDING: Final = 0x20
_EXTENSION: Final = 0x10


@dataclass(frozen=True, slots=True)
class Refusals:
    """How many datagrams of a batch were no RTP, each counted once under the first reason that applies."""

    length: int
    """Shorter than a header, or longer than a row: cut off by the receiver."""
    version: int
    rtcp: int
    """Not an error: see ``Headers.rtcp``."""
    shape: int
    """Contributing sources, extension or padding that reach beyond the end."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Columns over the rows of a batch. Where ``valid`` is False, both payload bounds are 0 and the rest means nothing."""

    valid: npt.NDArray[np.bool_]
    payload_type: npt.NDArray[np.uint8]
    marker: npt.NDArray[np.bool_]
    sequence: npt.NDArray[np.uint16]
    timestamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    payload_start: npt.NDArray[np.int32]
    payload_end: npt.NDArray[np.int32]
    """One past the last byte of the payload, which may be empty."""
    rtcp: npt.NDArray[np.bool_]
    """Rows that are RTCP on the RTP port: for ``aftertone.rtp.rtcp.parse``."""
    refusals: Refusals


def parse(arena: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int32]) -> Headers:
    """Read the RTP headers of ``arena`` (uint8[N, W], W >= 12), whose row i holds a datagram of ``lengths[i]`` bytes.

    The arena is only read, and the columns share no memory with it. Rows are untrusted in every byte, and what lies beyond
    a datagram's end may be anything. A length that is negative or larger than W makes the row invalid. Raises ValueError
    when the shapes do not fit, which is the caller's mistake.
    """
    if arena.ndim != 2 or arena.shape[1] < HEADER_BYTES or lengths.shape != arena.shape[:1]:
        raise ValueError(f"arena {arena.shape} and lengths {lengths.shape} are no batch of datagrams")
    words = np.ascontiguousarray(arena[:, :HEADER_BYTES]).view(">u4").astype(np.uint32)
    first = words[:, 0]
    flags = (first >> 24).astype(np.uint8)
    second = ((first >> 16) & 0xFF).astype(np.uint8)

    whole = (lengths >= HEADER_BYTES) & (lengths <= arena.shape[1])
    version_two = flags >> 6 == 2
    candidate = whole & version_two
    rtcp = candidate & (second >= 192) & (second <= 223)
    valid = candidate & ~rtcp
    candidates = int(np.count_nonzero(valid))

    start = HEADER_BYTES + 4 * (flags & 0x0F).astype(np.int32)
    end = lengths.astype(np.int32)
    _skip_extensions(arena, flags, start, end, valid)
    _drop_padding(arena, flags, start, end, valid)
    valid &= start <= end
    start *= valid
    end *= valid

    n = len(lengths)
    counted_whole = int(np.count_nonzero(whole))
    counted_version = int(np.count_nonzero(candidate))
    refusals = Refusals(
        length=n - counted_whole,
        version=counted_whole - counted_version,
        rtcp=counted_version - candidates,
        shape=candidates - int(np.count_nonzero(valid)),
    )
    return Headers(
        valid=valid,
        payload_type=second & np.uint8(0x7F),
        marker=second >= 0x80,
        sequence=first.astype(np.uint16),
        timestamp=words[:, 1].copy(),
        ssrc=words[:, 2].copy(),
        payload_start=start,
        payload_end=end,
        rtcp=rtcp,
        refusals=refusals,
    )


def _skip_extensions(
    arena: npt.NDArray[np.uint8],
    flags: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int32],
    end: npt.NDArray[np.int32],
    valid: npt.NDArray[np.bool_],
) -> None:
    """Move ``start`` beyond the header extension of the rows that have one (RFC 3550 section 5.3.1)."""
    extended = ((flags & _EXTENSION) != 0) & valid
    if not extended.any():
        return
    rows = np.flatnonzero(extended)
    readable = start[rows] + 4 <= end[rows]
    valid[rows[~readable]] = False
    rows = rows[readable]
    at = start[rows]
    words = arena[rows, at + 2].astype(np.int32) << 8 | arena[rows, at + 3]
    start[rows] += 4 + 4 * words


def _drop_padding(
    arena: npt.NDArray[np.uint8],
    flags: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int32],
    end: npt.NDArray[np.int32],
    valid: npt.NDArray[np.bool_],
) -> None:
    """Move ``end`` before the padding of the rows that have some; its last byte counts it, itself included."""
    padded = ((flags & _PADDING) != 0) & valid
    if not padded.any():
        return
    rows = np.flatnonzero(padded)
    count = arena[rows, end[rows] - 1].astype(np.int32)
    sound = (count > 0) & (start[rows] + count <= end[rows])
    valid[rows[~sound]] = False
    end[rows] -= count
