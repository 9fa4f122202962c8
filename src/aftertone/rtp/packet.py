"""RTP packets to be sent: one as bytes, or the headers of many in place.

Owns: the twelve bytes of a header without contributing sources, extension or padding, which is all that we send. Refuses
to know: when to send what.

Theory of operation: sequence numbers and timestamps are counted without wrapping by whoever sends and cut to 16 and 32
bits here, in one place.

Spec: RFC 3550 section 5.1.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from aftertone.rtp.batch import HEADER_BYTES

_HEADER: Final = struct.Struct("!BBHII")
_VERSION_TWO: Final = 0x80
_MARKER: Final = 0x80


def serialize(
    payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes, *, marker: bool = False
) -> bytes:
    """Return one packet. ``sequence`` and ``timestamp`` (in ticks of the clock rate) may have outgrown their fields."""
    second = payload_type | _MARKER if marker else payload_type
    return _HEADER.pack(_VERSION_TWO, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def write_header(
    buffer: bytearray | memoryview,
    offset: int,
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
    *,
    marker: bool = False,
) -> None:
    """Write one header into ``buffer[offset:offset + 12]``, whose payload is there already."""
    second = payload_type | _MARKER if marker else payload_type
    _HEADER.pack_into(buffer, offset, _VERSION_TWO, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)


def write_headers(
    arena: npt.NDArray[np.uint8],
    payload_type: npt.NDArray[np.uint8],
    sequence: npt.NDArray[np.int64],
    timestamp: npt.NDArray[np.int64],
    ssrc: npt.NDArray[np.uint32],
    marker: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Write a header into the first 12 bytes of each row of ``arena`` (uint8[N, W], W >= 12), one tick's packets at once.

    Sequence numbers and timestamps are cut to their fields. Raises ValueError when the shapes do not fit.
    """
    if arena.ndim != 2 or arena.shape[1] < HEADER_BYTES:
        raise ValueError(f"arena {arena.shape} has no room for headers")
    first = (sequence & 0xFFFF).astype(np.uint32) | _VERSION_TWO << 24
    first |= payload_type.astype(np.uint32) << 16
    if marker is not None:
        first |= marker.astype(np.uint32) << 23
    words = np.empty((len(arena), 3), dtype=">u4")
    words[:, 0] = first
    words[:, 1] = timestamp & 0xFFFFFFFF
    words[:, 2] = ssrc
    arena[:, :HEADER_BYTES] = words.view(np.uint8)
