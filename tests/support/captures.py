"""A small reader of capture files, for tests of the writer: it checks every length and checksum that it passes.

Owns: pcap files of raw IP packets with UDP. Refuses to know: the code that it tests.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Packet:
    """One datagram."""

    unix_us: int
    source: tuple[str, int]
    target: tuple[str, int]
    data: bytes


def read_pcap(data: bytes) -> list[Packet]:
    """Return all datagrams of a capture, or fail."""
    assert data[:4] == bytes.fromhex("d4c3b2a1"), "microseconds, little-endian"
    assert (_little(data[4:6]), _little(data[6:8])) == (2, 4)
    longest = _little(data[16:20])
    assert _little(data[20:24]) == 101, "raw IP"
    packets = []
    rest = data[24:]
    while rest:
        seconds, micros, kept, length = (_little(rest[at : at + 4]) for at in (0, 4, 8, 12))
        assert kept == length <= longest
        assert micros < 1_000_000
        packets.append(_packet(rest[16 : 16 + kept], seconds * 1_000_000 + micros))
        assert len(rest) >= 16 + kept
        rest = rest[16 + kept :]
    return packets


def _packet(data: bytes, unix_us: int) -> Packet:
    if data[0] >> 4 == 4:
        head = data[: 4 * (data[0] & 15)]
        assert _big(data[2:4]) == len(data)
        assert _sum(head) == 0xFFFF, "the checksum of the IP header"
        assert data[9] == 17
        hosts, body = (data[12:16], data[16:20]), data[len(head) :]
    else:
        assert data[0] >> 4 == 6
        assert _big(data[4:6]) == len(data) - 40
        assert data[6] == 17
        hosts, body = (data[8:24], data[24:40]), data[40:]
    assert _big(body[4:6]) == len(body)
    assert _big(body[6:8]) != 0
    pseudo = hosts[0] + hosts[1] + len(body).to_bytes(4, "big") + (17).to_bytes(4, "big")
    assert _sum(pseudo + body) == 0xFFFF, "the checksum of the datagram"
    source, target = (str(ipaddress.ip_address(host)) for host in hosts)
    return Packet(unix_us, (source, _big(body[:2])), (target, _big(body[2:4])), body[8:])


def _sum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(_big(padded[at : at + 2]) for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
