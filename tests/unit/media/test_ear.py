"""The ear: which packets are heard."""

from __future__ import annotations

import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext

from aftertone.audio.codec import encode
from aftertone.audio.g711 import encode_ulaw
from aftertone.audio.packing import pack_frames
from aftertone.audio.samples import to_frame
from aftertone.audio.watch import SoundWatch
from aftertone.media.ear import Ear
from aftertone.media.table import Stream, Table
from aftertone.model import SAMPLE_RATE_HZ, Codec
from aftertone.rtp.batch import parse
from aftertone.rtp.packet import serialize
from tests.support.recordings import voiced

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


@pytest.mark.parametrize("codec", [Codec.G722, Codec.OPUS])
@pytest.mark.parametrize("frame_ms", [10, 20, 40, 60, 120])
def test_sound_that_must_be_decoded_is_heard_whatever_the_packets_hold(codec: Codec, frame_ms: int) -> None:
    """Each moment that sound is known of lies less than the watch's 100 ms, or a packet, before the last."""
    rate_hz = SAMPLE_RATE_HZ[codec]
    table, watch = Table(1), SoundWatch(1)
    table.agree(0, Stream(codec, 111, (111,)))
    ear = Ear(table, watch)
    ear.reset(0)
    frames = encode(codec, voiced(2.0, rate_hz), rate_hz)
    packets = list(pack_frames(codec, frames, frame_ms)) if codec is Codec.G722 else opus_packets(frame_ms)
    arrived_ns = BEGAN_NS
    for number, payload in enumerate(packets):
        packet = serialize(111, number + 1, number * 160, 7, payload)
        arena = np.frombuffer(packet.ljust(1536, b"\0"), np.uint8).reshape(1, -1)
        arrived_ns += frame_ms * MS_NS
        headers = parse(arena, np.array([len(packet)], np.int32))
        ear.listen(arena, headers, np.zeros(1, np.intp), np.zeros(1, np.intp), np.array([arrived_ns]))
        if arrived_ns - BEGAN_NS > 400 * MS_NS:
            assert arrived_ns - watch.last_sound_ns[0] <= max(100, frame_ms) * MS_NS


def opus_packets(frame_ms: int) -> list[bytes]:
    """Return Opus packets of one mode: of any length, as a peer's encoder makes them (RFC 6716 section 3.2.5)."""
    context = AudioCodecContext.create("libopus", "w")
    context.layout, context.format, context.sample_rate = "mono", "s16", 48_000
    context.options = {"frame_duration": str(frame_ms), "vbr": "on"}
    packets: list[bytes] = []
    for at, row in enumerate(voiced(2.4, 48_000).reshape(-1, 48 * frame_ms)):
        frame = to_frame(row, 48_000)
        frame.pts = at * len(row)
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets


def test_a_click_in_a_long_packet_is_no_sound() -> None:
    table, watch = Table(1), SoundWatch(1)
    table.agree(0, Stream(Codec.PCMU, 0, (0,)))
    wave = np.zeros(480, np.int16)
    wave[200:230] = 20_000
    packet = serialize(0, 1, 0, 7, encode_ulaw(wave).tobytes())
    arena = np.frombuffer(packet.ljust(1536, b"\0"), np.uint8).reshape(1, -1)
    headers = parse(arena, np.array([len(packet)], np.int32))
    Ear(table, watch).listen(arena, headers, np.zeros(1, np.intp), np.zeros(1, np.intp), np.array([BEGAN_NS]))
    assert watch.last_sound_ns[0] == 0


def test_one_packet_alone_is_no_sound() -> None:
    assert listen(20, 1).last_sound_ns[0] == 0
