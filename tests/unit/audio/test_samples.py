"""Resampling keeps moments, pitch and loudness, and exactly the length the rates demand."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.audio.samples import fit, resample


def sine(
    frequency_hz: float, rate_hz: int, seconds: float = 1.0, amplitude: float = 8000
) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    phase = 2 * np.pi * frequency_hz * np.arange(round(rate_hz * seconds)) / rate_hz
    return (amplitude * np.sin(phase)).astype(np.int16)


@pytest.mark.parametrize(
    ("rate_hz", "to_rate_hz"), [(8000, 48000), (48000, 8000), (24000, 16000), (44100, 8000), (16000, 8000)]
)
def test_a_moment_stays_where_it_was(rate_hz: int, to_rate_hz: int) -> None:
    click = np.zeros(rate_hz, np.int16)
    click[rate_hz // 2] = 30000
    moved = resample(click, rate_hz, to_rate_hz)
    assert len(moved) == to_rate_hz
    assert abs(int(np.argmax(np.abs(moved))) - to_rate_hz // 2) <= 1


@pytest.mark.parametrize("to_rate_hz", [8000, 11025, 16000, 48000])
def test_a_tone_stays_the_same_tone_over_seconds(to_rate_hz: int) -> None:
    moved = resample(sine(1000, 24000, 2.5), 24000, to_rate_hz)
    wanted = sine(1000, to_rate_hz, 2.5)
    edge = to_rate_hz // 50
    assert np.abs(moved[edge:-edge].astype(int) - wanted[edge:-edge]).max() < 40


def test_lengths_without_a_whole_number_of_samples() -> None:
    assert len(resample(np.ones(1, np.int16), 8000, 48000)) == 6
    assert len(resample(np.ones(2, np.int16), 48000, 8000)) == 0
    assert len(resample(np.zeros(0, np.int16), 8000, 48000)) == 0
    assert len(resample(np.ones(8001, np.int16), 8000, 44100)) == round(8001 * 44100 / 8000)


def test_equal_rates_cost_nothing() -> None:
    samples = sine(440, 8000)
    assert resample(samples, 8000, 8000) is samples


@pytest.mark.parametrize(("rate_hz", "to_rate_hz"), [(0, 8000), (8000, 0), (8000, 10**9), (-8000, 8000)])
def test_impossible_rates_are_refused(rate_hz: int, to_rate_hz: int) -> None:
    with pytest.raises(ValueError, match="sampling rate"):
        resample(np.zeros(10, np.int16), rate_hz, to_rate_hz)


def test_fit_cuts_and_fills() -> None:
    samples = np.array([1, 2, 3], np.int16)
    assert fit(samples, 2).tolist() == [1, 2]
    assert fit(samples, 5).tolist() == [1, 2, 3, 0, 0]
    assert fit(samples, 3).tolist() == [1, 2, 3]
