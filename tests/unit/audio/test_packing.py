"""Frames cut and joined into packets of the length that a peer wants."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.audio.codec import decode, encode
from aftertone.audio.packing import pack_frames, packet_ms
from aftertone.model import SAMPLE_RATE_HZ, Codec

CUT = (Codec.PCMU, Codec.PCMA, Codec.G722)


@pytest.mark.parametrize("codec", CUT)
@pytest.mark.parametrize("length_ms", [10, 20, 30, 40, 50, 60])
def test_the_sound_is_the_same_in_packets_of_any_length(codec: Codec, length_ms: int) -> None:
    rate_hz = SAMPLE_RATE_HZ[codec]
    wave = (9000 * np.sin(np.arange(rate_hz) / 7)).astype(np.int16)
    frames = encode(codec, wave, rate_hz)
    packets = pack_frames(codec, frames, length_ms)
    assert {len(packet) for packet in packets[:-1]} == {8 * length_ms}
    assert 0 < len(packets[-1]) <= 8 * length_ms
    assert np.array_equal(decode(codec, packets), decode(codec, frames))


def test_opus_keeps_its_frames() -> None:
    assert packet_ms(Codec.OPUS, 60) == 20
    assert pack_frames(Codec.OPUS, [b"a", b"b"], 20) == (b"a", b"b")
    with pytest.raises(ValueError, match="60 ms"):
        pack_frames(Codec.OPUS, [b"a"], 60)


def test_no_clip_is_no_packets() -> None:
    assert pack_frames(Codec.PCMU, [], 60) == ()
