"""What a wall clock is worth, what is shown instead, and ids that ascend whatever it does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.journal import Floor
from aftertone.model import Clock, id_time_ms
from aftertone.roles.timekeeper import (
    BELIEVED_FOR_MS,
    LAST_ID_MS,
    RELEASED_UNIX_MS,
    SLACK_MS,
    STEP_MS,
    Evidence,
    Timekeeper,
    judge,
)

DAY = 86_400_000
YEAR = 365 * DAY
NOW = RELEASED_UNIX_MS + 200 * DAY
SECOND_NS = 1_000_000_000
NOTHING = Evidence(synchronised=False, kept_time=False)
KEPT = Evidence(synchronised=False, kept_time=True)
SYNCHRONISED = Evidence(synchronised=True, kept_time=False)
EVERYTHING = Evidence(synchronised=True, kept_time=True)


@pytest.mark.parametrize(
    ("wall_ms", "passed_ms", "evidence", "clock"),
    [
        (0, 0, NOTHING, Clock.UNSURE),
        (0, 0, EVERYTHING, Clock.UNSURE),
        (RELEASED_UNIX_MS - 1, 0, EVERYTHING, Clock.UNSURE),
        (RELEASED_UNIX_MS, 0, SYNCHRONISED, Clock.TRUSTED),
        (NOW, 0, NOTHING, Clock.UNSURE),
        (NOW, 0, KEPT, Clock.TRUSTED),
        (NOW, NOW + SLACK_MS, KEPT, Clock.TRUSTED),
        (NOW, NOW + SLACK_MS + 1, KEPT, Clock.UNSURE),
        (NOW, NOW + 80 * YEAR, SYNCHRONISED, Clock.TRUSTED),
        (RELEASED_UNIX_MS + BELIEVED_FOR_MS, NOW, KEPT, Clock.TRUSTED),
        (RELEASED_UNIX_MS + BELIEVED_FOR_MS + 1, NOW, KEPT, Clock.UNSURE),
        (RELEASED_UNIX_MS + BELIEVED_FOR_MS + 1, NOW, SYNCHRONISED, Clock.TRUSTED),
    ],
)
def test_whether_a_clock_is_believed(wall_ms: int, passed_ms: int, evidence: Evidence, clock: Clock) -> None:
    assert judge(wall_ms, passed_ms, evidence) is clock


def test_a_clock_that_is_believed_is_shown_as_it_is() -> None:
    keeper = Timekeeper(Floor(NOW, NOW))
    for wall_ms in (NOW + 5, NOW + 100 * DAY, NOW - 30):
        reading = keeper.read(wall_ms, 0, KEPT if wall_ms != NOW + 100 * DAY else SYNCHRONISED)
        assert (reading.unix_ms, reading.clock) == (wall_ms, Clock.TRUSTED)
        keeper = Timekeeper(Floor(NOW, NOW))


def test_a_board_that_starts_at_1970_shows_what_has_passed() -> None:
    keeper = Timekeeper(Floor(NOW, NOW))
    first = keeper.read(7_000, 50 * SECOND_NS, NOTHING)
    second = keeper.read(8_000 + DAY, 51 * SECOND_NS + 86_400 * SECOND_NS, NOTHING)
    assert (first.unix_ms, first.clock) == (NOW, Clock.UNSURE)
    assert (second.unix_ms, second.step_ms) == (NOW + DAY + 1000, 0)


def test_a_board_that_never_had_a_time_is_not_older_than_the_program() -> None:
    keeper = Timekeeper()
    assert keeper.read(0, 0, NOTHING).unix_ms == RELEASED_UNIX_MS
    assert keeper.floor() == Floor(0, RELEASED_UNIX_MS)


def test_a_saved_clock_is_a_better_guess_than_the_last_call() -> None:
    keeper = Timekeeper(Floor(NOW, NOW))
    reading = keeper.read(NOW + 3 * DAY, 0, NOTHING)
    assert (reading.unix_ms, reading.clock) == (NOW + 3 * DAY, Clock.UNSURE)
    wild = Timekeeper(Floor(NOW, NOW)).read(NOW + 80 * YEAR, 0, NOTHING)
    assert (wild.unix_ms, wild.clock) == (NOW, Clock.UNSURE)


def test_the_network_sets_the_clock() -> None:
    keeper = Timekeeper(Floor(NOW, NOW))
    assert keeper.read(5_000, 0, NOTHING).clock is Clock.UNSURE
    reading = keeper.read(NOW + 9 * DAY, SECOND_NS, SYNCHRONISED)
    assert (reading.unix_ms, reading.clock, reading.step_ms) == (NOW + 9 * DAY, Clock.TRUSTED, NOW + 9 * DAY - 6_000)


def test_an_earlier_clock_that_was_wrong_is_forgotten_when_a_right_one_comes() -> None:
    wrong = NOW + 20 * YEAR
    keeper = Timekeeper(Floor(wrong, wrong))
    assert keeper.read(NOW, 0, KEPT).clock is Clock.UNSURE
    assert keeper.read(NOW, 0, SYNCHRONISED).clock is Clock.TRUSTED
    assert keeper.floor() == Floor(wrong, NOW), "ids stay above what was minted, times do not"
    assert keeper.read(NOW + 1000, SECOND_NS, KEPT).clock is Clock.TRUSTED
    assert Timekeeper(keeper.floor()).read(NOW + DAY, 0, KEPT).clock is Clock.TRUSTED


def test_who_sets_a_running_clock_back_is_believed_where_the_time_is_kept() -> None:
    wrong = NOW + 20 * YEAR
    for evidence, clock in ((KEPT, Clock.TRUSTED), (NOTHING, Clock.UNSURE)):
        keeper = Timekeeper(Floor(wrong, wrong))
        keeper.read(wrong, 0, evidence)
        reading = keeper.read(NOW, SECOND_NS, evidence)
        assert (reading.clock, reading.step_ms) == (clock, NOW - wrong - 1000)
    keeper = Timekeeper(Floor(NOW, NOW))
    keeper.read(NOW, 0, KEPT)
    assert keeper.read(NOW - 50 * YEAR, SECOND_NS, KEPT).unix_ms == RELEASED_UNIX_MS, "1976 is no better than nothing"


def test_a_step_is_told_once_and_drift_is_none() -> None:
    keeper = Timekeeper()
    walls = [NOW, NOW + 1000, NOW + 2000 + STEP_MS, NOW + 3000 + 2 * STEP_MS + 1, NOW + 4000 + 2 * STEP_MS + 1]
    steps = [keeper.read(wall_ms, at * SECOND_NS, KEPT).step_ms for at, wall_ms in enumerate(walls)]
    assert steps == [0, 0, 0, STEP_MS + 1, 0]


def test_ids_go_on_behind_those_of_earlier_runs() -> None:
    keeper = Timekeeper()
    keeper.mint(5, bytes(10))
    keeper.resume(Floor(NOW, NOW))
    assert id_time_ms(keeper.mint(7, bytes(10))) == NOW + 1
    keeper.resume(Floor(3, 0))
    assert id_time_ms(keeper.mint(7, bytes(10))) == NOW + 2
    assert keeper.floor() == Floor(NOW + 2, NOW)


def test_the_last_time_that_an_id_holds_is_not_passed() -> None:
    keeper = Timekeeper(Floor(LAST_ID_MS, 0))
    assert id_time_ms(keeper.mint(0, bytes(10))) == LAST_ID_MS


@given(
    epochs=st.lists(
        st.lists(st.tuples(st.integers(0, 2 * NOW), st.booleans(), st.booleans()), min_size=1, max_size=8), max_size=5
    ),
    seed=st.integers(0, 999),
)
def test_whatever_the_clock_does_ids_ascend_and_unsure_times_do_not_fall(
    epochs: list[list[tuple[int, bool, bool]]], seed: int
) -> None:
    chance = random.Random(seed)
    ids, floor = [], Floor()
    for epoch in epochs:
        keeper, now_ns = Timekeeper(floor), chance.randrange(10**15)
        before_ms = floor.clock_ms
        for wall_ms, synchronised, kept_time in epoch:
            now_ns += chance.randrange(10**12)
            reading = keeper.read(wall_ms, now_ns, Evidence(synchronised, kept_time))
            ids.append(keeper.mint(reading.unix_ms, chance.randbytes(10)))
            if reading.clock is Clock.TRUSTED:
                assert reading.unix_ms == wall_ms >= RELEASED_UNIX_MS
            elif not kept_time:
                assert reading.unix_ms >= max(before_ms, RELEASED_UNIX_MS)
            before_ms = reading.unix_ms
        floor = keeper.floor()
    assert ids == sorted(ids)
    assert len({id_time_ms(one) for one in ids}) == len(ids)
    assert all(one.version == 7 for one in ids)
