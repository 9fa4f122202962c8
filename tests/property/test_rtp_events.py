"""Keys through a bad network: of each press something arrives, in any order, any number of times; each is one digit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aftertone.rtp.events import DIGITS, DigitDetector, TelephoneEvent, parse, serialize

EVENTS = st.builds(TelephoneEvent, st.integers(0, 255), st.booleans(), st.integers(0, 63), st.integers(0, 0xFFFF))


@given(EVENTS)
def test_a_payload_survives_writing_and_reading(event: TelephoneEvent) -> None:
    assert parse(serialize(event)) == event


@given(st.lists(st.tuples(st.binary(max_size=6), st.integers(0, 2**32 - 1), st.integers(0, 2**62), st.booleans())))
def test_no_packets_raise(packets: list[tuple[bytes, int, int, bool]]) -> None:
    detector = DigitDetector()
    for payload, timestamp, now_ns, marker in packets:
        digit = detector.receive(payload, timestamp, now_ns, marker=marker)
        assert digit is None or digit in DIGITS


@st.composite
def mangled(draw: st.DrawFn) -> tuple[str, list[tuple[int, bytes]]]:
    """Digits, and what arrives of them: of each press at least one packet, repeated, its own packets and those of the
    press before in any order behind its first."""
    digits = draw(st.text(st.sampled_from(DIGITS), min_size=1, max_size=8))
    start = draw(st.integers(0, 2**32 - 1))
    arriving: list[tuple[int, bytes]] = []
    late: list[tuple[int, bytes]] = []
    for n, digit in enumerate(digits):
        timestamp = (start + n * 2400) % 2**32
        durations = [(160, False), (320, False), (480, False), (640, True), (640, True), (640, True)]
        packets = [
            (timestamp, serialize(TelephoneEvent(DIGITS.index(digit), end, 10, duration)))
            for duration, end in durations
        ]
        survivors = draw(st.lists(st.sampled_from(packets), min_size=1, max_size=8))
        delayed = draw(st.integers(0, len(survivors) - 1))
        now, later = survivors[: len(survivors) - delayed], survivors[len(survivors) - delayed :]
        arriving.append(now[0])
        arriving += draw(st.permutations(now[1:] + late))
        late = later
    return digits, arriving + late


@given(mangled())
def test_every_press_is_one_digit(case: tuple[str, list[tuple[int, bytes]]]) -> None:
    digits, packets = case
    detector = DigitDetector()
    heard = [detector.receive(payload, timestamp, n * 20_000_000) for n, (timestamp, payload) in enumerate(packets)]
    assert "".join(digit for digit in heard if digit) == digits
