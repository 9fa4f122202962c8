"""aftertone.sip.guesses: how often one user's password may be tried, by all strangers together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.budgets import ATTACK_STAYS_NS, WINDOW_NS
from aftertone.sip.guesses import Guesses
from tests.unit.sip.kit import S

USERS = ("ann", "bob")


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.sampled_from(("ann", "bob", "nobody", "", "x" * 300)), st.integers(0, 40 * S)), max_size=120),
)
def test_no_user_is_guessed_at_more_often_than_allowed_in_any_minute(
    a_minute: int, steps: list[tuple[str, int]]
) -> None:
    guesses, now_ns = Guesses(USERS, a_minute), 0
    looked_at: dict[str, list[int]] = {}
    for user, pause_ns in steps:
        now_ns += pause_ns
        name = user if user in USERS else "nobody"
        times = looked_at.setdefault(name, [])
        in_the_minute = [time_ns for time_ns in times if now_ns - time_ns < WINDOW_NS]
        allowed = guesses.may_try(user, now_ns)
        assert allowed is (len(in_the_minute) < a_minute), "neither more nor less"
        if allowed:
            guesses.failed(user, now_ns)
            times.append(now_ns)
    assert {one.user for one in guesses.guessed(now_ns)} <= set(USERS), "a name that nobody has is no alarm"
    assert len(guesses._wrong) == len(USERS) + 1, "nothing grows with names that somebody makes up"


def test_one_user_is_tried_at_no_others_cost() -> None:
    guesses = Guesses(USERS, 2)
    for _ in range(2):
        guesses.failed("ann", 0)
    assert not guesses.may_try("ann", 0)
    assert guesses.may_try("bob", 0)
    assert guesses.may_try("nobody", 0)
    for name in ("carl", "dora"):
        guesses.failed(name, 0)
    assert not guesses.may_try("nobody", 0)
    assert guesses.may_try("bob", 0)


def test_it_is_told_once_a_minute_and_shown_for_five() -> None:
    guesses = Guesses(USERS, 1)
    guesses.failed("ann", 0)
    assert guesses.guessed(0) == ()
    for _ in range(5):
        assert not guesses.may_try("ann", 0)
    (fresh,) = guesses.news()
    assert (fresh.user, fresh.refused) == ("ann", 1)
    assert guesses.news() == []
    (shown,) = guesses.guessed(ATTACK_STAYS_NS - 1)
    assert (shown.user, shown.refused) == ("ann", 5)
    assert guesses.guessed(ATTACK_STAYS_NS) == ()
    guesses.failed("ann", ATTACK_STAYS_NS)
    assert not guesses.may_try("ann", ATTACK_STAYS_NS)
    assert [one.refused for one in guesses.news()] == [1]
