"""G.711 tables against the Recommendation's values and against FFmpeg, for every sample there is."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from av import AudioFrame, Packet
from av.audio.codeccontext import AudioCodecContext

from aftertone.audio import g711
from aftertone.audio.samples import Samples

EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
EVERY_CODE = np.arange(256, dtype=np.uint8)


def ffmpeg_encode(name: Literal["pcm_mulaw", "pcm_alaw"], samples: Samples) -> bytes:
    context = AudioCodecContext.create(name, "w")
    context.layout, context.format, context.sample_rate = "mono", "s16", 8000
    frame = AudioFrame.from_ndarray(samples[np.newaxis, :], format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def ffmpeg_decode(name: Literal["pcm_mulaw", "pcm_alaw"], codes: bytes) -> Samples:
    context = AudioCodecContext.create(name, "r")
    context.layout, context.sample_rate = "mono", 8000
    return np.concatenate([frame.to_ndarray()[0] for frame in context.decode(Packet(codes))])


@pytest.mark.parametrize(
    ("code", "ulaw", "alaw"),
    [(0x00, -32124, -5504), (0x80, 32124, 5504), (0xFF, 0, 848), (0x7F, 0, -848), (0xD5, 716, 8), (0x55, -716, -8)],
)
def test_codes_stand_for_the_values_of_the_recommendation(code: int, ulaw: int, alaw: int) -> None:
    assert (g711.ULAW_TO_LINEAR[code], g711.ALAW_TO_LINEAR[code]) == (ulaw, alaw)


def test_every_sample_and_every_code_agrees_with_ffmpeg() -> None:
    assert g711.encode_ulaw(EVERY_SAMPLE).tobytes() == ffmpeg_encode("pcm_mulaw", EVERY_SAMPLE)
    assert g711.encode_alaw(EVERY_SAMPLE).tobytes() == ffmpeg_encode("pcm_alaw", EVERY_SAMPLE)
    np.testing.assert_array_equal(g711.ULAW_TO_LINEAR, ffmpeg_decode("pcm_mulaw", EVERY_CODE.tobytes()))
    np.testing.assert_array_equal(g711.ALAW_TO_LINEAR, ffmpeg_decode("pcm_alaw", EVERY_CODE.tobytes()))


def test_codes_survive_the_way_there_and_back() -> None:
    assert (g711.ALAW_TO_LINEAR[0xAA], g711.ALAW_TO_LINEAR[0x2A]) == (32256, -32256)
    again = g711.encode_alaw(g711.ALAW_TO_LINEAR)
    np.testing.assert_array_equal(again, EVERY_CODE)
    # mu-law has two zeros; the negative one comes back as the positive.
    again = g711.encode_ulaw(g711.ULAW_TO_LINEAR)
    np.testing.assert_array_equal(again, np.where(EVERY_CODE == 0x7F, 0xFF, EVERY_CODE))


def test_shape_is_kept_and_tables_cannot_be_written() -> None:
    assert g711.encode_ulaw(np.zeros((3, 160), np.int16)).shape == (3, 160)
    assert g711.encode_alaw(EVERY_SAMPLE[::2]).tobytes() == g711.encode_alaw(EVERY_SAMPLE).tobytes()[::2]
    with pytest.raises(ValueError, match="read-only"):
        g711.ULAW_TO_LINEAR[0] = 1
