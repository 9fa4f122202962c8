"""Clips: loaded from files, encoded once per codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aftertone.audio.clips import Clip, encode_clip, load_clip
from aftertone.audio.codec import decode
from aftertone.audio.flac import AudioTooLongError, write_wav
from aftertone.errors import NotFoundError
from aftertone.model import SAMPLE_RATE_HZ, Codec

TONE = (9000 * np.sin(2 * np.pi * 440 * np.arange(12000) / 16000)).astype(np.int16)


@pytest.mark.parametrize("codec", list(Codec))
def test_a_clip_is_encoded_in_frames_of_20_ms(codec: Codec) -> None:
    encoded = encode_clip(Clip("hello", TONE, 16000), codec)
    assert (encoded.name, encoded.codec) == ("hello", codec)
    assert encoded.ticks_per_frame == (960 if codec is Codec.OPUS else 160)
    assert encoded.duration_ms == 20 * len(encoded.frames)
    assert 760 <= encoded.duration_ms <= 780
    heard = decode(codec, encoded.frames)
    assert len(heard) == len(encoded.frames) * SAMPLE_RATE_HZ[codec] // 50
    assert 8000 < np.abs(heard[: SAMPLE_RATE_HZ[codec] // 2]).max() < 10000


def test_an_owners_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.wav"
    write_wav(path, TONE, 16000)
    clip = load_clip(path)
    assert (clip.name, clip.rate_hz, clip.duration_ms) == ("mine", 16000, 750)
    np.testing.assert_array_equal(clip.samples, TONE)
    assert load_clip(path, name="greeting").name == "greeting"


def test_what_cannot_be_a_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no\.wav"):
        load_clip(tmp_path / "no.wav")
    write_wav(tmp_path / "long.wav", np.zeros(8000 * 3, np.int16), 8000)
    with pytest.raises(AudioTooLongError, match="longer than 2 seconds"):
        load_clip(tmp_path / "long.wav", max_seconds=2)
    with pytest.raises(ValueError, match="sampling rate"):
        Clip("odd", TONE, 1)
