"""Recordings as the journal holds them: packets of a call, with whatever a network does to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.codec import encode, ticks_per_frame
from aftertone.journal import PacketBatch
from aftertone.model import CLOCK_RATE_HZ, SAMPLE_RATE_HZ, Caller, Codec, Envelope, PayloadType, mint_id

SECOND_NS = 1_000_000_000
FRAME_NS = 20_000_000
NUMBERS = {Codec.PCMU: 0, Codec.PCMA: 8, Codec.G722: 9, Codec.OPUS: 111}
EVENTS = PayloadType(101, "telephone-event", 8000)

Row = tuple[int, int, int, int, int, bytes]
"""Arrival, sequence, timestamp, SSRC, payload type, payload."""


def an_envelope(codec: Codec = Codec.PCMU, seed: int = 1, mailbox: str = "main") -> Envelope:
    """Return the envelope of a call that agreed on every codec and on keys."""
    types = tuple(PayloadType(number, codec.value, CLOCK_RATE_HZ[codec]) for codec, number in NUMBERS.items())
    return Envelope(
        id=mint_id(1_750_000_000_000 + seed, random.Random(seed).randbytes(10)),
        mailbox=mailbox,
        caller=Caller("+15550100", "Ada"),
        started_unix_ms=1_750_000_000_000 + seed,
        codec=codec.value,
        payload_types=(*types, EVENTS),
        mailbox_reason="default mailbox",
        call_id=f"call-{seed}",
        request_uri="sip:main@example.com",
        peer="192.0.2.1:5060",
    )


@cache
def voiced(seconds: float, rate_hz: int, pitch_hz: float = 117.0) -> NDArray[np.int16]:
    """Return something like a vowel: harmonics of one pitch, steady."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = np.zeros(len(time_s))
    for harmonic in range(1, min(8, int(3500 / pitch_hz)) + 1):
        wave += np.sin(2 * np.pi * pitch_hz * harmonic * time_s + harmonic**2) / harmonic
    loudest = float(np.abs(wave).max())
    return (wave * (10_000 / loudest)).astype(np.int16)


@cache
def _frames(codec: Codec, seconds: float) -> tuple[bytes, ...]:
    rate_hz = SAMPLE_RATE_HZ[codec]
    return tuple(encode(codec, voiced(seconds, rate_hz), rate_hz)[: round(seconds * 50)])


def rows_of(
    codec: Codec = Codec.PCMU,
    seconds: float = 2.0,
    *,
    sequence: int = 65_500,
    timestamp: int = 2**32 - 4_000,
    ssrc: int = 0xC0FFEE,
    start_ns: int = SECOND_NS,
) -> list[Row]:
    """Return the packets of one clean stream; both counters wrap on the way by default."""
    ticks = ticks_per_frame(codec)
    return [
        (
            start_ns + index * FRAME_NS,
            (sequence + index) & 0xFFFF,
            (timestamp + index * ticks) & 0xFFFFFFFF,
            ssrc,
            NUMBERS[codec],
            frame,
        )
        for index, frame in enumerate(_frames(codec, seconds))
    ]


def a_batch(rows: Sequence[Row], call: int = 7) -> PacketBatch:
    """Return rows as a batch, in the order given."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    arrival, sequence, timestamp, ssrc, number, payloads = columns
    return PacketBatch(
        call=np.full(len(rows), call, np.uint32),
        arrival_ns=np.array(arrival, np.int64),
        sequence=np.array(sequence, np.uint16),
        timestamp=np.array(timestamp, np.uint32),
        ssrc=np.array(ssrc, np.uint32),
        payload_type=np.array(number, np.uint8),
        marker=np.zeros(len(rows), np.uint8),
        length=np.array([len(payload) for payload in payloads], np.uint16),
        payloads=b"".join(payloads),
    )


def spoil(
    rows: Sequence[Row], seed: int, *, lost: float = 0.05, doubled: float = 0.05, moved: float = 0.05
) -> list[Row]:
    """Lose, double and reorder packets, but never lose the first or the last; arrivals stay in order."""
    chance = random.Random(seed)
    kept = [row for index, row in enumerate(rows) if index in (0, len(rows) - 1) or chance.random() >= lost]
    kept += [row for row in kept if chance.random() < doubled]
    late = [(row[0] + (chance.randrange(3 * FRAME_NS) if chance.random() < moved else 0), row) for row in kept]
    return [(arrival_ns, *row[1:]) for arrival_ns, row in sorted(late, key=lambda item: item[0])]


def with_types(envelope: Envelope, *types: PayloadType) -> Envelope:
    """Return the envelope with other payload types."""
    return replace(envelope, payload_types=types)
