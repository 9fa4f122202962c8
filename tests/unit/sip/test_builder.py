"""aftertone.sip.builder: what we write."""

from __future__ import annotations

import pytest

from aftertone.errors import UsageError
from aftertone.sip.builder import build_request, build_response, contact_uri, echo_of, salvage_echo, via_line
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response, parse
from tests.unit.sip.kit import FLOW, SDP, request

V6 = Flow("TCP", ("2001:db8::7", 5060), ("2001:db8::1", 5061))


def asked(**changes: str) -> Request:
    message = parse(request(**changes))  # type: ignore[arg-type]
    assert isinstance(message, Request)
    return message


def answered(data: bytes) -> Response:
    message = parse(data)
    assert isinstance(message, Response)
    return message


def test_an_answer_echoes_what_it_must() -> None:
    extra = "Via: SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKtwo\r\nRecord-Route: <sip:p;lr>\r\nRecord-Route: <sip:q;lr>"
    question = asked(extra=extra)
    data = build_response(echo_of(question, FLOW), 200, tag="us", body=SDP, content_type="application/sdp")
    answer = answered(data)
    assert [via.branch for via in answer.vias] == ["z9hG4bKone", "z9hG4bKtwo"]
    assert (answer.via.params["received"], answer.via.params["rport"]) == ("192.0.2.7", "5062")
    assert answer.all("record-route") == ["<sip:p;lr>", "<sip:q;lr>"]
    assert (answer.from_, answer.call_id, answer.cseq) == (question.from_, question.call_id, question.cseq)
    assert (answer.to.tag, answer.body, answer.content_type) == ("us", SDP, "application/sdp")
    assert (answer.reason, answer.get("content-length")) == ("OK", str(len(SDP)))


def test_a_failure_and_a_100_echo_no_routes() -> None:
    echo = echo_of(asked(extra="Record-Route: <sip:p;lr>"), FLOW)
    for status in (100, 486):
        assert b"Record-Route" not in build_response(echo, status)
    assert answered(build_response(echo, 100)).to.tag == ""


def test_joined_vias_keep_the_lower_ones() -> None:
    question = asked(via="SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKa, SIP/2.0/TCP h;branch=z9hG4bKb")
    answer = answered(build_response(echo_of(question, FLOW), 404))
    assert [(via.host, via.params.get("received")) for via in answer.vias] == [("10.0.0.1", "192.0.2.7"), ("h", None)]


def test_a_tag_that_is_there_stays() -> None:
    answer = answered(build_response(echo_of(asked(to_tag="theirs"), FLOW), 481, tag="ours"))
    assert answer.to.tag == "theirs"


def test_a_broken_to_is_echoed_as_it_stands() -> None:
    broken = asked()
    broken.headers["to"] = ['"unterminated <sip:a@b>']
    data = build_response(salvage_echo(broken, FLOW), 400, tag="us")
    assert b'To: "unterminated <sip:a@b>;tag=us\r\n' in data


def test_nothing_from_the_application_breaks_out_of_its_line() -> None:
    echo = echo_of(asked(), FLOW)
    for broken in (
        {"reason": "a\r\nb"},
        {"fields": [("X", "a\nb")]},
        {"body": b"x", "content_type": "a/b\r\nc: d"},
        {"body": b"x"},
    ):
        with pytest.raises(UsageError):
            build_response(echo, 200, **broken)


def test_an_unknown_status_still_has_a_phrase() -> None:
    assert build_response(echo_of(asked(), FLOW), 499).startswith(b"SIP/2.0 499 Unknown\r\n")


def test_via_and_contact_name_the_address_that_the_peer_can_reach() -> None:
    assert via_line(V6, "z9hG4bK1") == "SIP/2.0/TCP [2001:db8::1]:5061;rport;branch=z9hG4bK1"
    assert contact_uri(V6, "box") == "sip:box@[2001:db8::1]:5061;transport=tcp"
    assert contact_uri(FLOW, "") == "sip:192.0.2.1:5060"


def test_a_request_has_its_length_type_and_hops() -> None:
    data = build_request(
        "INFO", "sip:a@b", via=via_line(FLOW, "z9hG4bK1"), cseq=3, lines=[("From", "<sip:a@b>;tag=1")], body=b"xy",
        content_type="text/plain",
    )  # fmt: skip
    message = parse(data)
    assert isinstance(message, Request)
    assert (message.get("max-forwards"), message.get("content-length"), message.body) == ("70", "2", b"xy")
    assert (message.cseq.method, message.content_type) == ("INFO", "text/plain")
