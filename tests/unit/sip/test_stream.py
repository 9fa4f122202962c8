"""aftertone.sip.stream: messages out of connections."""

from __future__ import annotations

import pytest

from aftertone.sip.message import MAX_MESSAGE_BYTES
from aftertone.sip.stream import StreamSplitter
from tests.unit.sip.kit import request

FIRST = request(branch="z9hG4bK1")
SECOND = request("OPTIONS", branch="z9hG4bK2")


def test_several_messages_in_one_read() -> None:
    splitter = StreamSplitter()
    assert splitter.feed(FIRST + SECOND + FIRST[:40]) == [FIRST, SECOND]
    assert splitter.pending == 40
    assert splitter.feed(FIRST[40:]) == [FIRST]
    assert splitter.pending == 0


def test_byte_by_byte() -> None:
    splitter = StreamSplitter()
    whole = b"\r\n\r\n" + FIRST + b"\r\n" + SECOND + b"\r\n\r\n\r\n" + FIRST
    out = [message for byte in whole for message in splitter.feed(bytes([byte]))]
    assert out == [FIRST, SECOND, FIRST]
    assert splitter.pings == 2


def test_keepalives_are_counted_and_not_kept() -> None:
    splitter = StreamSplitter()
    assert splitter.feed(b"\r\n\r\n" * 1000) == []
    assert (splitter.pings, splitter.pending) == (1000, 0)
    assert splitter.feed(b"\r\n") == []
    assert splitter.pings == 1000
    assert splitter.feed(b"\r\n") == []
    assert splitter.pings == 1001


def test_compact_length_and_bodies_that_look_like_heads() -> None:
    body = b"\r\n\r\nINVITE sip:x SIP/2.0\r\n\r\n"
    message = b"INFO sip:a@b SIP/2.0\r\nL : %d\r\n\r\n" % len(body) + body
    assert StreamSplitter().feed(message + message) == [message, message]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"X: y", "no Content-Length"),
        (b"l: 5x", "not a number"),
        (b"l: -5", "not a number"),
        (b"l: 1\r\nContent-Length: 1", "more than once"),
        (b"l: 99999999", "bytes"),
    ],
)
def test_a_head_without_a_usable_length_ends_the_stream_and_is_handed_out(line: bytes, why: str) -> None:
    splitter = StreamSplitter()
    head = b"INVITE sip:a@b SIP/2.0\r\n" + line + b"\r\n\r\n"
    assert splitter.feed(FIRST + head + FIRST) == [FIRST, head]
    assert why in splitter.failed
    assert splitter.feed(FIRST) == []


def test_a_head_that_does_not_end_is_given_up_at_the_limit() -> None:
    splitter = StreamSplitter()
    for _ in range(MAX_MESSAGE_BYTES // 1024):
        assert splitter.feed(b"x" * 1024) == []
    assert splitter.failed == ""
    splitter.feed(b"x")
    assert "too long" in splitter.failed
    assert splitter.pending <= MAX_MESSAGE_BYTES + 1024


def test_a_pong_is_taken_once_and_only_when_it_is_awaited() -> None:
    splitter = StreamSplitter()
    splitter.awaits_pong = True
    assert splitter.feed(FIRST + b"\r\n") == [FIRST]
    assert (splitter.awaits_pong, splitter.pings, splitter.pending) == (False, 0, 0)
    splitter.awaits_pong = True
    assert splitter.feed(b"\r\n\r\n\r\n" + SECOND) == [SECOND]
    assert (splitter.awaits_pong, splitter.pings) == (False, 1)


def test_line_ends_alone_are_nothing_unfinished() -> None:
    splitter = StreamSplitter()
    for piece in (b"\r", b"\n", b"\r"):
        assert splitter.feed(piece) == []
        assert splitter.pending == 0
    assert splitter.feed(b"\n") == []
    assert splitter.pings == 1
