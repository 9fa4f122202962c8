"""Packets that are kept are kept as they came, in a format that other tools read."""

from __future__ import annotations

import struct

from aftertone.delivery.rtpdump import pack_rtpdump
from tests.support.recordings import a_batch, rows_of


def test_every_packet_can_be_read_back() -> None:
    rows = rows_of(seconds=0.2)
    data = pack_rtpdump(a_batch(rows), 1_750_000_000_123)
    assert data.startswith(b"#!rtpplay1.0 0.0.0.0/0\n")
    at = data.index(b"\n") + 1
    assert struct.unpack_from("!II", data, at) == (1_750_000_000, 123_000)
    at += 16
    found = []
    while at < len(data):
        length, packet_bytes, offset_ms = struct.unpack_from("!HHI", data, at)
        assert length == packet_bytes + 8
        first, number, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data, at + 8)
        assert first == 0x80
        payload = data[at + 20 : at + length]
        found.append((rows[0][0] + offset_ms * 1_000_000, sequence, timestamp, ssrc, number, payload))
        at += length
    assert found == rows


def test_nothing_is_a_file_too() -> None:
    assert len(pack_rtpdump(a_batch([]), 0)) == len(b"#!rtpplay1.0 0.0.0.0/0\n") + 16
