"""RTP headers in batches: each field, each thing that a header may carry, each reason for refusal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from aftertone.rtp.batch import Headers, Refusals, parse
from aftertone.rtp.packet import serialize

SSRC = 0xDEADBEEF
PLAIN = bytes.fromhex("80 80 fffe 80000001 deadbeef") + b"payload"
COLUMNS = {
    "valid": "bool",
    "payload_type": "uint8",
    "marker": "bool",
    "sequence": "uint16",
    "timestamp": "uint32",
    "ssrc": "uint32",
    "payload_start": "int32",
    "payload_end": "int32",
    "rtcp": "bool",
}


def batch(
    *datagrams: bytes, width: int = 64, filler: int = 0xFF
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """An arena whose unused bytes are ``filler``, as an earlier batch might have left them."""
    arena = np.full((len(datagrams), width), filler, dtype=np.uint8)
    for row, data in enumerate(datagrams):
        arena[row, : len(data)] = np.frombuffer(data, dtype=np.uint8)
    return arena, np.array([len(d) for d in datagrams], dtype=np.int32)


def bounds(headers: Headers) -> list[tuple[bool, int, int]]:
    return list(zip(headers.valid.tolist(), headers.payload_start.tolist(), headers.payload_end.tolist(), strict=True))


def test_the_fields_of_a_header() -> None:
    headers = parse(*batch(PLAIN))
    assert bounds(headers) == [(True, 12, 19)]
    assert headers.payload_type.tolist() == [0]
    assert headers.marker.tolist() == [True]
    assert headers.sequence.tolist() == [0xFFFE]
    assert headers.timestamp.tolist() == [0x80000001]
    assert headers.ssrc.tolist() == [SSRC]
    assert headers.rtcp.tolist() == [False]
    assert headers.refusals == Refusals(0, 0, 0, 0)


def test_the_types_of_the_columns() -> None:
    headers = parse(*batch(PLAIN))
    assert {name: getattr(headers, name).dtype.name for name in COLUMNS} == COLUMNS


@pytest.mark.parametrize(
    ("flags", "rest", "start", "end"),
    [
        (0x82, bytes(8) + b"abc", 20, 23),
        (0x8F, bytes(60) + b"abc", 72, 75),
        (0x90, bytes.fromhex("bede0001 11223344") + b"abc", 20, 23),
        (0x90, bytes.fromhex("10000000") + b"abc", 16, 19),
        (0x91, bytes(4) + bytes.fromhex("bede0002") + bytes(8) + b"abc", 28, 31),
        (0xA0, b"abc\x01", 12, 15),
        (0xA0, b"abc\x00\x00\x03", 12, 15),
        (0xA0, b"\x00\x00\x03", 12, 12),
        (0xB1, bytes(4) + bytes.fromhex("bede0001 11223344") + b"abc\x00\x02", 24, 27),
        (0x80, b"", 12, 12),
    ],
)
def test_sources_extensions_and_padding_are_no_payload(flags: int, rest: bytes, start: int, end: int) -> None:
    data = bytes([flags]) + PLAIN[1:12] + rest
    assert bounds(parse(*batch(data, width=128))) == [(True, start, end)]


@pytest.mark.parametrize(
    ("flags", "rest"),
    [
        (0x81, bytes(3)),
        (0x8F, bytes(59)),
        (0x90, bytes(3)),
        (0x90, bytes.fromhex("bede0001 112233")),
        (0x90, bytes.fromhex("bedeffff") + bytes(40)),
        (0xA0, b""),
        (0xA0, b"abc\x00"),
        (0xA0, b"abc\x05"),
        (0xA0, b"\xff"),
        (0xA1, bytes(3) + b"\x01"),
    ],
)
def test_what_reaches_beyond_the_end_is_refused(flags: int, rest: bytes) -> None:
    data = bytes([flags]) + PLAIN[1:12] + rest
    headers = parse(*batch(data, width=128))
    assert bounds(headers) == [(False, 0, 0)]
    assert headers.refusals == Refusals(0, 0, 0, 1)


@pytest.mark.parametrize("flags", [0x00, 0x40, 0xC0, 0x16])
def test_other_versions_are_refused(flags: int) -> None:
    headers = parse(*batch(bytes([flags]) + PLAIN[1:]))
    assert bounds(headers) == [(False, 0, 0)]
    assert headers.refusals == Refusals(0, 1, 0, 0)


@pytest.mark.parametrize("length", [0, 1, 11, -1, 65, 2**31 - 1, -(2**31)])
def test_lengths_that_cannot_be(length: int) -> None:
    arena, _ = batch(PLAIN)
    headers = parse(arena, np.array([length], dtype=np.int32))
    assert bounds(headers) == [(False, 0, 0)]
    assert headers.refusals == Refusals(1, 0, 0, 0)


@pytest.mark.parametrize(
    ("second", "is_rtcp"), [(191, False), (192, True), (200, True), (223, True), (224, False), (72, False)]
)
def test_rtcp_on_the_same_port_is_told_apart(second: int, is_rtcp: bool) -> None:
    headers = parse(*batch(bytes([0x80, second]) + PLAIN[2:]))
    assert headers.rtcp.tolist() == [is_rtcp]
    assert headers.valid.tolist() == [not is_rtcp]
    assert headers.refusals.rtcp == is_rtcp


def test_rows_do_not_touch_each_other() -> None:
    headers = parse(*batch(PLAIN, b"", PLAIN[:13], b"\x00" * 20, bytes([0x80, 200]) + PLAIN[2:], PLAIN))
    assert bounds(headers) == [
        (True, 12, 19),
        (False, 0, 0),
        (True, 12, 13),
        (False, 0, 0),
        (False, 0, 0),
        (True, 12, 19),
    ]
    assert headers.refusals == Refusals(1, 1, 1, 0)


def test_a_datagram_as_long_as_its_row() -> None:
    assert bounds(parse(*batch(PLAIN[:12] + bytes(52)))) == [(True, 12, 64)]


def test_an_empty_batch() -> None:
    headers = parse(np.zeros((0, 64), dtype=np.uint8), np.zeros(0, dtype=np.int32))
    assert bounds(headers) == []
    assert headers.refusals == Refusals(0, 0, 0, 0)


def test_the_arena_is_left_as_it_was_and_the_columns_are_their_own() -> None:
    arena, lengths = batch(PLAIN, bytes([0xA0]) + PLAIN[1:12] + b"abc\x01")
    arena.flags.writeable = False
    lengths.flags.writeable = False
    headers = parse(arena, lengths)
    assert headers.payload_end.tolist() == [19, 15]
    columns = [headers.timestamp, headers.ssrc, headers.sequence, headers.payload_end, headers.valid]
    assert not any(np.shares_memory(column, arena) or np.shares_memory(column, lengths) for column in columns)


def test_rows_taken_out_of_a_larger_arena() -> None:
    arena, lengths = batch(*[serialize(8, n, n, n, bytes(n)) for n in range(10)])
    assert parse(arena[::3, 0:50], lengths[::3]).payload_end.tolist() == [12, 15, 18, 21]


@pytest.mark.parametrize(("shape", "count"), [((2, 11), 2), ((2, 64), 3), ((64,), 64)])
def test_what_is_no_batch_is_our_mistake(shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(ValueError, match="no batch"):
        parse(np.zeros(shape, dtype=np.uint8), np.zeros(count, dtype=np.int32))
