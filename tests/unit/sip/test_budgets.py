"""aftertone.sip.budgets: how much one source may ask."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.budgets import (
    ATTACK_REFUSALS,
    ATTACK_STAYS_NS,
    KNOWN_SILENCE_NS,
    MAX_ATTACKS,
    MAX_SOURCES,
    Guard,
    Limits,
    Verdict,
    Why,
    source_of,
)
from tests.unit.sip.kit import MS, S

LIMITS = Limits(
    messages_a_second=10,
    calls_a_second=1,
    calls_at_once=4,
    unanswered_calls=2,
    strangers_unanswered=3,
    registrations_a_minute=3,
    failures_a_minute=3,
    silence_ns=300 * S,
    known_factor=10,
)
A, B = "203.0.113.9", "203.0.113.10"


def guard(known: str = "", limits: Limits = LIMITS) -> Guard:
    return Guard(limits, known=lambda host: host == known)


def asked(times: int, ask: object, host: str = A, now_ns: int = 0) -> int:
    """Return how many of so many messages or calls at one moment were taken."""
    return sum(ask(host, now_ns) in (True, Verdict.TAKE) for _ in range(times))  # type: ignore[operator]


def test_messages_are_dropped_beyond_the_budget_and_taken_again_when_time_has_passed() -> None:
    subject = guard()
    assert asked(100, subject.message) == 50
    assert asked(100, subject.message, now_ns=1 * S) == 10
    assert asked(100, subject.message, now_ns=100 * S) == 50
    assert subject.refused[Why.MESSAGES] == 50 + 90 + 50


def test_one_source_costs_another_nothing() -> None:
    subject = guard()
    asked(1000, subject.message)
    assert asked(50, subject.message, B) == 50


def test_forged_datagrams_cost_the_connections_of_that_address_nothing() -> None:
    subject = guard()
    asked(1000, subject.message)
    assert [subject.message(A, 0, stream=True) for _ in range(51)] == [True] * 50 + [False]
    for _ in range(4):
        subject.failed(A, 0)
    assert not subject.message(A, 100 * S, stream=True), (
        "wrong passwords count however they came: they cannot be forged"
    )


def test_a_phone_that_fails_silences_its_network_but_not_the_pbx_beside_it() -> None:
    phone, other, pbx = "2001:db8::7", "2001:db8::8", "2001:db8::5"
    subject = guard(known=pbx)
    for _ in range(4):
        subject.failed(phone, 0)
    assert [subject.message(host, 0) for host in (phone, other, pbx)] == [False, False, True]
    for _ in range(40):
        subject.failed(pbx, 0)
    assert not subject.message(pbx, 0), "its own wrong passwords count"


def test_strangers_leave_half_of_the_transactions_to_those_who_are_known() -> None:
    subject = guard(known=B, limits=replace(LIMITS, strangers_transactions=100))
    assert subject.crowded(A, 99, 0) is Verdict.TAKE
    assert subject.crowded(B, 1000, 0) is Verdict.TAKE
    verdicts = [subject.crowded(A, 100, 0) for _ in range(30)]
    assert verdicts == [Verdict.REFUSE] * 10 + [Verdict.IGNORE] * 20
    assert subject.refused[Why.STRANGERS] == 30


def test_those_who_are_known_may_more_and_that_is_found_out_while_they_talk() -> None:
    known: set[str] = set()
    subject = Guard(LIMITS, known=known.__contains__)
    asked(100, subject.message)
    known.add(A)
    assert asked(1000, subject.message, now_ns=10 * S) == 500


def test_calls_beyond_the_budget_are_refused_and_then_not_even_answered() -> None:
    subject = guard()
    verdicts = [subject.call(A, 0) for _ in range(30)]
    assert verdicts == [Verdict.TAKE] * 10 + [Verdict.REFUSE] * 10 + [Verdict.IGNORE] * 10
    assert (subject.refused[Why.CALLS], subject.refused[Why.ANSWERS]) == (20, 10)
    assert subject.call(A, 1 * S) is Verdict.TAKE


def test_registrations_have_a_budget_of_their_own() -> None:
    subject = guard()
    assert asked(10, subject.registration) == 3
    assert subject.call(A, 0) is Verdict.TAKE
    assert asked(10, subject.registration, now_ns=20 * S) == 1


def test_calls_at_once_are_counted_until_they_end() -> None:
    subject = guard()
    calls = [subject.began(A, 0) for _ in range(4)]
    for call in calls:
        subject.confirmed(call)
    assert subject.call(A, 0) is Verdict.REFUSE
    assert subject.refused[Why.CALLS_AT_ONCE] == 1
    assert subject.call(B, 0) is Verdict.TAKE
    subject.ended(calls[0], confirmed=True)
    assert subject.call(A, 0) is Verdict.TAKE
    for call in calls[1:]:
        subject.ended(call, confirmed=True)
    assert subject.open_calls(A) == 0


def test_unconfirmed_calls_have_a_limit_for_each_and_for_all_strangers_together() -> None:
    subject = guard(known=B)
    first = [subject.began(A, 0) for _ in range(2)]
    assert subject.call(A, 0) is Verdict.REFUSE
    assert subject.refused[Why.UNANSWERED] == 1
    subject.began("198.51.100.1", 0)
    assert subject.call("198.51.100.2", 0) is Verdict.REFUSE
    assert subject.refused[Why.STRANGERS] == 1
    assert subject.call(B, 0) is Verdict.TAKE, "half of the places are kept for those who are known"
    subject.confirmed(first[0])
    assert subject.call("198.51.100.2", 0) is Verdict.TAKE
    subject.ended(first[1], confirmed=False)
    assert subject.call(A, 0) is Verdict.TAKE


def test_wrong_passwords_bring_a_silence_that_ends() -> None:
    subject = guard()
    for _ in range(3):
        subject.failed(A, 0)
        assert subject.message(A, 0)
    subject.failed(A, 0)
    assert not subject.message(A, 1)
    assert not subject.message(A, 299 * S)
    assert subject.message(A, 300 * S)
    assert subject.message(B, 1)


def test_a_known_trunk_is_heard_again_soon() -> None:
    subject = guard(known=A)
    for _ in range(40):
        subject.failed(A, 0)
    assert not subject.message(A, 1)
    assert subject.message(A, KNOWN_SILENCE_NS)


def test_an_attack_is_told_once_shown_for_a_while_and_then_gone() -> None:
    subject = guard()
    asked(50 + ATTACK_REFUSALS - 1, subject.message)
    assert subject.attacks(0) == ()
    asked(1000, subject.message)
    (news,) = subject.news()
    assert (news.source, news.why, news.refused) == (A, Why.MESSAGES, ATTACK_REFUSALS)
    assert subject.news() == []
    (shown,) = subject.attacks(0)
    assert shown.refused == ATTACK_REFUSALS + 999
    assert len(subject.attacks(ATTACK_STAYS_NS - 1)) == 1
    assert subject.attacks(ATTACK_STAYS_NS) == ()


def test_a_silence_for_wrong_passwords_is_told_at_once() -> None:
    subject = guard()
    for _ in range(4):
        subject.failed(A, 0)
    assert [attack.why for attack in subject.news()] == [Why.FAILURES]


def test_a_few_refusals_now_and_then_are_no_attack() -> None:
    subject = guard()
    for minute in range(100):
        asked(50 + ATTACK_REFUSALS - 1, subject.message, now_ns=61 * minute * S)
    assert subject.attacks(6100 * S) == ()


def test_scanners_are_counted_and_are_no_attack() -> None:
    subject = guard()
    for _ in range(1000):
        subject.scanned(A, 0)
    assert subject.refused[Why.SCANNERS] == 1000
    assert subject.attacks(0) == ()


def test_forged_addresses_do_not_make_it_grow() -> None:
    subject = guard()
    for number in range(3 * MAX_SOURCES):
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        for _ in range(51 if number < 100 else 1):
            subject.message(host, number * MS)
        for _ in range(ATTACK_REFUSALS + 1 if number < 100 else 0):
            subject.message(host, number * MS)
        subject.call(host, number * MS)
        subject.failed(host, number * MS)
    assert len(subject) == MAX_SOURCES
    assert len(subject.attacks(0)) == MAX_ATTACKS
    assert len(subject.news()) == MAX_ATTACKS


def test_the_source_that_was_quiet_for_longest_is_forgotten() -> None:
    subject = guard()
    asked(100, subject.message)
    for number in range(2 * MAX_SOURCES):
        subject.message(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
        if not number % 1000:
            assert not subject.message(A, 1), "who keeps sending is remembered"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("no:address", "no:address"),
    ],
)
def test_under_which_name_an_address_is_counted(host: str, name: str) -> None:
    assert source_of(host) == name


def test_without_limits_everything_is_taken() -> None:
    subject = Guard(Limits())
    assert asked(10_000, subject.message) == 10_000
    assert asked(10_000, subject.call) == 10_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["message", "call", "registration", "failed", "scanned", "began", "confirmed", "ended"]),
            st.sampled_from([A, B, "2001:db8::1", "2001:db8::2"]),
            st.integers(0, 20 * S),
        ),
        max_size=200,
    )
)
def test_whatever_is_asked_no_budget_is_exceeded_and_no_count_goes_wrong(steps: list[tuple[str, str, int]]) -> None:
    subject, now_ns = guard(known=B), 0
    taken: dict[str, list[int]] = {}
    open_calls: list[list[object]] = []
    for what, host, pause_ns in steps:
        now_ns += pause_ns
        if what in ("message", "call", "registration"):
            if getattr(subject, what)(host, now_ns) is True and host != B:
                taken.setdefault(source_of(host), []).append(now_ns)
        elif what in ("failed", "scanned"):
            getattr(subject, what)(host, now_ns)
        elif what == "began":
            open_calls.append([subject.began(host, now_ns), False, host])
        elif what == "confirmed" and open_calls and not open_calls[0][1]:
            subject.confirmed(open_calls[0][0])  # type: ignore[arg-type]
            open_calls[0][1] = True
        elif what == "ended" and open_calls:
            call, confirmed, _ = open_calls.pop(0)
            subject.ended(call, confirmed=bool(confirmed))  # type: ignore[arg-type]
    for times in taken.values():
        for index, first_ns in enumerate(times):
            within = [time_ns for time_ns in times[index:] if time_ns - first_ns <= 1 * S]
            assert len(within) <= 50 + 10
    for call, confirmed, _ in open_calls:
        subject.ended(call, confirmed=bool(confirmed))  # type: ignore[arg-type]
    assert {subject.open_calls(host) for host in (A, B, "2001:db8::1")} == {0}
    assert subject.call("198.51.100.77", now_ns) is Verdict.TAKE
