"""Names and headers of segments."""

from __future__ import annotations

import pytest

from aftertone.journal.segment import (
    BLOCK_BYTES,
    DATA_OFFSET,
    NO_FLOOR,
    Floor,
    SegmentHeader,
    SegmentName,
    pack_segment_header,
    parse_segment_header,
    seed_of,
)

NAME = SegmentName(0x1A, 3)
HEADER = SegmentHeader(NAME, bytes(range(16)), 77, floor=Floor(1_800_000_000_001, 1_800_000_000_000))
OLD_BLOCK = bytes.fromhex(
    "f541746ad80f00001a0000000001000000000000000000000000000000000000eed96d09de244200"
    "010000001a000000030000004d00000000000000000102030405060708090a0b0c0d0e0f"
).ljust(BLOCK_BYTES, b"\0")
"""A header as it was written before there was a floor in it."""


def test_names_order_like_writing_and_parse_back() -> None:
    assert str(NAME) == "e0000001a-n00000003.journal"
    assert SegmentName.parse(str(NAME)) == NAME
    assert SegmentName(1, 9) < SegmentName(2, 1) < SegmentName(2, 2)
    assert sorted(map(str, (SegmentName(16, 1), SegmentName(2, 1)))) == [
        str(SegmentName(2, 1)),
        str(SegmentName(16, 1)),
    ]


@pytest.mark.parametrize(
    "name", ["lock", "e1-n1.journal", "e0000001A-n00000003.journal", "e0000001a-n00000003.journal~"]
)
def test_other_files_are_no_segments(name: str) -> None:
    assert SegmentName.parse(name) is None


def test_a_segment_put_aside_counts_only_where_asked() -> None:
    assert SegmentName.parse(NAME.aside) is None
    assert SegmentName.parse(NAME.aside, aside=True) == NAME


def test_the_header_is_there_twice() -> None:
    data = pack_segment_header(HEADER)
    assert len(data) == DATA_OFFSET
    assert data[:BLOCK_BYTES] == data[BLOCK_BYTES:]
    assert parse_segment_header(data, NAME) == HEADER
    for bad in (0, BLOCK_BYTES):
        damaged = bytearray(data)
        damaged[bad : bad + BLOCK_BYTES] = bytes(BLOCK_BYTES)
        assert parse_segment_header(bytes(damaged), NAME) == HEADER
    damaged = bytearray(data)
    damaged[60] ^= 1
    damaged[BLOCK_BYTES + 60] ^= 1
    assert parse_segment_header(bytes(damaged), NAME) is None
    assert parse_segment_header(data[:100], NAME) is None
    assert parse_segment_header(b"", NAME) is None


def test_a_header_of_before_the_floor_is_read_and_says_that_it_knows_none() -> None:
    found = parse_segment_header(OLD_BLOCK + OLD_BLOCK, NAME)
    assert found == SegmentHeader(NAME, bytes(range(16)), 77, floor=NO_FLOOR)
    assert pack_segment_header(found) == OLD_BLOCK + OLD_BLOCK, (
        "an unknown floor is written as the zeros that stood there"
    )


def test_a_header_under_another_name_is_not_believed() -> None:
    assert parse_segment_header(pack_segment_header(HEADER), SegmentName(0x1A, 4)) is None
    assert parse_segment_header(pack_segment_header(HEADER), SegmentName(0x1B, 3)) is None


def test_every_segment_and_boot_has_its_own_seed() -> None:
    names = [NAME, SegmentName(0x1A, 4), SegmentName(0x1B, 3)]
    seeds = {seed_of(boot, name) for boot in (bytes(16), bytes(range(16))) for name in names}
    assert len(seeds) == 6
    assert HEADER.seed == seed_of(HEADER.boot_id, NAME)
