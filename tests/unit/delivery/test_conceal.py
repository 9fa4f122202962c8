"""Gaps are filled with what stands beside them, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from aftertone.delivery.conceal import conceal, concealed_samples
from tests.support.recordings import voiced


def _snr_db(wanted: NDArray[np.int16], found: NDArray[np.int16]) -> float:
    error = wanted.astype(np.float64) - found
    return float(10 * np.log10(np.sum(wanted.astype(np.float64) ** 2) / max(1e-9, np.sum(error**2))))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize("pitch_hz", [80, 113.3, 151.7, 220, 311, 440, 1000])
def test_a_periodic_sound_goes_on(rate_hz: int, pitch_hz: float) -> None:
    whole = voiced(1.0, rate_hz, pitch_hz)
    for gap_ms in (10, 20, 40, 60):
        start = rate_hz // 2 + 37
        end = start + gap_ms * rate_hz // 1000
        holed = whole.copy()
        holed[start:end] = 0
        filled = conceal(holed, [(start, end)], rate_hz)
        assert _snr_db(whole[start:end], holed[start:end]) == pytest.approx(0.0)
        assert _snr_db(whole[start:end], filled[start:end]) > 15


@pytest.mark.parametrize("side", ["before", "after"])
def test_one_side_is_enough(side: str) -> None:
    whole = voiced(0.5, 8000)
    start, end = (3840, 4000) if side == "before" else (0, 160)
    filled = conceal(whole, [(start, end)], 8000)
    level = np.abs(filled[start:end].astype(np.int32)).mean()
    assert level > 0.4 * np.abs(whole.astype(np.int32)).mean()


def test_a_long_gap_fades_out_is_silent_and_fades_in() -> None:
    filled = conceal(voiced(2.0, 8000), [(4000, 8000)], 8000)
    carried = 60 * 8
    assert not filled[4000 + carried : 8000 - carried].any()
    for part in (filled[4000 : 4000 + carried], filled[8000 - carried : 8000][::-1]):
        loud = [int(np.abs(part[at : at + 120].astype(np.int32)).max()) for at in range(0, carried, 120)]
        assert loud == sorted(loud, reverse=True)
        assert loud[0] > 5000
    assert concealed_samples(4000, 8000) == 2 * carried
    assert concealed_samples(100, 8000) == 100


def test_silence_and_too_little_audio_stay_silent() -> None:
    assert not conceal(np.zeros(800, np.int16), [(300, 460)], 8000).any()
    tiny = np.full(200, 1000, np.int16)
    assert not conceal(tiny, [(20, 180)], 8000)[20:180].any()
    assert len(conceal(np.zeros(0, np.int16), [], 8000)) == 0
    assert not conceal(np.ones(160, np.int16), [(0, 160)], 8000).any()


def test_noise_keeps_its_level() -> None:
    noise = (np.random.default_rng(5).normal(size=16_000) * 2000).astype(np.int16)
    gaps = [(at, at + 160) for at in range(1600, 14_000, 1600)]
    filled = conceal(noise, gaps, 8000)
    levels = [np.sqrt(np.mean(filled[start:end].astype(np.float64) ** 2)) for start, end in gaps]
    assert 1000 < np.mean(levels) < 2500


def test_every_other_packet_lost_still_sounds() -> None:
    whole = voiced(1.0, 8000)
    gaps = [(at, at + 160) for at in range(320, 7600, 320)]
    holed = whole.copy()
    for start, end in gaps:
        holed[start:end] = 0
    assert _snr_db(whole, conceal(holed, gaps, 8000)) > _snr_db(whole, holed) + 6


@pytest.mark.parametrize("gaps", [[(10, 5)], [(-1, 5)], [(0, 101)], [(0, 20), (19, 30)], [(50, 60), (10, 20)]])
def test_gaps_that_make_no_sense_are_refused(gaps: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="overlaps another or lies outside"):
        conceal(np.zeros(100, np.int16), gaps, 8000)
