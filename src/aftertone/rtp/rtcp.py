"""Reports about streams and the farewell to them.

Owns: the RTCP packets of one call (receiver report, CNAME, BYE), the pause between them, and the parts of a peer's that say
something about our call. Refuses to know: clocks, the statistics behind a report, and many calls at once (``compounds``).

Theory of operation: what we send is a compound of the least that the standard allows, beginning with a report and naming us. The
pause is that for the least of bandwidths: a call has two members, whose reports at 5 s take a hundredth of its sound. What arrives is read as far as it makes sense: packets follow one another by their length field, reading stops
at the first that does not fit, types that are not known are stepped over, and nothing raises.

Spec: RFC 3550 sections 6.1 to 6.6, RFC 7022 (CNAME).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SENDER_REPORT: Final = 200
RECEIVER_REPORT: Final = 201
SOURCE_DESCRIPTION: Final = 202
GOODBYE: Final = 203

MAX_PACKETS: Final = 32
"""Packets of one compound that are read; a peer sends two to four."""
MAX_BLOCKS: Final = 31
"""Blocks that the five bits of a report can count."""
INTERVAL_NS: Final = 5_000_000_000
"""Least pause between reports, on average (RFC 3550 section 6.2)."""
COMPENSATION: Final = 1.21828
"""Euler's number less 1.5: by so much the standard's own timers are faster than they should be (section 6.3.1)."""
_CNAME: Final = 1
_BLOCK: Final = struct.Struct("!IIIIII")
_SENDER: Final = struct.Struct("!IQIII")
_WORD: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What one side received of the stream ``ssrc``."""

    ssrc: int
    fraction_lost: int
    """Lost since the last report, in 256ths: 0 to 255."""
    packets_lost: int
    """Lost since the beginning; negative when more arrived than were expected. Cut to 24 bits with sign on the wire."""
    highest_sequence: int
    """Widened by counted wraps, 32 bits."""
    jitter: int
    """Of the arrival, in ticks of the clock rate."""
    last_report: int = 0
    """Middle 32 bits of the NTP time in the last sender report; 0 when none came."""
    delay: int = 0
    """Time since that report came, in 65536ths of a second."""


@dataclass(frozen=True, slots=True)
class SenderReport:
    """What a peer says about the stream that it sends."""

    ssrc: int
    ntp: int
    """The sender's wall clock as a 64 bit NTP timestamp: an annotation, never a key."""
    timestamp: int
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class Compound:
    """What was understood of one RTCP datagram."""

    senders: tuple[SenderReport, ...] = ()
    blocks: tuple[ReportBlock, ...] = ()
    goodbyes: tuple[int, ...] = ()
    """Streams that are over. RTCP is not authenticated, so a call ends by SIP only."""


def receiver_report(ssrc: int, cname: str, blocks: Sequence[ReportBlock] = ()) -> bytes:
    """Return a receiver report with our CNAME. ``ssrc`` is ours. Raises ValueError for more than 31 blocks or a CNAME that
    is empty or longer than 255 bytes."""
    if len(blocks) > MAX_BLOCKS:
        raise ValueError(f"a report holds {MAX_BLOCKS} blocks, not {len(blocks)}")
    body = b"".join(_pack_block(block) for block in blocks)
    return _packet(RECEIVER_REPORT, len(blocks), _WORD.pack(ssrc) + body) + _description(ssrc, cname)


def pause_ns(chance: int, *, is_first: bool) -> int:
    """Return how long to wait before the next report. ``chance`` is 16 random bits: nobody reports in step with others.

    The first comes after half the time (RFC 3550 section 6.2).
    """
    usual_ns = INTERVAL_NS // 2 if is_first else INTERVAL_NS
    return int(usual_ns * (0.5 + chance / 0x10000) / COMPENSATION)


def goodbye(ssrc: int, cname: str, blocks: Sequence[ReportBlock] = ()) -> bytes:
    """Return a last receiver report followed by BYE: our stream ``ssrc`` is over. Raises as ``receiver_report`` does."""
    return receiver_report(ssrc, cname, blocks) + farewell(ssrc)


def farewell(ssrc: int) -> bytes:
    """Return the BYE that ends a last compound."""
    return _packet(GOODBYE, 1, _WORD.pack(ssrc))


def parse(data: bytes) -> Compound:
    """Read an RTCP datagram as far as it makes sense; an empty result when it does not. Never raises."""
    senders: list[SenderReport] = []
    blocks: list[ReportBlock] = []
    goodbyes: list[int] = []
    at = 0
    for _ in range(MAX_PACKETS):
        if len(data) - at < 4 or data[at] >> 6 != 2:
            break
        count = data[at] & 0x1F
        kind = data[at + 1]
        end = at + 4 + 4 * (data[at + 2] << 8 | data[at + 3])
        if end > len(data):
            break
        body = data[at + 4 : end]
        if kind == SENDER_REPORT and len(body) >= _SENDER.size:
            senders.append(SenderReport(*_SENDER.unpack_from(body)))
            blocks += _unpack_blocks(body[_SENDER.size :], count)
        elif kind == RECEIVER_REPORT:
            blocks += _unpack_blocks(body[4:], count)
        elif kind == GOODBYE:
            goodbyes += (_WORD.unpack_from(body, 4 * n)[0] for n in range(min(count, len(body) // 4)))
        at = end
    return Compound(tuple(senders), tuple(blocks), tuple(goodbyes))


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def _description(ssrc: int, cname: str) -> bytes:
    name = cname.encode("utf-8")
    if not 1 <= len(name) <= 255:
        raise ValueError(f"a CNAME has 1 to 255 bytes, not {len(name)}")
    chunk = _WORD.pack(ssrc) + bytes((_CNAME, len(name))) + name
    # A chunk ends with at least one zero and on a word (RFC 3550 section 6.5).
    return _packet(SOURCE_DESCRIPTION, 1, chunk + bytes(4 - len(chunk) % 4))


def _pack_block(block: ReportBlock) -> bytes:
    lost = max(-0x800000, min(0x7FFFFF, block.packets_lost)) & 0xFFFFFF
    return _BLOCK.pack(
        block.ssrc,
        block.fraction_lost << 24 | lost,
        block.highest_sequence & 0xFFFFFFFF,
        block.jitter,
        block.last_report,
        block.delay,
    )


def _unpack_blocks(body: bytes, count: int) -> list[ReportBlock]:
    blocks = []
    for n in range(min(count, len(body) // _BLOCK.size)):
        ssrc, loss, highest, jitter, last_report, delay = _BLOCK.unpack_from(body, n * _BLOCK.size)
        lost = (loss & 0xFFFFFF ^ 0x800000) - 0x800000
        blocks.append(ReportBlock(ssrc, loss >> 24, lost, highest, jitter, last_report, delay))
    return blocks
