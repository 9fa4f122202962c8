"""Reports of many calls at once, as rows of bytes.

Owns: the compounds that we send: a sender's or a receiver's report with at most one block, and our CNAME. Refuses to know: clocks,
sockets, what the figures mean; one compound as an object is in ``rtcp``.

Theory of operation: all compounds are cut from one layout of 20 words: sender's part, block, source description. What a call does
not have is left out, so there are four shapes, and each is written for all its rows with one assignment. Every CNAME has 16
characters, 96 random bits (RFC 7022 section 4.2), which is why the layout is fixed.

Spec: RFC 3550 sections 6.1, 6.4 and 6.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aftertone.rtp.rtcp import RECEIVER_REPORT, SENDER_REPORT, SOURCE_DESCRIPTION

CNAME_BYTES: Final = 16
LONGEST_BYTES: Final = 80
_HEAD: Final = (0, 1)
_SENDER: Final = (2, 3, 4, 5, 6)
_BLOCK: Final = (7, 8, 9, 10, 11, 12)
_NAME: Final = (13, 14, 15, 16, 17, 18, 19)
_MOST_LOST: Final = 0x7FFFFF
_LEAST_LOST: Final = -0x800000

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Figures:
    """Columns over the calls that report."""

    ssrc: Ints
    """Ours."""
    cname: npt.NDArray[np.uint8]
    """uint8[n, 16]"""
    sends: Flags
    """Whether we sent something since the last report: then ours is a sender's."""
    ntp: npt.NDArray[np.uint64]
    timestamp: Ints
    packets: Ints
    octets: Ints
    """Counts are cut to 32 bits."""
    hears: Flags
    """Whether anything came, so that there is a block."""
    blocks: Ints
    """int64[n, 5], as ``Reception.blocks`` returns it."""
    last_report: Ints
    delay: Ints


def write_compounds(figures: Figures) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return uint8[n, 80] and the length of each row."""
    count = len(figures.ssrc)
    words = np.empty((count, LONGEST_BYTES // 4), np.int64)
    words[:, 1] = words[:, 14] = figures.ssrc
    words[:, 2] = (figures.ntp >> np.uint64(32)).astype(np.int64)
    words[:, 3] = (figures.ntp & np.uint64(0xFFFFFFFF)).astype(np.int64)
    words[:, 4], words[:, 5], words[:, 6] = figures.timestamp, figures.packets, figures.octets
    source, fraction, lost, highest, jitter = figures.blocks.T
    words[:, 7], words[:, 9], words[:, 10] = source, highest, jitter
    words[:, 8] = fraction << 24 | np.clip(lost, _LEAST_LOST, _MOST_LOST) & 0xFFFFFF
    words[:, 11], words[:, 12] = figures.last_report, figures.delay
    words[:, 13] = 0x81 << 24 | SOURCE_DESCRIPTION << 16 | len(_NAME) - 1
    rows = (words & 0xFFFFFFFF).astype(">u4").view(np.uint8).reshape(count, LONGEST_BYTES)
    # Type and length of the name stand in two bytes, so it does not begin on a word; two zeros end the chunk.
    rows[:, 60:62] = (1, CNAME_BYTES)
    rows[:, 62:78] = figures.cname
    rows[:, 78:] = 0
    out = np.zeros((count, LONGEST_BYTES), np.uint8)
    lengths = np.zeros(count, np.int32)
    for sends in (True, False):
        for hears in (True, False):
            mine = np.flatnonzero((figures.sends == sends) & (figures.hears == hears))
            if not mine.size:
                continue
            report = (*_HEAD, *(_SENDER if sends else ()), *(_BLOCK if hears else ()))
            kind = SENDER_REPORT if sends else RECEIVER_REPORT
            taken = rows[mine].reshape(len(mine), -1, 4)[:, (*report, *_NAME)]
            taken[:, 0] = (0x80 | hears, kind, 0, len(report) - 1)
            lengths[mine] = 4 * taken.shape[1]
            out[mine, : 4 * taken.shape[1]] = taken.reshape(len(mine), -1)
    return out, lengths
