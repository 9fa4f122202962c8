"""Levels in dBov and call-progress tones, against signals whose level and kind are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from aftertone.audio import g711, listen
from aftertone.audio.samples import Samples

SECOND = np.arange(8000) / 8000
EXCHANGE_TONES = {
    "North American dial": (350, 440),
    "North American ringback": (440, 480),
    "North American busy": (480, 620),
    "British dial": (350, 450),
    "British ringback": (400, 450),
    "European": (425,),
    "British busy": (400,),
    "French": (440,),
    "Chinese": (450,),
    "620 alone": (620,),
}


def mix(*frequencies_hz: float, rms_dbov: float = -20.0, snr_db: float | None = 30.0, rate_hz: int = 8000) -> Samples:
    """One second of equally loud sines with white noise below them."""
    time = np.arange(rate_hz) / rate_hz
    entropy = np.random.default_rng(3)
    wave = np.sum([np.sin(2 * np.pi * f * time + entropy.uniform(0, 6)) for f in frequencies_hz], axis=0)
    wave /= np.sqrt(np.mean(wave**2))
    if snr_db is not None:
        wave += entropy.normal(0, 10 ** (-snr_db / 20), rate_hz)
    scaled: NDArray[np.float64] = np.clip(32768 * 10 ** (rms_dbov / 20) * wave, -32768, 32767)
    return scaled.astype(np.int16)


def rows(samples: Samples, length: int = 160) -> Samples:
    return samples[: len(samples) // length * length].reshape(-1, length)


def tone_share(samples: Samples, length: int = 160, rate_hz: int = 8000) -> float:
    return float(listen.classify(rows(samples, length), rate_hz)[1].mean())


def test_levels_of_known_signals() -> None:
    square = np.tile(np.array([32767, -32768], np.int16), 80)
    sine = (32767 * np.sin(2 * np.pi * 1000 * SECOND[:160])).astype(np.int16)
    frames = np.stack([square, sine, sine // 100, np.zeros(160, np.int16), np.full(160, -32768, np.int16)])
    level, tone = listen.classify(frames, 8000)
    np.testing.assert_allclose(level, [0, -3.01, -43.01, -127, -127], atol=0.05)
    assert not tone.any()
    assert level.dtype == np.float32
    assert tone.dtype == np.bool_


def test_the_quietest_wave_still_has_its_level() -> None:
    frame = np.tile(np.array([1, -1], np.int16), 80)[np.newaxis, :]
    assert listen.classify(frame, 8000)[0][0] == pytest.approx(-90.3, abs=0.1)


@pytest.mark.parametrize("name", EXCHANGE_TONES)
@pytest.mark.parametrize("rms_dbov", [-10, -25, -40])
def test_tones_of_exchanges_are_tones_in_both_laws(name: str, rms_dbov: float) -> None:
    samples = rows(mix(*EXCHANGE_TONES[name], rms_dbov=rms_dbov, snr_db=15))
    level, tone = listen.classify_g711(g711.encode_ulaw(samples), g711.ULAW_TO_LINEAR)
    assert tone.all()
    assert float(level.mean()) == pytest.approx(rms_dbov, abs=1)
    assert listen.classify_g711(g711.encode_alaw(samples), g711.ALAW_TO_LINEAR)[1].all()


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize("frame_ms", [10, 20, 30, 40, 60, 120])
def test_tones_are_tones_at_every_rate_and_frame_length(rate_hz: int, frame_ms: int) -> None:
    length = rate_hz * frame_ms // 1000
    assert tone_share(mix(425, rate_hz=rate_hz), length, rate_hz) == 1
    assert tone_share(mix(350, 440, rate_hz=rate_hz), length, rate_hz) == 1
    assert tone_share(mix(1000, rate_hz=rate_hz), length, rate_hz) == 0


@pytest.mark.parametrize("frequency_hz", [50, 100, 200, 300, 530, 560, 700, 1000, 1100, 1400, 2100])
def test_other_single_tones_are_not(frequency_hz: int) -> None:
    assert tone_share(mix(frequency_hz)) == 0


@pytest.mark.parametrize("low_hz", [697, 770, 852, 941])
@pytest.mark.parametrize("high_hz", [1209, 1336, 1477, 1633])
def test_digits_are_no_tones(low_hz: int, high_hz: int) -> None:
    assert tone_share(mix(low_hz, high_hz)) == 0


def test_an_exchange_tone_with_as_much_of_another_sound_is_no_tone() -> None:
    assert tone_share(mix(425, 1000)) == 0
    assert tone_share(mix(350, 440, snr_db=5)) == 0


def test_noise_hum_silence_and_offsets_are_no_tones() -> None:
    noise = np.random.default_rng(1).normal(0, 2000, 16000).astype(np.int16)
    hum = mix(50, 150)
    for sound in (noise, hum, np.zeros(8000, np.int16), np.full(8000, 900, np.int16)):
        assert tone_share(sound) == 0
    assert tone_share(np.clip(mix(425).astype(int) + 5000, -32768, 32767).astype(np.int16)) == 1


def vowel(pitch_hz: float, formants_hz: tuple[float, ...]) -> Samples:
    """A pulse train with a wavering pitch through resonators, which is what a vowel is."""
    pitch = pitch_hz * (1 + 0.03 * np.sin(2 * np.pi * 5 * SECOND))
    turns = np.cumsum(pitch) / 8000
    wave: NDArray[np.float64] = (np.diff(np.floor(turns), prepend=0) > 0).astype(np.float64)
    for formant in formants_hz:
        radius = np.exp(-np.pi * 80 / 8000)
        first, second = 2 * radius * np.cos(2 * np.pi * formant / 8000), -(radius**2)
        out = np.zeros_like(wave)
        one = two = 0.0
        for index, value in enumerate(wave):
            one, two = value + first * one + second * two, one
            out[index] = one
        wave = out
    wave *= 9000 / float(np.abs(wave).max())
    return wave.astype(np.int16)


@pytest.mark.parametrize("pitch_hz", [95, 120, 180, 230])
@pytest.mark.parametrize("formants_hz", [(730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410)])
def test_vowels_are_no_tones(pitch_hz: float, formants_hz: tuple[float, ...]) -> None:
    assert tone_share(vowel(pitch_hz, formants_hz)) <= 0.04


def test_the_tone_must_be_loud_enough_to_be_one() -> None:
    assert tone_share(mix(425, rms_dbov=-58, snr_db=None)) == 1
    assert tone_share(mix(425, rms_dbov=-62, snr_db=None)) == 0


def test_odd_shapes() -> None:
    for shape in ((0, 160), (3, 0), (0, 0)):
        level, tone = listen.classify(np.zeros(shape, np.int16), 8000)
        assert level.tolist() == [-127.0] * shape[0]
        assert tone.tolist() == [False] * shape[0]
    level, tone = listen.classify(rows(mix(425), 40), 8000)
    assert float(level.mean()) == pytest.approx(-20, abs=1)
    assert not tone.any()


def test_a_frame_longer_than_60_ms_keeps_the_level_of_all_of_it() -> None:
    frame = np.zeros((1, 1600), np.int16)
    frame[0, 800:] = mix(1000, rms_dbov=-20)[:800]
    assert listen.classify(frame, 8000)[0][0] == pytest.approx(-23, abs=0.2)
