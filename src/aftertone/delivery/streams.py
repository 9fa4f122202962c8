"""Cuts the packets of a recording into streams within which sequence numbers and timestamps can be trusted.

Owns: the judgement which packets continue each other. Refuses to know: samples, decoding, where a stream is placed.

Specification: RFC 3550 section 5.1 for the fields and appendix A.1 for how far they may stray.

Theory of operation: packets are looked at once, in the order of their arrival. One continues the stream of its source when
its sequence number is near the one before, and when its timestamp either moved no further than so many packets can, or is
where the arrival times say. So a network that stalls for seconds and then delivers everything at once breaks nothing, a
long silence breaks nothing, and a timestamp that jumps by hours for no reason begins a new stream, which is placed by its
arrival. A source that comes back after another one spoke begins a new stream as well, or its words would be put in the
wrong order. Linear in the packets, whatever they claim.

Before that, timestamps that count at a rate of their own (twice the clock for G.722, not at all) are found by comparing, over
all neighbours, what they counted, what the payloads hold, and how long it took; they are then taken at the payloads' word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.delivery.meaning import CODECS
from aftertone.journal import PacketBatch
from aftertone.model import CLOCK_RATE_HZ, SAMPLE_RATE_HZ

FURTHEST_SEQUENCE: Final = 1000
"""Sequence numbers between neighbours in one stream at most: 20 s; RFC 3550 allows 3000 forwards and 100 backwards."""
LONGEST_PACKET_NS: Final = 250_000_000
"""How far a timestamp may move for each sequence number; Opus packets have 120 ms at most."""
ARRIVAL_TOLERANCE_NS: Final = 2_000_000_000
"""How far timestamps may run ahead of arrivals: jitter, a queue that overflowed, clocks that are 0.1 % off for half an hour."""
INTERRUPTION_NS: Final = 1_000_000_000
"""A source that was silent for so long while another one spoke begins anew."""

_PAIRS_TO_JUDGE: Final = 20
_NEVER_COUNTS: Final = 0.02


@dataclass(slots=True)
class Stream:
    """Packets that continue each other, of one source and one codec."""

    kind: int
    rows: list[int] = field(default_factory=list)
    """Rows of the batch in order of arrival, keys and comfort noise among them."""
    sequence: list[int] = field(default_factory=list)
    """Sequence number of each row, unwrapped."""
    ticks: list[int] = field(default_factory=list)
    """Timestamp of each row, unwrapped; that of the packet before where a row is no audio."""


@dataclass(slots=True)
class _Source:
    """The latest packet of one SSRC, and where its stream began."""

    stream: Stream
    sequence: int
    ticks: int
    arrival_ns: int
    first_ticks: int
    first_arrival_ns: int


def cut_streams(packets: PacketBatch, kind: NDArray[np.int8], ns_per_tick: NDArray[np.float64]) -> list[Stream]:
    """Return the streams in order of their first packets. Packets of unknown meaning that precede all audio are left out.

    ``kind`` is `Meanings.kind`, ``ns_per_tick`` what `tick_lengths` returned; all columns in order of arrival.
    """
    streams: list[Stream] = []
    sources: dict[int, _Source] = {}
    latest: _Source | None = None
    columns = (packets.ssrc, packets.sequence, packets.timestamp, packets.arrival_ns, kind, ns_per_tick)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for row, (ssrc, sequence, timestamp, arrival_ns, what, tick_ns) in enumerate(rows):
        source = sources.get(ssrc)
        if what < 0:
            if source is not None:
                _count_only(source, row, sequence)
            continue
        if source is not None and _continues(source, sequence, timestamp, arrival_ns, what, tick_ns, source is latest):
            source.sequence += _wrapped(sequence - source.sequence, 16)
            source.ticks += _wrapped(timestamp - source.ticks, 32)
            source.arrival_ns = arrival_ns
        else:
            stream = Stream(what)
            streams.append(stream)
            source = sources[ssrc] = _Source(stream, sequence, timestamp, arrival_ns, timestamp, arrival_ns)
        source.stream.rows.append(row)
        source.stream.sequence.append(source.sequence)
        source.stream.ticks.append(source.ticks)
        latest = source
    return streams


def _continues(
    source: _Source,
    sequence: int,
    timestamp: int,
    arrival_ns: int,
    kind: int,
    tick_ns: float,
    uninterrupted: bool,
) -> bool:
    if kind != source.stream.kind:
        return False
    if not uninterrupted and arrival_ns - source.arrival_ns > INTERRUPTION_NS:
        return False
    packets = _wrapped(sequence - source.sequence, 16)
    if abs(packets) > FURTHEST_SEQUENCE:
        return False
    moved = _wrapped(timestamp - source.ticks, 32)
    waited_ns = max(0, arrival_ns - source.arrival_ns)
    if abs(moved) * tick_ns <= min(max(abs(packets), 1) * LONGEST_PACKET_NS, waited_ns + ARRIVAL_TOLERANCE_NS):
        return True
    told_ns = (source.ticks + moved - source.first_ticks) * tick_ns
    return abs(told_ns - (arrival_ns - source.first_arrival_ns)) <= ARRIVAL_TOLERANCE_NS


def _count_only(source: _Source, row: int, sequence: int) -> None:
    """Note that a sequence number was used for something that is no audio."""
    step = _wrapped(sequence - source.sequence, 16)
    if abs(step) > FURTHEST_SEQUENCE:
        return
    source.stream.rows.append(row)
    source.stream.sequence.append(source.sequence + step)
    source.stream.ticks.append(source.ticks)
    source.sequence = max(source.sequence, source.sequence + step)


def _wrapped(step: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return ((step + half) & ((1 << bits) - 1)) - half


def tick_lengths(
    packets: PacketBatch, kind: NDArray[np.int8], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return how many nanoseconds a timestamp tick of each packet stands for, 0 where timestamps do not count at all.

    ``lengths`` is the number of samples in each packet. Also returns a note for each source whose timestamps count at a
    rate of their own.
    """
    clock = np.array([CLOCK_RATE_HZ[codec] for codec in CODECS], np.float64)
    rate = np.array([SAMPLE_RATE_HZ[codec] for codec in CODECS], np.float64)
    known = np.maximum(kind, 0)
    ns_per_tick = 1e9 / clock[known]
    order = np.flatnonzero(kind >= 0)
    order = order[np.argsort(packets.ssrc[order], kind="stable")]
    first, second = order[:-1], order[1:]
    neighbours = (packets.ssrc[first] == packets.ssrc[second]) & (kind[first] == kind[second])
    neighbours &= np.diff(packets.sequence[order]).view(np.int16) == 1
    first, second = first[neighbours], second[neighbours]
    counted = np.diff(packets.timestamp[order]).view(np.int32)[neighbours] * ns_per_tick[first]
    held = lengths[first] * 1e9 / rate[known[first]]
    took = (packets.arrival_ns[second] - packets.arrival_ns[first]).astype(np.float64)
    notes: list[str] = []
    starts = np.flatnonzero(np.diff(packets.ssrc[first], prepend=np.uint32(0)) != 0)
    for start, end in zip([0, *starts.tolist()], [*starts.tolist(), len(first)], strict=True):
        pace = _pace(counted[start:end], held[start:end], took[start:end])
        if pace is not None:
            mine = packets.ssrc == packets.ssrc[first[start]]
            ns_per_tick[mine] = 0.0 if pace < _NEVER_COUNTS else ns_per_tick[mine] / pace
            notes.append(f"the timestamps of the peer counted {pace:.2g} times as fast as agreed")
    return ns_per_tick, tuple(notes[:10])


def _pace(counted: NDArray[np.float64], held: NDArray[np.float64], took: NDArray[np.float64]) -> float | None:
    """Return how fast timestamps count where it is not as agreed, else None."""
    if len(counted) < _PAIRS_TO_JUDGE:
        return None
    ratios = counted / np.maximum(held, 1.0)
    pace = float(np.median(ratios))
    agreeing = np.abs(ratios - pace) <= 0.05 * max(abs(pace), 0.2)
    if abs(pace - 1) <= 0.25 or pace < -_NEVER_COUNTS or np.mean(agreeing) < 0.8:
        return None
    # With pauses between packets (DTX) timestamps rightly count more than the packets hold; then the arrivals do so too.
    told = abs(float(took.sum() - counted.sum())) < abs(float(took.sum() - held.sum()))
    return None if told else max(pace, 0.0)
