"""The words between a machine under test and its witness."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.errors import PeerError
from aftertone.roles.plug.protocol import (
    HIGHEST_NUMBER,
    LONGEST_LINE_BYTES,
    Counts,
    Lines,
    name_in,
    number_in,
    parse,
    serialize,
)


def test_a_line_there_and_back() -> None:
    line = serialize("ack", what="record", n=7)
    assert line.endswith(b"\n")
    assert parse(line) == {"v": 1, "say": "ack", "what": "record", "n": 7}


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_one_error_alone(data: bytes) -> None:
    with contextlib.suppress(PeerError):
        for line in Lines().feed(data):
            parse(line)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"7", b'{"v":1}', b'{"v":1,"say":7}', b"[" * 500, b"\xff", b'{"v":2,"say":"ack"}', b'{"say":"ack"}'],
)
def test_what_is_no_line_of_ours(line: bytes) -> None:
    with pytest.raises(PeerError):
        parse(line)


def test_another_version_is_told_what_to_do() -> None:
    with pytest.raises(PeerError, match="same version of Aftertone"):
        parse(json.dumps({"v": 2, "say": "ack"}).encode())


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)), st.integers(1, 9))
def test_lines_come_whole_however_they_were_cut(lines: list[bytes], step: int) -> None:
    data, reader = b"".join(line + b"\n" for line in lines), Lines()
    found = [line for at in range(0, len(data), step) for line in reader.feed(data[at : at + step])]
    assert found == lines


@pytest.mark.parametrize("data", [b"x" * (LONGEST_LINE_BYTES + 1), b"ok\n" + b"x" * (LONGEST_LINE_BYTES + 1) + b"\n"])
def test_a_line_has_an_end(data: bytes) -> None:
    with pytest.raises(PeerError, match="longer than"):
        list(Lines().feed(data))


@pytest.mark.parametrize("value", [None, -1, HIGHEST_NUMBER + 1, "7", 7.0, True, [7]])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(PeerError, match="n must be a number"):
        number_in({"n": value}, "n")


@pytest.mark.parametrize("value", [None, 7, "x" * 32, "A" * 32, "a" * 31, "a" * 33, "../../etc"])
def test_what_is_no_name(value: object) -> None:
    with pytest.raises(PeerError, match="run must be 32 hexadecimal"):
        name_in({"run": value}, "run")
    assert name_in({"run": ""}, "run") == ""


def test_counts_in_words() -> None:
    assert str(Counts(2, 1, 0, 0)) == "2 records, 1 file, 0 rows, 0 marks"
    assert Counts(2, 1, 0, 0).above_zero() == "2 records, 1 file"
