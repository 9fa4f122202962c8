"""aftertone.sip.timers: one queue of deadlines."""

from __future__ import annotations

from aftertone.sip.timers import Timers


def test_the_earliest_comes_first_and_only_once() -> None:
    timers: Timers[str] = Timers()
    timers.set("b", 20)
    timers.set("a", 10)
    timers.set("c", 30)
    assert timers.next_ns() == 10
    assert list(timers.due(25)) == ["a", "b"]
    assert timers.next_ns() == 30
    assert list(timers.due(25)) == []


def test_a_later_setting_replaces_an_earlier_one() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10)
    timers.set("a", 50)
    assert list(timers.due(40)) == []
    timers.set("a", 20)
    assert timers.next_ns() == 20
    timers.set("a", None)
    timers.set("never", None)
    assert timers.next_ns() is None
    assert len(timers) == 0


def test_what_is_set_while_time_passes_is_due_too() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10)
    seen = []
    for item in timers.due(30):
        seen.append(item)
        if len(seen) < 3:
            timers.set(item, 10 * (len(seen) + 1))
    assert seen == ["a", "a", "a"]


def test_memory_stays_within_what_is_wanted() -> None:
    timers: Timers[int] = Timers()
    for number in range(10_000):
        timers.set(number % 7, number)
    assert len(timers) == 7
    assert len(timers._heap) <= 64 + 2 * 7
    assert sorted(timers.due(10_000)) == list(range(7))
