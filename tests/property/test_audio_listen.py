"""Properties of listening: levels against the plain formula, and the watch against a watch that takes one packet at a time."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.audio import g711, listen
from aftertone.audio import watch as rules
from aftertone.audio.watch import SoundWatch

ROWS = 4
MS = 1_000_000


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(2, 700),
    st.floats(0, 15),
    st.sampled_from([8000, 16000, 48000]),
)
def test_levels_follow_the_formula_and_do_not_depend_on_the_batch(
    seed: int, count: int, length: int, bits: float, rate_hz: int
) -> None:
    frames = np.random.default_rng(seed).normal(0, 2**bits, (count, length)).clip(-32768, 32767).astype(np.int16)
    level, tone = listen.classify(frames, rate_hz)
    for index, frame in enumerate(frames):
        power = float(np.var(frame.astype(np.float64))) / 32768**2
        wanted = max(-127.0, 10 * math.log10(power)) if power > 0 else -127.0
        assert abs(float(level[index]) - wanted) < 0.05
        alone_level, alone_tone = listen.classify(frame[np.newaxis, :], rate_hz)
        assert abs(float(alone_level[0]) - float(level[index])) < 0.01
        assert alone_tone[0] == tone[index]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(listen.TONES_HZ), st.floats(0, 6.28), st.floats(0, 6.28), st.floats(0.4, 2.5), st.floats(-45, -12)
)
def test_every_mixture_of_a_pair_is_a_tone(
    tone_hz: tuple[int, ...], one: float, other: float, ratio: float, level_dbov: float
) -> None:
    time = np.arange(800) / 8000
    wave = np.sin(2 * np.pi * tone_hz[0] * time + one) + ratio * np.sin(2 * np.pi * tone_hz[-1] * time + other)
    wave *= 32768 * 10 ** (level_dbov / 20) / max(1e-9, np.sqrt(np.mean(wave**2)))
    payloads = g711.encode_alaw(wave.clip(-32768, 32767).astype(np.int16).reshape(5, 160))
    # Two sines may cancel for a while; what is left then is the codec's own noise.
    level, tone = listen.classify_g711(payloads, g711.ALAW_TO_LINEAR)
    assert tone[level > level_dbov - 10].all()


@st.composite
def packets(draw: st.DrawFn) -> list[tuple[int, float, bool, int]]:
    """Rows, levels, tone flags and arrivals in order of arrival."""
    now_ns = 1_000 * MS
    out = []
    kinds = st.tuples(
        st.integers(0, ROWS - 1), st.floats(-127, 0, width=32), st.booleans(), st.sampled_from([0, 5, 20, 60, 3000])
    )
    for row, level, tone, gap_ms in draw(st.lists(kinds, max_size=60)):
        now_ns += gap_ms * MS
        out.append((row, level, tone, now_ns))
    return out


class PlainWatch:
    """The rules of ``SoundWatch`` for one call, said a second time, without arrays."""

    def __init__(self) -> None:
        self.floor = rules.NOISE_FLOOR_MAX_DBOV
        self.heard = self.candidate = self.run = 0
        self.sound = self.since = self.tone = 0

    def feed(self, level: float, tone: bool, now: int) -> None:
        if self.heard:
            self.floor += (now - self.heard) / 1e9
        self.heard = now
        self.floor = max(-58.0, min(-35.0, self.floor, level))
        is_sound = False
        if not tone and level > max(-50.0, self.floor + 8):
            is_sound = self.candidate != 0 and now - self.candidate <= 100 * MS
            self.candidate = now
        if is_sound:
            self.sound = now
        if is_sound or now - self.tone > 5_000 * MS:
            self.since = 0
        self.run = (self.run or now) if tone else 0
        if tone and now - self.run >= 80 * MS:
            self.since = self.since or self.run
            self.tone = now


@settings(max_examples=150, deadline=None)
@given(packets(), st.integers(0, 2**32))
def test_the_watch_is_the_same_however_its_packets_are_batched(
    heard: list[tuple[int, float, bool, int]], seed: int
) -> None:
    plain = [PlainWatch() for _ in range(ROWS)]
    for row, level, tone, now_ns in heard:
        plain[row].feed(level, tone, now_ns)
    watch = SoundWatch(ROWS)
    cuts = sorted(np.random.default_rng(seed).integers(0, len(heard) + 1, 6).tolist())
    for start, stop in zip([0, *cuts], [*cuts, len(heard)], strict=True):
        batch = heard[start:stop]
        watch.feed(
            np.array([p[0] for p in batch], np.int32),
            np.array([p[1] for p in batch], np.float32),
            np.array([p[2] for p in batch], np.bool_),
            np.array([p[3] for p in batch], np.int64),
        )
    assert watch.last_sound_ns.tolist() == [one.sound for one in plain]
    assert watch.tone_since_ns.tolist() == [one.since for one in plain]
    assert watch.last_tone_ns.tolist() == [one.tone for one in plain]
