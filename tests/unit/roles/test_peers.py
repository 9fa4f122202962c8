"""Peers: who is known by what, whom we believe, and what everybody else is answered."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from aftertone.config import Settings
from aftertone.config.sip import Account, Phone
from aftertone.roles.peers import (
    LOGIN_COUNTS_NS,
    MAX_LOGGED_IN,
    PLACE_COUNTS_NS,
    SECRETS_AGE_NS,
    TOLD_A_MINUTE,
    Peer,
    PeerKind,
    Peers,
    Turned,
)
from aftertone.sip.agent import Agent, Held
from aftertone.sip.budgets import WINDOW_NS, Guard, Limits
from aftertone.sip.checks import Refusal
from aftertone.sip.digest import digest_response
from aftertone.sip.events import IncomingCall, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import parts, request, run_out, statuses

PBX = {"name": "pbx", "addresses": ["192.0.2.0/24", "2001:db8::/32"]}
LOGIN = {"name": "cloud", "user": "cloud-user", "secret": "s3cret", "trust": False}


def flow(host: str) -> Flow:
    return Flow("UDP", (host, 5060), ("198.51.100.1", 5060))


def invite(extra: str = "") -> Request:
    found = parse(request(extra=extra))
    assert isinstance(found, Request)
    return found


@dataclass
class Door:
    """Peers by some settings, and what they said."""

    settings: dict[str, Any]
    account: Account | None = None
    now_ns: int = 1_000_000_000
    user_failures: int = 20
    wrong: list[Flow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = structlog.testing.LogCapture()
        self.peers = Peers(
            Settings.model_validate({"sip": {"digest": ["SHA-256", "MD5"], **self.settings}}).sip,
            secret=bytes(16),
            logger=structlog.wrap_logger(None, processors=[self.log]),
            account_of=lambda _request, _flow: self.account,
            on_wrong_login=self.wrong.append,
            user_failures=self.user_failures,
            clock_ns=lambda: self.now_ns,
        )

    def met(self, host: str = "203.0.113.9", extra: str = "") -> Peer | Turned:
        return self.peers.of(invite(extra), flow(host))

    def status(self, host: str = "203.0.113.9", extra: str = "") -> int | None:
        found = self.met(host, extra)
        return found.answer.status if isinstance(found, Turned) else None

    def challenge(self, host: str = "203.0.113.9", extra: str = "") -> str:
        """Return the strongest challenge to a request."""
        found = self.met(host, extra)
        assert isinstance(found, Turned)
        assert found.answer.status == 401
        return found.answer.fields[0][1]


def credentials(challenge: str, user: str, password: str, *, count: int = 1, field: str = "Authorization") -> str:
    (nonce,) = re.findall(r'nonce="([^"]+)"', challenge)
    response = digest_response(
        algorithm="SHA-256",
        user=user,
        realm="aftertone",
        password=password,
        method="INVITE",
        uri="sip:box@198.51.100.1",
        nonce=nonce,
        qop="auth",
        nonce_count=f"{count:08x}",
        cnonce="c",
    )
    return (
        f'{field}: Digest username="{user}", realm="aftertone", nonce="{nonce}", uri="sip:box@198.51.100.1", '
        f'algorithm=SHA-256, qop=auth, nc={count:08x}, cnonce="c", response="{response}"\r\n'
    )


def test_without_any_setting_everybody_is_a_stranger_who_may_call_and_is_not_believed() -> None:
    assert Door({}).met() == Peer(PeerKind.STRANGER, srtp="optional")


def test_a_trunk_is_known_by_its_addresses() -> None:
    door = Door({"trunks": [{**PBX, "mailbox": "main", "srtp": "required"}], "srtp": "off"})
    pbx = Peer(PeerKind.TRUNK, "pbx", "main", trust=True, srtp="required")
    for host in ("192.0.2.77", "2001:db8::1", "::ffff:192.0.2.1"):
        assert door.met(host) == pbx
    assert pbx.label == "trunk pbx"
    for host in ("192.0.3.1", "2001:db9::1", "fe80::1%eth0", "not an address"):
        assert door.met(host) == Peer(PeerKind.STRANGER, srtp="off")


def test_the_longest_prefix_names_the_trunk() -> None:
    small = {"name": "small", "addresses": ["192.0.2.7"], "trust": False}
    for trunks in itertools.permutations([PBX, small]):
        met = Door({"trunks": list(trunks)}).met("192.0.2.7")
        assert isinstance(met, Peer)
        assert (met.name, met.trust) == ("small", False)


def test_an_account_goes_before_the_address_of_a_trunk() -> None:
    account = Account(name="home", registrar="fritz.box", user="620", mailbox="main", trust=False)
    door = Door({"trunks": [PBX]}, account)
    assert door.met("192.0.2.1") == Peer(PeerKind.ACCOUNT, "home", "main", trust=False, srtp="optional")


def test_a_stranger_is_refused_where_only_those_who_are_known_may_call() -> None:
    door = Door({"callers": "known", "trunks": [PBX]})
    assert (door.status(), door.status("192.0.2.1")) == (403, None)
    assert not isinstance(door.met("192.0.2.1"), Turned)


def test_a_trunk_logs_in() -> None:
    door = Door({"callers": "known", "trunks": [LOGIN]})
    sent = credentials(door.challenge(), "cloud-user", "s3cret")
    assert door.met(extra=sent) == Peer(PeerKind.TRUNK, "cloud", trust=False, srtp="optional")
    assert not door.wrong
    again = door.challenge(extra=sent)
    assert "stale=true" in again, "a copy of a login lets nobody in"
    assert door.status(extra=credentials(again, "cloud-user", "s3cret", field="Proxy-Authorization")) is None


def test_a_phone_logs_in_and_is_known() -> None:
    door = Door({"callers": "known", "phones": [{"user": "desk", "secret": "x", "mailboxes": ["main"]}]})
    assert door.met(extra=credentials(door.challenge(), "desk", "x")) == Peer(PeerKind.PHONE, "desk", srtp="optional")


def test_a_trunk_with_addresses_and_a_login_needs_both() -> None:
    door = Door({"trunks": [{**LOGIN, "addresses": ["192.0.2.0/24"]}]})
    challenge = door.challenge("192.0.2.1")
    assert door.status("192.0.2.1", credentials(challenge, "cloud-user", "s3cret")) is None
    again = door.challenge("203.0.113.9", credentials(challenge, "cloud-user", "s3cret", count=2))
    assert "stale=true" in again, "that challenge was for another address"
    assert not door.wrong
    assert door.status("203.0.113.9", credentials(again, "cloud-user", "s3cret")) == 401
    assert len(door.wrong) == 1
    assert door.status("203.0.113.9") is None, "anyone may call, as a stranger"


def test_nobody_can_fail_in_the_name_of_an_address_that_he_only_forges() -> None:
    door = Door(
        {"callers": "known", "trunks": [PBX], "phones": [{"user": "desk", "secret": "x", "mailboxes": ["main"]}]}
    )
    mine = door.challenge("203.0.113.9")
    for sent in (credentials(mine, "desk", "guess"), credentials('nonce="made up"', "desk", "guess")):
        told = door.peers.login(invite(sent), flow("192.0.2.1"))
        assert isinstance(told, Turned)
        assert told.answer.status == 401
    assert not door.wrong
    assert door.status("203.0.113.9", credentials(mine, "desk", "guess")) == 401
    assert [one.remote[0] for one in door.wrong] == ["203.0.113.9"]


def test_whoever_comes_through_a_registrar_of_ours_may_call_and_learns_nothing() -> None:
    account = Account(name="home", registrar="box.example", user="620")
    door = Door({"phones": [{"user": "desk", "secret": "x", "mailboxes": ["main"]}]}, account)
    assert door.met() == Peer(PeerKind.ACCOUNT, "home", trust=True, srtp="optional")
    turned = door.peers.known(invite(), flow("203.0.113.9"))
    assert isinstance(turned, Turned)
    assert turned.answer.status == 401
    sent = credentials(turned.answer.fields[0][1], "desk", "x")
    assert door.peers.known(invite(sent), flow("203.0.113.9")) == Peer(PeerKind.PHONE, "desk", srtp="optional")
    both = Door({"trunks": [PBX]}, account)
    assert both.peers.known(invite(), flow("192.0.2.1")) == Peer(PeerKind.TRUNK, "pbx", trust=True, srtp="optional")


def test_what_is_answered_does_not_tell_which_users_there_are() -> None:
    door = Door({"callers": "known", "trunks": [LOGIN]})

    def answer(extra: str) -> tuple[int, list[str]]:
        met = door.met(extra=extra)
        assert isinstance(met, Turned)
        return met.answer.status, [re.sub(r'nonce="[^"]+"', "", value) for _, value in met.answer.fields]

    nobody = answer("")
    assert nobody[0] == 401
    for user in ("cloud-user", "nobody"):
        assert answer(credentials(door.challenge(), user, "guess")) == nobody
    assert len(door.wrong) == 2
    assert door.peers.counters["wrong_logins"] == 2
    assert door.status(extra='Authorization: Digest realm="aftertone"\r\n') == 400
    assert door.status(extra='Authorization: Digest realm="elsewhere", nonce="x"\r\n') == 401


def test_a_request_is_looked_at_once_so_that_its_login_counts_once() -> None:
    door = Door({"callers": "known", "trunks": [LOGIN]})
    asked = invite(credentials(door.challenge(), "cloud-user", "s3cret"))
    assert door.peers.door(asked, flow("203.0.113.9")) is None
    assert door.status() == 401, "somebody else in between"
    assert isinstance(door.peers.of(asked, flow("203.0.113.9")), Peer)


def test_a_password_may_change_while_the_line_runs_and_one_that_is_gone_lets_nobody_in(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first")
    trunk = {"name": "cloud", "user": "u", "secret_file": str(secret)}
    door = Door({"callers": "known", "trunks": [trunk]})
    assert door.status(extra=credentials(door.challenge(), "u", "first")) is None
    secret.write_text("second")
    door.now_ns += SECRETS_AGE_NS + 1
    assert door.status(extra=credentials(door.challenge(), "u", "second")) is None
    secret.unlink()
    door.now_ns += SECRETS_AGE_NS + 1
    assert door.status(extra=credentials(door.challenge(), "u", "second")) == 401
    assert [entry["log_level"] for entry in door.log.entries] == ["error"]


def test_a_file_of_a_password_that_holds_its_reader_holds_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door({"callers": "known", "phones": [{"user": "desk", "secret": "first", "mailboxes": ["main"]}]})
    assert door.status(extra=credentials(door.challenge(), "desk", "first")) is None
    may_go_on, threads = threading.Event(), []

    def held(_: object) -> str:
        threads.append(threading.current_thread())
        assert may_go_on.wait(10)
        return "second"

    monkeypatch.setattr(Phone, "password", held)

    async def evening() -> None:
        door.now_ns += SECRETS_AGE_NS + 1
        assert door.status(extra=credentials(door.challenge(), "desk", "first")) is None, (
            "what was known serves meanwhile"
        )
        may_go_on.set()
        async with asyncio.timeout(10):
            while door.status(extra=credentials(door.challenge(), "desk", "second")) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    asyncio.run(evening())
    assert len(threads) == 1 and threads[0] is not threading.current_thread()


def test_the_log_tells_of_some_refused_strangers_a_minute() -> None:
    door = Door({"callers": "known"})
    for _ in range(TOLD_A_MINUTE + 5):
        assert door.peers.door(invite(), flow("203.0.113.9")) == Refusal(403)
    assert len(door.log.entries) == TOLD_A_MINUTE
    assert door.peers.counters["answered_403"] == TOLD_A_MINUTE + 5
    door.now_ns += 61_000_000_000
    door.peers.door(invite(), flow("203.0.113.9"))
    assert len(door.log.entries) == TOLD_A_MINUTE + 1


def test_calls_are_counted_for_each_line() -> None:
    account = {"name": "home", "registrar": "fritz.box", "user": "620"}
    peers = Door({"trunks": [PBX], "accounts": [account]}).peers
    peers.called(Peer(PeerKind.TRUNK, "pbx"), 1000)
    peers.called(Peer(PeerKind.TRUNK, "pbx"), 2000)
    peers.called(Peer(PeerKind.STRANGER), 3000)
    assert peers.facts() == [
        {"kind": "account", "name": "home", "calls": 0, "last_call_unix_ms": 0},
        {"kind": "trunk", "name": "pbx", "calls": 2, "last_call_unix_ms": 2000},
    ]


def agent_of_zeros() -> Agent:
    return Agent(AgentSettings(), bytes)


@pytest.mark.parametrize(("settings", "status"), [({}, 403), ({"trunks": [LOGIN]}, 401)])
def test_an_agent_with_a_door_keeps_nothing_of_those_it_turns_away(settings: dict[str, Any], status: int) -> None:
    door = Door({"callers": "known", **settings})
    agent = agent_of_zeros()
    agent.admit_by(door.peers.door)
    for now_ns in (0, 1):
        agent.receive(request(), flow("203.0.113.9"), now_ns)
        (sent,) = agent.outputs()
        assert isinstance(sent, Transmit)
        answer = parse(sent.data)
        assert isinstance(answer, Response)
        assert answer.status == status
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert agent.held() == Held(0, 0, 0, 0, 0)
    agent.receive(request("ACK"), flow("203.0.113.9"), 2)
    assert agent.outputs() == []


def test_an_agent_with_a_door_lets_in_whom_it_knows() -> None:
    door = Door({"callers": "known", "trunks": [PBX]})
    agent = agent_of_zeros()
    agent.admit_by(door.peers.door)
    agent.receive(request(), flow("192.0.2.1"), 0)
    assert any(isinstance(output, IncomingCall) for output in agent.outputs())


def test_addresses_of_trunks_and_of_whoever_logged_in_lately_may_ask_more_than_strangers() -> None:
    door = Door(
        {"trunks": [PBX], "phones": [{"user": "desk", "secret": "s", "mailboxes": ["main"]}], "callers": "known"}
    )
    peers = door.peers
    assert peers.knows("192.0.2.77")
    assert not peers.knows("203.0.113.9")
    door.met(extra=credentials(door.challenge(), "desk", "wrong"))
    assert not peers.knows("203.0.113.9")
    assert door.met(extra=credentials(door.challenge(), "desk", "s")) == Peer(PeerKind.PHONE, "desk")
    assert peers.knows("203.0.113.9")
    assert not peers.knows("203.0.113.10")
    door.now_ns += LOGIN_COUNTS_NS
    assert not peers.knows("203.0.113.9")
    peers.also_known.append("203.0.113.10".__eq__)
    assert peers.knows("203.0.113.10")


def test_logins_from_many_addresses_are_not_remembered_without_end() -> None:
    door = Door({"phones": [{"user": "desk", "secret": "s", "mailboxes": ["main"]}], "callers": "known"})
    for number in range(MAX_LOGGED_IN + 5):
        host = f"10.0.{number >> 8}.{number & 255}"
        door.met(host, credentials(door.challenge(host), "desk", "s"))
    assert not door.peers.knows("10.0.0.0")
    assert door.peers.knows("10.0.3.236")


PHONE = {"user": "desk", "secret": "s", "mailboxes": ["main"]}
AT_HOME = "198.51.100.20"


def tried(door: Door, host: str, user: str, password: str) -> bool:
    """Ask for a challenge, answer it, and return whether that was let in."""
    return isinstance(door.met(host, credentials(door.challenge(host), user, password)), Peer)


def test_a_password_that_is_guessed_at_from_everywhere_is_not_looked_at_any_more() -> None:
    door = Door({"phones": [PHONE], "callers": "known"}, user_failures=3)
    for number in range(3):
        assert not tried(door, f"203.0.113.{number}", "desk", "wrong")
    assert not tried(door, "203.0.113.100", "desk", "s"), "the right password is not found either"
    assert door.status("203.0.113.100", credentials(door.challenge("203.0.113.100"), "desk", "s")) == 401
    assert (door.peers.counters["wrong_logins"], door.peers.counters["logins_not_looked_at"]) == (3, 2)
    assert [one.remote[0] for one in door.wrong] == [f"203.0.113.{number}" for number in range(3)]
    door.now_ns += WINDOW_NS
    assert tried(door, "203.0.113.100", "desk", "s")


def test_what_is_answered_does_not_tell_whether_an_attempt_was_looked_at() -> None:
    door = Door({"phones": [PHONE], "callers": "known"}, user_failures=1)
    host, answers = "203.0.113.9", []
    for user, password in (("desk", "wrong"), ("desk", "s"), ("desk", "wrong"), ("nobody", "x"), ("nobody", "x")):
        found = door.met(host, credentials(door.challenge(host), user, password))
        assert isinstance(found, Turned)
        answers.append((found.answer.status, [name for name, _ in found.answer.fields], "stale" in str(found.answer)))
    assert len({str(one) for one in answers}) == 1


def test_a_stale_nonce_does_not_tell_either_whether_the_password_was_right() -> None:
    door = Door({"phones": [PHONE], "callers": "known"}, user_failures=1)
    assert not tried(door, "203.0.113.1", "desk", "wrong")
    old = door.challenge()
    door.now_ns += 50 * 1_000_000_000
    door.peers._digest._life_ns = 1
    found = door.met(extra=credentials(old, "desk", "s"))
    assert isinstance(found, Turned)
    assert "stale" not in str(found.answer)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.integers(0, 20)), max_size=60))
def test_no_attack_locks_out_a_phone_where_it_is_or_a_trunk_where_it_lives(
    attempts: list[tuple[int, bool, int]],
) -> None:
    """Whoever tries whatever, from wherever, as whomever: the two get in each time, and guesses stay bounded."""
    trunk = {**PBX, "user": "pbx-user", "secret": "t"}
    door = Door({"phones": [PHONE], "trunks": [trunk], "callers": "known"}, user_failures=2)
    assert tried(door, AT_HOME, "desk", "s")
    times: dict[str, list[int]] = {"desk": [], "pbx-user": []}
    for number, is_phone, pause_s in attempts:
        door.now_ns += pause_s * 1_000_000_000
        user = "desk" if is_phone else "pbx-user"
        before = door.peers.counters["wrong_logins"]
        assert not tried(door, f"203.0.113.{number}", user, "wrong")
        if door.peers.counters["wrong_logins"] > before:
            times[user].append(door.now_ns)
        assert tried(door, AT_HOME, "desk", "s")
        assert tried(door, "192.0.2.77", "pbx-user", "t")
    for looked_at in times.values():
        assert all(later - first >= WINDOW_NS for first, later in zip(looked_at, looked_at[2:], strict=False))


def test_a_phone_with_an_old_password_at_home_costs_the_same_user_elsewhere_nothing() -> None:
    door = Door({"phones": [PHONE], "callers": "known"}, user_failures=2)
    assert tried(door, AT_HOME, "desk", "s")
    for _ in range(10):
        assert not tried(door, AT_HOME, "desk", "old")
    assert tried(door, "203.0.113.9", "desk", "s")


def test_a_place_is_somebodys_own_for_a_while_and_for_nobody_else() -> None:
    other = {"user": "hall", "secret": "h", "mailboxes": ["main"]}
    door = Door({"phones": [PHONE, other], "callers": "known"}, user_failures=1)
    assert tried(door, AT_HOME, "desk", "s")
    assert not tried(door, AT_HOME, "hall", "guess")
    assert not tried(door, AT_HOME, "hall", "h"), "a user may not guess at another's from his place"
    assert not tried(door, "203.0.113.9", "desk", "guess")
    door.now_ns += PLACE_COUNTS_NS
    assert not tried(door, "203.0.113.9", "desk", "guess")
    assert not tried(door, AT_HOME, "desk", "s")


def test_the_place_of_a_phone_that_was_registered_before_a_restart_is_its_own() -> None:
    door = Door({"phones": [PHONE], "callers": "known"}, user_failures=1)
    door.peers.also_at_home.append(lambda user, host: (user, host) == ("desk", AT_HOME))
    assert not tried(door, "203.0.113.9", "desk", "guess")
    assert tried(door, AT_HOME, "desk", "s")


def test_places_are_not_remembered_without_end() -> None:
    door = Door({"phones": [PHONE], "callers": "known"})
    for number in range(MAX_LOGGED_IN + 5):
        tried(door, f"10.0.{number >> 8}.{number & 255}", "desk", "s")
    assert len(door.peers._places) == MAX_LOGGED_IN


def test_a_trunk_has_as_many_calls_as_it_may_wherever_they_come_from() -> None:
    door = Door({"trunks": [{**PBX, "calls_at_once": 2}, LOGIN], "callers": "known"})
    guard = Guard(Limits())
    subject = Agent(AgentSettings(), random.Random(1).randbytes, guard)
    door.peers.open_calls_by = guard.open_calls_by
    subject.admit_by(door.peers.door, door.peers.label_of)
    answers = []
    for number in range(4):
        data = request(branch=f"z9hG4bK{number}", call_id=f"{number}", from_tag=f"{number}")
        subject.receive(data, flow(f"192.0.2.{number}"), 0)
        answers += [message for message in parts(subject)[0] if isinstance(message, Response)]
    assert [answer.status for answer in answers] == [100, 100, 503, 503]
    assert answers[2].get("retry-after") == "30"
    assert door.peers.counters["answered_503"] == 2
    assert guard.open_calls_by("trunk pbx") == 2
    subject.receive(request("CANCEL", branch="z9hG4bK0", call_id="0", from_tag="0"), flow("192.0.2.0"), 0)
    parts(subject)
    subject.receive(request(branch="z9hG4bK9", call_id="9", from_tag="9"), flow("192.0.2.9"), 0)
    assert statuses(parts(subject)[0]) == [100], "one is over, so there is room for one"
    run_out(subject, 0)
    assert (guard.open_calls_by("trunk pbx"), guard.counted_calls) == (0, 0)


def test_others_are_not_limited_by_a_trunk() -> None:
    door = Door({"trunks": [{**PBX, "calls_at_once": 1}, LOGIN], "callers": "known"})
    door.peers.open_calls_by = lambda _: 5
    assert door.peers.door(invite(), flow("192.0.2.7")) is not None
    extra = credentials(door.challenge(), "cloud-user", "s3cret")
    assert door.peers.door(invite(extra), flow("203.0.113.9")) is None
    assert Door({}).peers.label_of(invite(), flow("203.0.113.9")) == ""


@given(
    st.lists(st.text(alphabet='Digest realm="aftertone",nonce=\\uri;x0\udcff', max_size=80), max_size=3), st.booleans()
)
def test_no_credentials_raise(values: list[str], proxied: bool) -> None:
    door = Door({"callers": "known", "trunks": [LOGIN]})
    asked = invite()
    asked.headers["proxy-authorization" if proxied else "authorization"] = values
    assert isinstance(door.peers.of(asked, flow("203.0.113.9")), Turned)
