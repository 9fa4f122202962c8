"""Assembly: the packets of one recording become one piece of audio.

Owns: order, duplicates, gaps, decoding, and where on the time line each packet belongs. Refuses to know: files, the catalog,
the clock; it is a pure function of what the journal holds.

Specification: RFC 3550 for sequence numbers and timestamps; the time line is described in docs/storage.md.

Theory of operation: ``streams`` cuts the packets into streams; within one, packets are ordered by sequence number, the first
copy of each is kept, and timestamps say where it begins. A packet that would begin before the end of the one before is
pushed behind it; nothing received is ever cut or overlaid. A gap with missing sequence numbers was loss and is concealed; a
gap without was the sender's silence. A stream is decoded in order by one decoder, so a loss inside costs a stateful codec no
more than it must. Streams follow each other by arrival, again pushed rather than overlaid.

The recording has the highest sample rate of the codecs in it, so nothing is lost when a call changes codec.

Bounds: the audio is never longer than twice the time that the packets took to arrive plus a minute, whatever timestamps or
lengths a peer claims. Memory is about three times the audio (two bytes a sample): 180 MB for ten minutes of Opus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.audio.codec import Decoder, decode, expected_samples
from aftertone.audio.samples import Samples, resample
from aftertone.delivery.conceal import conceal, concealed_samples
from aftertone.delivery.holds import hold_spans
from aftertone.delivery.meaning import CODECS, NO_AUDIO, UNKNOWN, read_meanings
from aftertone.delivery.quality import jitter_ms
from aftertone.delivery.streams import Stream, cut_streams, tick_lengths
from aftertone.journal import End, Event, PacketBatch
from aftertone.model import SAMPLE_RATE_HZ, Codec, Envelope

SPARE_NS: Final = 60_000_000_000
"""Audio beyond twice the time it took to arrive that is accepted: what a stalled network may deliver at once."""

JITTER_MS: Final = 10
"""A gap shorter than this without missing packets is a sender's sloppy clock and is smoothed over."""


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """One recording as audio."""

    samples: Samples
    rate_hz: int
    codec: str
    """The codec that most packets had; the envelope's when there were none."""
    lost_packets: int
    concealed_ms: int
    """Time that was filled with sound because packets were lost."""
    duration_ms: int
    """What counts as the message: up to the last sound when the line ended it for silence or a tone."""
    audio_ms: int
    digits: str
    """Keys pressed, in order."""
    notes: tuple[str, ...]
    packets: int
    """Audio packets that came, duplicates not counted."""
    undecodable: bool
    """True when packets came and none of them could be turned into sound: the audio is silence of the right length."""
    keep_packets: bool
    """True when the audio may not be all there is in the packets, which are then worth keeping as they came."""
    holds: tuple[tuple[int, int], ...] = ()
    """When the call was on hold, in milliseconds of the audio."""
    jitter_ms: int | None = None
    """How unevenly the packets came, None when there were too few to tell."""


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """One stream, laid out: columns over its audio packets in order, positions in its own samples."""

    codec: Codec
    rows: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    missing: NDArray[np.int64]
    """Sequence numbers missing right before each packet."""
    left_out: int


def assemble(envelope: Envelope, packets: PacketBatch, end: End | None, events: Sequence[Event] = ()) -> Assembled:
    """Turn the packets of one call, in order of arrival, into audio; empty audio when there were none.

    ``events`` are the call's journalled events (keys, changes of the media plan). Never raises because of what a peer sent.
    """
    meanings = read_meanings(envelope, events, packets)
    payloads = packets.payload_list()
    lengths = _lengths(meanings.kind, packets, payloads)
    ns_per_tick, paces = tick_lengths(packets, meanings.kind, lengths)
    streams = cut_streams(packets, meanings.kind, ns_per_tick)
    digits = "".join(event.detail for event in events if event.name == "digit")
    notes = [*meanings.notes, *paces]
    if not streams:
        return _without_audio(envelope, packets, meanings.kind, digits, notes)

    line = _TimeLine(packets, payloads, max(SAMPLE_RATE_HZ[CODECS[stream.kind]] for stream in streams))
    for stream in streams:
        line.add(_lay_out(stream, meanings.kind, lengths, ns_per_tick, line.room(stream)))
    samples = line.samples()
    codecs = np.bincount(meanings.kind[meanings.kind >= 0])
    if np.count_nonzero(codecs) > 1:
        names = ", ".join(CODECS[index].value for index in np.flatnonzero(codecs).tolist())
        notes.append(f"the codec changed during the call ({names})")
    notes += line.notes()
    undecodable = line.corrupt > 0 and line.corrupt == line.packets
    return Assembled(
        samples=samples,
        rate_hz=line.rate_hz,
        codec=CODECS[int(np.argmax(codecs))].value,
        lost_packets=line.lost_packets,
        concealed_ms=line.concealed * 1000 // line.rate_hz,
        duration_ms=line.end_of(end.last_sound_ns if end is not None else 0) * 1000 // line.rate_hz,
        audio_ms=len(samples) * 1000 // line.rate_hz,
        digits=digits,
        notes=tuple(notes),
        packets=line.packets,
        undecodable=undecodable,
        keep_packets=not meanings.certain or undecodable or line.left_out > 0,
        jitter_ms=jitter_ms(packets, meanings.kind, ns_per_tick),
        holds=line.holds(hold_spans(events, _end_ns(packets, end, events))),
    )


def _end_ns(packets: PacketBatch, end: End | None, events: Sequence[Event]) -> int:
    """Return when the recording ended, as far as the journal knows."""
    if end is not None:
        return end.at_ns
    return max(int(packets.arrival_ns.max()), *(event.at_ns for event in events), 0)


def _lengths(kind: NDArray[np.int8], packets: PacketBatch, payloads: Sequence[bytes]) -> NDArray[np.int64]:
    """Return how many samples each packet holds, at its codec's sample rate; 0 where it is no audio."""
    lengths = np.where(kind >= 0, packets.length, 0).astype(np.int64)
    lengths[kind == CODECS.index(Codec.G722)] *= 2
    for row in np.flatnonzero(kind == CODECS.index(Codec.OPUS)).tolist():
        lengths[row] = expected_samples(Codec.OPUS, payloads[row])
    return lengths


def _without_audio(
    envelope: Envelope, packets: PacketBatch, kind: NDArray[np.int8], digits: str, notes: list[str]
) -> Assembled:
    undecodable = bool((kind == UNKNOWN).any())
    rate_hz, samples = 8000, np.zeros(0, np.int16)
    if undecodable:
        # Silence of the length of the call, so that it can be listed, shown and kept like any other.
        span_ns = max(int(packets.arrival_ns.max() - packets.arrival_ns.min()), 20_000_000)
        samples = np.zeros(span_ns * rate_hz // 1_000_000_000, np.int16)
        notes.append("the recording could not be decoded")
    elif envelope.codec in SAMPLE_RATE_HZ:
        rate_hz = SAMPLE_RATE_HZ[Codec(envelope.codec)]
    milliseconds = len(samples) * 1000 // rate_hz
    return Assembled(
        samples,
        rate_hz,
        envelope.codec,
        0,
        0,
        milliseconds,
        milliseconds,
        digits,
        tuple(notes),
        0,
        undecodable,
        undecodable,
    )


def _lay_out(
    stream: Stream,
    kind: NDArray[np.int8],
    lengths: NDArray[np.int64],
    ns_per_tick: NDArray[np.float64],
    room: int,
) -> _Placed:
    """Put a stream in order and find where each of its packets begins; leave out what passes ``room`` samples."""
    codec = CODECS[stream.kind]
    rows = np.array(stream.rows, np.int64)
    # The first occurrence of each sequence number is the first copy that came.
    sequence, first = np.unique(np.array(stream.sequence, np.int64), return_index=True)
    ticks = np.array(stream.ticks, np.int64)[first]
    rows = rows[first]
    absent = np.cumsum(np.diff(sequence, prepend=sequence[0] - 1) - 1)
    audio = kind[rows] > NO_AUDIO
    rows, ticks, absent, sequence = rows[audio], ticks[audio], absent[audio], sequence[audio]
    missing = np.diff(absent, prepend=absent[0])
    length = lengths[rows]

    tick_ns = ns_per_tick[rows[0]]
    rate_hz = SAMPLE_RATE_HZ[codec]
    if tick_ns:
        wished = np.rint((ticks - ticks[0]) * (tick_ns * rate_hz / 1e9)).astype(np.int64)
    else:
        wished = (sequence - sequence[0]) * int(np.median(length))
    before = np.cumsum(length) - length
    # start[i] = max(wished[i], start[i - 1] + length[i - 1]), without a loop.
    start = before + np.maximum.accumulate(wished - before)
    fits = start + length <= room
    return _Placed(codec, rows[fits], start[fits], length[fits], missing[fits], int(np.count_nonzero(~fits)))


class _TimeLine:
    """Streams one after the other at one sample rate."""

    def __init__(self, packets: PacketBatch, payloads: Sequence[bytes], rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.lost_packets = 0
        self.concealed = 0
        self.packets = 0
        self.corrupt = 0
        self.left_out = 0
        self._packets = packets
        self._payloads = payloads
        arrival_ns = packets.arrival_ns
        span_ns = max(0, int(arrival_ns.max() - arrival_ns.min()))
        self._longest = (2 * span_ns + SPARE_NS) * rate_hz // 1_000_000_000
        self._end = 0
        self._pieces: list[tuple[int, Samples]] = []
        self._ends = np.zeros(len(packets), np.int64)
        self._begins = np.zeros(len(packets), np.int64)
        self._previous: NDArray[np.int64] | None = None

    def room(self, stream: Stream) -> int:
        """Return how many samples, of its own rate, a stream may still have."""
        begin = self._begin_at(int(self._packets.arrival_ns[stream.rows[0]]))
        return max(0, self._longest - begin) * SAMPLE_RATE_HZ[CODECS[stream.kind]] // self.rate_hz

    def add(self, placed: _Placed) -> None:
        """Decode a stream and put it where its arrival says, behind everything that is there."""
        self.left_out += placed.left_out
        if not len(placed.rows):
            return
        begin = self._begin_at(int(self._packets.arrival_ns[placed.rows].min()))
        own_rate_hz = SAMPLE_RATE_HZ[placed.codec]
        samples = resample(self._decode(placed, own_rate_hz), own_rate_hz, self.rate_hz)
        ends = placed.start + placed.length
        self._begins[placed.rows] = begin + placed.start * self.rate_hz // own_rate_hz
        self._ends[placed.rows] = begin + ends * self.rate_hz // own_rate_hz
        self._pieces.append((begin, samples))
        self._end = begin + len(samples)
        self._previous = placed.rows

    def samples(self) -> Samples:
        """Return the whole recording."""
        if len(self._pieces) == 1:
            return self._pieces[0][1]
        out = np.zeros(self._end, np.int16)
        for begin, piece in self._pieces:
            out[begin : begin + len(piece)] = piece
        return out

    def end_of(self, last_sound_ns: int) -> int:
        """Return where the last packet ends that had arrived by then; 0 stands for all of them."""
        if not last_sound_ns:
            return self._end
        return int(self._ends[self._packets.arrival_ns <= last_sound_ns].max(initial=0))

    def holds(self, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return where spans of time lie in the audio, in milliseconds; what lies outside of it is left out."""
        placed = [(self._place_of(first_ns), self._place_of(last_ns)) for first_ns, last_ns in spans]
        return tuple((first, last) for first, last in placed if first < last)

    def _place_of(self, at_ns: int) -> int:
        """Return which millisecond of the audio was due at a moment: behind what had come, before what came later."""
        arrival_ns = self._packets.arrival_ns
        heard = self._ends > 0
        before = np.flatnonzero(heard & (arrival_ns <= at_ns))
        if not len(before):
            return 0
        later = heard & (arrival_ns > at_ns)
        limit = int(self._begins[later].min()) if later.any() else self._end
        latest = int(before[np.argmax(self._ends[before])])
        waited = (at_ns - int(arrival_ns[latest])) * self.rate_hz // 1_000_000_000
        place = max(int(self._ends[latest]), int(self._begins[latest]) + waited)
        return min(place, max(limit, int(self._ends[latest]))) * 1000 // self.rate_hz

    def notes(self) -> list[str]:
        """Say what is worth knowing about the decoding."""
        notes = []
        if self.corrupt:
            whole = self.corrupt == self.packets
            notes.append(
                "the recording could not be decoded" if whole else f"{self.corrupt} packets could not be decoded"
            )
        if self.left_out:
            notes.append(f"{self.left_out} packets claimed more time than the call took and were left out")
        return notes

    def _begin_at(self, arrival_ns: int) -> int:
        """Return where something that arrived then begins: by its distance to the latest packet of the stream before."""
        if self._previous is None:
            return 0
        arrivals_ns = self._packets.arrival_ns[self._previous]
        earlier = self._previous[arrivals_ns <= arrival_ns]
        if not len(earlier):
            return self._end
        reference = int(earlier[np.argmax(self._packets.arrival_ns[earlier])])
        waited_ns = arrival_ns - int(self._packets.arrival_ns[reference])
        return max(self._end, int(self._begins[reference]) + waited_ns * self.rate_hz // 1_000_000_000)

    def _decode(self, placed: _Placed, rate_hz: int) -> Samples:
        """Return a stream as audio of its own rate, gaps concealed or silent."""
        decoder = Decoder(placed.codec)
        decoded = decode(placed.codec, [self._payloads[row] for row in placed.rows.tolist()], decoder=decoder)
        self.packets += len(placed.rows)
        self.corrupt += decoder.corrupt
        ends = placed.start + placed.length
        gap = placed.start[1:] - ends[:-1]
        at = np.flatnonzero(gap > 0)
        if not len(at):
            return decoded
        out = np.zeros(int(ends[-1]), np.int16)
        source = np.concatenate([[0], np.cumsum(placed.length)])
        bounds = [0, *(at + 1).tolist(), len(placed.rows)]
        for first, last in pairwise(bounds):
            out[placed.start[first] : ends[last - 1]] = decoded[source[first] : source[last]]
        return self._conceal(out, placed, gap, at, rate_hz)

    def _conceal(
        self, samples: Samples, placed: _Placed, gap: NDArray[np.int64], at: NDArray[np.int64], rate_hz: int
    ) -> Samples:
        typical = max(1, int(np.median(placed.length)))
        ends = placed.start + placed.length
        filled: list[tuple[int, int]] = []
        for index in at.tolist():
            size, missing = int(gap[index]), int(placed.missing[index + 1])
            if not missing and size > JITTER_MS * rate_hz // 1000:
                continue
            filled.append((int(ends[index]), int(placed.start[index + 1])))
            if missing:
                # Numbers may be missing for other reasons (keys that were lost); no more audio than fits was lost.
                self.lost_packets += min(missing, -(-size // typical))
                self.concealed += concealed_samples(size, rate_hz) * self.rate_hz // rate_hz
        return conceal(samples, filled, rate_hz)
