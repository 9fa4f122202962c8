"""aftertone.sip.client: calls that we place."""

from __future__ import annotations

import pytest

from aftertone.errors import BusyError, UsageError
from aftertone.sip.agent import Agent
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.events import (
    ByeFinished,
    CallAnswered,
    CallFailed,
    CallId,
    CallProgress,
    DialogEnded,
    DialogId,
    Event,
    Transmit,
)
from aftertone.sip.flow import Flow
from aftertone.sip.message import ParseError, Request, Response, parse
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import FLOW, TCP_FLOW, S, agent, parts, request, run_out, seeded, statuses

OFFER = b"v=0 offer"


class Placed:
    """A call that we place, and a peer that answers by hand."""

    def __init__(
        self,
        subject: Agent | None = None,
        *,
        body: bytes = OFFER,
        flow: Flow = FLOW,
        login: DigestClient | None = None,
    ) -> None:
        self.agent = subject or agent()
        self.flow = flow
        self.call: CallId = self.agent.invite(
            "sip:them@192.0.2.7:5062",
            from_uri="sip:us@192.0.2.1",
            display_name='Us "all"',
            body=body,
            content_type="application/sdp",
            flow=flow,
            headers=[("X-Test", "1")],
            login=login,
            now_ns=0,
        )
        messages, self.events = parts(self.agent)
        invite = messages[0]
        assert isinstance(invite, Request)
        self.invite = invite

    def answer(
        self, to: Request | Response, status: int, now_ns: int = 0, *, tag: str = "them", extra: str = "",
        body: bytes = b"",
    ) -> tuple[list[Request | Response], list[Event]]:  # fmt: skip
        """Let the peer answer a request of ours."""
        to_line = to.get("to") if "tag=" in to.get("to") or not tag else f"{to.get('to')};tag={tag}"
        head = (
            f"SIP/2.0 {status} X\r\nVia: {to.get('via')}\r\nFrom: {to.get('from')}\r\nTo: {to_line}\r\n"
            f"Call-ID: {to.get('call-id')}\r\nCSeq: {to.get('cseq')}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        )
        self.agent.receive(head.encode() + body, self.flow, now_ns)
        return parts(self.agent)

    def answered(self) -> tuple[Request, DialogId]:
        """Let the peer take the call; return our ACK and the dialog."""
        messages, events = self.answer(self.invite, 200, body=b"v=0 answer")
        event, ack = events[0], messages[0]
        assert isinstance(event, CallAnswered)
        assert isinstance(ack, Request)
        return ack, event.dialog_id


def test_the_invite_says_who_calls_and_how_to_answer() -> None:
    invite = Placed().invite
    assert (invite.method, invite.uri, invite.body) == ("INVITE", "sip:them@192.0.2.7:5062", OFFER)
    assert (invite.from_.display, invite.from_.uri) == ('Us "all"', "sip:us@192.0.2.1")
    assert invite.contact is not None
    assert invite.contact.uri == "sip:us@192.0.2.1:5060"
    assert (invite.get("x-test"), invite.get("max-forwards")) == ("1", "70")
    assert len(invite.from_.tag) == 16
    assert "rport" in invite.via.params


def test_progress_is_told_except_100() -> None:
    placed = Placed()
    assert placed.answer(placed.invite, 100, tag="") == ([], [])
    _, events = placed.answer(placed.invite, 183, body=b"early")
    event = events[0]
    assert isinstance(event, CallProgress)
    assert (event.call, event.status, event.response.body) == (placed.call, 183, b"early")


def test_an_answer_is_acknowledged_each_time_it_comes() -> None:
    placed = Placed()
    ack, dialog_id = placed.answered()
    assert (ack.method, ack.cseq.number, ack.to.tag) == ("ACK", 1, "them")
    assert ack.via.branch != placed.invite.via.branch
    messages, events = placed.answer(placed.invite, 200, S)
    assert (statuses(messages), events) == (["ACK"], [])
    assert messages[0].via.branch == ack.via.branch
    assert dialog_id.remote_tag == "them"


def test_a_failure_is_acknowledged_within_the_transaction() -> None:
    placed = Placed()
    messages, events = placed.answer(placed.invite, 486)
    ack = messages[0]
    assert isinstance(ack, Request)
    assert (ack.method, ack.via.branch, ack.to.tag) == ("ACK", placed.invite.via.branch, "them")
    assert events == [CallFailed(placed.call, 486, "X")]
    assert statuses(placed.answer(placed.invite, 486)[0]) == ["ACK"]
    run_out(placed.agent, 0)
    assert placed.agent.held().calls_placed == 0


def test_no_answer_at_all_is_408() -> None:
    placed = Placed()
    now_ns, messages, events = run_out(placed.agent, 0)
    assert (statuses(messages), events) == (["INVITE"] * 6, [CallFailed(placed.call, 408, "no answer from the peer")])
    assert now_ns == 32 * S
    assert placed.agent.held().calls_placed == 0


def test_ringing_without_end_is_cancelled_by_us() -> None:
    placed = Placed()
    placed.answer(placed.invite, 180)
    _, messages, events = run_out(placed.agent, 0)
    assert statuses(messages) == ["CANCEL"] * 11
    assert [type(event) for event in events] == [CallFailed]
    assert placed.agent.held() == agent().held()


def test_cancel_before_the_first_answer_waits_for_it() -> None:
    placed = Placed()
    placed.agent.cancel(placed.call, 0)
    assert parts(placed.agent) == ([], [])
    messages, events = placed.answer(placed.invite, 100, tag="")
    cancel = messages[0]
    assert isinstance(cancel, Request)
    assert (cancel.method, cancel.via.branch, events) == ("CANCEL", placed.invite.via.branch, [])
    assert placed.answer(cancel, 200) == ([], [])
    messages, events = placed.answer(placed.invite, 487)
    assert (statuses(messages), events) == (["ACK"], [CallFailed(placed.call, 487, "X")])
    placed.agent.cancel(placed.call, 0)
    assert parts(placed.agent) == ([], [])


def test_a_cancel_that_nobody_heeds_ends_the_call_after_64_t1() -> None:
    placed = Placed()
    placed.answer(placed.invite, 180)
    placed.agent.cancel(placed.call, 0)
    cancel = parts(placed.agent)[0][0]
    placed.answer(cancel, 200)
    now_ns, _, events = run_out(placed.agent, 0)
    assert events == [CallFailed(placed.call, 487, "cancelled; the peer never said so")]
    assert now_ns == 32 * S


def test_an_answer_that_crosses_the_cancel_is_hung_up() -> None:
    placed = Placed()
    placed.answer(placed.invite, 180)
    placed.agent.cancel(placed.call, 0)
    parts(placed.agent)
    messages, events = placed.answer(placed.invite, 200)
    assert statuses(messages) == ["ACK", "BYE"]
    assert events == [CallFailed(placed.call, 487, "cancelled while it was being answered")]
    assert placed.answer(messages[1], 200) == ([], [])
    assert placed.agent.held().dialogs == 0


def test_a_second_branch_that_answers_is_hung_up() -> None:
    placed = Placed()
    placed.answered()
    messages, events = placed.answer(placed.invite, 200, tag="other")
    assert (statuses(messages), events) == (["ACK", "BYE"], [])
    assert messages[1].to.tag == "other"
    for number in range(10):
        placed.answer(placed.invite, 200, tag=f"more{number}")
    assert placed.agent.stats["dropped_response_forks"] == 4


def test_a_late_offer_is_answered_by_the_application() -> None:
    placed = Placed(body=b"")
    messages, events = placed.answer(placed.invite, 200, body=b"their offer")
    event = events[0]
    assert isinstance(event, CallAnswered)
    assert (messages, event.response.body) == ([], b"their offer")
    assert placed.answer(placed.invite, 200, body=b"their offer") == ([], [])
    placed.agent.acknowledge(event.dialog_id, b"our answer", "application/sdp", 0)
    ack = parts(placed.agent)[0][0]
    assert (ack.body, ack.cseq.method) == (b"our answer", "ACK")
    assert placed.answer(placed.invite, 200)[0][0].body == b"our answer"
    placed.agent.acknowledge(event.dialog_id, b"again", "application/sdp", 0)
    assert parts(placed.agent) == ([], [])


def test_hanging_up_an_unanswered_offer_acknowledges_it_first() -> None:
    placed = Placed(body=b"")
    event = placed.answer(placed.invite, 200, body=b"their offer")[1][0]
    assert isinstance(event, CallAnswered)
    placed.agent.bye(event.dialog_id, 0)
    assert statuses(parts(placed.agent)[0]) == ["ACK", "BYE"]


def test_a_call_is_hung_up_by_us() -> None:
    placed = Placed()
    _, dialog_id = placed.answered()
    placed.agent.bye(dialog_id, S)
    bye = parts(placed.agent)[0][0]
    assert isinstance(bye, Request)
    assert (bye.method, bye.cseq.number, bye.to.tag) == ("BYE", 2, "them")
    assert placed.answer(bye, 100) == ([], [])
    assert placed.answer(bye, 481)[1] == [ByeFinished(dialog_id, 481)]
    run_out(placed.agent, S)
    assert placed.agent.held() == agent().held()


def test_a_call_is_hung_up_by_the_peer() -> None:
    placed = Placed()
    _, dialog_id = placed.answered()
    bye = request("BYE", call_id=dialog_id.call_id, from_tag="them", to_tag=dialog_id.local_tag)
    placed.agent.receive(bye, FLOW, S)
    event = parts(placed.agent)[1][0]
    assert isinstance(event, DialogEnded)
    placed.agent.respond(event.transaction_id, 200, now_ns=S)
    assert statuses(parts(placed.agent)[0]) == [200]
    assert placed.agent.held().dialogs == 0


def test_a_reoffer_while_an_answer_of_ours_is_owed_is_491() -> None:
    placed = Placed(body=b"")
    event = placed.answer(placed.invite, 200, body=b"their offer")[1][0]
    assert isinstance(event, CallAnswered)
    again = request(call_id=event.dialog_id.call_id, from_tag="them", to_tag=event.dialog_id.local_tag)
    placed.agent.receive(again, FLOW, S)
    assert statuses(parts(placed.agent)[0]) == [491]


def test_requests_follow_the_contact_and_the_route_of_the_answer() -> None:
    placed = Placed()
    extra = "Contact: <sip:them@198.51.100.9:5070>\r\nRecord-Route: <sip:192.0.2.50;lr>\r\n"
    placed.agent.receive(b"", FLOW, 0)
    head = placed.invite
    data = (
        f"SIP/2.0 200 OK\r\nVia: {head.get('via')}\r\nFrom: {head.get('from')}\r\nTo: {head.get('to')};tag=t\r\n"
        f"Call-ID: {head.call_id}\r\nCSeq: 1 INVITE\r\n{extra}\r\n"
    )
    placed.agent.receive(data.encode(), FLOW, 0)
    output = placed.agent.outputs()[0]
    assert isinstance(output, Transmit)
    assert output.flow.remote == ("192.0.2.50", 5060)
    ack = parse(output.data)
    assert isinstance(ack, Request)
    assert (ack.uri, ack.all("route")) == ("sip:them@198.51.100.9:5070", ["<sip:192.0.2.50;lr>"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("z9hG4bK", "z9hG4bKother"), "dropped_response_stray"),
        (("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"), "dropped_response_stray"),
        (("Call-ID: ", "Call-ID: x"), "dropped_response_stray"),
        (("From: ", "Via: SIP/2.0/UDP x\r\nFrom: "), "dropped_response_via"),
        (("CSeq: 1", "CSeq: x"), "dropped_malformed"),
        (("\r\n\r\n", "\r\nRecord-Route: <x\r\n\r\n"), "dropped_malformed"),
    ],
)
def test_answers_to_nothing_of_ours_are_dropped(change: tuple[str, str], reason: str) -> None:
    placed = Placed()
    head = placed.invite
    data = (
        f"SIP/2.0 200 OK\r\nVia: {head.get('via')}\r\nFrom: {head.get('from')}\r\nTo: {head.get('to')};tag=t\r\n"
        f"Call-ID: {head.call_id}\r\nCSeq: 1 INVITE\r\n\r\n"
    )
    placed.agent.receive(data.replace(*change).encode(), FLOW, 0)
    assert parts(placed.agent) == ([], [])
    assert placed.agent.stats[reason] == 1


def test_what_cannot_be_placed_is_said_at_once() -> None:
    subject = agent(AgentSettings(max_transactions=1))
    with pytest.raises(ParseError):
        subject.invite("nonsense", from_uri="sip:a@b", flow=FLOW, now_ns=0)
    with pytest.raises(UsageError):
        subject.invite("sip:a@b", from_uri="sip:a@b", flow=FLOW, headers=[("X", "a\r\nb")], now_ns=0)
    subject.invite("sip:a@b", from_uri="sip:a@b", flow=FLOW, now_ns=0)
    with pytest.raises(BusyError):
        subject.invite("sip:a@b", from_uri="sip:a@b", flow=FLOW, now_ns=0)


def test_over_tcp_nothing_is_resent() -> None:
    placed = Placed(flow=TCP_FLOW)
    assert placed.invite.contact is not None
    assert placed.invite.contact.uri.endswith(";transport=tcp")
    _, messages, events = run_out(placed.agent, 0)
    assert messages == []
    assert [type(event) for event in events] == [CallFailed]


ASKED = 'Proxy-Authenticate: Digest realm="p", nonce="1", qop="auth"\r\n'


def ann() -> DigestClient:
    return DigestClient("ann", "sesame", seeded())


def test_a_challenge_is_answered_with_the_next_invite() -> None:
    placed = Placed(login=ann())
    messages, events = placed.answer(placed.invite, 407, extra=ASKED)
    assert (statuses(messages), events) == (["ACK", "INVITE"], [])
    second = messages[1]
    assert isinstance(second, Request)
    assert 'nonce="1"' in second.get("proxy-authorization")
    assert (second.call_id, second.cseq.number, second.body) == (placed.invite.call_id, 2, OFFER)
    assert (second.get("x-test"), second.to.tag) == ("1", "")
    assert second.via.branch != placed.invite.via.branch
    messages, events = placed.answer(second, 200, body=b"v=0 answer")
    assert isinstance(events[0], CallAnswered)
    ack = messages[0]
    assert isinstance(ack, Request)
    assert ack.get("proxy-authorization") == second.get("proxy-authorization")
    assert ack.cseq.number == 2


def test_a_late_offer_is_acknowledged_with_the_credentials_too() -> None:
    placed = Placed(login=ann(), body=b"")
    second = placed.answer(placed.invite, 407, extra=ASKED)[0][1]
    event = placed.answer(second, 200, body=b"v=0 offer")[1][0]
    assert isinstance(event, CallAnswered)
    placed.agent.acknowledge(event.dialog_id, OFFER, "application/sdp", 0)
    [ack] = parts(placed.agent)[0]
    assert ack.get("proxy-authorization") == second.get("proxy-authorization")


def test_a_wrong_secret_ends_the_call_and_is_no_loop() -> None:
    placed = Placed(login=ann())
    second = placed.answer(placed.invite, 407, extra=ASKED)[0][1]
    messages, events = placed.answer(second, 407, extra=ASKED)
    assert statuses(messages) == ["ACK"]
    assert events == [CallFailed(placed.call, 407, "X")]


def test_a_server_that_calls_everything_stale_is_no_loop_either() -> None:
    placed = Placed(login=ann())
    invite, count = placed.invite, 0
    while True:
        messages, events = placed.answer(
            invite, 401, extra=f'WWW-Authenticate: Digest realm="r", nonce="{count}", stale=true\r\n'
        )
        count += 1
        if events:
            break
        again = messages[1]
        assert isinstance(again, Request)
        invite = again
    assert events == [CallFailed(placed.call, 401, "X")]
    assert count < 10


def test_without_a_login_a_challenge_is_a_failure() -> None:
    placed = Placed()
    assert placed.answer(placed.invite, 407, extra=ASKED)[1] == [CallFailed(placed.call, 407, "X")]


def test_a_cancelled_call_answers_no_challenge() -> None:
    placed = Placed(login=ann())
    placed.agent.cancel(placed.call, 0)
    messages, events = placed.answer(placed.invite, 407, extra=ASKED)
    assert statuses(messages) == ["ACK"]
    assert events == [CallFailed(placed.call, 407, "X")]
