"""What the agent makes of transports: large requests, connections that fail, contacts that stay encrypted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aftertone.sip.builder import contact_uri
from aftertone.sip.dialog import literal_flow
from aftertone.sip.events import ByeFinished, CallFailed, CallProgress, FlowLost, IncomingCall, RequestFailed, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.message import parse
from tests.unit.sip.kit import FLOW, PEER, TCP_FLOW, US, S, agent, parts, request, run_out
from tests.unit.sip.test_client import Placed

EITHER = replace(FLOW, either=True)
TLS_FLOW = Flow("TLS", PEER, US, "pbx.example.org")
LARGE = (("Subject", "x" * 1300),)


def sent(subject: object) -> list[Transmit]:
    return [one for one in subject.outputs() if isinstance(one, Transmit)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("flow", "headers", "transport"), [(EITHER, LARGE, "TCP"), (FLOW, LARGE, "UDP"), (EITHER, (), "UDP")]
)
def test_what_is_too_large_for_a_datagram_goes_by_tcp_where_it_may(
    flow: Flow, headers: tuple[tuple[str, str], ...], transport: str
) -> None:
    subject = agent()
    subject.request("MESSAGE", "sip:a@b.example", from_uri="sip:c@d.example", flow=flow, headers=headers, now_ns=0)
    (output,) = sent(subject)
    assert output.flow.transport == transport
    assert output.flow.remote == PEER
    assert parse(output.data).via.transport == transport
    assert len(output.data.split(b"\r\nVia: ")) == 2


def test_where_tcp_cannot_be_opened_the_large_request_goes_by_udp_and_is_resent() -> None:
    placed = Placed(flow=EITHER, body=b"x" * 1300)
    assert placed.invite.via.transport == "TCP"
    placed.agent.transport_failed(TCP_FLOW, 0, "refused")
    outputs = placed.agent.outputs()
    again = outputs[0]
    assert isinstance(again, Transmit)
    assert again.flow == FLOW
    invite = parse(again.data)
    assert (invite.via.transport, invite.via.branch) == ("UDP", placed.invite.via.branch)
    assert outputs[1:] == [FlowLost(TCP_FLOW)]
    placed.agent.advance(S)
    assert [one.flow for one in sent(placed.agent)] == [FLOW]
    placed.agent.cancel(placed.call, S)
    placed.agent.receive(request_answer(again.data, 180), FLOW, S)
    cancel = sent(placed.agent)[0]
    assert cancel.flow == FLOW
    assert parse(cancel.data).via.transport == "UDP"


def request_answer(data: bytes, status: int) -> bytes:
    """Return a bare answer to a request of ours."""
    message = parse(data)
    lines = [f"{name}: {message.get(name)}" for name in ("via", "from", "call-id", "cseq")]
    return "\r\n".join(
        [f"SIP/2.0 {status} x", *lines, f"To: {message.get('to')};tag=them", "Content-Length: 0", "", ""]
    ).encode()


def test_a_call_whose_connection_cannot_be_opened_fails_at_once() -> None:
    placed = Placed(flow=TCP_FLOW)
    placed.agent.transport_failed(TCP_FLOW, 0, "nobody listens")
    assert parts(placed.agent)[1] == [CallFailed(placed.call, 503, "nobody listens"), FlowLost(TCP_FLOW)]
    assert placed.agent.held().client_transactions == 0
    assert run_out(placed.agent, 0)[2] == []


def test_a_call_that_rings_survives_its_connection() -> None:
    placed = Placed(flow=TCP_FLOW)
    assert [type(event) for event in placed.answer(placed.invite, 180)[1]] == [CallProgress]
    placed.agent.flow_lost(TCP_FLOW, 0)
    assert parts(placed.agent)[1] == [FlowLost(TCP_FLOW)]
    assert placed.answer(placed.invite, 486)[1] == [CallFailed(placed.call, 486, "X")]


def test_a_bye_whose_connection_is_lost_is_over() -> None:
    subject = agent()
    subject.receive(request(), TCP_FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    subject.respond(event.transaction_id, 200, now_ns=0)
    subject.receive(request("ACK", branch="z9hG4bKa", to_tag=event.dialog_id.local_tag), TCP_FLOW, 0)
    subject.bye(event.dialog_id, 0)
    subject.outputs()
    assert subject.uses(TCP_FLOW)
    subject.flow_lost(TCP_FLOW, 0)
    assert parts(subject)[1] == [ByeFinished(event.dialog_id, 503), FlowLost(TCP_FLOW)]
    assert not subject.uses(TCP_FLOW)


def test_requests_on_other_flows_are_left_alone() -> None:
    subject = agent()
    subject.request("OPTIONS", "sip:a@b.example", from_uri="sip:c@d.example", flow=TCP_FLOW, now_ns=0)
    subject.outputs()
    subject.transport_failed(replace(TCP_FLOW, remote=("192.0.2.99", 5060)), 0, "refused")
    assert [type(event) for event in parts(subject)[1]] == [FlowLost]
    subject.transport_failed(TCP_FLOW, 0, "refused")
    assert [type(event) for event in parts(subject)[1]] == [RequestFailed, FlowLost]


def test_an_answer_goes_to_the_port_of_the_via_when_the_connection_is_gone() -> None:
    came = Flow("TCP", ("192.0.2.7", 40_000), US)
    subject = agent()
    subject.receive(request(via="SIP/2.0/TCP 192.0.2.7:5070;branch=z9hG4bKone"), came, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    subject.flow_lost(came, 0)
    subject.outputs()
    subject.respond(event.transaction_id, 200, now_ns=0)
    (answer,) = sent(subject)
    assert answer.flow == Flow("TCP", ("192.0.2.7", 5070), US)
    subject.advance(S)
    assert {one.flow for one in sent(subject)} == {answer.flow}


@pytest.mark.parametrize(
    ("uri", "known", "expected"),
    [
        ("sips:a@192.0.2.8", FLOW, Flow("TLS", ("192.0.2.8", 5061), US)),
        ("sip:a@192.0.2.8;transport=TLS", FLOW, Flow("TLS", ("192.0.2.8", 5061), US)),
        ("sip:a@192.0.2.7:5062;transport=tls", TLS_FLOW, TLS_FLOW),
        ("sip:a@192.0.2.8:5062", TLS_FLOW, TLS_FLOW),
        ("sip:a@192.0.2.8;transport=tcp", TLS_FLOW, TLS_FLOW),
    ],
)
def test_what_is_encrypted_stays_so(uri: str, known: Flow, expected: Flow) -> None:
    assert literal_flow(uri, known) == expected


def test_a_contact_without_a_transport_leaves_the_choice() -> None:
    assert literal_flow("sip:a@192.0.2.8", FLOW).either
    assert not literal_flow("sip:a@192.0.2.8;transport=udp", FLOW).either


def test_contacts_over_tls() -> None:
    assert contact_uri(TLS_FLOW, "box") == "sip:box@192.0.2.1:5060;transport=tls"
    assert contact_uri(TLS_FLOW, "box", secure=True) == "sips:box@192.0.2.1:5060"
    assert contact_uri(FLOW, "box", secure=True) == "sip:box@192.0.2.1:5060"
