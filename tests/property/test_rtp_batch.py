"""Reading a batch is reading each datagram by itself, slowly; what was written is what is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aftertone.rtp.batch import parse
from aftertone.rtp.packet import serialize, write_headers

WIDTH = 96


@dataclass(frozen=True)
class Slow:
    """A header read byte by byte, after the figure in RFC 3550 section 5.1."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def read_slowly(data: bytes) -> Slow | None:
    if len(data) < 12 or data[0] >> 6 != 2 or 192 <= data[1] <= 223:
        return None
    rest = data[12:]
    sources = 4 * (data[0] & 15)
    if len(rest) < sources:
        return None
    rest = rest[sources:]
    if data[0] & 0x10:
        if len(rest) < 4:
            return None
        words = int.from_bytes(rest[2:4], "big")
        if len(rest) < 4 + 4 * words:
            return None
        rest = rest[4 + 4 * words :]
    if data[0] & 0x20:
        if not rest or not 1 <= rest[-1] <= len(rest):
            return None
        rest = rest[: len(rest) - rest[-1]]
    return Slow(
        data[1] & 127,
        data[1] >= 128,
        int.from_bytes(data[2:4], "big"),
        int.from_bytes(data[4:8], "big"),
        int.from_bytes(data[8:12], "big"),
        rest,
    )


FLAGS = st.integers(0, 255) | st.integers(0x80, 0xBF) | st.sampled_from([0x80, 0x90, 0xA0, 0xB0, 0x91, 0xB1])
SMALL = st.integers(0, 4)
LIKELY = st.builds(
    lambda flags, second, fixed, words, tail, padding: (
        bytes([flags, second])
        + fixed
        + bytes(4 * (flags & 15)) * (flags & 1)
        + b"\xbe\xde\x00"
        + bytes([words])
        + tail
        + bytes([padding])
    ),
    FLAGS,
    st.integers(0, 255),
    st.binary(min_size=10, max_size=10),
    SMALL,
    st.binary(max_size=16),
    SMALL,
).map(lambda data: data[:WIDTH])
DATAGRAMS = st.lists(LIKELY | st.binary(max_size=WIDTH), max_size=12)


@given(DATAGRAMS, st.integers(0, 255))
@example([bytes([0xA0, 0]) + bytes(10)], 1)
@example([bytes([0x90, 0]) + bytes(10)], 0)
def test_a_batch_equals_a_slow_reading_of_each(datagrams: list[bytes], filler: int) -> None:
    arena = np.full((len(datagrams), WIDTH), filler, dtype=np.uint8)
    for row, data in enumerate(datagrams):
        arena[row, : len(data)] = np.frombuffer(data, dtype=np.uint8)
    headers = parse(arena, np.array([len(d) for d in datagrams], dtype=np.int32))
    for row, data in enumerate(datagrams):
        start, end = int(headers.payload_start[row]), int(headers.payload_end[row])
        read = Slow(
            int(headers.payload_type[row]),
            bool(headers.marker[row]),
            int(headers.sequence[row]),
            int(headers.timestamp[row]),
            int(headers.ssrc[row]),
            data[start:end],
        )
        assert (read if headers.valid[row] else None) == read_slowly(data)
        assert 0 <= start <= end <= len(data)
        assert headers.valid[row] or end == 0
    refusals = headers.refusals
    refused = refusals.length + refusals.version + refusals.rtcp + refusals.shape
    assert refused == len(datagrams) - np.count_nonzero(headers.valid)
    assert refusals.rtcp == np.count_nonzero(headers.rtcp)


PACKETS = st.tuples(
    st.integers(0, 63) | st.integers(96, 127),
    st.integers(0, 2**20),
    st.integers(0, 2**40),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=40),
    st.booleans(),
)


@given(st.lists(PACKETS, min_size=1, max_size=8))
def test_what_was_written_is_what_is_read(packets: list[tuple[int, int, int, int, bytes, bool]]) -> None:
    arena = np.zeros((len(packets), WIDTH), dtype=np.uint8)
    for row, (*_, payload, _marker) in enumerate(packets):
        arena[row, 12 : 12 + len(payload)] = np.frombuffer(payload, dtype=np.uint8)
    types, sequences, timestamps, ssrcs, payloads, markers = zip(*packets, strict=True)
    write_headers(
        arena,
        np.array(types, dtype=np.uint8),
        np.array(sequences, dtype=np.int64),
        np.array(timestamps, dtype=np.int64),
        np.array(ssrcs, dtype=np.uint32),
        np.array(markers),
    )
    lengths = np.array([12 + len(p) for p in payloads], dtype=np.int32)
    headers = parse(arena, lengths)
    assert headers.valid.all()
    for row, (kind, sequence, timestamp, ssrc, payload, marker) in enumerate(packets):
        assert arena[row, : lengths[row]].tobytes() == serialize(
            kind, sequence, timestamp, ssrc, payload, marker=marker
        )
        assert headers.payload_type[row] == kind
        assert headers.sequence[row] == sequence % 2**16
        assert headers.timestamp[row] == timestamp % 2**32


@pytest.mark.parametrize("second", range(256))
def test_every_second_byte(second: int) -> None:
    data = bytes([0x80, second]) + bytes(11)
    headers = parse(np.frombuffer(data, dtype=np.uint8).reshape(1, -1), np.array([13], dtype=np.int32))
    assert bool(headers.valid[0]) == (read_slowly(data) is not None)
