"""aftertone.sip.agent: the contract with the shell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aftertone.errors import UsageError
from aftertone.sip.agent import Held
from aftertone.sip.events import CallAnswered, DialogEnded, Event, FlowLost, IncomingCall, TransactionId, Transmit
from aftertone.sip.flow import Flow
from tests.unit.sip.kit import FLOW, SDP, TCP_FLOW, US, Wire, agent, parts, request


def test_a_fresh_agent_waits_for_nothing() -> None:
    subject = agent()
    assert (subject.deadline_ns(), subject.outputs(), subject.held()) == (None, [], Held(0, 0, 0, 0, 0))
    subject.advance(10**18)
    assert subject.outputs() == []


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"\0", b"\r\n"])
def test_keepalives_are_counted_and_not_answered(data: bytes) -> None:
    subject = agent()
    subject.receive(data, FLOW, 0)
    assert (subject.outputs(), subject.stats["keepalives"]) == ([], 1)


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01" * 40, b"GET / HTTP/1.1\r\n\r\n", request("ACK", drop="CSeq"), b"x" * 70_000]
)
def test_noise_is_counted_and_not_answered(data: bytes) -> None:
    subject = agent()
    subject.receive(data, FLOW, 0)
    assert subject.outputs() == []
    assert subject.stats["malformed"] == 1


def test_a_request_on_a_connection_needs_its_length() -> None:
    subject = agent()
    subject.receive(request("OPTIONS", drop="Content-Length"), TCP_FLOW, 0)
    output = subject.outputs()[0]
    assert isinstance(output, Transmit)
    assert output.data.startswith(b"SIP/2.0 400 Bad Request (no Content-Length on a connection)\r\n")


def test_a_status_is_three_digits() -> None:
    with pytest.raises(ValueError, match="99"):
        agent().respond(TransactionId(1), 99, now_ns=0)


def test_a_header_with_a_line_break_changes_nothing() -> None:
    subject = agent()
    subject.receive(request(), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    with pytest.raises(UsageError):
        subject.respond(event.transaction_id, 200, headers=[("X", "a\r\nb")], now_ns=0)
    subject.respond(event.transaction_id, 200, now_ns=0)
    assert len(parts(subject)[0]) == 1


def test_a_call_over_a_lost_connection_is_reached_at_its_contact() -> None:
    subject = agent()
    came = Flow("TCP", ("192.0.2.7", 40000), US)
    subject.receive(request(), came, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    subject.respond(event.transaction_id, 200, now_ns=0)
    subject.receive(request("ACK", branch="z9hG4bKa", to_tag=event.dialog_id.local_tag), came, 0)
    subject.outputs()
    subject.flow_lost(came, 0)
    assert subject.outputs() == [FlowLost(came)]
    subject.bye(event.dialog_id, 0)
    output = subject.outputs()[0]
    assert isinstance(output, Transmit)
    assert output.flow == FLOW


def test_a_datagram_that_cannot_be_sent_changes_nothing_for_transactions_that_are_over() -> None:
    subject = agent()
    subject.receive(request(), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    subject.respond(event.transaction_id, 486, now_ns=0)
    subject.outputs()
    subject.transport_failed(FLOW, 0, "no socket")
    assert subject.outputs() == [FlowLost(FLOW)]
    subject.receive(request(), FLOW, 1)
    (again,) = subject.outputs()
    assert isinstance(again, Transmit)
    assert (again.flow, again.data[:11]) == (FLOW, b"SIP/2.0 486")


def test_two_agents_talk() -> None:
    wire = Wire(agent(seed=1), agent(seed=2))
    log: list[str] = []

    def on_b(event: Event) -> None:
        log.append(f"B {type(event).__name__}")
        if isinstance(event, IncomingCall):
            wire.b.respond(event.transaction_id, 180, now_ns=wire.now_ns)
            wire.b.respond(event.transaction_id, 200, body=SDP, content_type="application/sdp", now_ns=wire.now_ns)
        elif isinstance(event, DialogEnded):
            wire.b.respond(event.transaction_id, 200, now_ns=wire.now_ns)

    def on_a(event: Event) -> None:
        log.append(f"A {type(event).__name__}")
        if isinstance(event, CallAnswered):
            wire.a.bye(event.dialog_id, wire.now_ns)

    wire.on_a, wire.on_b = on_a, on_b
    wire.a.invite(
        "sip:b@192.0.2.20",
        from_uri="sip:a@192.0.2.10",
        body=SDP,
        content_type="application/sdp",
        flow=wire.flow_a,
        now_ns=0,
    )
    wire.run()
    assert log == [
        "B IncomingCall",
        "A CallProgress",
        "A CallAnswered",
        "B CallConfirmed",
        "B DialogEnded",
        "A ByeFinished",
    ]
    assert wire.a.held() == wire.b.held() == Held(0, 0, 0, 0, 0)


def test_our_contact_is_the_address_that_the_peer_sees() -> None:
    subject = agent()
    subject.reach_by(lambda flow: replace(flow, local=("203.0.113.5", 41_000)))
    subject.receive(request(), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    assert event.flow == FLOW
    subject.respond(event.transaction_id, 200, now_ns=0)
    [answer] = parts(subject)[0]
    assert answer.get("contact") == "<sip:box@203.0.113.5:41000>"
    subject.invite("sip:them@192.0.2.7", from_uri="sip:us@192.0.2.1", flow=FLOW, now_ns=0)
    [invite] = parts(subject)[0]
    assert invite.get("contact") == "<sip:us@203.0.113.5:41000>"
    assert invite.via.host == "192.0.2.1"
