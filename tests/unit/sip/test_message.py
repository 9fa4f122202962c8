"""aftertone.sip.message: whole messages."""

from __future__ import annotations

import pytest

from aftertone.sip.message import (
    MAX_HEADERS,
    MAX_LINE_BYTES,
    MAX_MESSAGE_BYTES,
    ParseError,
    Request,
    Response,
    TooLargeError,
    VersionError,
    parse,
    salvage,
    serialize,
)
from tests.unit.sip.kit import SDP, request


def parsed(data: bytes) -> Request:
    message = parse(data)
    assert isinstance(message, Request)
    return message


def test_a_request_in_its_parts() -> None:
    message = parsed(request())
    assert (message.method, message.uri, message.body) == ("INVITE", "sip:box@192.0.2.1", SDP)
    assert (message.from_.display, message.from_.tag, message.to.tag) == ("Ann", "caller", "")
    assert (message.call_id, message.cseq.number, message.via.branch) == ("call-1@peer", 1, "z9hG4bKone")
    assert message.contact is not None
    assert message.contact.uri == "sip:ann@192.0.2.7:5062"
    assert message.content_type == "application/sdp"
    assert "INVITE" in repr(message)


def test_a_response_in_its_parts() -> None:
    message = parse(b"SIP/2.0 486 Busy  Here\r\nVia: SIP/2.0/UDP a\r\nl:0\r\n\r\n")
    assert isinstance(message, Response)
    assert (message.status, message.reason) == (486, "Busy  Here")
    assert "486" in repr(message)
    bare = parse(b"SIP/2.0 200\r\n\r\n")
    assert isinstance(bare, Response)
    assert bare.reason == ""


def test_compact_names_folds_blanks_and_case_mean_the_same() -> None:
    message = parsed(
        b"INVITE sip:a@b SIP/2.0\r\nv : SIP/2.0/UDP h;branch=z1\r\nVIA:SIP/2.0/UDP i,\r\n SIP/2.0/UDP j\r\n"
        b"f: a <sip:a@b>\r\n ;tag=1\r\nT:sip:b@c\r\ni:x\r\nCSEQ: 1\r\n\tINVITE\r\nk: timer\r\ns:\r\n\r\n"
    )
    assert [via.host for via in message.vias] == ["h", "i", "j"]
    assert message.from_.tag == "1"
    assert message.to.uri == "sip:b@c"
    assert message.cseq.number == 1
    assert message.tokens("supported") == ["timer"]
    assert message.all("subject") == []
    assert message.contact is None
    assert message.content_type == ""


def test_routes_keep_their_order_across_lines_and_commas() -> None:
    lines = b"Record-Route: <sip:a;lr>, <sip:b;lr>\r\nRecord-Route: <sip:c,d;lr>\r\n"
    message = parsed(b"INVITE sip:a@b SIP/2.0\r\n" + lines + b"\r\n")
    assert message.all("record-route") == ["<sip:a;lr>", "<sip:b;lr>", "<sip:c,d;lr>"]


def test_the_body_is_counted_in_bytes() -> None:
    body = "Grüße".encode()
    message = parsed(b"MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 7\r\n\r\n" + body + b"trailing")
    assert message.body == body
    with pytest.raises(ParseError, match="body"):
        parse(b"MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 8\r\n\r\n" + body)


def test_without_a_length_a_datagram_ends_the_body_and_a_stream_is_refused() -> None:
    data = b"MESSAGE sip:a@b SIP/2.0\r\n\r\nrest"
    assert parsed(data).body == b"rest"
    with pytest.raises(ParseError, match="Content-Length"):
        parse(data, stream=True)


def test_bytes_that_are_no_text_survive() -> None:
    data = b"INVITE sip:a@b SIP/2.0\r\nFrom: \xff\xfe <sip:a@b>\r\nContent-Length: 0\r\n\r\n"
    assert b"From: \xff\xfe <sip:a@b>" in serialize(parse(data))


def test_serializing_gives_back_what_was_parsed() -> None:
    message = parsed(request(extra="X-Own: 1\r\nX-Own: 2"))
    again = parsed(serialize(message))
    assert (again.headers, again.body, again.uri) == (message.headers, message.body, message.uri)
    answer = parse(serialize(Response(200, "OK", {"via": ["SIP/2.0/UDP a"]}, b"xy")))
    assert (answer.get("content-length"), answer.body) == ("2", b"xy")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\n",
        b"INVITE  sip:a@b SIP/2.0\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0 \r\n\r\n",
        b"INVITE sip:a@b; lr SIP/2.0\r\n\r\n",
        b"INVITE sip:a@b\r\n\r\n",
        b"INVITE sip:a@b HTTP/1.1\r\n\r\n",
        b"IN@VITE sip:a@b SIP/2.0\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nNo colon\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nBad Name: x\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\n folded: x\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nA: b\nc: d\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nA: b\rc: d\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nl: 0\r\nl: 0\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nl: -1\r\n\r\n",
        b"SIP/2.0 20 OK\r\n\r\n",
        b"SIP/2.0 099 OK\r\n\r\n",
        b"SIP/2.0 4294967301 better not\r\n\r\n",
        b"SIP/2.0 \r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
    ],
)
def test_broken_messages_are_a_parse_error(data: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse(data)
    assert caught.value.sip_status == 400


def test_limits_and_versions_have_answers_of_their_own() -> None:
    start = b"INVITE sip:a@b SIP/2.0\r\n"
    for data in (
        b"x" * (MAX_MESSAGE_BYTES + 1),
        start + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        start + b"A: " + b"b" * MAX_LINE_BYTES + b"\r\n\r\n",
        start + b"A: b" + b"\r\n c" * MAX_LINE_BYTES + b"\r\n\r\n",
        start + b"l: 99999\r\n\r\n",
    ):
        with pytest.raises(TooLargeError) as caught:
            parse(data)
        assert caught.value.sip_status == 513
    with pytest.raises(VersionError) as version:
        parse(b"INVITE sip:a@b SIP/7.0\r\n\r\n")
    assert version.value.sip_status == 505
    assert parse(start + b"A: b\r\n" * MAX_HEADERS + b"\r\n")
    assert parse(start + b"A: " + b"b" * 4000 + b"\r\nB: " + b"b" * 8000 + b"\r\n\r\n")


def test_required_headers_stand_exactly_once() -> None:
    message = parsed(request(drop="Call-ID", extra="To: <sip:c@d>"))
    for reading in ("call_id", "to"):
        with pytest.raises(ParseError, match="exactly once"):
            getattr(message, reading)
    with pytest.raises(ParseError, match="no Via"):
        _ = parsed(request(drop="Via")).via


def test_salvaging_keeps_what_an_answer_echoes() -> None:
    broken = request(extra="no colon here").replace(b"SIP/2.0\r\nVia", b"SIP/2.0\r\n: empty\r\nVia", 1)
    with pytest.raises(ParseError):
        parse(broken)
    kept = salvage(broken)
    assert kept is not None
    assert set(kept.headers) == {"via", "from", "to", "call-id", "cseq"}
    assert kept.method == "INVITE"


def test_nothing_is_salvaged_from_responses_acks_and_noise() -> None:
    assert salvage(request("ACK")[:-5]) is None
    assert salvage(b"SIP/2.0 999 what\r\nVia: SIP/2.0/UDP a\r\n") is None
    assert salvage(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is None
    assert salvage(request(via="SIP/2.0/UDP h;;,;,,")) is None
    assert salvage(b"\xff\x00") is None
    kept = salvage(b"INVITE x\r\nVia: SIP/2.0/UDP a\r\nFrom: a\nInjected: b\r\n")
    assert kept is not None
    assert "from" not in kept.headers
