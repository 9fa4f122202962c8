"""Speech is found as a telephone carries it, however quiet, and nothing else is."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aftertone.audio import g711, vad
from aftertone.audio.prompts import prompt
from aftertone.audio.samples import Samples, resample
from aftertone.audio.vad import speech_spans, why_deaf
from aftertone.errors import EnvironmentFault

SECOND = np.zeros(8000, np.int16)
TIME = np.arange(5 * 8000) / 8000


def line(wave: NDArray[np.float64], rms_dbov: float) -> Samples:
    """Bring a wave at 8 kHz to a level and through mu-law."""
    power = float(np.mean(wave**2))
    scaled = wave * (32768 * 10 ** (rms_dbov / 20) / np.sqrt(power) if power else 1)
    return g711.ULAW_TO_LINEAR[g711.encode_ulaw(scaled.clip(-32768, 32767).astype(np.int16))]


def telephone(name: str, rms_dbov: float) -> Samples:
    """Return a prompt as a call brings it: 300 to 3400 Hz, mu-law."""
    clip = prompt(name)
    narrow = resample(clip.samples, clip.rate_hz, 8000).astype(np.float64)
    spectrum = np.fft.rfft(narrow)
    frequency_hz = np.fft.rfftfreq(len(narrow), 1 / 8000)
    spectrum[(frequency_hz < 300) | (frequency_hz > 3400)] = 0
    return line(np.fft.irfft(spectrum, len(narrow)), rms_dbov)


@pytest.mark.parametrize("name", ["goodbye", "longest_reached"])
@pytest.mark.parametrize("rms_dbov", [-15, -30, -45])
def test_speech_is_found_where_it_is_even_when_it_is_quiet(name: str, rms_dbov: float) -> None:
    speech = telephone(name, rms_dbov)
    spans = speech_spans(np.concatenate([SECOND, speech, SECOND]), 8000)
    assert spans
    # Prompts begin with 60 ms and end with 150 ms of silence; a soft first syllable may open late.
    assert 900 <= spans[0][0] <= 1250
    end_ms = 1000 + prompt(name).duration_ms
    assert end_ms - 300 <= spans[-1][1] <= end_ms + 100
    assert sum(stop - start for start, stop in spans) > 0.75 * prompt(name).duration_ms


def test_two_sentences_apart_are_two_spans_in_order() -> None:
    speech = telephone("goodbye", -25)
    spans = speech_spans(np.concatenate([speech, SECOND, SECOND, speech]), 8000)
    assert len(spans) >= 2
    assert all(start < stop for start, stop in spans)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))


@pytest.mark.parametrize("rate_hz", [16000, 48000])
def test_the_rate_changes_nothing(rate_hz: int) -> None:
    speech = telephone("goodbye", -25)
    assert speech_spans(resample(speech, 8000, rate_hz), rate_hz) == speech_spans(speech, 8000)


def tone(*frequencies_hz: float) -> NDArray[np.float64]:
    wave: NDArray[np.float64] = np.sum([np.sin(2 * np.pi * f * TIME) for f in frequencies_hz], axis=0)
    return wave


NO_SPEECH = {
    "silence": 0 * TIME,
    "dial": tone(350, 440),
    "busy": tone(480, 620) * (TIME % 1 < 0.5),
    "European busy": tone(425) * (TIME % 1 < 0.5),
    "ringback": tone(440, 480) * (TIME % 6 < 2),
    "hum": tone(50, 150, 250),
    "white noise": np.random.default_rng(5).normal(0, 1, len(TIME)),
    "beep": tone(1000),
}


@pytest.mark.parametrize("name", NO_SPEECH)
@pytest.mark.parametrize("rms_dbov", [-12, -45])
def test_what_is_no_speech_gives_no_spans(name: str, rms_dbov: float) -> None:
    assert speech_spans(line(NO_SPEECH[name], rms_dbov), 8000) == []


def test_audio_too_short_for_a_word_has_none() -> None:
    for count in (0, 1, 255, 256, 800):
        assert speech_spans(np.full(count, 3000, np.int16), 8000) == []


@pytest.mark.parametrize(
    ("machine", "flags", "deaf"),
    [
        ("x86_64", "flags\t\t: fpu sse4_2 avx avx2 fma", False),
        ("x86_64", "flags\t\t: fpu sse4_2 avx", True),
        ("x86_64", "model name: unknown", False),
        ("aarch64", "Features: fp asimd", False),
    ],
)
def test_a_processor_on_which_the_detector_would_kill_us_is_known(
    tmp_path: Path, machine: str, flags: str, deaf: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert bool(why_deaf(machine, tmp_path / "cpuinfo")) is deaf
    assert why_deaf(machine, tmp_path / "none") == ""


def test_on_such_a_processor_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "why_deaf", lambda: "no AVX2")
    monkeypatch.setattr(vad, "_probabilities", lambda *_: pytest.fail("this would have been SIGILL"))
    with pytest.raises(EnvironmentFault, match="no AVX2"):
        speech_spans(SECOND, 8000)
