"""G.711: mu-law and A-law by table.

Owns: the two companding laws as lookup tables and nothing else. Refuses to know: frames, rates and packets.

Specification: ITU-T G.711 (11/88), tables 1a to 2b.

Theory of operation: a code is sign, three bits of segment and four bits of position, sent inverted (mu-law: every bit;
A-law: every other bit). Expanding is a table of 256. Compressing is a table of 65536, filled once at import: every sample
takes the code whose expanded value is nearest. G.711 defines the laws on 14 bits, so the two lowest bits of a sample are
dropped first; ties then fall as they do in FFmpeg, with which the tables agree bit for bit.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.samples import Samples

_ULAW_INVERT: Final = 0xFF
_ALAW_INVERT: Final = 0xD5
"""0x55 inverts the even bits; 0x80 besides, because in A-law a set sign bit means positive."""


def _expand_ulaw() -> Samples:
    code = np.arange(256, dtype=np.int32) ^ _ULAW_INVERT
    segment, position = code >> 4 & 7, code & 15
    magnitude = (((position << 3) + 132) << segment) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _expand_alaw() -> Samples:
    code = np.arange(256, dtype=np.int32) ^ _ALAW_INVERT
    segment, position = code >> 4 & 7, code & 15
    linear = (position << 4) + 8
    magnitude = np.where(segment == 0, linear, (linear + 256) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _compress(expanded: Samples, invert: int) -> NDArray[np.uint8]:
    """Return the code for every int16, indexed by the sample's 16 bits read as unsigned."""
    levels = expanded[np.arange(128) ^ invert].astype(np.int32)
    decisions = (levels[:-1] + levels[1:] + 4) >> 3  # midpoints, on the 14-bit scale
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32) >> 2
    code: NDArray[np.int64] = np.searchsorted(decisions, np.abs(sample), side="right")
    negative = np.where(sample < 0, 0x80, 0)
    return ((code | negative) ^ invert).astype(np.uint8)


ULAW_TO_LINEAR: Final = _expand_ulaw()
"""int16[256]: the sample that each mu-law code stands for."""

ALAW_TO_LINEAR: Final = _expand_alaw()
"""int16[256]: the sample that each A-law code stands for."""

_LINEAR_TO_ULAW: Final = _compress(ULAW_TO_LINEAR, _ULAW_INVERT)
_LINEAR_TO_ALAW: Final = _compress(ALAW_TO_LINEAR, _ALAW_INVERT)

for _table in (ULAW_TO_LINEAR, ALAW_TO_LINEAR, _LINEAR_TO_ULAW, _LINEAR_TO_ALAW):
    _table.flags.writeable = False


def encode_ulaw(samples: Samples) -> NDArray[np.uint8]:
    """Compress int16 samples of any shape to mu-law codes of the same shape (a new array). Spec: G.711 table 2."""
    return _LINEAR_TO_ULAW[np.ascontiguousarray(samples, dtype=np.int16).view(np.uint16)]


def encode_alaw(samples: Samples) -> NDArray[np.uint8]:
    """Compress int16 samples of any shape to A-law codes of the same shape (a new array). Spec: G.711 table 1."""
    return _LINEAR_TO_ALAW[np.ascontiguousarray(samples, dtype=np.int16).view(np.uint16)]
