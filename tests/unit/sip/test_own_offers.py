"""aftertone.sip.own_offers: what we change in a call, one thing at a time, and glare."""

from __future__ import annotations

import pytest

from aftertone.errors import UsageError
from aftertone.sip.agent import Agent
from aftertone.sip.events import CallAnswered, DialogId, ReofferAnswered, ReofferFailed, ReofferReceived
from aftertone.sip.message import Request
from tests.unit.sip.kit import FLOW, MS, SDP, S, parts, request, run_out, statuses
from tests.unit.sip.test_client import Placed
from tests.unit.sip.test_session_timer import answer, called

TYPE = "application/sdp"


def reoffer(subject: Agent, dialog: DialogId, body: bytes = b"new", now_ns: int = 0) -> list[Request]:
    subject.reoffer(dialog, body, TYPE, now_ns)
    return [message for message in parts(subject)[0] if isinstance(message, Request)]


def theirs(subject: Agent, dialog: DialogId, method: str, cseq: int, body: bytes = SDP) -> list[int | str]:
    data = request(method, branch=f"z9hG4bK{method}{cseq}", to_tag=dialog.local_tag, cseq=cseq, body=body)
    subject.receive(data, FLOW, 0)
    return statuses(parts(subject)[0])


@pytest.mark.parametrize(("allow", "method"), [("UPDATE", "UPDATE"), ("INFO", "INVITE")])
def test_an_offer_is_answered_and_told(allow: str, method: str) -> None:
    subject, dialog, _ = called("", allow)
    (offer,) = reoffer(subject, dialog)
    assert (offer.method, offer.body, offer.content_type) == (method, b"new", TYPE)
    answer(subject, offer, 200, 0, "Contact: <sip:moved@192.0.2.8>\r\nContent-Type: a/b\r\n", b"answer")
    messages, events = parts(subject)
    assert statuses(messages) == (["ACK"] if method == "INVITE" else [])
    event = events[0]
    assert isinstance(event, ReofferAnswered)
    assert (event.offer, event.response.body, event.wished) == (b"new", b"answer", True)
    subject.bye(dialog, 0)
    bye = parts(subject)[0][0]
    assert isinstance(bye, Request)
    assert bye.uri == "sip:moved@192.0.2.8", "a 2xx refreshes the target"


def test_offers_go_out_one_at_a_time_and_the_newest_wish_counts() -> None:
    subject, dialog, _ = called("", "INFO")
    (first,) = reoffer(subject, dialog, b"one")
    assert reoffer(subject, dialog, b"two") == []
    assert reoffer(subject, dialog, b"three") == []
    answer(subject, first, 200, 0)
    messages, _ = parts(subject)
    assert statuses(messages) == ["ACK", "INVITE"]
    assert messages[1].body == b"three"


def test_an_offer_waits_for_the_peers_own() -> None:
    subject, dialog, _ = called("")
    data = request("INVITE", branch="z9hG4bKre", to_tag=dialog.local_tag, cseq=2)
    subject.receive(data, FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, ReofferReceived)
    assert reoffer(subject, dialog) == []
    subject.respond(event.transaction_id, 200, body=b"x", content_type=TYPE, now_ns=0)
    assert statuses(parts(subject)[0]) == [200]
    subject.receive(request("ACK", branch="z9hG4bKreack", to_tag=dialog.local_tag, cseq=2), FLOW, 0)
    assert statuses(parts(subject)[0]) == ["UPDATE"]


def test_a_refused_offer_leaves_everything_as_it_was() -> None:
    subject, dialog, _ = called("", "INFO")
    (offer,) = reoffer(subject, dialog)
    answer(subject, offer, 488, 0)
    messages, events = parts(subject)
    assert statuses(messages) == ["ACK"]
    assert messages[0].via.branch == offer.via.branch
    assert events == [ReofferFailed(dialog, 488)]
    assert subject.held().dialogs == 1


def test_offers_that_meet_are_refused_and_those_that_cannot_harm_are_not() -> None:
    subject, dialog, _ = called("")
    (offer,) = reoffer(subject, dialog)
    assert offer.method == "UPDATE"
    assert theirs(subject, dialog, "INVITE", 2) == [491]
    assert theirs(subject, dialog, "UPDATE", 3) == [491]
    assert theirs(subject, dialog, "UPDATE", 4, b"") == [200]


def test_glare_is_tried_again_soon_by_the_called_side_and_not_for_ever() -> None:
    subject, dialog, _ = called("")
    (offer,) = reoffer(subject, dialog)
    now_ns = 0
    for attempt in range(4):
        answer(subject, offer, 491, now_ns)
        assert parts(subject) == ([], []), attempt
        times = [now_ns + 10 * MS * step for step in range(202)]
        for time_ns in times:
            subject.advance(time_ns)
            sent = [m for m in parts(subject)[0] if isinstance(m, Request) and m.method == "UPDATE"]
            if sent:
                offer, now_ns = sent[0], time_ns
                break
        else:
            raise AssertionError("no other attempt within two seconds")
    answer(subject, offer, 491, now_ns)
    assert parts(subject)[1] == [ReofferFailed(dialog, 491)]


def test_while_we_pause_after_glare_the_peer_may_change_the_call() -> None:
    subject, dialog, _ = called("")
    (offer,) = reoffer(subject, dialog)
    answer(subject, offer, 491, 0)
    subject.receive(request("INVITE", branch="z9hG4bKre", to_tag=dialog.local_tag, cseq=2), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, ReofferReceived)
    subject.advance(3 * S)
    assert "UPDATE" not in statuses(parts(subject)[0]), "theirs is not over yet"
    subject.respond(event.transaction_id, 488, now_ns=3 * S)
    assert statuses(parts(subject)[0]) == [488, "UPDATE"]


def test_a_server_that_asks_for_a_pause_gets_it() -> None:
    subject, dialog, _ = called("")
    (offer,) = reoffer(subject, dialog)
    answer(subject, offer, 500, 0, "Retry-After: 3\r\n")
    subject.advance(3 * S - 1)
    assert parts(subject) == ([], [])
    subject.advance(4 * S)
    assert statuses(parts(subject)[0]) == ["UPDATE"]


def test_an_offer_that_nobody_answers_ends_the_call() -> None:
    subject, dialog, _ = called("", "INFO")
    reoffer(subject, dialog)
    _, messages, events = run_out(subject, 0)
    assert "BYE" in statuses(messages)
    assert events[0] == ReofferFailed(dialog, 408)
    assert subject.held().timers == subject.held().dialogs == 0


def test_a_reinvite_that_is_answered_after_our_bye_is_still_acknowledged() -> None:
    subject, dialog, _ = called("", "INFO")
    (offer,) = reoffer(subject, dialog)
    subject.bye(dialog, 0)
    parts(subject)
    answer(subject, offer, 200, 0)
    assert (statuses(parts(subject)[0]), parts(subject)[1]) == (["ACK"], [])


def test_an_offer_without_a_description_or_for_a_call_that_is_over_is_none() -> None:
    subject, dialog, _ = called("")
    with pytest.raises(UsageError):
        subject.reoffer(dialog, b"", TYPE, 0)
    subject.bye(dialog, 0)
    parts(subject)
    assert reoffer(subject, dialog) == []


def test_a_refer_inside_a_call_is_declined_and_the_call_goes_on() -> None:
    subject, dialog, _ = called("")
    data = request("REFER", branch="z9hG4bKrefer", to_tag=dialog.local_tag, cseq=2, extra="Refer-To: <sip:x@y>")
    subject.receive(data, FLOW, 0)
    messages, events = parts(subject)
    assert (statuses(messages), events) == ([603], [])
    assert subject.held().dialogs == 1


@pytest.mark.parametrize("method", ["UPDATE", "BYE"])
def test_requests_inside_a_call_take_the_route_of_two_proxies_one_of_them_strict(method: str) -> None:
    """RFC 3261 section 12.2.1.1: the strict one gets its own URI in the request line, the target goes to the end."""
    routes = "Record-Route: <sip:strict.example.com>, <sip:loose.example.com;lr>"
    subject, dialog, _ = called(routes)
    if method == "UPDATE":
        (sent,) = reoffer(subject, dialog)
    else:
        subject.bye(dialog, 0)
        found = parts(subject)[0][0]
        assert isinstance(found, Request)
        sent = found
    assert (sent.method, sent.uri) == (method, "sip:strict.example.com")
    assert sent.all("route") == ["<sip:loose.example.com;lr>", "<sip:ann@192.0.2.7:5062>"]


def test_our_prack_and_bye_take_the_recorded_route_backwards_past_a_strict_proxy() -> None:
    placed = Placed()
    extra = "Require: 100rel\r\nRSeq: 1\r\nContact: <sip:them@192.0.2.9>\r\n"
    routes = "Record-Route: <sip:loose.example.com;lr>, <sip:strict.example.com>\r\n"
    (prack,), _ = placed.answer(placed.invite, 180, extra=extra + routes)
    _, events = placed.answer(placed.invite, 200, extra=f"Contact: <sip:them@192.0.2.9>\r\n{routes}")
    assert isinstance(events[0], CallAnswered)
    placed.agent.bye(events[0].dialog_id, 0)
    bye = parts(placed.agent)[0][0]
    for sent in (prack, bye):
        assert isinstance(sent, Request)
        assert sent.uri == "sip:strict.example.com"
        assert sent.all("route") == ["<sip:loose.example.com;lr>", "<sip:them@192.0.2.9>"]
