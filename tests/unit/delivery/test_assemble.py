"""Packets become audio: order, loss, pauses, sources and codecs that change, timestamps that lie."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from aftertone.audio.codec import decode
from aftertone.delivery.assemble import Assembled, assemble
from aftertone.journal import End, Event
from aftertone.model import CLOCK_RATE_HZ, SAMPLE_RATE_HZ, Codec, EndReason, PayloadType
from tests.support.recordings import FRAME_NS, SECOND_NS, Row, a_batch, an_envelope, rows_of, spoil, with_types


def _assemble(rows: list[Row], codec: Codec = Codec.PCMU, end: End | None = None) -> Assembled:
    return assemble(an_envelope(codec), a_batch(rows), end)


@pytest.mark.parametrize("codec", list(Codec))
def test_a_clean_recording_is_what_was_sent(codec: Codec) -> None:
    rows = rows_of(codec)
    found = _assemble(rows, codec)
    assert np.array_equal(found.samples, decode(codec, [row[5] for row in rows]))
    assert (found.rate_hz, found.audio_ms, found.duration_ms) == (SAMPLE_RATE_HZ[codec], 2000, 2000)
    assert (found.lost_packets, found.concealed_ms, found.notes, found.codec) == (0, 0, (), codec.value)
    assert not found.keep_packets


@pytest.mark.parametrize("codec", list(Codec))
def test_duplicates_and_order_change_nothing(codec: Codec) -> None:
    clean = _assemble(rows_of(codec), codec)
    spoiled = _assemble(spoil(rows_of(codec), 2, lost=0, doubled=0.3, moved=0.3), codec)
    assert np.array_equal(spoiled.samples, clean.samples)
    assert (spoiled.lost_packets, spoiled.notes, spoiled.packets) == (0, (), 100)


@pytest.mark.parametrize("codec", list(Codec))
def test_loss_keeps_the_length_and_is_concealed(codec: Codec) -> None:
    rows = rows_of(codec)
    kept = [row for index, row in enumerate(rows) if index not in (10, 40, 41, 42, 80)]
    clean, found = _assemble(rows, codec), _assemble(kept, codec)
    assert len(found.samples) == len(clean.samples)
    assert (found.lost_packets, found.concealed_ms) == (5, 100)
    per_packet = len(clean.samples) // 100
    hole = found.samples[41 * per_packet : 42 * per_packet].astype(np.int32)
    assert np.abs(hole).max() > 2000
    if codec in (Codec.PCMU, Codec.PCMA):
        same = np.ones(100, bool)
        same[[10, 40, 41, 42, 80]] = False
        rows_found, rows_clean = found.samples.reshape(100, -1), clean.samples.reshape(100, -1)
        assert np.array_equal(rows_found[same], rows_clean[same])


def test_a_pause_of_the_sender_is_silence_of_its_length() -> None:
    rows = rows_of()
    resumed = [
        (row[0] + 3 * SECOND_NS, row[1], (row[2] + 3 * 8000) & 0xFFFFFFFF, *row[3:]) if index >= 50 else row
        for index, row in enumerate(rows)
    ]
    found = _assemble(resumed)
    assert (found.audio_ms, found.lost_packets) == (5000, 0)
    assert not found.samples[8000:32_000].any()
    assert np.array_equal(found.samples[32_000:], _assemble(rows).samples[8000:])


def test_a_pause_is_as_long_as_the_sender_says_and_not_as_the_network_makes_it() -> None:
    rows = rows_of()
    late = [
        (row[0] + 3 * SECOND_NS + (60_000_000 if index == 50 else 0), row[1], (row[2] + 24_000) & 0xFFFFFFFF, *row[3:])
        if index >= 50
        else row
        for index, row in enumerate(rows)
    ]
    assert _assemble(sorted(late)).audio_ms == 5000


def test_a_sender_that_hardly_ever_sends_is_believed() -> None:
    """Opus in silence: one packet of 20 ms each 400 ms, as its timestamps and its arrivals both say."""
    rows = [
        (SECOND_NS + index * 400_000_000, index, index * 19_200, 1, 111, row[5])
        for index, row in enumerate(rows_of(Codec.OPUS, 1.0))
    ]
    found = _assemble(rows, Codec.OPUS)
    assert (found.audio_ms, found.lost_packets, found.notes) == (49 * 400 + 20, 0, ())


def test_keys_and_comfort_noise_are_no_loss_and_no_sound() -> None:
    rows = rows_of(sequence=100)
    keyed = [
        (row[0], row[1], row[2], row[3], 101 if index < 35 else 13, b"\x05\x0a\x00\xa0") if 30 <= index < 40 else row
        for index, row in enumerate(rows)
    ]
    found = _assemble(keyed)
    assert (found.audio_ms, found.lost_packets, found.packets) == (2000, 0, 90)
    assert not found.samples[30 * 160 : 40 * 160].any()
    assert found.notes == ()


def test_a_source_that_changes_goes_on_where_its_packets_arrive() -> None:
    first = rows_of(seconds=1.0, ssrc=1)
    second = rows_of(seconds=1.0, ssrc=2, sequence=7, timestamp=12345, start_ns=SECOND_NS + 1_500_000_000)
    found = _assemble(first + second)
    assert (found.audio_ms, found.lost_packets) == (2500, 0)
    assert not found.samples[8000:12_000].any()
    assert found.samples[12_100:].any()


def test_sources_that_overlap_follow_each_other() -> None:
    first = rows_of(seconds=1.0, ssrc=1)
    second = rows_of(seconds=1.0, ssrc=2, start_ns=SECOND_NS + 900_000_000)
    found = _assemble(sorted(first + second))
    assert found.audio_ms == 2000
    assert found.packets == 100


def test_a_source_that_comes_back_keeps_its_place() -> None:
    rows = rows_of(seconds=6.0, ssrc=1)
    between = rows_of(seconds=2.0, ssrc=2, start_ns=SECOND_NS + 2 * SECOND_NS)
    found = _assemble(rows[:100] + between + rows[200:])
    assert found.audio_ms == 6000
    assert found.lost_packets == 0
    assert found.packets == 300


def test_timestamps_that_jump_by_hours_are_placed_by_arrival() -> None:
    rows = rows_of()
    jumped = [
        (row[0], row[1], (row[2] + 90_000_000) & 0xFFFFFFFF, *row[3:]) if i >= 50 else row for i, row in enumerate(rows)
    ]
    found = _assemble(jumped)
    assert found.audio_ms == 2000
    assert np.array_equal(found.samples, _assemble(rows).samples)


def test_a_sender_that_starts_again_with_the_same_source() -> None:
    first = rows_of(seconds=1.0)
    second = rows_of(seconds=1.0, sequence=31_000, timestamp=77, start_ns=SECOND_NS + 1_200_000_000)
    found = _assemble(first + second)
    assert (found.audio_ms, found.lost_packets) == (2200, 0)


@pytest.mark.parametrize(("pace", "codec"), [(0, Codec.PCMU), (2, Codec.G722), (0.5, Codec.PCMU), (6, Codec.PCMA)])
def test_timestamps_that_count_at_a_rate_of_their_own(pace: float, codec: Codec) -> None:
    rows = [(*row[:2], int(1000 + pace * 160 * i), *row[3:]) for i, row in enumerate(rows_of(codec))]
    found = _assemble(spoil(rows, 3), codec)
    assert found.audio_ms == 2000
    assert found.lost_packets == 100 - found.packets > 0
    assert any("counted" in note for note in found.notes)


def test_a_network_that_stalls_and_bursts_breaks_nothing() -> None:
    rows = rows_of(seconds=6.0)
    stalled = [(max(row[0], SECOND_NS + 5 * SECOND_NS), *row[1:]) if i >= 20 else row for i, row in enumerate(rows)]
    found = _assemble(stalled)
    assert (found.audio_ms, found.lost_packets) == (6000, 0)
    assert np.array_equal(found.samples, _assemble(rows).samples)


def test_an_outage_is_silent_and_as_long_as_it_was() -> None:
    rows = rows_of(seconds=10.0)
    found = _assemble(rows[:100] + rows[400:])
    assert (found.audio_ms, found.lost_packets, found.concealed_ms) == (10_000, 300, 120)


def test_a_codec_that_changes_keeps_the_better_rate() -> None:
    first = rows_of(Codec.PCMU, 1.0)
    second = rows_of(Codec.OPUS, 1.0, start_ns=2 * SECOND_NS, ssrc=9)
    found = _assemble(first + second)
    assert (found.rate_hz, found.audio_ms) == (48_000, 2000)
    assert found.notes == ("the codec changed during the call (PCMU, opus)",)
    same_source = [(row[0], row[1], row[2], 0xC0FFEE, *row[4:]) for row in second]
    assert _assemble(first + same_source).audio_ms == 2000


def test_numbers_mean_what_was_agreed_when_they_arrived() -> None:
    detail = json.dumps({"codec": "G722", "payload_types": [[100, "G722", 8000]]})
    events = [Event(7, 2 * SECOND_NS, "media", detail), Event(7, 5, "media", "{broken"), Event(7, 5, "digit", "4")]
    envelope = with_types(an_envelope(), PayloadType(100, "PCMA", 8000))
    first = [(*row[:4], 100, row[5]) for row in rows_of(Codec.PCMA, 1.0)]
    second = [(*row[:4], 100, row[5]) for row in rows_of(Codec.G722, 1.0, ssrc=5, start_ns=2 * SECOND_NS)]
    found = assemble(envelope, a_batch(first + second), None, events)
    assert (found.rate_hz, found.audio_ms, found.digits) == (16_000, 2000, "4")
    late_offer = assemble(with_types(an_envelope()), a_batch(second), None, events)
    assert (late_offer.rate_hz, late_offer.audio_ms) == (16_000, 1000)


def test_a_number_that_was_never_agreed_is_taken_for_the_codec_of_the_call() -> None:
    rows = [(*row[:4], 96, row[5]) for row in rows_of(Codec.OPUS, 1.0)]
    found = _assemble(rows, Codec.OPUS)
    assert found.audio_ms == 1000
    assert found.keep_packets
    assert found.notes == ("payload type 96 was never agreed and was taken for opus",)


def test_static_numbers_need_no_description() -> None:
    found = assemble(with_types(an_envelope()), a_batch(rows_of(Codec.PCMA, 1.0)), None)
    assert (found.audio_ms, found.notes) == (1000, ())


def test_some_packets_that_nobody_understands_are_noted_and_kept() -> None:
    rows = [(*row[:4], 77, row[5]) if i % 10 == 5 else row for i, row in enumerate(rows_of(seconds=1.0))]
    found = _assemble(rows)
    assert (found.audio_ms, found.packets, found.lost_packets) == (1000, 45, 0)
    assert found.keep_packets
    assert found.notes == ("packets that nobody agreed on were not played: 5 of type 77",)


def test_opus_that_is_no_opus_is_silence_of_the_right_length() -> None:
    rows = [(*row[:5], b"\x78\xff\xff" + bytes(9)) for row in rows_of(Codec.OPUS, 1.0)]
    broken = [(*row[:5], b"") for row in rows]
    found = _assemble(broken, Codec.OPUS)
    assert found.undecodable
    assert found.keep_packets
    assert found.audio_ms == 1000


def test_the_last_sound_ends_the_message_but_not_the_audio() -> None:
    rows = rows_of()
    for heard, duration_ms in ((0, 2000), (rows[49][0], 1000), (rows[49][0] + 1, 1000), (1, 0), (rows[-1][0], 2000)):
        found = _assemble(rows, end=End(7, 0, 0, EndReason.SILENCE, heard))
        assert (found.duration_ms, found.audio_ms) == (duration_ms, 2000)


def test_nothing_at_all() -> None:
    found = _assemble([], Codec.OPUS)
    assert (len(found.samples), found.rate_hz, found.codec, found.undecodable) == (0, 48_000, "opus", False)
    keys = [(*row[:4], 101, b"\x01\x8a\x03\x20") for row in rows_of(seconds=0.2)]
    assert len(_assemble(keys).samples) == 0
    assert not _assemble(keys).undecodable
    nameless = assemble(replace(an_envelope(), codec="EVRC"), a_batch([]), None)
    assert nameless.rate_hz == 8000


def test_a_lie_in_every_packet_costs_no_memory() -> None:
    rows = [(*row[:2], (i * 2**27) & 0xFFFFFFFF, *row[3:]) for i, row in enumerate(rows_of())]
    assert _assemble(rows).audio_ms == 2000
    drifting = [(*row[:2], (i * 8000 * (i % 3)) & 0xFFFFFFFF, *row[3:]) for i, row in enumerate(rows_of())]
    assert _assemble(drifting).audio_ms <= 65_000


def test_packets_that_claim_more_time_than_the_call_took_are_left_out() -> None:
    long_opus = bytes([(11 << 3) | 3, 2]) + bytes(20)  # two frames of 60 ms, it says
    rows = [(SECOND_NS + i * 1_000_000, i, i * 5760, 1, 111, long_opus) for i in range(1200)]
    found = _assemble(rows, Codec.OPUS)
    assert found.audio_ms <= 62_500
    assert found.keep_packets
    assert any("claimed more time" in note for note in found.notes)


def test_arrivals_that_go_backwards_are_survived() -> None:
    rows = [(10 * SECOND_NS - row[0], *row[1:]) for row in rows_of()]
    assert _assemble(rows).audio_ms == 2000
    assert _assemble(rows + rows_of(ssrc=3, start_ns=FRAME_NS)).audio_ms >= 4000


@pytest.mark.parametrize("codec", list(Codec))
def test_suppressed_silence_is_silence_of_its_length_and_no_loss(codec: Codec) -> None:
    """Numbers go on, timestamps jump by the silence, and comfort noise says now and then that somebody is there."""
    rows, pause_ns = rows_of(codec), 7 * SECOND_NS
    clock = CLOCK_RATE_HZ[codec]
    before, after = rows[:50], rows[50:]
    noises: list[Row] = []
    if clock == 8000:
        arrival_ns, sequence, timestamp, ssrc = before[-1][:4]
        for at in range(3):
            ticks = timestamp + at * clock & 0xFFFFFFFF
            noises.append((arrival_ns + at * SECOND_NS, sequence + 1 + at & 0xFFFF, ticks, ssrc, 13, b"\x46"))
    resumed = [
        (row[0] + pause_ns, row[1] + len(noises) & 0xFFFF, row[2] + 7 * clock & 0xFFFFFFFF, *row[3:]) for row in after
    ]
    found = _assemble([*before, *noises, *resumed], codec)
    rate_hz = SAMPLE_RATE_HZ[codec]
    assert (found.audio_ms, found.lost_packets, found.notes) == (9000, 0, ())
    assert not found.samples[rate_hz : 8 * rate_hz].any()
    assert found.samples[: rate_hz // 2].any()
    assert found.samples[-rate_hz // 2 :].any()


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA, Codec.G722])
def test_packets_may_change_their_length_at_any_time(codec: Codec) -> None:
    rows = rows_of(codec)
    clean = _assemble(rows, codec)
    run = b"".join(row[5] for row in rows)
    changed: list[Row] = []
    at = 0
    for number, length_ms in enumerate(itertools.chain((10, 60, 20, 30, 40, 10), itertools.cycle((30, 20, 60)))):
        payload = run[at * 8 : (at + length_ms) * 8]
        if not payload:
            break
        arrival_ns = SECOND_NS + (at + length_ms) * 1_000_000
        timestamp = rows[0][2] + at * 8 & 0xFFFFFFFF
        changed.append((arrival_ns, rows[0][1] + number & 0xFFFF, timestamp, *rows[0][3:5], payload))
        at += length_ms
    found = _assemble(changed, codec)
    assert np.array_equal(found.samples, clean.samples)
    assert (found.lost_packets, found.concealed_ms, found.notes) == (0, 0, ())
