"""The ear: which packets are heard."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.audio.g711 import encode_ulaw
from aftertone.audio.watch import SoundWatch
from aftertone.media.ear import Ear
from aftertone.media.table import Stream, Table
from aftertone.model import Codec
from aftertone.rtp.batch import parse
from aftertone.rtp.packet import serialize

MS_NS = 1_000_000
BEGAN_NS = 1_000 * MS_NS


def listen(frame_ms: int, count: int, *, hertz: float = 0.0) -> SoundWatch:
    """Return the watch after ``count`` loud packets of PCMU on one row: noise (0 Hz) or a tone."""
    table, watch = Table(1), SoundWatch(1)
    table.agree(0, Stream(Codec.PCMU, 0, (0,)))
    ear = Ear(table, watch)
    ear.reset(0)
    size = frame_ms * 8
    at = np.arange(count * size)
    noise = np.random.default_rng(1).normal(0, 6000, len(at))
    wave = 8000 * np.sin(2 * np.pi * hertz * at / 8000) if hertz else noise
    sound = encode_ulaw(np.clip(wave, -32768, 32767).astype(np.int16)).tobytes()
    arena = np.zeros((count, 1536), np.uint8)
    lengths = np.full(count, 12 + size, np.int32)
    for number in range(count):
        packet = serialize(0, number + 1, number * size, 7, sound[number * size : (number + 1) * size])
        arena[number, : len(packet)] = np.frombuffer(packet, np.uint8)
    rows = np.arange(count)
    arrived = BEGAN_NS + rows.astype(np.int64) * frame_ms * MS_NS
    ear.listen(arena, parse(arena, lengths), np.zeros(count, np.intp), rows, arrived)
    return watch


@pytest.mark.parametrize("frame_ms", [10, 20, 30, 40, 60, 90])
def test_sound_is_heard_to_its_last_two_packets_whatever_their_length(frame_ms: int) -> None:
    watch = listen(frame_ms, 9)
    last_ns = BEGAN_NS + 8 * frame_ms * MS_NS
    assert last_ns - frame_ms * MS_NS <= watch.last_sound_ns[0] <= last_ns


@pytest.mark.parametrize("frame_ms", [10, 20, 30, 40, 60])
def test_a_tone_is_known_after_a_fraction_of_a_second(frame_ms: int) -> None:
    watch = listen(frame_ms, 300 // frame_ms, hertz=425.0)
    assert 0 < watch.tone_since_ns[0] <= BEGAN_NS + frame_ms * MS_NS
    assert watch.last_sound_ns[0] == 0


def test_one_packet_alone_is_no_sound() -> None:
    assert listen(20, 1).last_sound_ns[0] == 0
