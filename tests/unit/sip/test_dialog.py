"""aftertone.sip.dialog: route sets, targets, order."""

from __future__ import annotations

import pytest

from aftertone.sip.dialog import Dialog, dialog_from_request, dialog_from_response, literal_flow
from aftertone.sip.events import TransactionId
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response, parse
from tests.unit.sip.kit import FLOW, TCP_FLOW, request

ROUTES = "Record-Route: <sip:p2.example.com;lr>, <sip:p1.example.com;lr>"


def called(extra: str = "", drop: str = "") -> Dialog:
    message = parse(request(extra=extra, drop=drop))
    assert isinstance(message, Request)
    return dialog_from_request(message, "us", FLOW, 7, TransactionId(1))


def calling(extra: str = "") -> Dialog:
    head = (
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:us@x>;tag=us\r\n"
        f"To: <sip:them@y>;tag=them\r\nCall-ID: c\r\nCSeq: 4 INVITE\r\n{extra}\r\n"
    )
    message = parse(head.encode())
    assert isinstance(message, Response)
    return dialog_from_response(message, "<sip:us@x>;tag=us", "sip:them@y", FLOW)


def sent(dialog: Dialog, method: str = "BYE") -> Request:
    message = parse(dialog.request(method, "z9hG4bKnew", user_agent="Test"))
    assert isinstance(message, Request)
    return message


def test_the_called_side_uses_the_recorded_route_in_order() -> None:
    bye = sent(called(ROUTES))
    assert bye.all("route") == ["<sip:p2.example.com;lr>", "<sip:p1.example.com;lr>"]
    assert bye.uri == "sip:ann@192.0.2.7:5062"
    assert (bye.from_.tag, bye.to.tag, bye.to.display) == ("us", "caller", "Ann")
    assert (bye.cseq.number, bye.call_id, bye.get("user-agent")) == (8, "call-1@peer", "Test")
    assert (bye.via.host, bye.via.port, bye.via.branch) == ("192.0.2.1", 5060, "z9hG4bKnew")


def test_the_calling_side_uses_the_recorded_route_backwards() -> None:
    dialog = calling(f"{ROUTES}\r\nContact: <sip:them@198.51.100.9:5070>\r\n")
    bye = sent(dialog)
    assert bye.all("route") == ["<sip:p1.example.com;lr>", "<sip:p2.example.com;lr>"]
    assert (bye.uri, bye.cseq.number) == ("sip:them@198.51.100.9:5070", 5)
    assert dialog.next_flow() == FLOW


def test_a_strict_router_gets_its_own_uri_in_the_request_line() -> None:
    bye = sent(called("Record-Route: <sip:old.example.com>, <sip:p1.example.com;lr>"))
    assert bye.uri == "sip:old.example.com"
    assert bye.all("route") == ["<sip:p1.example.com;lr>", "<sip:ann@192.0.2.7:5062>"]


def test_without_a_contact_the_peer_is_reached_where_it_came_from() -> None:
    assert called(drop="Contact").target == "sip:192.0.2.7:5062"
    assert calling().target == "sip:them@y"


def test_older_requests_are_out_of_order() -> None:
    dialog = called()
    assert dialog.in_order(1)
    assert dialog.in_order(5)
    assert not dialog.in_order(4)
    assert dialog.in_order(6)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sip:a@192.0.2.7:5062", FLOW),
        ("sip:a@192.0.2.8", Flow("UDP", ("192.0.2.8", 5060), FLOW.local)),
        ("sip:a@[2001:db8::1]:7;transport=tcp", Flow("TCP", ("2001:db8::1", 7), FLOW.local)),
        ("sip:a@name.example", FLOW),
        ("sip:a@192.0.2.8;transport=sctp", FLOW),
        ("tel:+1", FLOW),
        ("mailto:x", FLOW),
    ],
)
def test_only_addresses_are_followed(uri: str, expected: Flow) -> None:
    assert literal_flow(uri, FLOW) == expected


def test_a_call_of_ours_follows_the_contact_and_a_call_to_us_the_flow() -> None:
    there = Flow("UDP", ("198.51.100.9", 5070), FLOW.local)
    assert calling("Contact: <sip:them@198.51.100.9:5070>\r\n").next_flow() == there
    dialog = called()
    dialog.flow = Flow("TCP", ("192.0.2.7", 40000), FLOW.local)
    assert dialog.next_flow() == dialog.flow
    assert dialog.literal_flow() == FLOW
    dialog.flow = TCP_FLOW
    assert dialog.literal_flow() == TCP_FLOW
