"""The last sound and the stretch of tone of each row, over time."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.audio.watch import SoundWatch

MS = 1_000_000
START = 5_000 * MS


class Line:
    """Feeds one row of a watch, 20 ms at a time."""

    def __init__(self, row: int = 1) -> None:
        self.watch = SoundWatch(3)
        self.row = row
        self.now_ns = START

    def hear(self, duration_ms: int, level_dbov: float, *, tone: bool = False) -> int:
        """Feed packets of one kind; return the arrival of the last."""
        for _ in range(duration_ms // 20):
            self.now_ns += 20 * MS
            self.watch.feed(
                np.array([self.row]), np.array([level_dbov], np.float32), np.array([tone]), np.array([self.now_ns])
            )
        return self.now_ns

    @property
    def last_sound_ns(self) -> int:
        return int(self.watch.last_sound_ns[self.row])

    @property
    def tone_since_ns(self) -> int:
        return int(self.watch.tone_since_ns[self.row])


def test_speech_is_sound_until_its_last_packet() -> None:
    line = Line()
    line.hear(500, -65)
    assert line.last_sound_ns == 0
    spoken = line.hear(600, -22)
    line.hear(2000, -65)
    assert line.last_sound_ns == spoken
    assert line.watch.last_sound_ns.tolist() == [0, spoken, 0]


def test_who_speaks_at_once_is_heard() -> None:
    line = Line()
    assert line.hear(40, -20) == line.last_sound_ns


def test_a_click_is_no_sound_and_two_far_apart_are_none_either() -> None:
    line = Line()
    line.hear(200, -70)
    line.hear(20, -10)
    line.hear(100, -70)
    line.hear(20, -10)
    line.hear(200, -70)
    assert line.last_sound_ns == 0
    line.hear(20, -10)
    line.hear(80, -70)
    assert line.hear(20, -10) == line.last_sound_ns


def test_a_quiet_caller_is_heard_in_a_quiet_room_and_nothing_below_50_is_sound() -> None:
    line = Line()
    line.hear(200, -75)
    assert line.hear(200, -45) == line.last_sound_ns
    line.watch.reset(line.row)
    line.hear(200, -90)
    line.hear(400, -51)
    assert line.last_sound_ns == 0


def test_the_noise_of_the_room_is_no_sound_and_a_voice_over_it_is() -> None:
    line = Line()
    line.hear(10_000, -42)
    assert line.last_sound_ns == 0
    assert line.hear(200, -30) == line.last_sound_ns


def test_a_room_that_gets_louder_is_sound_until_the_floor_has_risen() -> None:
    line = Line()
    line.hear(1000, -58)
    line.hear(20_000, -45)
    # From -58 it takes 5 s at 1 dB a second until -45 is no more than 8 dB over the floor.
    heard_for_ms = (line.last_sound_ns - START) // MS - 1000
    assert 4500 <= heard_for_ms <= 5500


def test_silence_below_hearing_does_not_lower_the_floor_any_further() -> None:
    line = Line()
    line.hear(1000, -127)
    line.hear(20_000, -45)
    assert (line.last_sound_ns - START) // MS - 1000 <= 5500


def test_the_floor_never_rises_so_far_that_a_shouting_caller_is_missed() -> None:
    line = Line()
    assert line.hear(120_000, -26) == line.last_sound_ns


def test_a_tone_is_no_sound_and_is_timed_from_its_first_packet() -> None:
    line = Line()
    spoken = line.hear(600, -20)
    line.hear(500, -70)
    before = line.now_ns
    line.hear(80, -15, tone=True)
    assert line.tone_since_ns == 0
    line.hear(20, -15, tone=True)
    assert line.tone_since_ns == before + 20 * MS
    latest = line.hear(3000, -15, tone=True)
    assert line.tone_since_ns == before + 20 * MS
    assert line.watch.last_tone_ns[line.row] == latest
    assert line.last_sound_ns == spoken


def test_busy_and_ringback_are_one_stretch_through_their_pauses_and_edges() -> None:
    line = Line()
    for burst_ms, pause_ms in ((500, 500), (240, 240), (1000, 4000)):
        line.watch.reset(line.row)
        first = line.now_ns + 20 * MS
        for _ in range(5):
            line.hear(burst_ms, -18, tone=True)
            line.hear(20, -22)  # the packet in which the burst ends is neither tone nor silence
            line.hear(pause_ms, -70)
        assert line.tone_since_ns == first
        assert line.last_sound_ns == 0


def test_speech_ends_a_stretch_of_tone_and_so_does_a_long_silence() -> None:
    line = Line()
    line.hear(1000, -18, tone=True)
    line.hear(20, -20)
    assert line.tone_since_ns != 0
    line.hear(20, -20)
    assert line.tone_since_ns == 0
    line.hear(1000, -18, tone=True)
    line.hear(4980, -70)
    assert line.tone_since_ns != 0
    line.hear(60, -70)
    assert line.tone_since_ns == 0


def test_single_tone_like_packets_in_speech_open_nothing() -> None:
    line = Line()
    for _ in range(50):
        line.hear(60, -20)
        line.hear(60, -20, tone=True)
        assert line.tone_since_ns == 0
    assert line.last_sound_ns == line.now_ns - 60 * MS


def test_reset_forgets_one_row_only() -> None:
    watch = SoundWatch(2)
    for arrival in (START, START + 20 * MS):
        watch.feed(np.array([0, 1]), np.array([-20.0, -20.0]), np.array([False, False]), np.array([arrival, arrival]))
    watch.reset(1)
    assert watch.last_sound_ns.tolist() == [START + 20 * MS, 0]
    watch.feed(np.array([1]), np.array([-20.0]), np.array([False]), np.array([START + 40 * MS]))
    assert watch.last_sound_ns[1] == 0


def test_batches_that_do_not_fit_are_refused_and_empty_ones_change_nothing() -> None:
    watch = SoundWatch(2)
    none = np.zeros(0)
    watch.feed(none.astype(int), none, none.astype(bool), none.astype(np.int64))
    with pytest.raises(ValueError, match="as many levels"):
        watch.feed(np.array([0]), none, none.astype(bool), none.astype(np.int64))
    with pytest.raises(IndexError):
        watch.feed(np.array([2]), np.array([-20.0]), np.array([False]), np.array([START]))
