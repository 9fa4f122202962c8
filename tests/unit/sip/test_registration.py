"""aftertone.sip.registration: what is asked, what answers mean, and when to ask again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.sip.digest_client import DigestClient
from aftertone.sip.message import Response, parse
from aftertone.sip.registration import MAX_STEPS, Register, Registrant, Registration, State
from tests.unit.sip.kit import FLOW, TCP_FLOW, S, seeded

WHO = Registrant(
    registrar="sip:provider.example",
    address="sip:ann@provider.example",
    user="ann",
    line="0123456789abcdef",
    instance="urn:uuid:00000000-0000-4000-8000-000000000001",
)
MINE = "<sip:ann@192.0.2.1:5060;line=0123456789abcdef>"


def subject(who: Registrant = WHO, seed: int = 1) -> Registration:
    return Registration(who, DigestClient("ann", "sesame", seeded(seed)), seeded(seed), 0)


def answer(
    status: int, extra: str = "", *, via: str = "SIP/2.0/UDP 192.0.2.1:5060;rport=5060;branch=z9hG4bKx"
) -> Response:
    """Return an answer with these header lines, separated by ``|``."""
    lines = "".join(f"{line}\r\n" for line in extra.split("|") if line)
    text = (
        f"SIP/2.0 {status} Because\r\nVia: {via}\r\nFrom: <sip:ann@provider.example>;tag=a\r\n"
        f"To: <sip:ann@provider.example>;tag=b\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n{lines}Content-Length: 0\r\n\r\n"
    )
    found = parse(text.encode("utf-8", "surrogateescape"))
    assert isinstance(found, Response)
    return found


def registered(extra: str = f"Contact: {MINE};expires=600", who: Registrant = WHO) -> Registration:
    """Return a registration that the registrar took at time 0."""
    made = subject(who)
    made.ask(FLOW)
    made.answered(answer(200, extra), 0)
    assert made.state is State.REGISTERED
    return made


def fields(asked: Register) -> dict[str, str]:
    return dict(asked.headers)


def due_s(made: Registration) -> float:
    deadline_ns = made.deadline_ns()
    assert deadline_ns is not None
    return deadline_ns / S


def test_the_first_request() -> None:
    made = subject()
    assert (made.state, made.deadline_ns()) == (State.REGISTERING, 0)
    asked = made.ask(FLOW)
    assert (asked.target_uri, asked.address, asked.cseq) == ("sip:provider.example", "sip:ann@provider.example", 1)
    assert fields(asked) == {
        "Contact": f'{MINE};expires=3600;reg-id=1;+sip.instance="<{WHO.instance}>"',
        "Expires": "3600",
        "Supported": "path, outbound, gruu",
    }
    assert made.deadline_ns() is None, "nothing more is asked before the answer"


def test_a_connection_is_named_in_the_contact() -> None:
    assert ":5060;transport=tcp;line=" in fields(subject().ask(TCP_FLOW))["Contact"]


def test_requests_of_one_registration_are_one_exchange() -> None:
    made = registered()
    again = made.ask(FLOW)
    assert again.cseq == 2
    assert again.call_id == made.ask(FLOW).call_id


@pytest.mark.parametrize(
    ("extra", "granted_s"),
    [
        (f"Contact: {MINE};expires=600|Expires: 60", 600),
        (f"Contact: <sip:other@192.0.2.9>;expires=30, {MINE};EXPIRES=600", 600),
        ("Contact: <sip:ann@198.51.100.1:61000;line=0123456789abcdef;x=y>;expires=600", 600),
        (f"Contact: {MINE}|Expires: 600", 600),
        ("Contact: <sip:elsewhere@192.0.2.9>;expires=30|Expires: 600", 600),
        ("Expires: 600", 600),
        ("", 3600),
        (f"Contact: {MINE};expires=nonsense", 3600),
        ("Contact: <<<", 3600),
        (f"Contact: {MINE};expires=4000000000", 7 * 86_400),
    ],
)
def test_the_registrar_says_for_how_long(extra: str, granted_s: int) -> None:
    made = registered(extra)
    assert made.expires_ns == granted_s * S
    assert granted_s * 0.5 <= due_s(made) <= granted_s * 0.9


def test_a_registration_that_ran_out_unanswered_is_none() -> None:
    made = registered()
    made.ask(FLOW)
    assert [made.state_at(moment_ns) for moment_ns in (0, 600 * S - 1, 600 * S)] == [
        State.REGISTERED,
        State.REGISTERED,
        State.REGISTERING,
    ]
    made.failed("no answer", 601 * S)
    assert made.state_at(601 * S) is State.FAILING


def test_whoever_waits_long_hears_what_the_servers_said_so_far() -> None:
    made = subject()
    made.ask(FLOW)
    assert [made.reason_at(moment_s * S) for moment_s in (0, 39, 40)] == ["", "", "no server has answered yet"]
    made.failed("no answer from the first", 32 * S, others=True)
    assert [made.reason_at(moment_s * S) for moment_s in (39, 40)] == ["", "no answer from the first"]
    made.ask(FLOW)
    made.answered(answer(200, "Expires: 600"), 60 * S)
    assert made.reason_at(100 * S) == ""
    made.ask(FLOW)
    made.answered(answer(503), 400 * S, others=True)
    assert [made.reason_at(moment_s * S) for moment_s in (500, 660, 700)] == [
        "",
        "",
        "the registrar refuses (503 Because)",
    ]
    made.failed("no answer from the last", 700 * S)
    assert made.reason_at(700 * S) == "no answer from the last"


def test_refreshes_are_spread() -> None:
    moments = set()
    for seed in range(20):
        made = subject(seed=seed)
        made.ask(FLOW)
        made.answered(answer(200, "Expires: 600"), 0)
        moments.add(round(due_s(made)))
    assert len(moments) > 10
    assert 300 <= min(moments) < 400 < 480 < max(moments) <= 540


def test_a_registration_that_ends_at_once_is_a_failure() -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(200, "Expires: 0"), 0)
    assert made.state is State.FAILING


def test_a_registration_of_a_second_is_not_refreshed_without_a_breath() -> None:
    assert due_s(registered("Expires: 1")) == 2


def test_a_challenge_is_answered_at_once_and_kept_for_the_refresh() -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(401, 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'), 5)
    assert made.deadline_ns() == 5
    assert "nc=00000001" in fields(made.ask(FLOW))["Authorization"]
    made.answered(answer(200), 6)
    assert "nc=00000002" in fields(made.ask(FLOW))["Authorization"]


@pytest.mark.parametrize("challenge", ['Digest realm="r", nonce="n"', 'Digest realm="r", nonce="other"'])
def test_a_wrong_secret_is_told_and_tried_again_slowly(challenge: str) -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(401, 'WWW-Authenticate: Digest realm="r", nonce="n"'), 0)
    made.ask(FLOW)
    made.answered(answer(401, f"WWW-Authenticate: {challenge}"), 0)
    assert made.state is State.FAILING
    assert "refused our user name or password: check user, auth_user and secret (401 Because)" in made.reason
    assert "sesame" not in made.reason
    assert 900 <= due_s(made) <= 1800


def test_a_login_that_we_do_not_know_is_told() -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(401, 'WWW-Authenticate: Basic realm="r"'), 0)
    assert "a login of a kind that we do not know" in made.reason
    assert due_s(made) >= 900


def test_a_registrar_whose_nonces_are_all_stale_is_asked_again_soon() -> None:
    made = subject()
    for number in range(5):
        made.ask(FLOW)
        stale = ", stale=true" if number else ""
        made.answered(answer(401, f'WWW-Authenticate: Digest realm="r", nonce="{number}"{stale}'), 0)
    assert made.state is State.FAILING
    assert "stale" in made.reason
    assert due_s(made) <= 30


@pytest.mark.parametrize("status", [403, 404, 410, 604])
def test_what_a_person_must_mend_is_tried_again_slowly(status: int) -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(status), 0)
    assert made.state is State.FAILING
    assert f"({status} Because)" in made.reason
    assert 900 <= due_s(made) <= 1800


def test_the_registrar_may_want_longer_registrations() -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(423, "Min-Expires: 7200"), 1)
    assert made.deadline_ns() == 1
    assert fields(made.ask(FLOW))["Expires"] == "7200"


@pytest.mark.parametrize("extra", ["", "Min-Expires: 60", "Min-Expires: x", "Min-Expires: 99999999"])
def test_a_minimum_that_is_none_is_a_failure(extra: str) -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(423, extra), 1)
    assert made.state is State.FAILING


@pytest.mark.parametrize("status", [400, 420, 421, 439])
def test_a_server_that_stumbles_over_extensions_is_asked_plainly(status: int) -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(status), 1)
    asked = fields(made.ask(FLOW))
    assert asked == {"Contact": f"{MINE};expires=3600", "Expires": "3600"}
    made.answered(answer(status), 2)
    assert made.state is State.FAILING


@pytest.mark.parametrize("status", [0, 500])
def test_pauses_double_and_success_forgets_them(status: int) -> None:
    made = subject()
    now_ns, pauses_s = 0, []
    for _ in range(10):
        made.ask(FLOW)
        if status:
            made.answered(answer(status), now_ns)
        else:
            made.failed("no answer from 192.0.2.7", now_ns)
        pauses_s.append(due_s(made) - now_ns / S)
        now_ns = int(due_s(made) * S)
    assert made.reason == ("the registrar refuses (500 Because)" if status else "no answer from 192.0.2.7")
    for number, pause_s in enumerate(pauses_s):
        longest_s = min(30 * 2**number, 1800 if status else 300)
        assert longest_s / 2 <= pause_s <= longest_s
    made.ask(FLOW)
    made.answered(answer(200), now_ns)
    assert (made.state, made.reason) == (State.REGISTERED, "")
    made.ask(FLOW)
    made.failed("no answer", now_ns)
    assert due_s(made) - now_ns / S <= 30


@pytest.mark.parametrize("status", [302, 408, 480, 500, 503, 600])
def test_other_trouble_passes_by_itself(status: int) -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(status), 0)
    assert made.state is State.FAILING
    assert f"({status} Because)" in made.reason
    assert 15 <= due_s(made) <= 30


@pytest.mark.parametrize(
    ("value", "least_s"), [("100 (busy)", 100), ("100;duration=3", 100), ("x", 15), ("99999", 3600)]
)
def test_retry_after_is_heeded_within_reason(value: str, least_s: int) -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(503, f"Retry-After: {value}"), 0)
    assert least_s <= due_s(made) <= max(least_s, 30)


def test_another_server_is_asked_at_once() -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(503), 1, others=True)
    assert (made.state, made.deadline_ns()) == (State.REGISTERING, 1)
    made.ask(FLOW)
    made.failed("no answer", 2, others=True)
    assert (made.state, made.deadline_ns()) == (State.REGISTERING, 2)
    made.ask(FLOW)
    made.failed("no answer", 3)
    assert made.state is State.FAILING


def test_a_lost_connection_is_worth_a_request_at_once() -> None:
    made = registered()
    made.flow_lost(7)
    assert (made.state, made.since_ns, made.deadline_ns()) == (State.REGISTERING, 7, 7)


def test_a_lost_connection_changes_nothing_while_we_wait_or_ask() -> None:
    made = subject()
    made.ask(TCP_FLOW)
    made.flow_lost(1)
    assert made.deadline_ns() is None
    made.failed("no answer", 1)
    before = made.deadline_ns()
    made.flow_lost(2)
    assert made.deadline_ns() == before


def test_a_registrar_that_closes_each_connection_is_not_asked_without_end() -> None:
    made, now_ns, asked = subject(), 0, 0
    while now_ns < 3600 * S:
        made.ask(TCP_FLOW)
        made.answered(answer(200, f"Contact: {MINE};expires=3600"), now_ns)
        asked += 1
        made.flow_lost(now_ns + S // 100)
        now_ns = made.deadline_ns() or 0
    assert asked < 20
    assert "closed the connection" in made.reason_at(now_ns)


def test_a_connection_that_lived_long_is_replaced_at_once_however_often() -> None:
    made, now_ns = registered(), 0
    for _ in range(10):
        now_ns += 61 * S
        made.flow_lost(now_ns)
        assert made.deadline_ns() == now_ns
        made.ask(TCP_FLOW)
        made.answered(answer(200, f"Contact: {MINE};expires=3600"), now_ns)


NATTED = "SIP/2.0/UDP 192.0.2.1:5060;received=203.0.113.5;rport=41000;branch=z9hG4bKx"


def test_behind_a_nat_the_contact_is_what_the_registrar_sees() -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(401, 'WWW-Authenticate: Digest realm="r", nonce="n"', via=NATTED), 0)
    assert fields(made.ask(FLOW))["Contact"].startswith("<sip:ann@203.0.113.5:41000;line=")


def test_a_contact_that_nobody_can_reach_is_replaced() -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(200, via=NATTED), 9)
    assert (made.state, made.deadline_ns()) == (State.REGISTERED, 9)
    contacts = [value for name, value in made.ask(FLOW).headers if name == "Contact"]
    assert contacts[0].startswith("<sip:ann@203.0.113.5:41000;line=")
    assert contacts[1] == f"{MINE};expires=0"
    # A NAT with another port each time is not run after.
    made.answered(answer(200, via=NATTED.replace("41000", "41001")), 10)
    assert due_s(made) > 1000


def test_on_a_connection_another_port_is_no_nat() -> None:
    made = subject()
    made.ask(TCP_FLOW)
    made.answered(answer(200, via="SIP/2.0/TCP 192.0.2.1:5060;rport=41000;received=192.0.2.1;branch=z9hG4bKx"), 0)
    assert made.seen is None


@pytest.mark.parametrize(
    "via", ["SIP/2.0/UDP 192.0.2.1;received=a.example;branch=x", "SIP/2.0/UDP 192.0.2.1;rport=0;branch=x", "nonsense"]
)
def test_an_address_that_is_none_is_not_learned(via: str) -> None:
    made = subject()
    made.ask(FLOW)
    made.answered(answer(200, via=via), 0)
    assert made.seen is None


def test_a_public_address_of_the_settings_is_not_corrected() -> None:
    made = subject(replace(WHO, learn=False))
    made.ask(FLOW)
    made.answered(answer(200, via=NATTED), 0)
    assert made.seen is None


def test_what_the_registrar_tells_is_kept() -> None:
    made = registered(
        f'Contact: {MINE};expires=600;pub-gruu="sip:ann@provider.example;gr=1";temp-gruu="sip:t@provider.example;gr"'
        "|Service-Route: <sip:s1.example;lr>, <sip:s2.example;lr>|Path: <sip:edge.example;lr;ob>|Require: outbound"
        "|Flow-Timer: 120"
    )
    assert made.service_route == ("sip:s1.example;lr", "sip:s2.example;lr")
    assert made.path == ("sip:edge.example;lr;ob",)
    assert (made.public_gruu, made.temporary_gruu) == ("sip:ann@provider.example;gr=1", "sip:t@provider.example;gr")
    assert (made.outbound, made.flow_timer_s) == (True, 120)


@pytest.mark.parametrize("value", ["<sip:a", "nonsense", ", ".join(["<sip:a.example;lr>"] * 9)])
def test_a_route_that_is_none_is_not_kept(value: str) -> None:
    assert registered(f"Service-Route: {value}|Require: a,,b").service_route == ()


def test_a_registration_is_removed_with_the_contact_that_was_taken() -> None:
    made = registered()
    made.leave(5)
    assert made.deadline_ns() == 5
    asked = fields(made.ask(FLOW))
    assert asked["Contact"].startswith(f"{MINE};expires=0")
    assert asked["Expires"] == "0"
    made.answered(answer(401, 'WWW-Authenticate: Digest realm="r", nonce="n"'), 6)
    assert "Authorization" in fields(made.ask(FLOW))
    made.answered(answer(200), 7)
    assert (made.state, made.deadline_ns()) == (State.GONE, None)


@pytest.mark.parametrize("status", [200, 403, 423, 439, 500, 503])
def test_a_removal_is_not_insisted_on(status: int) -> None:
    made = registered()
    made.leave(5)
    made.ask(FLOW)
    made.answered(answer(status), 6, others=True)
    assert (made.state, made.deadline_ns()) == (State.GONE, None)


def test_where_nothing_is_registered_nothing_is_removed() -> None:
    made = subject()
    made.leave(1)
    assert (made.state, made.deadline_ns()) == (State.GONE, None)


def test_what_was_under_way_when_the_line_stops_is_removed_afterwards() -> None:
    made = subject()
    made.ask(FLOW)
    made.leave(1)
    assert made.deadline_ns() is None
    made.answered(answer(200), 2)
    assert made.deadline_ns() == 2
    assert fields(made.ask(FLOW))["Expires"] == "0"
    made.failed("no answer", 3)
    assert made.state is State.GONE


def test_a_registrar_that_never_has_enough_is_left_alone() -> None:
    made = subject()
    for number in range(MAX_STEPS):
        assert made.deadline_ns() == 0
        made.ask(FLOW)
        made.answered(answer(423, f"Min-Expires: {4000 + number}"), 0)
    assert made.state is State.FAILING


# Whatever a registrar says

HEADERS = st.sampled_from(
    [
        "Contact: <sip:x@y;line=0123456789abcdef>;expires=600",
        "Contact: *",
        "Contact: <sip:x@y;line=0123456789abcdef>;expires=0",
        "Expires: 1",
        "Expires: -1",
        "Min-Expires: 5000",
        "Retry-After: 3",
        'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth,auth-int"',
        'WWW-Authenticate: Digest realm="r", nonce="m", stale=true',
        'Proxy-Authenticate: Digest realm="p", nonce="n", algorithm=SHA-256, qop="auth-int"',
        "WWW-Authenticate: Digest realm=",
        "Service-Route: <sip:a;lr",
        "Flow-Timer: x",
        "Require: ,",
    ]
)
ANSWERS = st.tuples(
    st.sampled_from([200, 200, 299, 301, 400, 401, 401, 403, 407, 420, 423, 439, 480, 503, 699]),
    st.lists(HEADERS, max_size=4),
    st.sampled_from([NATTED, "SIP/2.0/UDP 192.0.2.1:5060;branch=x", "x"]),
)
STEPS = st.lists(
    st.one_of(ANSWERS, st.sampled_from(["silence", "flow lost", "leave", "others"])), min_size=1, max_size=60
)


@given(STEPS)
@settings(max_examples=200)
def test_whatever_happens_there_is_one_request_at_a_time_and_always_a_next_one(steps: list[object]) -> None:
    made, now_ns, at_once = subject(), 0, 0
    for step in steps:
        deadline_ns = made.deadline_ns()
        if made.state is State.GONE:
            assert deadline_ns is None
            return
        assert deadline_ns is not None
        at_once = at_once + 1 if deadline_ns <= now_ns else 0
        now_ns = max(now_ns, deadline_ns)
        if step == "leave":
            made.leave(now_ns)
        elif step == "flow lost":
            made.flow_lost(now_ns)
        else:
            made.ask(FLOW)
            assert made.deadline_ns() is None
            if isinstance(step, tuple):
                status, headers, via = step
                made.answered(answer(status, "|".join(headers), via=via), now_ns)
            else:
                made.failed("no answer", now_ns, others=step == "others")
        assert (made.state is State.FAILING) == bool(made.reason)


NOISE = ["", ",", '"', "<", ";", "\udcff", "\x00"]


@given(st.sampled_from([200, 302, 400, 401, 423, 503]), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_a_mutilated_answer_raises_nothing(status: int, chance: random.Random) -> None:
    extra = (
        f'Contact: {MINE};expires=600|WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"|Min-Expires: 4000'
        "|Service-Route: <sip:a;lr>|Retry-After: 9|Require: outbound"
    )
    lines = []
    for line in extra.split("|"):
        name, _, value = line.partition(": ")
        at = chance.randrange(len(value) + 1)
        lines.append(f"{name}: {value[:at]}{chance.choice(NOISE)}{value[at + 1 :]}")
    made = subject()
    made.ask(FLOW)
    made.answered(answer(status, "|".join(lines)), 0)
    assert made.deadline_ns() is not None
