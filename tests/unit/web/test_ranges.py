"""Which bytes a Range header asks for. Spec: RFC 9110 sections 13 and 14."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.web.ranges import ByteRange, UnsatisfiableError, not_modified, parse_range, range_still_valid


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", ByteRange(0, 0)),
        ("bytes=0-99", ByteRange(0, 99)),
        ("bytes=10-", ByteRange(10, 99)),
        ("bytes=90-1000", ByteRange(90, 99)),
        ("bytes=-1", ByteRange(99, 99)),
        ("bytes=-1000", ByteRange(0, 99)),
        ("Bytes= 5-6 ", ByteRange(5, 6)),
    ],
)
def test_one_range_is_honoured(header: str, expected: ByteRange) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=9-5",
        "bytes=a-b",
        "items=0-5",
        "bytes=0-1,5-6",
        "bytes=1-2-3",
        "bytes=" + "9" * 30 + "-",
        "bytes=0x1-0x2",
        "bytes=+1-2",
        "bytes=١-٢",
    ],
)
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)])
def test_a_range_outside_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableError):
        parse_range(header, size)


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 10**6))
def test_an_answered_range_always_lies_inside(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except UnsatisfiableError:
        return
    if part is not None:
        assert 0 <= part.first <= part.last < size
        assert 1 <= part.length <= size


def test_if_range_takes_only_the_same_strong_tag() -> None:
    assert range_still_valid(None, '"a"')
    assert range_still_valid('"a"', '"a"')
    assert not range_still_valid('W/"a"', '"a"')
    assert not range_still_valid("Sun, 22 Nov 2026 17:00:00 GMT", '"a"')


def test_if_none_match_compares_weakly() -> None:
    assert not_modified('"b", W/"a"', '"a"')
    assert not_modified("*", '"a"')
    assert not not_modified('"b"', '"a"')
    assert not not_modified(None, '"a"')
