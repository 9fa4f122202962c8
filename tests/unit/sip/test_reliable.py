"""aftertone.sip.reliable: provisional answers that must arrive, on both sides."""

from __future__ import annotations

import pytest

from aftertone.sip.events import (
    ByeFinished,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallProgress,
    DialogId,
    Event,
    IncomingCall,
    ProvisionalConfirmed,
    ReofferReceived,
)
from aftertone.sip.faults import ParseError
from aftertone.sip.message import Request, Response
from aftertone.sip.reliable import is_reliable, parse_rack
from tests.unit.sip.kit import FLOW, MS, SDP, S, agent, parts, request, run_out, statuses
from tests.unit.sip.test_client import Placed

GIVE_UP = 32 * S


class Called:
    """A call whose caller knows reliable answers."""

    def __init__(self, extra: str = "Supported: 100rel", body: bytes = SDP) -> None:
        self.agent = agent()
        self.agent.receive(request(extra=extra, body=body), FLOW, 0)
        event = parts(self.agent)[1][0]
        assert isinstance(event, IncomingCall)
        self.id, self.dialog_id = event.transaction_id, event.dialog_id

    def answer(self, status: int, body: bytes = b"", now_ns: int = 0) -> list[Response]:
        content_type = "application/sdp" if body else ""
        self.agent.respond(self.id, status, body=body, content_type=content_type, now_ns=now_ns)
        return [message for message in parts(self.agent)[0] if isinstance(message, Response)]

    def prack(
        self, rack: str, cseq: int = 2, body: bytes = b"", now_ns: int = 0
    ) -> tuple[list[Request | Response], list[Event]]:
        data = request(
            "PRACK",
            branch=f"z9hG4bKp{cseq}",
            cseq=cseq,
            to_tag=self.dialog_id.local_tag,
            body=body,
            extra=f"RAck: {rack}",
        )
        self.agent.receive(data, FLOW, now_ns)
        return parts(self.agent)

    def say(self, method: str, cseq: int, **more: str) -> tuple[list[Request | Response], list[Event]]:
        data = request(method, branch=f"z9hG4bK{method}{cseq}", cseq=cseq, to_tag=self.dialog_id.local_tag, **more)  # type: ignore[arg-type]
        self.agent.receive(data, FLOW, 0)
        return parts(self.agent)


def rack(answer: Response) -> str:
    return f"{answer.get('rseq')} 1 INVITE"


@pytest.mark.parametrize(
    ("extra", "status", "body", "wanted"),
    [
        ("Require: 100rel", 180, b"", True),
        ("Require: 100rel", 100, b"", False),
        ("Require: 100rel", 200, SDP, False),
        ("Supported: timer, 100REL", 183, SDP, True),
        ("Supported: 100rel", 180, b"", False),
        ("", 183, SDP, False),
    ],
)
def test_what_is_sent_reliably(extra: str, status: int, body: bytes, wanted: bool) -> None:
    call = Called(extra)
    assert is_reliable_of(extra, status, body) is wanted
    if status > 100:
        answer = call.answer(status, body)[0]
        assert (answer.get("require") == "100rel", bool(answer.get("rseq"))) == (wanted, wanted)


def is_reliable_of(extra: str, status: int, body: bytes) -> bool:
    from aftertone.sip.message import parse

    asked = parse(request(extra=extra))
    assert isinstance(asked, Request)
    return is_reliable(asked, status, body)


def test_it_is_sent_again_at_twice_the_pause_until_the_prack() -> None:
    call = Called()
    early = call.answer(183, SDP)[0]
    for expected_ns in (500 * MS, 1500 * MS, 3500 * MS, 7500 * MS):
        assert call.agent.deadline_ns() == expected_ns
        call.agent.advance(expected_ns)
        again = parts(call.agent)[0]
        assert [(m.status, m.get("rseq")) for m in again if isinstance(m, Response)] == [(183, early.get("rseq"))]
    messages, events = call.prack(rack(early), now_ns=8 * S)
    assert (statuses(messages), events) == ([200], [ProvisionalConfirmed(call.dialog_id, call.id, b"")])
    assert call.agent.held().timers == 2, "only the INVITE and the PRACK wait now"


def test_without_a_prack_the_call_is_refused_and_told() -> None:
    call = Called("Require: 100rel")
    call.answer(180)
    _, messages, events = run_out(call.agent, 0)
    assert 504 in statuses(messages)
    assert events == [CallCancelled(call.id)]
    assert call.agent.held().dialogs == call.agent.held().timers == 0


@pytest.mark.parametrize("wrong", ["1 1 INVITE", "{rseq} 2 INVITE", "{rseq} 1 INFO"])
def test_an_unknown_prack_is_481_and_a_second_one_too(wrong: str) -> None:
    call = Called()
    early = call.answer(183, SDP)[0]
    number = early.get("rseq")
    assert statuses(call.prack(wrong.format(rseq=number))[0]) == [481]
    assert statuses(call.prack(f"{number} 1 INVITE", cseq=3)[0]) == [200]
    assert statuses(call.prack(f"{number} 1 INVITE", cseq=4)[0]) == [481]


@pytest.mark.parametrize("text", ["", "1", "1 2", "x 1 INVITE", "1 x INVITE", "1 1 IN(VITE", "1 1 INVITE x"])
def test_a_malformed_rack_is_400(text: str) -> None:
    call = Called()
    call.answer(183, SDP)
    assert statuses(call.prack(text)[0]) == [400]
    with pytest.raises(ParseError):
        parse_rack(Request("PRACK", "sip:x", {"rack": [text]}))


def test_the_next_one_waits_for_the_prack_and_has_the_next_number() -> None:
    call = Called("Require: 100rel")
    ringing = call.answer(180)[0]
    assert call.answer(181) == []
    messages, _ = call.prack(rack(ringing))
    assert statuses(messages) == [200, 181]
    assert messages[1].get("rseq") == str(int(ringing.get("rseq")) + 1)


def test_answers_beyond_the_queue_are_left_out() -> None:
    call = Called("Require: 100rel")
    call.answer(180)
    for _ in range(9):
        assert call.answer(181) == []
    assert call.agent.stats["dropped_provisional_queue"] == 5


def test_a_2xx_waits_for_the_description_before_it() -> None:
    call = Called()
    early = call.answer(183, SDP)[0]
    assert call.answer(200) == []
    assert call.answer(486) == [], "the application has decided already"
    messages, _ = call.prack(rack(early))
    assert statuses(messages) == [200, 200]
    assert messages[1].cseq.method == "INVITE"


def test_a_2xx_does_not_wait_for_a_mere_ring_whose_late_prack_is_welcome() -> None:
    call = Called("Require: 100rel")
    ringing = call.answer(180)[0]
    assert statuses(list(call.answer(200, SDP))) == [200]
    assert statuses(call.prack(rack(ringing))[0]) == [200]
    assert statuses(call.prack(rack(ringing), cseq=3)[0]) == [481]


def test_a_failure_waits_for_nothing() -> None:
    call = Called()
    call.answer(183, SDP)
    assert statuses(list(call.answer(480))) == [480]


def test_a_call_cancelled_while_its_2xx_waits_is_told_with_its_reason() -> None:
    call = Called()
    call.answer(183, SDP)
    call.answer(200)
    call.agent.receive(request("CANCEL", extra="Reason: SIP;cause=200"), FLOW, 0)
    messages, events = parts(call.agent)
    assert statuses(messages) == [200, 487]
    assert events == [CallCancelled(call.id, "SIP;cause=200")]


def test_hanging_up_while_the_2xx_waits_refuses_the_call() -> None:
    call = Called()
    call.answer(183, SDP)
    call.answer(200)
    call.agent.bye(call.dialog_id, 0)
    messages, events = parts(call.agent)
    assert statuses(messages) == [480]
    assert events == [ByeFinished(call.dialog_id, None)]
    assert call.agent.held().dialogs == 0


def test_a_late_offer_in_a_ring_is_answered_by_the_prack() -> None:
    call = Called("Require: 100rel", body=b"")
    ringing = call.answer(180, b"our offer")[0]
    messages, events = call.prack(rack(ringing), body=b"their answer")
    assert (statuses(messages), events) == ([200], [ProvisionalConfirmed(call.dialog_id, call.id, b"their answer")])
    assert statuses(list(call.answer(200))) == [200]
    assert call.say("ACK", 1)[1][0].body == b""  # type: ignore[union-attr]


def test_an_offer_in_a_prack_is_the_applications_to_answer() -> None:
    call = Called()
    early = call.answer(183, SDP)[0]
    messages, events = call.prack(rack(early), body=b"another offer")
    assert messages == []
    offer = events[1]
    assert isinstance(offer, ReofferReceived)
    assert (offer.request.method, offer.request.body) == ("PRACK", b"another offer")
    call.agent.respond(offer.transaction_id, 200, body=b"answer", content_type="application/sdp", now_ns=0)
    answer = parts(call.agent)[0][0]
    assert (statuses([answer]), answer.body) == ([200], b"answer")


def test_an_offer_in_a_prack_of_a_mere_ring_is_488() -> None:
    call = Called("Require: 100rel")
    ringing = call.answer(180)[0]
    assert statuses(call.prack(rack(ringing), body=b"too early")[0]) == [488]


def test_an_update_before_the_answer_needs_a_finished_exchange() -> None:
    call = Called()
    early = call.answer(183, SDP)[0]
    assert statuses(call.say("UPDATE", 2)[0]) == [500]
    call.prack(rack(early), cseq=3)
    assert isinstance(call.say("UPDATE", 4)[1][0], ReofferReceived)


def test_an_update_before_the_answer_answers_no_call() -> None:
    """The call stays early: the caller's BYE refuses it, and there is nothing to end."""
    call = Called()
    early = call.answer(183, SDP)[0]
    call.prack(rack(early))
    offer = call.say("UPDATE", 3)[1][0]
    assert isinstance(offer, ReofferReceived)
    call.agent.respond(offer.transaction_id, 200, body=b"answer", content_type="application/sdp", now_ns=0)
    parts(call.agent)
    messages, events = call.say("BYE", 4)
    assert statuses(messages) == [200, 487]
    assert events == [CallCancelled(call.id)]


# We call


def reliable(placed: Placed, rseq: int, tag: str = "them", body: bytes = b"", status: int = 183) -> Request | None:
    """Let the peer ring reliably; return our PRACK."""
    extra = f"Require: 100rel\r\nRSeq: {rseq}\r\nContact: <sip:{tag}@192.0.2.7:5062>\r\n"
    messages, _ = placed.answer(placed.invite, status, tag=tag, extra=extra, body=body)
    found = [m for m in messages if isinstance(m, Request) and m.method == "PRACK"]
    return found[0] if found else None


def test_we_confirm_a_reliable_ring_once_and_in_order() -> None:
    placed = Placed()
    assert "100rel" in placed.invite.tokens("supported")
    prack = reliable(placed, 7, body=b"early")
    assert prack is not None
    assert (prack.get("rack"), prack.uri, prack.cseq.number) == ("7 1 INVITE", "sip:them@192.0.2.7:5062", 2)
    assert reliable(placed, 7) is None, "a copy"
    assert reliable(placed, 9) is None, "one is missing before it"
    second = reliable(placed, 8)
    assert second is not None
    assert (second.get("rack"), second.cseq.number) == ("8 1 INVITE", 3)
    ack, dialog = placed.answered()
    assert ack.cseq.number == 1
    placed.agent.bye(dialog, 0)
    assert parts(placed.agent)[0][0].cseq.number == 4, "numbers go on where the early dialog was"


def test_a_malformed_number_is_no_reliable_ring() -> None:
    placed = Placed()
    messages, events = placed.answer(placed.invite, 183, extra="Require: 100rel\r\nRSeq: x\r\n")
    assert messages == []
    assert isinstance(events[0], CallProgress)


def test_each_branch_of_a_forked_call_has_its_own_numbers_and_the_others_go_with_the_call() -> None:
    placed = Placed()
    for tag in ("one", "two"):
        assert reliable(placed, 5, tag) is not None
    assert placed.agent.held().dialogs == 2
    _, events = placed.answer(placed.invite, 200, tag="two", body=b"v=0 answer")
    assert isinstance(events[0], CallAnswered)
    assert events[0].dialog_id.remote_tag == "two"
    run_out(placed.agent, 0)
    assert placed.agent.held().dialogs == 1, "the branch that rang on is forgotten"


def test_branches_beyond_the_limit_ring_without_a_dialog() -> None:
    placed = Placed()
    for number in range(20):
        placed.answer(placed.invite, 180, tag=f"t{number}")
    assert placed.agent.held().dialogs == 8
    _, events = placed.answer(placed.invite, 486)
    assert isinstance(events[0], CallFailed)
    assert placed.agent.held().dialogs == 0


def test_a_late_offer_to_us_in_a_reliable_ring_is_answered_with_the_prack() -> None:
    placed = Placed(body=b"")
    assert reliable(placed, 3, body=b"their offer") is None
    placed.agent.acknowledge(DialogId(placed.invite.call_id, placed.invite.from_.tag, "them"), b"ours", "a/b", 0)
    prack = parts(placed.agent)[0][0]
    assert isinstance(prack, Request)
    assert (prack.method, prack.get("rack"), prack.body) == ("PRACK", "3 1 INVITE", b"ours")
    messages, events = placed.answer(placed.invite, 200)
    assert statuses(messages) == ["ACK"]
    assert isinstance(events[0], CallAnswered)
