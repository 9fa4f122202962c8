"""aftertone.sip.server: what peers ask and what they are answered."""

from __future__ import annotations

import pytest

from aftertone.sip.agent import Agent
from aftertone.sip.events import (
    ByeFinished,
    CallCancelled,
    CallConfirmed,
    CallNotConfirmed,
    DialogEnded,
    DialogId,
    Event,
    IncomingCall,
    ReofferConfirmed,
    ReofferReceived,
    RequestInDialog,
    TransactionId,
    Transmit,
)
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import FLOW, MS, PEER, SDP, TCP_FLOW, US, S, agent, parts, request, run_out, statuses

ANSWER = b"v=0 answer"


class Call:
    """A call that has come in, and shorthand for what its caller does next."""

    def __init__(self, subject: Agent | None = None, *, flow: Flow = FLOW, body: bytes = SDP) -> None:
        self.agent = subject or agent()
        self.flow = flow
        self.messages, self.events = self.give(request(body=body))
        event = self.events[0]
        assert isinstance(event, IncomingCall)
        self.id, self.dialog_id = event.transaction_id, event.dialog_id

    def give(
        self, data: bytes, now_ns: int = 0, flow: Flow | None = None
    ) -> tuple[list[Request | Response], list[Event]]:
        self.agent.receive(data, flow or self.flow, now_ns)
        return parts(self.agent)

    def answer(self, status: int, now_ns: int = 0, body: bytes = b"") -> list[Request | Response]:
        content_type = "application/sdp" if body else ""
        self.agent.respond(self.id, status, body=body, content_type=content_type, now_ns=now_ns)
        return parts(self.agent)[0]

    def say(
        self, method: str, cseq: int, now_ns: int = 0, *, branch: str = "", body: bytes = b"", flow: Flow | None = None
    ) -> tuple[list[Request | Response], list[Event]]:
        """Send a request inside the dialog."""
        name = branch or f"z9hG4bK{method}{cseq}"
        data = request(method, branch=name, cseq=cseq, to_tag=self.dialog_id.local_tag, body=body)
        return self.give(data, now_ns, flow)

    def confirmed(self) -> Call:
        """Answer and acknowledge."""
        self.answer(200, body=ANSWER)
        assert self.say("ACK", 1)[1] == [CallConfirmed(self.dialog_id, b"")]
        return self


def one(messages: list[Request | Response]) -> Response:
    assert len(messages) == 1
    answer = messages[0]
    assert isinstance(answer, Response)
    return answer


# New calls


def test_a_call_is_told_and_tried_at_once() -> None:
    call = Call()
    trying = one(call.messages)
    assert (trying.status, trying.to.tag) == (100, "")
    assert call.dialog_id == DialogId("call-1@peer", call.dialog_id.local_tag, "caller")
    assert len(call.events) == 1


def test_100_carries_the_timestamp_back() -> None:
    subject = agent()
    subject.receive(request(extra="Timestamp: 54.1"), FLOW, 0)
    assert one(parts(subject)[0]).get("timestamp") == "54.1"


def test_answers_name_the_dialog_and_how_to_reach_us() -> None:
    call = Call()
    ringing, ok = one(call.answer(180)), one(call.answer(200, body=ANSWER))
    assert ringing.to.tag == ok.to.tag == call.dialog_id.local_tag
    assert ok.contact is not None
    assert ok.contact.uri == "sip:box@192.0.2.1:5060"
    assert (ok.body, ok.get("server")) == (ANSWER, "Aftertone")
    assert "UPDATE" in ok.tokens("allow")


def test_a_retransmitted_invite_gets_the_last_answer_and_makes_no_second_call() -> None:
    call = Call()
    assert statuses(call.give(request())[0]) == [100]
    call.answer(180)
    messages, events = call.give(request(), 500 * MS)
    assert (statuses(messages), events) == ([180], [])
    call.answer(200)
    messages, events = call.give(request(), 600 * MS)
    assert (messages, events) == ([], [])
    assert call.agent.stats["retransmissions_absorbed"] == 3


def test_a_200_is_resent_until_its_ack() -> None:
    call = Call()
    call.answer(200)
    for expected_ns in (500 * MS, 1500 * MS, 3500 * MS, 7500 * MS, 11500 * MS):
        assert call.agent.deadline_ns() == expected_ns
        call.agent.advance(expected_ns)
        assert statuses(parts(call.agent)[0]) == [200]
    assert call.say("ACK", 1, 12 * S, body=SDP)[1] == [CallConfirmed(call.dialog_id, SDP)]
    assert call.say("ACK", 1, 12 * S) == ([], [])
    _, messages, events = run_out(call.agent, 12 * S)
    assert (messages, events) == ([], [])


def test_a_200_over_tcp_is_resent_too() -> None:
    call = Call(flow=TCP_FLOW)
    call.answer(200)
    call.agent.advance(500 * MS)
    assert statuses(parts(call.agent)[0]) == [200]


def test_without_ack_the_call_is_hung_up_at_timer_h() -> None:
    call = Call()
    call.answer(200)
    now_ns, messages, events = run_out(call.agent, 0)
    assert events == [CallNotConfirmed(call.dialog_id), ByeFinished(call.dialog_id, None)]
    assert statuses(messages) == [200] * 10 + ["BYE"] * 11
    assert now_ns == 64 * S
    assert call.agent.held().dialogs == 0


def test_an_ack_of_another_invite_or_dialog_confirms_nothing() -> None:
    call = Call()
    call.answer(200)
    assert call.say("ACK", 2) == ([], [])
    assert call.give(request("ACK", branch="z9hG4bKx", to_tag="wrong")) == ([], [])
    assert call.agent.stats["dropped_ack"] == 2


def test_a_refusal_is_resent_until_its_ack() -> None:
    call = Call()
    assert statuses(call.answer(486)) == [486]
    assert call.agent.held().dialogs == 0
    call.agent.advance(500 * MS)
    assert statuses(parts(call.agent)[0]) == [486]
    ack = request("ACK", to_tag=call.dialog_id.local_tag)
    assert call.give(ack, S) == ([], [])
    assert run_out(call.agent, S)[1:] == ([], [])


def test_an_answer_that_comes_too_late_is_ignored() -> None:
    call = Call()
    call.answer(486)
    assert call.answer(200) == []
    assert call.agent.stats["late_answers"] == 1


def test_a_call_that_nobody_answers_ends_by_itself() -> None:
    call = Call()
    limit_ns = AgentSettings().timing.ring_limit_ns
    call.agent.advance(limit_ns)
    messages, events = parts(call.agent)
    assert (statuses(messages), events) == ([480], [CallCancelled(call.id)])
    run_out(call.agent, limit_ns)
    assert call.agent.held().timers == 0


@pytest.mark.parametrize(("expires", "seconds"), [("30", 30), ("0", 240), ("9" * 40, 240), ("soon", 240)])
def test_a_caller_may_say_how_long_to_ring(expires: str, seconds: int) -> None:
    subject = agent()
    subject.receive(request(extra=f"Expires: {expires}"), FLOW, 0)
    assert subject.deadline_ns() == seconds * S
    subject.advance(seconds * S)
    assert statuses(parts(subject)[0]) == [100, 487 if seconds == 30 else 480]


def test_a_call_that_rings_on_says_so_every_minute_and_not_after_its_answer() -> None:
    """RFC 3261 section 13.3.1.1: a proxy gives up after three minutes without a word, and provisional answers get lost."""
    call = Call()
    call.answer(180)
    for minute in (1, 2):
        call.agent.advance(minute * 60 * S - 1)
        assert parts(call.agent)[0] == []
        call.agent.advance(minute * 60 * S)
        assert statuses(parts(call.agent)[0]) == [180]
    call.answer(486, 130 * S)
    call.say("ACK", 1, 130 * S, branch="z9hG4bKone")
    _, messages, _ = run_out(call.agent, 130 * S)
    assert 180 not in statuses(messages)


def test_peers_of_the_old_rfc_can_call_too() -> None:
    subject = agent()
    old = request(via="SIP/2.0/UDP 192.0.2.7", from_tag="")
    subject.receive(old, FLOW, 0)
    messages, events = parts(subject)
    event = events[0]
    assert isinstance(event, IncomingCall)
    assert (statuses(messages), event.dialog_id.remote_tag) == ([100], "")
    subject.receive(old, FLOW, 0)
    assert parts(subject)[1] == []
    subject.respond(event.transaction_id, 404, now_ns=0)
    parts(subject)
    subject.receive(request("ACK", via="SIP/2.0/UDP 192.0.2.7", from_tag="", to_tag=event.dialog_id.local_tag), FLOW, S)
    assert run_out(subject, S)[1] == []


# Cancelling


def test_cancel_is_answered_and_ends_the_ringing() -> None:
    call = Call()
    call.answer(180)
    messages, events = call.give(request("CANCEL"))
    assert (statuses(messages), events) == ([200, 487], [CallCancelled(call.id)])
    assert {message.to.tag for message in messages} == {call.dialog_id.local_tag}
    messages, events = call.give(request("CANCEL"))
    assert (statuses(messages), events) == ([200], [])
    assert call.answer(200) == []


def test_cancel_after_the_answer_changes_nothing() -> None:
    call = Call()
    call.answer(200)
    messages, events = call.give(request("CANCEL"))
    assert (statuses(messages), events) == ([200], [])
    assert call.say("ACK", 1)[1] == [CallConfirmed(call.dialog_id, b"")]


def test_cancel_without_its_invite_is_481() -> None:
    subject = agent()
    subject.receive(request("CANCEL"), FLOW, 0)
    assert statuses(parts(subject)[0]) == [481]


# Hanging up


def test_a_bye_is_answered_by_the_application_when_it_is_ready() -> None:
    call = Call().confirmed()
    messages, events = call.say("BYE", 2, S)
    event = events[0]
    assert isinstance(event, DialogEnded)
    assert (messages, event.dialog_id) == ([], call.dialog_id)
    assert call.say("BYE", 2, 2 * S) == ([], [])
    call.agent.respond(event.transaction_id, 200, now_ns=3 * S)
    assert statuses(parts(call.agent)[0]) == [200]
    assert call.agent.held().dialogs == 0
    assert statuses(call.say("BYE", 2, 4 * S)[0]) == [200]


def test_a_bye_that_is_never_answered_does_not_stay() -> None:
    call = Call().confirmed()
    call.say("BYE", 2)
    _, messages, events = run_out(call.agent, 0)
    assert (messages, events, call.agent.held().dialogs) == ([], [], 0)
    assert call.agent.stats["expired_P"] == 1


def test_a_bye_before_the_ack_stops_the_resending() -> None:
    call = Call()
    call.answer(200)
    _, events = call.say("BYE", 2)
    assert isinstance(events[0], DialogEnded)
    assert call.agent.deadline_ns() == 32 * S


def test_a_bye_before_the_answer_ends_the_ringing() -> None:
    call = Call()
    call.answer(180)
    messages, events = call.say("BYE", 2)
    assert (statuses(messages), events) == ([200, 487], [CallCancelled(call.id)])
    assert call.agent.held().dialogs == 0


def test_a_bye_for_no_dialog_is_481() -> None:
    call = Call().confirmed()
    messages, _ = call.give(request("BYE", branch="z9hG4bKb", to_tag="wrong", cseq=2))
    assert statuses(messages) == [481]
    messages, _ = call.give(request("BYE", branch="z9hG4bKc", cseq=2))
    assert statuses(messages) == [481]


def test_our_bye_goes_where_the_ack_came_from() -> None:
    call = Call()
    call.answer(200)
    direct = Flow("UDP", ("198.51.100.77", 5060), US)
    call.say("ACK", 1, flow=direct)
    call.agent.bye(call.dialog_id, S, reason="Q.850;cause=16")
    output = call.agent.outputs()[0]
    assert isinstance(output, Transmit)
    assert output.flow == direct
    assert b"Reason: Q.850;cause=16\r\n" in output.data
    assert output.data.startswith(b"BYE sip:ann@192.0.2.7:5062 SIP/2.0")


def test_our_bye_waits_for_the_ack() -> None:
    call = Call()
    call.answer(200)
    call.agent.bye(call.dialog_id, 0)
    assert parts(call.agent) == ([], [])
    messages, events = call.say("ACK", 1)
    assert (statuses(messages), events) == (["BYE"], [CallConfirmed(call.dialog_id, b"")])
    call.agent.bye(call.dialog_id, 0)
    assert parts(call.agent) == ([], [])


def test_crossing_byes_end_both_ways() -> None:
    call = Call().confirmed()
    call.agent.bye(call.dialog_id, 0)
    bye = parts(call.agent)[0][0]
    assert statuses(call.say("BYE", 2)[0]) == [200]
    answer = f"SIP/2.0 200 OK\r\nVia: {bye.get('via')}\r\n".encode() + b"".join(
        f"{name}: {bye.get(name)}\r\n".encode() for name in ("from", "to", "call-id", "cseq")
    )
    assert call.give(answer + b"\r\n")[1] == [ByeFinished(call.dialog_id, 200)]
    assert call.agent.held().dialogs == 0


def test_a_second_bye_and_other_requests_after_one_are_481() -> None:
    call = Call().confirmed()
    call.say("BYE", 2)
    assert statuses(call.say("INFO", 3)[0]) == [481]
    assert statuses(call.say("BYE", 4)[0]) == [481]


# Changes


def test_a_reinvite_is_told_and_its_ack_too() -> None:
    call = Call().confirmed()
    messages, events = call.say("INVITE", 2, body=SDP)
    event = events[0]
    assert isinstance(event, ReofferReceived)
    assert (statuses(messages), event.request.body) == ([100], SDP)
    call.agent.respond(event.transaction_id, 200, body=ANSWER, content_type="application/sdp", now_ns=0)
    assert statuses(parts(call.agent)[0]) == [200]
    assert call.say("ACK", 2, body=b"x")[1] == [ReofferConfirmed(call.dialog_id, event.transaction_id, b"x")]


def test_a_reinvite_moves_the_target_once_it_is_accepted() -> None:
    call = Call().confirmed()
    moved = request("INVITE", branch="z9hG4bKm", cseq=2, to_tag=call.dialog_id.local_tag, drop="Contact",
                    extra="Contact: <sip:ann@198.51.100.9>")  # fmt: skip
    _, events = call.give(moved)
    assert isinstance(events[0], ReofferReceived)
    call.agent.respond(events[0].transaction_id, 200, now_ns=0)
    call.say("ACK", 2)
    call.agent.bye(call.dialog_id, 0)
    bye = parts(call.agent)[0][-1]
    assert isinstance(bye, Request)
    assert bye.uri == "sip:ann@198.51.100.9"


def test_an_update_needs_no_ack() -> None:
    call = Call().confirmed()
    messages, events = call.say("UPDATE", 2, body=SDP)
    assert messages == []
    assert isinstance(events[0], ReofferReceived)
    call.agent.respond(events[0].transaction_id, 200, body=ANSWER, content_type="application/sdp", now_ns=0)
    assert statuses(parts(call.agent)[0]) == [200]
    assert call.agent.held().dialogs == 1


def test_a_refused_reinvite_leaves_the_call_alone() -> None:
    call = Call().confirmed()
    _, events = call.say("INVITE", 2, body=SDP)
    assert isinstance(events[0], ReofferReceived)
    call.agent.respond(events[0].transaction_id, 488, now_ns=0)
    assert call.agent.held().dialogs == 1


def test_one_change_at_a_time() -> None:
    call = Call().confirmed()
    call.say("INVITE", 2, body=SDP)
    for method in ("INVITE", "UPDATE"):
        refused = one(call.say(method, 3, body=SDP)[0])
        assert refused.status == 500
        assert 0 <= int(refused.get("retry-after")) <= 10


def test_a_copy_of_a_refused_change_is_refused_again_although_it_might_succeed_now() -> None:
    call = Call().confirmed()
    _, events = call.say("INVITE", 2, body=SDP)
    assert statuses(call.say("INVITE", 3, body=SDP)[0]) == [500]
    assert isinstance(events[0], ReofferReceived)
    call.agent.respond(events[0].transaction_id, 488, now_ns=0)
    parts(call.agent)
    messages, events = call.say("INVITE", 3, body=SDP)
    assert (statuses(messages), events) == ([500], [])
    assert call.say("ACK", 3, branch="z9hG4bKINVITE3") == ([], [])
    run_out(call.agent, 0)
    assert (call.agent.held().server_transactions, call.agent.held().dialogs) == (0, 1)


def test_no_change_while_ringing() -> None:
    call = Call()
    assert statuses(call.say("UPDATE", 2, body=SDP)[0]) == [500]


def test_glare_with_an_offer_of_ours_is_491() -> None:
    call = Call(body=b"")
    call.answer(200, body=b"our offer")
    assert statuses(call.say("INVITE", 2, body=SDP)[0]) == [491]
    assert call.say("ACK", 1, body=SDP)[1] == [CallConfirmed(call.dialog_id, SDP)]


def test_a_reinvite_shows_that_the_200_arrived() -> None:
    call = Call()
    call.answer(200, body=ANSWER)
    _, events = call.say("INVITE", 2, body=SDP)
    assert [type(event) for event in events] == [CallConfirmed, ReofferReceived]


def test_a_reinvite_that_meets_a_waiting_bye_is_too_late() -> None:
    call = Call()
    call.answer(200, body=ANSWER)
    call.agent.bye(call.dialog_id, 0)
    messages, events = call.say("INVITE", 2, body=SDP)
    assert (statuses(messages), events) == (["BYE", 481], [CallConfirmed(call.dialog_id, b"")])


def test_the_end_of_a_call_answers_what_still_waits() -> None:
    call = Call().confirmed()
    call.say("INVITE", 2, body=SDP)
    messages, events = call.say("BYE", 3)
    assert statuses(messages) == [487]
    assert isinstance(events[0], DialogEnded)
    other = Call().confirmed()
    other.say("INFO", 2)
    other.agent.bye(other.dialog_id, 0)
    assert statuses(parts(other.agent)[0]) == [487, "BYE"]


def test_cancelling_a_reinvite_keeps_the_call() -> None:
    call = Call().confirmed()
    call.say("INVITE", 2, branch="z9hG4bKre", body=SDP)
    cancel = request("CANCEL", branch="z9hG4bKre", cseq=2, to_tag=call.dialog_id.local_tag)
    messages, events = call.give(cancel)
    assert (statuses(messages), events, call.agent.held().dialogs) == ([200, 487], [], 1)


def test_info_is_handed_over() -> None:
    call = Call().confirmed()
    _, events = call.say("INFO", 2, body=b"Signal=5")
    event = events[0]
    assert isinstance(event, RequestInDialog)
    assert (event.request.method, event.request.body) == ("INFO", b"Signal=5")
    call.agent.respond(event.transaction_id, 200, now_ns=0)
    assert statuses(parts(call.agent)[0]) == [200]


def test_requests_out_of_order_are_500() -> None:
    call = Call().confirmed()
    call.say("INFO", 9)
    assert statuses(call.say("INFO", 8)[0]) == [500]


# Everything else


def test_options_inside_and_outside_a_call_name_what_we_can() -> None:
    call = Call().confirmed()
    for answer in (one(call.say("OPTIONS", 2)[0]), one(call.give(request("OPTIONS", branch="z9hG4bKo"))[0])):
        assert answer.status == 200
        assert answer.tokens("accept") == ["application/sdp"]
        assert "INVITE" in answer.tokens("allow")
        assert answer.to.tag
    assert call.agent.held().server_transactions == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("REGISTER"), 405),
        (request("FROBNICATE"), 501),
        (request(extra="Require: replaces"), 420),
        (request(content_type="text/plain"), 415),
        (request(uri="nobody:knows"), 416),
        (request("SUBSCRIBE", extra="Event: x"), 489),
        (request(drop="Max-Forwards", extra="Max-Forwards: 0"), 483),
        (request(extra="Accept: text/x"), 406),
        (request("INFO"), 481),
        (request("INVITE", to_tag="gone"), 481),
        (request().replace(b"SIP/2.0\r\n", b"SIP/7.0\r\n", 1), 505),
        (request(drop="Call-ID"), 400),
        (request(drop="To"), 400),
        (request(drop="To", extra='To: "x <sip:a@b>'), 400),
        (request(drop="Content-Length", extra="Content-Length: 9999"), 400),
        (request(extra="broken line"), 400),
        (request(extra="X: y" + "z" * 9000), 513),
        (request().replace(b"INVITE sip", b"INVITE  sip"), 400),
    ],
)
def test_what_we_do_not_serve_is_answered_without_keeping_anything(data: bytes, status: int) -> None:
    subject = agent()
    subject.receive(data, FLOW, 0)
    first = subject.outputs()
    subject.receive(data, FLOW, S)
    assert subject.outputs() == first
    assert len(first) == 1
    assert isinstance(first[0], Transmit)
    assert first[0].data.startswith(b"SIP/2.0 %d " % status)
    assert first[0].flow == FLOW
    assert subject.deadline_ns() is None
    assert subject.stats[f"answered_{status}"] == 2


def test_merged_requests_are_482() -> None:
    call = Call()
    messages, events = call.give(request(branch="z9hG4bKtwo"))
    assert (statuses(messages), events) == ([482], [])
    run = agent()
    run.receive(request(), FLOW, 0)
    run.respond(run_first(run), 486, now_ns=0)
    run_out(run, 0)
    run.receive(request(branch="z9hG4bKtwo"), FLOW, 99 * S)
    assert statuses(parts(run)[0]) == [100]


def run_first(subject: Agent) -> TransactionId:
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    return event.transaction_id


def test_beyond_the_limits_new_calls_are_503_and_old_ones_go_on() -> None:
    subject = agent(AgentSettings(max_dialogs=1, retry_after_s=7))
    call = Call(subject).confirmed()
    refused = one(call.give(request(branch="z9hG4bKtwo", call_id="other"))[0])
    assert (refused.status, refused.get("retry-after")) == (503, "7")
    assert isinstance(call.say("BYE", 2)[1][0], DialogEnded)
    small = Call(agent(AgentSettings(max_transactions=1)))
    assert statuses(small.give(request(branch="z9hG4bKtwo", call_id="other"))[0]) == [503]
    small.answer(200)
    small.say("ACK", 1)
    small.say("INFO", 2)
    assert statuses(small.say("INFO", 3)[0]) == [503]


def test_answers_go_back_to_where_the_request_came_from() -> None:
    via = "SIP/2.0/UDP 203.0.113.99:7777;branch=z9hG4bKfar;maddr=203.0.113.5"
    for settings, port in ((AgentSettings(), PEER[1]), (AgentSettings(answer_to_sent_by=True), 7777)):
        subject = agent(settings)
        subject.receive(request(via=via), FLOW, 0)
        output = subject.outputs()[0]
        assert isinstance(output, Transmit)
        assert output.flow.remote == (PEER[0], port)


def test_two_agents_do_not_share_tags() -> None:
    tags = set()
    for seed in (1, 2):
        subject = agent(seed=seed)
        subject.receive(request("OPTIONS"), FLOW, 0)
        tags.add(one(parts(subject)[0]).to.tag)
    assert len(tags) == 2
