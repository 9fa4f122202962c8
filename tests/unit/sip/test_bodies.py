"""aftertone.sip.bodies: one description among several parts."""

from __future__ import annotations

import pytest

from aftertone.sip.bodies import unwrapped
from aftertone.sip.events import IncomingCall
from aftertone.sip.message import Request, parse
from tests.unit.sip.kit import FLOW, SDP, agent, parts, request

WANTED = ("application/sdp",)
BODY = (
    b"preamble\r\n--b1\r\nContent-Type: application/ISUP;version=x\r\nContent-Disposition: signal\r\n\r\n\x01\x00\xff\r\n"
    b"--b1\r\nc : Application/SDP\r\n\r\n" + SDP + b"\r\n--b1--\r\nepilogue"
)


def asked(body: bytes, content_type: str) -> Request:
    message = parse(request(body=body, content_type=content_type))
    assert isinstance(message, Request)
    return message


@pytest.mark.parametrize("content_type", ["multipart/mixed;boundary=b1", 'Multipart/Alternative; boundary="b1"'])
def test_the_wanted_part_becomes_the_body(content_type: str) -> None:
    found = unwrapped(asked(BODY, content_type), WANTED)
    assert (found.body, found.content_type, found.get("content-length")) == (SDP, "application/sdp", str(len(SDP)))
    assert found.call_id == "call-1@peer"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (SDP, "application/sdp"),
        (b"", "multipart/mixed;boundary=b1"),
        (BODY, "multipart/mixed"),
        (BODY, "multipart/mixed;boundary=other"),
        (BODY, f"multipart/mixed;boundary={'b' * 71}"),
        (b"--b1\r\n\r\nno type\r\n--b1--", "multipart/mixed;boundary=b1"),
        (b"--b1\r\nContent-Type: nonsense\r\n\r\nx\r\n--b1--", "multipart/mixed;boundary=b1"),
        (b"--b1--\r\n--b1\r\nContent-Type: application/sdp\r\n\r\nx", "multipart/mixed;boundary=b1"),
        (b"--b1\r\nContent-Type: application/sdp", "multipart/mixed;boundary=b1"),
        (b"--b1\r\n\r\n" * 99 + BODY, "multipart/mixed;boundary=b1"),
    ],
)
def test_without_a_wanted_part_nothing_changes(body: bytes, content_type: str) -> None:
    message = asked(body, content_type)
    assert unwrapped(message, WANTED) is message


def test_the_application_sees_the_description_alone() -> None:
    subject = agent()
    subject.receive(request(body=BODY, content_type="multipart/mixed;boundary=b1"), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    assert event.request.body == SDP
