"""Properties of files and codecs: what is written is read, and no bytes make a reader fail in a way of its own."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aftertone.audio.codec import Decoder, encode, expected_samples
from aftertone.audio.flac import AudioTooLongError, NotAudioError, read_audio, read_tags, write_flac, write_wav
from aftertone.audio.samples import Samples, resample
from aftertone.model import Codec

rates = st.sampled_from([8000, 11025, 16000, 24000, 44100, 48000])
tag_names = st.text(st.characters(min_codepoint=0x41, max_codepoint=0x5A), min_size=1, max_size=12)
tag_values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=80)


@st.composite
def audio(draw: st.DrawFn, longest: int = 9000) -> Samples:
    """Noise, silence, extremes and slopes of any length."""
    count = draw(st.integers(0, longest))
    entropy = np.random.default_rng(draw(st.integers(0, 2**32)))
    match draw(st.sampled_from(["noise", "zero", "rails", "slope"])):
        case "noise":
            return entropy.integers(-32768, 32768, count).astype(np.int16)
        case "rails":
            return entropy.choice(np.array([-32768, 32767], np.int16), count)
        case "slope":
            return (np.arange(count) * draw(st.integers(1, 9))).astype(np.int16)
        case _:
            return np.zeros(count, np.int16)


@settings(max_examples=60, deadline=None)
@given(audio(), rates, st.dictionaries(tag_names, tag_values, max_size=4))
def test_flac_returns_samples_rate_and_tags_exactly(samples: Samples, rate_hz: int, tags: dict[str, str]) -> None:
    file = io.BytesIO()
    write_flac(file, samples, rate_hz, tags)
    again, again_hz = read_audio(file)
    np.testing.assert_array_equal(again, samples)
    assert again_hz == rate_hz
    assert read_tags(file) == tags


# Turned the WAV's format tag into one that FFmpeg has no codec for.
UNKNOWN_CODEC = np.array([-15206, 29630, 9431, 31470], np.int16)
SEVEN_SAMPLES = np.array([22978, 8975, 729, -15088, -12595, -30083, -27838], np.int16)


@settings(max_examples=30, deadline=None)
@example(SEVEN_SAMPLES, UNKNOWN_CODEC)
@given(audio(), audio())
def test_any_damage_is_an_error_of_ours_or_another_sound(samples: Samples, damage: Samples) -> None:
    for write in (write_flac, write_wav):
        file = io.BytesIO()
        write(file, samples, 8000)
        content = bytearray(file.getvalue())
        hits = damage.view(np.uint16)[:12].tolist()
        for position, value in zip(hits[::2], hits[1::2], strict=False):
            content[position % len(content)] = value & 0xFF
        try:
            again, rate_hz = read_audio(bytes(content), max_seconds=60)
        except (NotAudioError, AudioTooLongError):
            continue
        assert again.dtype == np.int16
        assert len(again) <= 60 * rate_hz


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from(list(Codec)))
def test_no_payload_makes_a_decoder_raise_or_change_its_length(payloads: list[bytes], codec: Codec) -> None:
    decoder = Decoder(codec)
    for payload in payloads:
        assert len(decoder.decode(payload)) == expected_samples(codec, payload)
    assert 0 <= decoder.corrupt <= len(payloads)


@settings(max_examples=30, deadline=None)
@given(audio(3000), rates, st.sampled_from(list(Codec)))
def test_any_audio_encodes_to_frames_that_all_decode(samples: Samples, rate_hz: int, codec: Codec) -> None:
    decoder = Decoder(codec)
    for payload in encode(codec, samples, rate_hz):
        decoder.decode(payload)
    assert decoder.corrupt == 0


@settings(max_examples=40, deadline=None)
@given(audio(6000), rates, rates)
def test_resampling_keeps_the_duration(samples: Samples, rate_hz: int, to_rate_hz: int) -> None:
    assert len(resample(samples, rate_hz, to_rate_hz)) == round(len(samples) * to_rate_hz / rate_hz)
