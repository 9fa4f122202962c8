"""aftertone.sip.session_timer: calls whose other side has vanished end by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.agent import Agent
from aftertone.sip.events import ByeFinished, CallAnswered, CallConfirmed, DialogId, IncomingCall, SessionExpired
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.session_timer import LARGEST_S, Interval, agree, read_interval, read_minimum
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import FLOW, SDP, S, agent, parts, request, run_out, statuses
from tests.unit.sip.test_client import Placed


def asked(extra: str) -> Request:
    found = parse(request(extra=extra))
    assert isinstance(found, Request)
    return found


@pytest.mark.parametrize(
    ("extra", "agreed"),
    [
        ("", None),
        ("Supported: timer", Interval(1800, "uac")),
        ("Supported: timer\r\nMin-SE: 3600", Interval(3600, "uac")),
        ("Supported: timer\r\nSession-Expires: 600", Interval(600, "uac")),
        ("Supported: timer\r\nx: 600;refresher=uas", Interval(600, "uas")),
        ("Supported: timer\r\nSession-Expires: 600;refresher=UAC", Interval(600, "uac")),
        ("Require: timer\r\nSession-Expires: 86400", Interval(1800, "uac")),
        ("Session-Expires: 600", Interval(600, "uas")),
        ("Session-Expires: 10", Interval(90, "uas")),
        ("Session-Expires: soon", None),
        ("Supported: timer\r\nSession-Expires: 600;refresher=nobody", Interval(600, "uac")),
    ],
)
def test_what_is_agreed(extra: str, agreed: Interval | None) -> None:
    assert agree(asked(extra), AgentSettings()) == agreed


def test_without_a_wish_of_ours_only_what_the_peer_asks_for_holds() -> None:
    quiet = AgentSettings(session_expires_s=0)
    assert agree(asked("Supported: timer"), quiet) is None
    assert agree(asked("Supported: timer\r\nSession-Expires: 86400"), quiet) == Interval(86_400, "uac")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40))
def test_no_header_raises(text: str) -> None:
    message = Request("INVITE", "sip:x", {"session-expires": [text], "min-se": [text], "supported": [text]})
    found = read_interval(message)
    assert found is None or 0 <= found.seconds <= LARGEST_S
    assert read_minimum(message) >= 90
    agree(message, AgentSettings())


def called(extra: str, allow: str = "UPDATE") -> tuple[Agent, DialogId, Response]:
    """Return an agent with a confirmed call, and its 200."""
    subject = agent()
    subject.receive(request(extra=f"{extra}\r\nAllow: INVITE, ACK, BYE, {allow}"), FLOW, 0)
    event = parts(subject)[1][0]
    assert isinstance(event, IncomingCall)
    subject.respond(event.transaction_id, 200, body=b"ours", content_type="application/sdp", now_ns=0)
    answer = parts(subject)[0][0]
    assert isinstance(answer, Response)
    subject.receive(request("ACK", branch="z9hG4bKa", to_tag=event.dialog_id.local_tag), FLOW, 0)
    assert isinstance(parts(subject)[1][0], CallConfirmed)
    return subject, event.dialog_id, answer


def test_an_interval_that_is_too_short_is_422_for_who_understands_it() -> None:
    subject = agent()
    subject.receive(request(extra="Supported: timer\r\nSession-Expires: 89"), FLOW, 0)
    answer = parts(subject)[0][0]
    assert (statuses([answer]), answer.get("min-se")) == ([422], "90")
    assert subject.held().server_transactions == 0


def test_a_caller_that_is_to_refresh_and_does_not_is_left() -> None:
    subject, dialog, answer = called("Supported: timer\r\nSession-Expires: 90;refresher=uac")
    assert (answer.get("session-expires"), answer.get("require")) == ("90;refresher=uac", "timer")
    subject.advance(60 * S - 1)
    assert parts(subject)[1] == []
    subject.advance(60 * S)
    messages, events = parts(subject)
    assert (statuses(messages), events) == (["BYE"], [SessionExpired(dialog)])
    assert messages[0].get("reason") == 'SIP;cause=408;text="Session timer expired"'
    _, _, events = run_out(subject, 60 * S)
    assert events == [ByeFinished(dialog, None)]
    assert subject.held().timers == 0


@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
def test_a_refresh_of_the_caller_begins_a_new_interval(method: str) -> None:
    subject, dialog, _ = called("Supported: timer\r\nSession-Expires: 90;refresher=uac")
    extra = "Supported: timer\r\nSession-Expires: 90;refresher=uac"
    body = SDP if method == "INVITE" else b""
    data = request(method, branch="z9hG4bKr", to_tag=dialog.local_tag, cseq=2, body=body, extra=extra)
    subject.receive(data, FLOW, 50 * S)
    messages, events = parts(subject)
    if method == "INVITE":
        subject.respond(events[0].transaction_id, 200, body=b"ours", content_type="a/b", now_ns=50 * S)  # type: ignore[union-attr]
        messages = parts(subject)[0]
        subject.receive(request("ACK", branch="z9hG4bKb", to_tag=dialog.local_tag, cseq=2), FLOW, 50 * S)
    else:
        assert events == []
    assert messages[-1].get("session-expires") == "90;refresher=uac"
    subject.advance(109 * S)
    assert "BYE" not in statuses(parts(subject)[0])
    subject.advance(110 * S)
    assert statuses(parts(subject)[0]) == ["BYE"]


def test_we_refresh_by_update_at_half_of_the_interval() -> None:
    subject, dialog, _ = called("Supported: timer\r\nSession-Expires: 90;refresher=uas")
    subject.advance(45 * S)
    update = parts(subject)[0][0]
    assert isinstance(update, Request)
    assert (update.method, update.body, update.get("session-expires")) == ("UPDATE", b"", "90;refresher=uac")
    answer(subject, update, 200, 45 * S, "Session-Expires: 90;refresher=uac\r\n")
    assert parts(subject) == ([], [])
    subject.advance(90 * S)
    assert statuses(parts(subject)[0]) == ["UPDATE"]
    assert subject.held().dialogs == 1, dialog


def test_we_refresh_by_reinvite_where_update_is_not_allowed_and_say_what_holds() -> None:
    subject, _, _ = called("Supported: timer\r\nSession-Expires: 90;refresher=uas", allow="INFO")
    subject.advance(45 * S)
    invite = parts(subject)[0][0]
    assert isinstance(invite, Request)
    assert (invite.method, invite.body) == ("INVITE", b"ours")
    answer(subject, invite, 200, 45 * S, "Content-Type: a/b\r\n", b"theirs")
    messages, events = parts(subject)
    assert statuses(messages) == ["ACK"]
    assert (events[0].response.body, events[0].offer) == (b"theirs", b"ours")  # type: ignore[union-attr]
    answer(subject, invite, 200, 46 * S)
    assert statuses(parts(subject)[0]) == ["ACK"], "the ACK was lost"


def answer(
    subject: Agent, to: Request, status: int, now_ns: int, extra: str = "", body: bytes = b"", tag: str = ""
) -> None:
    """Let the peer answer a request inside the dialog."""
    head = (
        f"SIP/2.0 {status} X\r\nVia: {to.get('via')}\r\nFrom: {to.get('from')}\r\nTo: {to.get('to')}{tag}\r\n"
        f"Call-ID: {to.call_id}\r\nCSeq: {to.get('cseq')}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    subject.receive(head.encode() + body, FLOW, now_ns)


@pytest.mark.parametrize("status", [481, 408])
def test_a_peer_that_lost_the_call_is_left(status: int) -> None:
    subject, dialog, _ = called("Supported: timer\r\nSession-Expires: 90;refresher=uas")
    subject.advance(45 * S)
    update = parts(subject)[0][0]
    assert isinstance(update, Request)
    answer(subject, update, status, 45 * S)
    messages, events = parts(subject)
    assert (statuses(messages), events) == (["BYE"], [SessionExpired(dialog)])


def test_a_refresh_that_is_never_answered_ends_the_call() -> None:
    subject, dialog, _ = called("Supported: timer\r\nSession-Expires: 90;refresher=uas")
    end_ns, messages, events = run_out(subject, 0)
    assert events == [SessionExpired(dialog), ByeFinished(dialog, None)]
    assert end_ns < 130 * S
    assert "BYE" in statuses(messages)


def test_a_refused_refresh_is_tried_again_and_ends_the_call_only_when_the_time_is_over() -> None:
    subject, _, _ = called("Supported: timer\r\nSession-Expires: 90;refresher=uas")
    refreshes = 0
    while subject.held().dialogs:
        deadline_ns = subject.deadline_ns()
        assert deadline_ns is not None
        subject.advance(deadline_ns)
        for message in parts(subject)[0]:
            if isinstance(message, Request) and message.method in ("UPDATE", "BYE"):
                refreshes += message.method == "UPDATE"
                answer(subject, message, 200 if message.method == "BYE" else 488, deadline_ns)
                if message.method == "BYE":
                    assert deadline_ns == 60 * S
    assert refreshes == 2


def test_a_422_to_our_refresh_makes_the_interval_longer() -> None:
    subject, _, _ = called("Supported: timer\r\nSession-Expires: 90;refresher=uas")
    subject.advance(45 * S)
    update = parts(subject)[0][0]
    assert isinstance(update, Request)
    answer(subject, update, 422, 45 * S, "Min-SE: 300\r\n")
    subject.advance(45 * S)
    again = parts(subject)[0][0]
    assert isinstance(again, Request)
    assert (again.get("session-expires"), again.get("min-se")) == ("300;refresher=uac", "300")
    answer(subject, again, 200, 45 * S, "Session-Expires: 300;refresher=uac\r\n")
    assert subject.deadline_ns() is not None
    subject.advance(46 * S + 50 * S)
    assert statuses(parts(subject)[0]) == []


# We call


def test_our_call_asks_for_an_interval_and_keeps_to_what_the_peer_says() -> None:
    placed = Placed()
    assert placed.invite.get("session-expires") == "1800"
    extra = "Session-Expires: 120;refresher=uac\r\nRequire: timer\r\nAllow: UPDATE\r\n"
    _, events = placed.answer(placed.invite, 200, extra=extra)
    assert isinstance(events[0], CallAnswered)
    placed.agent.advance(60 * S)
    assert statuses(parts(placed.agent)[0]) == ["UPDATE"]


def test_our_call_is_placed_again_once_with_the_interval_of_a_422() -> None:
    placed = Placed()
    messages, events = placed.answer(placed.invite, 422, extra="Min-SE: 2000\r\n")
    assert statuses(messages) == ["ACK", "INVITE"]
    again = messages[1]
    assert isinstance(again, Request)
    assert events == []
    assert (again.call_id, again.from_.tag) == (placed.invite.call_id, placed.invite.from_.tag)
    assert (again.cseq.number, again.get("min-se"), again.get("session-expires")) == (2, "2000", "2000")
    assert statuses(placed.answer(placed.invite, 422, extra="Min-SE: 2000\r\n")[0]) == ["ACK"], "its copy"
    messages, events = placed.answer(again, 422, extra="Min-SE: 4000\r\n")
    assert statuses(messages) == ["ACK"]
    assert events[0].status == 422  # type: ignore[union-attr]
    run_out(placed.agent, 0)
    assert placed.agent.held().calls_placed == 0
