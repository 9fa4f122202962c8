"""Packets to be sent."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.rtp.packet import serialize, write_header, write_headers


def test_a_packet() -> None:
    assert serialize(8, 1, 160, 0x01020304, b"sound") == bytes.fromhex("8008 0001 000000a0 01020304") + b"sound"
    assert serialize(101, 1, 160, 0x01020304, b"", marker=True) == bytes.fromhex("80e5 0001 000000a0 01020304")


def test_counters_are_cut_to_their_fields() -> None:
    assert serialize(0, 0x1_0002, 0x1_0000_0003, 4, b"") == bytes.fromhex("8000 0002 00000003 00000004")


@pytest.mark.parametrize("marker", [False, True])
def test_a_header_before_a_payload_that_is_there(marker: bool) -> None:
    buffer = bytearray(b"\xff" * 4 + bytes(12) + b"sound")
    write_header(buffer, 4, 8, 0x1_0007, 0x1_0000_0009, 42, marker=marker)
    assert buffer == b"\xff" * 4 + serialize(8, 7, 9, 42, b"sound", marker=marker)


def test_many_headers_at_once() -> None:
    arena = np.full((3, 20), 0xAA, dtype=np.uint8)
    types = np.array([0, 8, 111], dtype=np.uint8)
    sequence = np.array([0xFFFF, 0x10000, 3], dtype=np.int64)
    timestamp = np.array([0xFFFFFFFF, 0x100000000, 960], dtype=np.int64)
    ssrc = np.array([1, 0xFFFFFFFF, 3], dtype=np.uint32)
    write_headers(arena, types, sequence, timestamp, ssrc, np.array([True, False, True]))
    assert [row.tobytes() for row in arena] == [
        serialize(0, 0xFFFF, 0xFFFFFFFF, 1, b"\xaa" * 8, marker=True),
        serialize(8, 0, 0, 0xFFFFFFFF, b"\xaa" * 8),
        serialize(111, 3, 960, 3, b"\xaa" * 8, marker=True),
    ]


def test_without_markers_there_are_none() -> None:
    arena = np.zeros((2, 12), dtype=np.uint8)
    zeros = np.zeros(2, dtype=np.int64)
    write_headers(arena, zeros.astype(np.uint8), zeros, zeros, zeros.astype(np.uint32))
    assert arena[:, 1].tolist() == [0, 0]


def test_rows_too_narrow_for_a_header_are_our_mistake() -> None:
    zeros = np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match="no room"):
        write_headers(np.zeros((2, 11), dtype=np.uint8), zeros.astype(np.uint8), zeros, zeros, zeros.astype(np.uint32))
