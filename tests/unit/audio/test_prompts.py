"""The prompts that are shipped: all there, loud enough, not clipped, and the beep."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from aftertone.audio import listen
from aftertone.audio.flac import read_audio, read_tags
from aftertone.audio.prompts import PROMPTS, beep, prompt
from aftertone.errors import NotFoundError

ROOT = Path(__file__).parents[3]
FILES = ROOT / "src" / "aftertone" / "audio" / "prompts"


def test_the_loader_the_table_of_texts_and_the_files_name_the_same_prompts() -> None:
    texts = tomllib.loads((ROOT / "tools" / "prompts" / "prompts.toml").read_text(encoding="utf-8"))
    assert list(PROMPTS) == list(texts)
    assert {path.name for path in FILES.iterdir()} == {f"{name}.flac" for name in PROMPTS}
    for name, text in texts.items():
        # A text that was changed and not rendered would say something else than it reads.
        assert read_tags(FILES / f"{name}.flac")["DESCRIPTION"] == text


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_is_speech_of_the_right_loudness(name: str) -> None:
    clip = prompt(name)
    assert clip.rate_hz == 16000
    assert 2000 <= clip.duration_ms <= 9000
    assert np.abs(clip.samples.astype(int)).max() < 32768 * 10 ** (-1 / 20)
    length = len(clip.samples) // 320 * 320
    level, tone = listen.classify(clip.samples[:length].reshape(-1, 320), clip.rate_hz)
    # -20 LUFS over the whole, pauses left out, is about -21 dBov in the frames that carry the voice.
    assert -26 < 10 * np.log10(np.mean(10 ** (level[level > -40] / 10))) < -17
    assert tone.mean() < 0.02
    # It begins and ends in silence, and soon.
    assert level[0] < -40
    assert level[-1] < -40
    assert np.flatnonzero(level > -40)[0] * 20 <= 160


def test_a_prompt_is_read_once_and_cannot_be_changed() -> None:
    clip = prompt("goodbye")
    assert prompt("goodbye") is clip
    np.testing.assert_array_equal(read_audio(FILES / "goodbye.flac")[0], clip.samples)
    with pytest.raises(ValueError, match="read-only"):
        clip.samples[0] = 1


def test_an_unknown_prompt_is_refused() -> None:
    for name in ("", "../prompts", "hello"):
        with pytest.raises(NotFoundError, match="there is no prompt"):
            prompt(name)


def test_the_beep_is_1000_hz_for_250_ms_without_clicks() -> None:
    clip = beep()
    assert clip.duration_ms == 250
    wave = clip.samples.astype(float)
    spectrum = np.abs(np.fft.rfft(wave))
    assert np.argmax(spectrum) * clip.rate_hz / len(wave) == pytest.approx(1000, abs=4)
    assert np.abs(wave).max() == pytest.approx(32767 * 10 ** (-10 / 20), rel=0.01)
    assert np.abs(wave[:4]).max() < 150
    assert np.abs(wave[-4:]).max() < 150
    share_beyond = np.sum(spectrum[600:] ** 2) / np.sum(spectrum**2)
    assert share_beyond < 1e-6
    assert not listen.classify(clip.samples[:3840].reshape(-1, 320), clip.rate_hz)[1].any()
