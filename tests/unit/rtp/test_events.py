"""Telephone-events: the payload, and one digit for each press whatever the network does."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.rtp.events import PAUSE_NS, DigitDetector, TelephoneEvent, parse, parse_rows, serialize

MS = 1_000_000
Packet = tuple[int, bytes]
"""Timestamp and payload."""


def packet(key: int, timestamp: int, duration: int, *, end: bool = False) -> Packet:
    return timestamp, serialize(TelephoneEvent(key, end, 10, duration))


def press(key: int, timestamp: int) -> list[Packet]:
    """A press of 100 ms as telephones send it: duration grows each 20 ms, the end comes three times."""
    growing = [packet(key, timestamp, duration) for duration in (160, 320, 480, 640)]
    return growing + [packet(key, timestamp, 800, end=True)] * 3


def heard(packets: list[Packet], *, step_ns: int = 20 * MS) -> str:
    detector = DigitDetector()
    digits = (detector.receive(payload, timestamp, n * step_ns) for n, (timestamp, payload) in enumerate(packets))
    return "".join(digit for digit in digits if digit is not None)


def test_the_fields_of_a_payload() -> None:
    assert parse(bytes.fromhex("0b8a0320")) == TelephoneEvent(11, True, 10, 800)
    assert parse(bytes.fromhex("053fffff 00")) == TelephoneEvent(5, False, 63, 65535)
    assert parse(memoryview(bytes.fromhex("0b4a0320"))) == TelephoneEvent(11, False, 10, 800)


def test_a_payload_that_is_too_short() -> None:
    assert parse(b"\x01\x00\x00") is None


def test_many_payloads_at_once() -> None:
    arena = np.full((6, 16), 0xFF, dtype=np.uint8)
    arena[0, 12:16] = [11, 0x8A, 3, 0x20]
    arena[1, 10:14] = [5, 0x4A, 0, 160]
    start = np.array([12, 10, 12, 12, -1, 14], dtype=np.int32)
    end = np.array([16, 15, 15, 17, 8, 14], dtype=np.int32)
    events = parse_rows(arena, start, end)
    assert events.valid.tolist() == [True, True, False, False, False, False]
    assert events.event.tolist() == [11, 5, 0, 0, 0, 0]
    assert events.end.tolist() == [True, False, False, False, False, False]
    assert events.volume.tolist() == [10, 10, 0, 0, 0, 0]
    assert events.duration.tolist() == [800, 160, 0, 0, 0, 0]


def test_no_payloads_at_all() -> None:
    none = np.zeros(0, dtype=np.int32)
    assert parse_rows(np.zeros((0, 16), dtype=np.uint8), none, none).valid.tolist() == []


def test_one_press_is_one_digit() -> None:
    assert heard(press(11, 8000)) == "#"


@pytest.mark.parametrize(("event", "digit"), list(enumerate("0123456789*#ABCD")))
def test_every_key(event: int, digit: str) -> None:
    assert heard(press(event, 8000)) == digit


@pytest.mark.parametrize("event", [16, 32, 255])
def test_other_events_are_no_keys(event: int) -> None:
    assert heard(press(event, 8000)) == ""


def test_a_malformed_payload_is_no_key() -> None:
    assert DigitDetector().receive(b"\x01", 0, 0) is None


def test_the_same_key_twice_is_two_digits() -> None:
    assert heard(press(1, 8000) + press(1, 9600)) == "11"


def test_the_digit_comes_with_the_first_packet() -> None:
    detector = DigitDetector()
    assert detector.receive(press(1, 8000)[0][1], 8000, 0) == "1"


@pytest.mark.parametrize("left", range(7))
def test_any_one_packet_of_a_press_is_enough(left: int) -> None:
    assert heard([press(4, 8000)[left], press(4, 9600)[left], press(5, 11200)[left]]) == "445"


def test_losing_every_end() -> None:
    assert heard(press(1, 8000)[:4] + press(1, 9600)[:4] + press(2, 11200)[:4]) == "112"


def test_ends_that_were_overtaken_by_the_next_keys() -> None:
    first, second, third = press(1, 8000), press(2, 9600), press(1, 11200)
    assert heard(first[:4] + second[:4] + first[4:] + third + second[4:] + first) == "121"


def test_duplicates_long_after_the_press() -> None:
    assert heard(press(1, 8000) + [press(1, 8000)[-1]] * 3, step_ns=PAUSE_NS) == "1"


def test_timestamps_that_wrap_or_begin_again() -> None:
    assert heard(press(1, 2**32 - 400) + press(1, 1200) + press(1, 3_000_000_000) + press(1, 5)) == "1111"


def test_a_new_stream_may_use_the_same_timestamp() -> None:
    detector = DigitDetector()
    payload = press(1, 8000)[0][1]
    assert [detector.receive(payload, 8000, 0, ssrc=s) for s in (1, 1, 2, 2, 1)] == ["1", None, "1", None, None]


def test_a_key_held_beyond_the_longest_duration_is_one_press() -> None:
    segments = [(8000 + n * 0xFFFF, duration) for n in range(3) for duration in (0x4000, 0x8000, 0xFFFF)]
    held = [packet(3, timestamp, duration) for timestamp, duration in segments]
    assert heard([*held, packet(3, 8000 + 3 * 0xFFFF, 800, end=True)]) == "3"


def test_a_late_packet_of_an_earlier_segment_changes_nothing() -> None:
    first, second = packet(3, 8000, 0xFFFF), packet(3, 8000 + 0xFFFF, 160)
    assert heard([first, second, first, packet(3, 8000 + 2 * 0xFFFF, 160), second, packet(3, 8000, 160)]) == "3"


@pytest.mark.parametrize(
    ("before", "marker", "later_ns"),
    [
        (packet(3, 8000, 0xFFFF, end=True), False, 20 * MS),
        (packet(4, 8000, 0xFFFF), False, 20 * MS),
        (packet(3, 8000, 0xFFFF), True, 20 * MS),
        (packet(3, 8000, 0xFFFF), False, PAUSE_NS),
        (packet(3, 8001, 0x1000), False, 20 * MS),
    ],
)
def test_what_looks_like_a_next_segment_and_is_a_press(before: Packet, marker: bool, later_ns: int) -> None:
    detector = DigitDetector()
    assert detector.receive(before[1], before[0], 0) is not None
    timestamp, payload = packet(3, 8000 + 0xFFFF, 160)
    assert detector.receive(payload, timestamp, later_ns, marker=marker) == "3"


def test_a_peer_that_never_changes_its_timestamp() -> None:
    detector = DigitDetector()
    digits: list[str | None] = []
    for begin_ns, key in ((0, 1), (2 * PAUSE_NS, 1), (4 * PAUSE_NS, 2)):
        digits += [detector.receive(p, 0, begin_ns + n * 20 * MS) for n, (_, p) in enumerate(press(key, 0))]
    assert "".join(d for d in digits if d) == "112"


def test_memory_does_not_grow() -> None:
    detector = DigitDetector()
    for n in range(1000):
        assert detector.receive(press(n % 10, 0)[0][1], n * 1600, n * 20 * MS) == str(n % 10)
    assert len(detector._presses) <= 8
