"""aftertone.sip.outside and its transactions: requests of ours outside every call."""

from __future__ import annotations

import pytest

from aftertone.errors import BusyError, UsageError
from aftertone.sip.agent import Agent
from aftertone.sip.events import FlowLost, RequestAnswered, RequestFailed, RequestId
from aftertone.sip.flow import Flow
from aftertone.sip.message import ParseError, Request
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import FLOW, MS, TCP_FLOW, S, agent, parts, run_out

ROUTE = ("sip:p1.example;lr", "sip:p2.example;lr")


def ask(subject: Agent, method: str = "REGISTER", flow: Flow = FLOW, **more: object) -> RequestId:
    return subject.request(method, "sip:them.example", from_uri="sip:us@them.example", flow=flow, now_ns=0, **more)  # type: ignore[arg-type]


def sent(subject: Agent) -> Request:
    [message], events = parts(subject)
    assert isinstance(message, Request)
    assert events == []
    return message


def reply(subject: Agent, to: Request, status: int, now_ns: int = 0, flow: Flow = FLOW, tag: str = "") -> None:
    from_ = to.get("from") if not tag else f"<sip:us@them.example>;tag={tag}"
    text = (
        f"SIP/2.0 {status} X\r\nVia: {to.get('via')}\r\nFrom: {from_}\r\nTo: {to.get('to')};tag=t\r\n"
        f"Call-ID: {to.get('call-id')}\r\nCSeq: {to.get('cseq')}\r\nContent-Length: 0\r\n\r\n"
    )
    subject.receive(text.encode(), flow, now_ns)


def test_what_is_given_is_what_is_sent() -> None:
    subject = agent()
    ask(
        subject,
        to_uri="sip:us@them.example",
        route=ROUTE,
        headers=[("Expires", "60")],
        body=b"x",
        content_type="text/plain",
        call_id="mine",
        from_tag="tag",
        cseq=7,
    )
    found = sent(subject)
    assert (found.method, found.uri, found.to.uri) == ("REGISTER", "sip:them.example", "sip:us@them.example")
    assert found.headers["route"] == ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]
    assert (found.call_id, found.from_.tag, found.cseq.number) == ("mine", "tag", 7)
    assert (found.get("expires"), found.body, found.get("user-agent")) == ("60", b"x", "Aftertone")
    assert found.contact is None


def test_what_is_not_given_is_made_up() -> None:
    subject = agent()
    ask(subject, "OPTIONS")
    found = sent(subject)
    assert (found.to.uri, found.cseq.number) == ("sip:them.example", 1)
    assert len(found.call_id) == 32
    assert len(found.from_.tag) == 16


@pytest.mark.parametrize("status", [200, 302, 401, 503, 603])
def test_the_final_answer_is_told_once(status: int) -> None:
    subject = agent()
    name = ask(subject)
    request = sent(subject)
    reply(subject, request, 100)
    assert parts(subject) == ([], [])
    for _ in range(2):
        reply(subject, request, status)
    _, [event] = parts(subject)
    assert isinstance(event, RequestAnswered)
    assert (event.request, event.response.status) == (name, status)
    _, messages, events = run_out(subject, 0)
    assert (messages, events, subject.held().client_transactions) == ([], [], 0)


def test_an_answer_to_another_call_is_none() -> None:
    subject = agent()
    ask(subject)
    reply(subject, sent(subject), 200, tag="other")
    assert parts(subject) == ([], [])


def test_silence_ends_after_64_t1() -> None:
    subject = agent()
    name = ask(subject)
    over_ns, messages, events = run_out(subject, 0)
    assert events == [RequestFailed(name, 408, "no answer from the peer")]
    assert over_ns == 32 * S
    assert len(messages) == 11


def test_a_lost_connection_ends_its_requests_at_once_and_no_others() -> None:
    subject = agent()
    lost, kept = ask(subject, flow=TCP_FLOW), ask(subject)
    parts(subject)
    subject.flow_lost(TCP_FLOW, 0)
    assert parts(subject)[1] == [RequestFailed(lost, 503, "the connection is lost"), FlowLost(TCP_FLOW)]
    _, _, events = run_out(subject, 500 * MS)
    assert events == [RequestFailed(kept, 408, "no answer from the peer")]


@pytest.mark.parametrize("method", ["INVITE", "BYE", "A B", ""])
def test_methods_of_calls_have_commands_of_their_own(method: str) -> None:
    with pytest.raises(UsageError, match="no method"):
        ask(agent(), method)


@pytest.mark.parametrize(
    "more",
    [
        {"call_id": "a\r\nb"},
        {"from_tag": "a\nb"},
        {"headers": [("X", "a\r\nb")]},
        {"cseq": 2**31},
        {"cseq": -1},
        {"to_uri": "sip:a\r\nb"},
    ],
)
def test_nothing_breaks_out_of_its_line(more: dict[str, object]) -> None:
    subject = agent()
    with pytest.raises(UsageError):
        ask(subject, **more)  # type: ignore[arg-type]
    assert parts(subject) == ([], [])


def test_a_malformed_uri_is_refused() -> None:
    with pytest.raises(ParseError):
        ask(agent(), route=("nonsense",))


def test_requests_are_bounded() -> None:
    subject = agent(AgentSettings(max_transactions=2))
    ask(subject)
    ask(subject)
    with pytest.raises(BusyError):
        ask(subject)
