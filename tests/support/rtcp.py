"""RTCP read by other eyes than the machine's: strict, and only what a test of its reports needs.

Owns: taking a compound apart by the letter of RFC 3550. Refuses to know: the code that it judges.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class Block:
    """One report block."""

    ssrc: int
    fraction: int
    lost: int
    highest: int
    jitter: int
    lsr: int
    dlsr: int


@dataclass
class Report:
    """One compound."""

    kind: str
    ssrc: int
    ntp: int = 0
    timestamp: int = 0
    packets: int = 0
    octets: int = 0
    blocks: list[Block] = field(default_factory=list)
    cname: str = ""
    goodbye: bool = False


def read(data: bytes) -> Report:
    """Return what a compound says; fails on anything that section 6 and appendix A.2 do not allow."""
    packets = []
    at = 0
    while at < len(data):
        flags, kind, words = struct.unpack_from("!BBH", data, at)
        assert flags >> 6 == 2
        assert not flags & 0x20
        end = at + 4 * (words + 1)
        assert end <= len(data)
        packets.append((kind, flags & 0x1F, data[at + 4 : end]))
        at = end
    assert at == len(data)
    kind, count, body = packets[0]
    assert kind in (200, 201), "a compound begins with a report"
    report = Report("SR" if kind == 200 else "RR", *struct.unpack_from("!I", body))
    blocks = body[4:]
    if kind == 200:
        report.ntp, report.timestamp, report.packets, report.octets = struct.unpack_from("!QIII", body, 4)
        blocks = body[24:]
    assert len(blocks) == 24 * count
    for number in range(count):
        ssrc, loss, highest, jitter, lsr, dlsr = struct.unpack_from("!IIIIII", blocks, 24 * number)
        lost = loss & 0xFFFFFF
        report.blocks.append(
            Block(ssrc, loss >> 24, lost - 2**24 if lost >= 2**23 else lost, highest, jitter, lsr, dlsr)
        )
    kind, count, body = packets[1]
    assert (kind, count) == (202, 1), "a compound has a source description"
    assert struct.unpack_from("!I", body)[0] == report.ssrc
    assert body[4] == 1, "and that a CNAME"
    report.cname = body[6 : 6 + body[5]].decode()
    assert not any(body[6 + body[5] :])
    for kind, count, body in packets[2:]:
        assert (kind, count) == (203, 1)
        assert struct.unpack("!I", body)[0] == report.ssrc
        report.goodbye = True
    return report


def peer_report(
    ssrc: int, *, about: int, lost: int = 0, jitter: int = 0, lsr: int = 0, dlsr: int = 0, ntp: int | None = None
) -> bytes:
    """Return a peer's report about the stream ``about``: a sender's when it has an ``ntp`` time."""
    block = struct.pack("!IIIIII", about, lost & 0xFFFFFF, 0, jitter, lsr, dlsr)
    name = struct.pack("!BBHIBB", 0x81, 202, 2, ssrc, 1, 1) + b"p\0"
    if ntp is None:
        return struct.pack("!BBHI", 0x81, 201, 7, ssrc) + block + name
    return struct.pack("!BBHIQIII", 0x81, 200, 12, ssrc, ntp, 0, 0, 0) + block + name


def peer_goodbye(ssrc: int) -> bytes:
    """Return a peer's farewell, with the empty report that must stand before it."""
    return struct.pack("!BBHI", 0x80, 201, 1, ssrc) + struct.pack("!BBHI", 0x81, 203, 1, ssrc)
