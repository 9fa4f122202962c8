"""The agent under attack: budgets, scanners, and answers that are no weapon."""

from __future__ import annotations

import dataclasses

import pytest

from aftertone.sip.agent import Agent, Held
from aftertone.sip.budgets import Guard, Limits, Why
from aftertone.sip.events import IncomingCall, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.message import Response
from aftertone.sip.server import MAX_GAIN
from aftertone.sip.settings import AgentSettings
from tests.conformance.test_rfc4475 import CASES
from tests.unit.sip.kit import FLOW, PEER, TCP_FLOW, US, S, agent, parts, request, run_out, seeded, statuses

FEW = Limits(calls_a_second=0.2, calls_at_once=2, unanswered_calls=1, registrations_a_minute=1, strangers_unanswered=9)
SETTINGS = AgentSettings(ignore_scanners=True)
TINY = (
    "v:SIP/2.0/UDP a\r\n",
    "v:SIP/2.0/UDP a\r\nf:<sip:a>;tag=1\r\nt:<sip:a>\r\ni:1\r\n",
)


def guarded(limits: Limits = FEW, settings: AgentSettings = SETTINGS) -> tuple[Agent, Guard]:
    guard = Guard(limits)
    return Agent(settings, seeded(), guard), guard


def call(number: int, method: str = "INVITE") -> bytes:
    return request(method, branch=f"z9hG4bK{number}", call_id=f"call-{number}")


def test_a_call_beyond_the_budget_is_refused_and_leaves_nothing() -> None:
    subject, guard = guarded(dataclasses.replace(FEW, unanswered_calls=99, calls_at_once=99))
    for number in range(6):
        subject.receive(call(number), FLOW, 0)
    messages, events = parts(subject)
    assert sum(isinstance(event, IncomingCall) for event in events) == 2
    assert statuses(messages) == [100, 100, 503, 503]
    assert isinstance(messages[-1], Response)
    assert messages[-1].get("retry-after") == "30"
    assert subject.held().server_transactions == 2
    assert guard.refused[Why.CALLS] == 4


def test_a_retransmission_costs_no_budget() -> None:
    subject, guard = guarded()
    for _ in range(50):
        subject.receive(call(1), FLOW, 0)
    assert guard.refused.total() == 0


def test_an_unconfirmed_call_is_counted_until_its_ack_and_a_confirmed_one_until_its_end() -> None:
    subject, guard = guarded(dataclasses.replace(FEW, calls_a_second=100))
    subject.receive(call(1), FLOW, 0)
    (first,) = (event for event in parts(subject)[1] if isinstance(event, IncomingCall))
    subject.receive(call(2), FLOW, 0)
    assert statuses(parts(subject)[0]) == [503]
    subject.respond(first.transaction_id, 200, body=b"x", content_type="application/sdp", now_ns=1)
    tag = first.dialog_id.local_tag
    ack = request("ACK", branch="z9hG4bKack", call_id="call-1", to_tag=tag)
    subject.receive(ack, FLOW, 2)
    subject.receive(call(3), FLOW, 3)
    assert statuses(parts(subject)[0]) == [200, 100]
    assert guard.open_calls(PEER[0]) == 2
    run_out(subject, 4)
    subject.receive(request("BYE", branch="z9hG4bKbye", call_id="call-1", to_tag=tag, cseq=2), FLOW, 400 * S)
    _, ended = parts(subject)
    subject.respond(ended[0].transaction_id, 200, now_ns=400 * S)  # type: ignore[union-attr]
    run_out(subject, 400 * S)
    assert guard.open_calls(PEER[0]) == 0


def test_calls_that_nobody_confirms_leave_nothing_when_their_time_is_over() -> None:
    subject, guard = guarded(Limits())
    for number in range(200):
        subject.receive(call(number), FLOW, 0)
    for event in parts(subject)[1]:
        if isinstance(event, IncomingCall) and event.transaction_id % 2:
            subject.respond(event.transaction_id, 200, body=b"x", content_type="application/sdp", now_ns=1)
    assert guard.open_calls(PEER[0]) == 200
    run_out(subject, 1)
    assert subject.held() == Held(0, 0, 0, 0, 0)
    assert guard.open_calls(PEER[0]) == 0


@pytest.mark.parametrize("method", ["REGISTER", "SUBSCRIBE"])
def test_registrations_and_subscriptions_have_a_budget(method: str) -> None:
    subject, guard = guarded()
    for number in range(3):
        subject.receive(call(number, method), FLOW, 0)
    first, *others = statuses(parts(subject)[0])
    assert first != 503
    assert others == [503, 503]
    assert guard.refused[Why.REGISTRATIONS] == 2


def test_scanners_hear_nothing_unless_the_owner_wants_to_answer() -> None:
    scan = request("OPTIONS", extra="User-Agent: friendly-scanner")
    subject, guard = guarded()
    subject.receive(scan, FLOW, 0)
    assert subject.outputs() == []
    assert guard.refused[Why.SCANNERS] == 1
    subject, guard = guarded(settings=AgentSettings())
    subject.receive(scan, FLOW, 0)
    assert statuses(parts(subject)[0]) == [200]
    assert guard.refused.total() == 0


def test_a_broken_request_of_a_scanner_hears_nothing_either() -> None:
    subject, _ = guarded()
    scan = request("OPTIONS", drop="From", extra='From: "sipvicious"<sip:100@1.1.1.1>;tag=1\r\nCSeq: x\r\nFolded')
    subject.receive(scan, FLOW, 0)
    assert subject.outputs() == []


@pytest.mark.parametrize("data", [data for _, data, _ in CASES.values()], ids=list(CASES))
def test_no_answer_is_much_longer_than_what_it_answers(data: bytes) -> None:
    assert gain(data) <= MAX_GAIN


@pytest.mark.parametrize("headers", TINY)
@pytest.mark.parametrize(
    "start",
    [
        *(f"{method} sip:a SIP/2.0" for method in ("OPTIONS", "REGISTER", "BYE", "CANCEL", "MESSAGE", "X", "INFO")),
        "OPTIONS sip:a SIP/3.0",
        "OPTIONS tel:1 SIP/2.0",
        "X",
    ],
)
@pytest.mark.parametrize("extra", ["", "Max-Forwards: 0\r\n", f"Require: {'a,' * 40}b\r\n", "Content-Length: 9\r\n"])
def test_no_answer_to_the_smallest_requests_is_much_longer(start: str, headers: str, extra: str) -> None:
    method = start.split(" ", maxsplit=1)[0]
    assert gain(f"{start}\r\n{headers}CSeq:1 {method}\r\n{extra}\r\n".encode()) <= MAX_GAIN


def gain(data: bytes, flow: Flow = FLOW) -> float:
    """Return how many times as long as ``data`` the longest answer is."""
    subject = agent()
    subject.receive(data, flow, 0)
    return max((len(one.data) for one in subject.outputs() if isinstance(one, Transmit)), default=0) / len(data)


def test_over_a_connection_the_peer_is_there_and_gets_the_whole_answer() -> None:
    tiny = f"OPTIONS sip:a SIP/2.0\r\n{TINY[1]}CSeq:1 OPTIONS\r\nl:0\r\n\r\n".replace("UDP", "TCP").encode()
    assert gain(tiny, TCP_FLOW) > MAX_GAIN


def test_a_usual_request_gets_the_whole_answer() -> None:
    subject = agent()
    subject.receive(request("OPTIONS"), FLOW, 0)
    (answer,) = parts(subject)[0]
    assert answer.get("allow")


def test_another_source_is_served_while_one_is_refused() -> None:
    subject, _ = guarded()
    for number in range(100):
        subject.receive(call(number), FLOW, 0)
    parts(subject)
    subject.receive(call(1000), Flow("UDP", ("198.51.100.4", 5060), US), 0)
    messages, events = parts(subject)
    assert statuses(messages) == [100]
    assert isinstance(events[0], IncomingCall)


def test_nothing_grows_in_a_flood_of_everything() -> None:
    limits = Limits(calls_a_second=10, unanswered_calls=50, registrations_a_minute=60, strangers_unanswered=500)
    subject, guard = guarded(limits)
    most = 0
    for number in range(6000):
        method = ("INVITE", "OPTIONS", "REGISTER", "SUBSCRIBE", "BYE", "CANCEL")[number % 6]
        subject.receive(call(number, method), FLOW, number * S // 1000)
        subject.advance(number * S // 1000)
        subject.outputs()
        held = subject.held()
        most = max(most, held.server_transactions + held.dialogs + held.timers)
    assert most <= 3 * 50
    assert guard.refused[Why.UNANSWERED] > 500
    run_out(subject, 6 * S)
    assert subject.held() == Held(0, 0, 0, 0, 0)


def test_whoever_forges_addresses_keeps_out_no_trunk() -> None:
    guard = Guard(dataclasses.replace(Limits(), strangers_transactions=10), known=lambda host: host == "192.0.2.99")
    subject = Agent(AgentSettings(max_transactions=20, allow=("INVITE", "REGISTER")), seeded(), guard)
    for number in range(60):
        forged = Flow("UDP", (f"203.0.113.{number}", 5060), US)
        subject.receive(call(number, ("INVITE", "REGISTER")[number % 2]), forged, 0)
        for event in parts(subject)[1]:
            # Refused for what it is, and nobody is there to acknowledge that.
            subject.respond(event.transaction_id, 488, now_ns=0)  # type: ignore[union-attr]
    assert subject.held().server_transactions == 10
    parts(subject)
    subject.receive(call(1000), Flow("UDP", ("192.0.2.99", 5060), US), 0)
    assert any(isinstance(event, IncomingCall) for event in parts(subject)[1])
