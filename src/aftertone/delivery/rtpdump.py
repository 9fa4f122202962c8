"""Keeps packets as they came, in a file that other tools read.

Owns: the rtpdump format. Refuses to know: why they are kept.

Specification: the file format of rtptools (``#!rtpplay1.0``), which Wireshark and others open; RTP headers as RFC 3550
section 5.1. Contributing sources and header extensions are not journalled and so not there.
"""

from __future__ import annotations

import struct
from typing import Final

from aftertone.journal import PacketBatch
from aftertone.rtp.packet import serialize

SUFFIX: Final = "rtpdump"
_FILE: Final = struct.Struct("!IIIHH")
_PACKET: Final = struct.Struct("!HHI")


def pack_rtpdump(packets: PacketBatch, unix_ms: int) -> bytes:
    """Return the packets, in order of arrival, as an rtpdump file that began at ``unix_ms``."""
    parts = [b"#!rtpplay1.0 0.0.0.0/0\n", _FILE.pack(unix_ms // 1000 & 0xFFFFFFFF, unix_ms % 1000 * 1000, 0, 0, 0)]
    columns = (packets.payload_type, packets.sequence, packets.timestamp, packets.ssrc, packets.marker)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    first_ns = int(packets.arrival_ns[0]) if len(packets) else 0
    offsets_ms = ((packets.arrival_ns - first_ns) // 1_000_000).clip(0, 0xFFFFFFFF).tolist()
    for (number, sequence, timestamp, ssrc, marker), payload, offset_ms in zip(
        rows, packets.payload_list(), offsets_ms, strict=True
    ):
        # The length field has 16 bits; a datagram that fills them all has no room for the header before it.
        packet = serialize(number, sequence, timestamp, ssrc, payload, marker=bool(marker))[: 0xFFFF - _PACKET.size]
        parts += (_PACKET.pack(len(packet) + _PACKET.size, len(packet), offset_ms), packet)
    return b"".join(parts)
