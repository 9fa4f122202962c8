"""How often a password may be tried."""

from __future__ import annotations

from aftertone.web.throttle import MAX_SOURCES, Pace, Throttle, source_of

SLOW = Pace(burst=3, refill_ms=1000)
WIDE = Pace(burst=10_000_000, refill_ms=1)


def test_a_source_may_try_a_few_times_and_then_waits() -> None:
    throttle = Throttle(SLOW, WIDE)
    assert [throttle.take("192.0.2.1", 0) for _ in range(4)] == [0, 0, 0, 1000]
    assert throttle.take("192.0.2.2", 0) == 0
    assert throttle.take("192.0.2.1", 400) == 600
    assert throttle.take("192.0.2.1", 1000) == 0


def test_all_sources_together_are_no_faster_than_one_bucket() -> None:
    throttle = Throttle(WIDE, SLOW)
    waits = [throttle.take(f"192.0.2.{number}", 0) for number in range(5)]
    assert waits == [0, 0, 0, 1000, 1000]


def test_a_right_password_costs_nothing() -> None:
    throttle = Throttle(SLOW, SLOW)
    for _ in range(20):
        assert throttle.take("192.0.2.1", 0) == 0
        throttle.give_back("192.0.2.1")


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    throttle = Throttle(SLOW, WIDE)
    assert [throttle.take("192.0.2.1", 10_000) for _ in range(3)] == [0, 0, 0]
    assert throttle.take("192.0.2.1", 5_000) == 1000


def test_memory_is_bounded() -> None:
    throttle = Throttle(SLOW, WIDE)
    for number in range(MAX_SOURCES + 100):
        throttle.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0)
    assert len(throttle) == MAX_SOURCES


def test_one_subscriber_of_ipv6_is_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9")
    assert source_of("2001:db8:1:2::1") != source_of("2001:db8:1:3::1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1")
    assert source_of("no address") == "no address"
