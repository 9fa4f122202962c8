"""Whatever the audio and the gaps: same length, received samples untouched, nothing louder than what was there."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.delivery.conceal import conceal


@st.composite
def _holed(draw: st.DrawFn) -> tuple[np.ndarray[tuple[int], np.dtype[np.int16]], list[tuple[int, int]], int]:
    rate_hz = draw(st.sampled_from([4000, 8000, 11025, 16000, 44100, 48000]))
    length = draw(st.integers(0, rate_hz // 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "extremes", "constant", "sparse"]))
    if kind == "noise":
        samples = rng.integers(-32768, 32768, length).astype(np.int16)
    elif kind == "extremes":
        samples = rng.choice(np.array([-32768, 32767], np.int16), length)
    elif kind == "constant":
        samples = np.full(length, rng.integers(-32768, 32768), np.int16)
    else:
        samples = np.where(rng.random(length) < 0.01, 30_000, 0).astype(np.int16)
    edges = sorted(draw(st.lists(st.integers(0, length), max_size=12)))
    return samples, list(zip(edges[::2], edges[1::2], strict=False)), rate_hz


@settings(max_examples=150, deadline=None)
@given(_holed())
def test_nothing_outside_the_gaps_changes(
    case: tuple[np.ndarray[tuple[int], np.dtype[np.int16]], list[tuple[int, int]], int],
) -> None:
    samples, gaps, rate_hz = case
    before = samples.copy()
    filled = conceal(samples, gaps, rate_hz)
    assert filled.dtype == np.int16
    assert len(filled) == len(samples)
    assert np.array_equal(samples, before), "the argument is not written to"
    outside = np.ones(len(samples), bool)
    for start, end in gaps:
        outside[start:end] = False
    assert np.array_equal(filled[outside], samples[outside])
    loudest = np.abs(samples[outside].astype(np.int32)).max(initial=0)
    assert np.abs(filled.astype(np.int32)).max(initial=0) <= loudest
    # What lies in a gap has no say in what it is filled with.
    samples[~outside] = 12_345
    assert np.array_equal(conceal(samples, gaps, rate_hz), filled)
