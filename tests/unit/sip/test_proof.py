"""aftertone.sip.proof: requests of ours inside a dialog that are challenged, by whoever may and by whoever may not."""

from __future__ import annotations

import pytest

from aftertone.sip.agent import Agent
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.digest_server import DigestServer, Verdict
from aftertone.sip.events import (
    ByeFinished,
    DialogId,
    Event,
    ReofferAnswered,
    ReofferFailed,
)
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response
from aftertone.sip.proof import MAX_IN_A_ROW, Login
from tests.unit.sip.kit import FLOW, PEER, SDP, US, parts, request, run_out, seeded, statuses
from tests.unit.sip.test_client import Placed
from tests.unit.sip.test_session_timer import answer, called

TYPE = "application/sdp"
PASSWORD = "sesame"
REGISTRAR = DigestServer("home", b"r" * 16, offered=("SHA-256",))


def registered(*challenges: str, password: str = PASSWORD) -> DigestClient:
    """The login of a registration, as its registrar has challenged it."""
    subject = DigestClient("ann", password, seeded())
    subject.challenged(Response(401, "X", {"www-authenticate": list(challenges or REGISTRAR.challenges(0))}))
    return subject


def login(client: DigestClient | None = None, hosts: frozenset[str] = frozenset({PEER[0]})) -> Login:
    """A login for the one server that there is here."""
    return Login((client or registered()).for_dialog, lambda flow, host: flow.remote[0] in hosts and host in hosts)


class Proxy:
    """Challenges, and checks what is answered."""

    def __init__(self, *, realm: str = "home", offered: tuple[str, ...] = ("SHA-256",), status: int = 407) -> None:
        self.digest = DigestServer(realm, b"p" * 16, offered=offered)
        self.status = status

    def asks(self, now_ns: int = 0, *, stale: bool = False) -> str:
        name = "Proxy-Authenticate" if self.status == 407 else "WWW-Authenticate"
        return "".join(f"{name}: {value}\r\n" for value in self.digest.challenges(now_ns, stale=stale))

    def verdict(self, message: Request | Response, now_ns: int = 0, password: str = PASSWORD) -> Verdict:
        assert isinstance(message, Request)
        field = "proxy-authorization" if self.status == 407 else "authorization"
        return self.digest.verify(message, {"ann": password}.get, now_ns, field=field).verdict


def in_call(allow: str = "UPDATE", given: Login | None = None) -> tuple[Agent, DialogId]:
    subject, dialog, _ = called("", allow)
    subject.log_in(dialog, given or login())
    return subject, dialog


def refused(subject: Agent, message: Request | Response, proxy: Proxy) -> tuple[list[Request | Response], list[Event]]:
    assert isinstance(message, Request)
    answer(subject, message, proxy.status, 0, proxy.asks())
    return parts(subject)


def bye(subject: Agent, dialog: DialogId) -> Request:
    subject.bye(dialog, 0, reason="Q.850;cause=16")
    (message,) = parts(subject)[0]
    assert isinstance(message, Request)
    return message


@pytest.mark.parametrize("status", [401, 407])
def test_a_bye_that_is_challenged_is_sent_again_with_the_login(status: int) -> None:
    proxy = Proxy(status=status)
    subject, dialog = in_call()
    first = bye(subject, dialog)
    assert proxy.verdict(first) is Verdict.ABSENT
    (second,), events = refused(subject, first, proxy)
    assert events == []
    assert proxy.verdict(second) is Verdict.OK
    assert second.cseq.number == first.cseq.number + 1
    assert second.via.branch != first.via.branch
    assert second.get("reason") == first.get("reason") == "Q.850;cause=16"
    answer(subject, second, 200, 0)  # type: ignore[arg-type]
    assert parts(subject)[1] == [ByeFinished(dialog, 200)]
    run_out(subject, 0)
    assert subject.held().dialogs == subject.held().client_transactions == 0


def test_a_second_refusal_is_the_end_of_it() -> None:
    proxy = Proxy()
    subject, dialog = in_call(given=login(registered(password="other")))
    (second,), _ = refused(subject, bye(subject, dialog), proxy)
    assert proxy.verdict(second) is Verdict.WRONG
    messages, events = refused(subject, second, proxy)
    assert (messages, events) == ([], [ByeFinished(dialog, 407)])


def test_without_a_login_a_challenge_is_a_refusal() -> None:
    subject, dialog, _ = called("")
    messages, events = refused(subject, bye(subject, dialog), Proxy())
    assert (messages, events) == ([], [ByeFinished(dialog, 407)])


@pytest.mark.parametrize("allow", ["UPDATE", "INFO"])
def test_a_change_that_is_challenged_goes_on_and_later_requests_are_authorised_at_once(allow: str) -> None:
    proxy = Proxy()
    subject, dialog = in_call(allow)
    subject.reoffer(dialog, b"new", TYPE, 0)
    (first,), _ = parts(subject)
    messages, events = refused(subject, first, proxy)
    again = messages[-1]
    assert events == []
    assert statuses(messages) == ([first.method] if allow == "UPDATE" else ["ACK", "INVITE"])  # type: ignore[union-attr]
    assert (proxy.verdict(again), again.body, again.cseq.number) == (Verdict.OK, b"new", first.cseq.number + 1)
    answer(subject, again, 200, 0, f"Content-Type: {TYPE}\r\n", b"answer")  # type: ignore[arg-type]
    messages, events = parts(subject)
    assert isinstance(events[0], ReofferAnswered)
    for ack in messages:
        assert ack.get("proxy-authorization") == again.get("proxy-authorization"), "an ACK says what its INVITE said"
    assert proxy.verdict(bye(subject, dialog)) is Verdict.OK


def test_a_stale_nonce_is_answered_anew_and_not_for_ever() -> None:
    proxy = Proxy()
    subject, dialog = in_call()
    message: Request | Response = bye(subject, dialog)
    tries = 0
    while True:
        assert isinstance(message, Request)
        answer(subject, message, 407, 0, proxy.asks(stale=tries > 0))
        messages, events = parts(subject)
        if not messages:
            break
        message = messages[0]
        tries += 1
    assert 2 < tries <= MAX_IN_A_ROW
    assert events == [ByeFinished(dialog, 407)]


def test_glare_is_as_it_was_while_ours_is_challenged() -> None:
    proxy = Proxy()
    subject, dialog = in_call("INFO")
    subject.reoffer(dialog, b"new", TYPE, 0)
    (first,), _ = parts(subject)
    crossing = request("INVITE", branch="z9hG4bKcross", to_tag=dialog.local_tag, cseq=2, body=SDP)
    subject.receive(crossing, FLOW, 0)
    assert statuses(parts(subject)[0]) == [491]
    (_, again), _ = refused(subject, first, proxy)
    assert proxy.verdict(again) is Verdict.OK


def test_a_change_that_is_refused_twice_fails() -> None:
    proxy = Proxy()
    subject, dialog = in_call(given=login(registered(password="other")))
    subject.reoffer(dialog, b"new", TYPE, 0)
    (again,), _ = refused(subject, parts(subject)[0][0], proxy)
    messages, events = refused(subject, again, proxy)
    assert (messages, events) == ([], [ReofferFailed(dialog, 407)])
    assert proxy.verdict(bye(subject, dialog)) is Verdict.ABSENT, "no second guess in this call"


# Who may not ask


@pytest.mark.parametrize(
    "proxy",
    [Proxy(realm="elsewhere"), Proxy(offered=("MD5",))],
    ids=["a realm that the registrar never named", "a weaker algorithm than the registrar's"],
)
def test_what_the_registrar_does_not_ask_is_not_answered(proxy: Proxy) -> None:
    subject, dialog = in_call()
    messages, events = refused(subject, bye(subject, dialog), proxy)
    assert (messages, events) == ([], [ByeFinished(dialog, 407)])


def test_a_challenge_that_wants_no_nonce_of_ours_is_not_answered() -> None:
    """Without qop the answer depends on the asker's nonce alone, for which tables can be made."""
    subject, dialog = in_call(given=login(registered('Digest realm="home", nonce="n", qop="auth"')))
    first = bye(subject, dialog)
    answer(subject, first, 407, 0, 'Proxy-Authenticate: Digest realm="home", nonce="n"\r\n')
    assert parts(subject) == ([], [ByeFinished(dialog, 407)])


def test_nobody_else_than_the_accounts_servers_is_answered() -> None:
    subject, dialog = in_call(given=login(hosts=frozenset({"192.0.2.99"})))
    messages, events = refused(subject, bye(subject, dialog), Proxy())
    assert (messages, events) == ([], [ByeFinished(dialog, 407)])


def test_the_far_end_is_not_answered_when_a_proxy_lets_its_challenge_through() -> None:
    """The request goes to the account's proxy, and the 401 is the word of whoever is behind it."""
    subject, dialog = in_call()
    update = request(
        "UPDATE", branch="z9hG4bKmove", to_tag=dialog.local_tag, cseq=2, body=b"", drop="Contact",
        extra="Contact: <sip:mallory@203.0.113.66>",
    )  # fmt: skip
    subject.receive(update, FLOW, 0)
    parts(subject)
    messages, events = refused(subject, bye(subject, dialog), Proxy(status=401))
    assert (messages, events) == ([], [ByeFinished(dialog, 401)])


def test_an_end_behind_a_proxy_is_not_answered_wherever_it_says_it_is() -> None:
    """A customer of the same provider may well name the provider's address as his own."""
    subject, dialog, _ = called("Record-Route: <sip:192.0.2.7:5062;lr>")
    subject.log_in(dialog, login())
    messages, events = refused(subject, bye(subject, dialog), Proxy(status=401))
    assert (messages, events) == ([], [ByeFinished(dialog, 401)])
    subject, dialog, _ = called("Record-Route: <sip:192.0.2.7:5062;lr>")
    subject.log_in(dialog, login())
    assert len(refused(subject, bye(subject, dialog), Proxy())[0]) == 1, "the proxy itself is"


def test_what_was_learned_is_said_to_nobody_else() -> None:
    """Whoever moves the call to another address gets our requests and no login with them."""
    proxy = Proxy()
    subject, dialog = in_call()
    subject.reoffer(dialog, b"new", TYPE, 0)
    (again,), _ = refused(subject, parts(subject)[0][0], proxy)
    answer(subject, again, 200, 0, f"Content-Type: {TYPE}\r\n", b"answer")  # type: ignore[arg-type]
    parts(subject)
    away = Flow("UDP", ("203.0.113.66", 5060), US)
    subject.receive(request("UPDATE", branch="z9hG4bKmove", to_tag=dialog.local_tag, cseq=2, body=b""), away, 0)
    parts(subject)
    assert bye(subject, dialog).get("proxy-authorization") == ""


def test_a_login_that_came_too_late_is_nobodys() -> None:
    subject, dialog = in_call()
    bye(subject, dialog)
    subject.log_in(DialogId("x", "y", "z"), login())
    assert subject.held().dialogs == 1


def test_a_challenge_in_a_dialog_teaches_the_registration_nothing() -> None:
    client = registered()
    before = client.authorize("REGISTER", "sip:home")[0][1].split("nonce=")[1].split(",")[0]
    subject, dialog = in_call(given=login(client))
    refused(subject, bye(subject, dialog), Proxy())
    assert before in client.authorize("REGISTER", "sip:home")[0][1]


# Calls that we place


def test_a_call_that_we_placed_answers_with_its_login() -> None:
    proxy = Proxy()
    placed = Placed(login=DigestClient("ann", PASSWORD, seeded()))
    (ack, invite), _ = placed.answer(placed.invite, 407, extra=proxy.asks())
    assert isinstance(ack, Request)
    assert isinstance(invite, Request)
    placed.answer(invite, 183, extra="Require: 100rel\r\nRSeq: 1\r\nContact: <sip:them@192.0.2.7>\r\n", body=b"x")
    placed.invite = invite
    _, dialog = placed.answered()
    placed.agent.bye(dialog, 0)
    (message,), _ = parts(placed.agent)
    assert proxy.verdict(message) is Verdict.OK, "authorised before anybody asked"


def test_a_prack_that_is_challenged_is_sent_again() -> None:
    proxy = Proxy()
    placed = Placed(login=DigestClient("ann", PASSWORD, seeded()))
    rings = "Require: 100rel\r\nRSeq: 1\r\nContact: <sip:them@192.0.2.7:5062>\r\n"
    (prack,), _ = placed.answer(placed.invite, 183, extra=rings, body=b"x")
    assert proxy.verdict(prack) is Verdict.ABSENT
    (again,), _ = placed.answer(prack, 407, extra=proxy.asks())
    assert (again.get("rack"), proxy.verdict(again)) == (prack.get("rack"), Verdict.OK)
    assert placed.answer(again, 200)[0] == []
    unanswered = Placed(login=DigestClient("ann", PASSWORD, seeded()))
    unanswered.answer(unanswered.invite, 183, extra=rings, body=b"x")
    unanswered.agent.flow_lost(FLOW, 0)
    run_out(unanswered.agent, 0)
    assert unanswered.agent.held().client_transactions == 0


def test_what_we_placed_says_its_login_only_where_it_was_asked() -> None:
    placed = Placed(login=DigestClient("ann", PASSWORD, seeded()))
    (_, invite), _ = placed.answer(placed.invite, 407, extra=Proxy().asks())
    assert isinstance(invite, Request)
    placed.answer(invite, 200, extra="Contact: <sip:mallory@203.0.113.66>\r\n", body=b"v=0 answer")
    (dialog,) = placed.agent._core.dialogs
    placed.agent.bye(dialog, 0)
    assert parts(placed.agent)[0][-1].get("proxy-authorization") == ""
