"""A trace as a capture file, for programs that show captures.

Owns: the packets around messages and the file around the packets. Refuses to know: whose messages they are.

Specification: the pcap file format, version 2.4, link type 101 (LINKTYPE_RAW: each packet begins with its IP header); RFC 791
section 3.1, RFC 8200 sections 3 and 8.1, RFC 768; checksums as RFC 1071.

Theory of operation: the packets never were on a wire in this form: each message is one UDP datagram, also where it went over TCP or
TLS, so that every program shows it, and TLS without its keys. Lengths and checksums are right, so that no program complains.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from typing import Final

from aftertone.sip.flow import Address
from aftertone.sip.trace import Traced

LINKTYPE_RAW: Final = 101
MEDIA_TYPE: Final = "application/vnd.tcpdump.pcap"
_FILE: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, LINKTYPE_RAW)
_RECORD: Final = struct.Struct("<IIII")
_UDP: Final = struct.Struct("!HHHH")
_LONGEST_V4: Final = 65_507
_LONGEST_V6: Final = 65_527
_UDP_NUMBER: Final = 17

Host = ipaddress.IPv4Address | ipaddress.IPv6Address


def pack_pcap(messages: Iterable[Traced]) -> bytes:
    """Return a capture file; ``at_ns`` of the messages is since 1970. A message that fits into no datagram is cut."""
    parts = [_FILE]
    for number, message in enumerate(messages):
        source, target = (message.local, message.remote) if message.sent else (message.remote, message.local)
        packet = _packet(source, target, message.data, number)
        at_us = max(0, message.at_ns // 1000)
        parts += (_RECORD.pack(at_us // 1_000_000 & 0xFFFFFFFF, at_us % 1_000_000, len(packet), len(packet)), packet)
    return b"".join(parts)


def _packet(source: Address, target: Address, data: bytes, number: int) -> bytes:
    hosts = _host(source[0]), _host(target[0])
    if isinstance(hosts[0], ipaddress.IPv4Address) and isinstance(hosts[1], ipaddress.IPv4Address):
        datagram = _datagram(hosts[0], hosts[1], source[1], target[1], data[:_LONGEST_V4])
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), number & 0xFFFF, 0x4000, 64, _UDP_NUMBER, 0)
        head += hosts[0].packed + hosts[1].packed
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + datagram
    first, last = (_as_v6(host) for host in hosts)
    datagram = _datagram(first, last, source[1], target[1], data[:_LONGEST_V6])
    return struct.pack("!IHBB", 0x60000000, len(datagram), _UDP_NUMBER, 64) + first.packed + last.packed + datagram


def _datagram(source: Host, target: Host, source_port: int, target_port: int, data: bytes) -> bytes:
    length = _UDP.size + len(data)
    head = _UDP.pack(source_port & 0xFFFF, target_port & 0xFFFF, length, 0)
    pseudo = source.packed + target.packed + struct.pack("!II", length, _UDP_NUMBER)
    # A sum of zero is sent as all ones, since zero says that there is none (RFC 768).
    total = checksum(pseudo + head + data) or 0xFFFF
    return head[:6] + struct.pack("!H", total) + data


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data``; 0 for data that already holds its own. Spec: RFC 1071 section 1."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _host(text: str) -> Host:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        # What we advertise is an address; a trace must not fail should it once not be.
        return ipaddress.IPv4Address(0)


def _as_v6(host: Host) -> ipaddress.IPv6Address:
    if isinstance(host, ipaddress.IPv6Address):
        return host
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + host.packed)
