"""The media plane: everything that arrives is received, journalled and listened to in batches, once a tick.

Owns: the tick, the leases of ports, what a packet must be to count. Refuses to know: SIP, scripts, files; it hands packed
batches to ``journal`` and tells its owner by events what a call's sound did.

Theory of operation: all live calls are rows of ``Table``. A tick visits a fifth of the rows (a *stripe*), so that each
socket is emptied every 100 ms in one system call and the work of many calls is spread evenly; what came lies in the
rows of one arena. A stripe is made of blocks of neighbouring rows, so that the work of a few calls is done in one tick
of five: a batch of five packets costs 0.4 ms already. From there on everything is columns: header fields, validity,
source, call. What belongs to a recording goes to the journal as it arrived, before anybody understands it. Level and
tones are read off the same rows. A packet costs no object, task or callback. One thread owns a plane.

A source is latched (RFC 4961, ``rtp.latch``): where sound really comes from decides, not what the description said,
because of NATs; from then on packets from elsewhere are strangers, counted and dropped, until the signalling agrees on a
new address. Nobody can crowd a call out: a socket gives ``MOST_PER_SOCKET`` datagrams a visit, and when more waits at that of a latched
call, a sieve before it (``media.sieve``) lets only its source through.

Beside the sound go reports about it (``media.reports``): those that come on a port of sound are taken from the same batch, and
the figures of ours are counted off the same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aftertone.audio.watch import SoundWatch
from aftertone.config import PortRange
from aftertone.errors import BusyError
from aftertone.journal.batch import PacketBatch, pack_batch
from aftertone.media import sieve
from aftertone.media.ear import Ear
from aftertone.media.player import FRAME_MS, Player
from aftertone.media.reports import LineQuality, Reports
from aftertone.media.sockets import (
    PORT_BITS,
    ROW_BYTES,
    bind_port,
    make_receiver,
    pack_address,
    source_address,
    source_key,
)
from aftertone.media.table import Stream, Table
from aftertone.media.unopened import Arrived, Unopened
from aftertone.model import Codec
from aftertone.rtp.batch import Headers, parse
from aftertone.rtp.events import DigitDetector
from aftertone.rtp.latch import NO_ADDRESS, SourceLatch

TICK_NS: Final = 20_000_000
STRIPES: Final = 5
"""A visit brings five packets of 20 ms. Measured at 1,000 calls, the plane costs up to 0.5 us of 2.5 us a packet less than
with three stripes; four could not be told from five. More would come too late for the promise: 100 ms in a socket and
``journal.commit_ms`` leave 100 ms for the disk."""
BLOCK_ROWS: Final = 512
"""Neighbouring rows of one stripe. Measured at 1,000 calls: 2.4 us a packet and 7 ms for the longest tick, against 2.8 us and
3.4 ms with blocks of 64 rows. What is played waits for the tick, so it must not grow much longer."""
MOST_PER_SOCKET: Final = 64
"""More than a second of 20 ms packets at once is a flood: the rest waits in the kernel's bounded buffer."""
MOST_DRAINS: Final = 16
"""Visits in a row to a socket that has just got its sieve: a buffer of the usual size is empty after five."""
ARENA_ROWS: Final = 8192
MOST_PER_RECORD: Final = 2048
"""Packets in one journal record: even full rows stay below the journal's 4 MiB."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a recording, in nanoseconds."""

    silence_ns: int
    tone_ns: int
    longest_ns: int


@dataclass(frozen=True, slots=True)
class Played:
    """The clip on this row has been played to its end."""

    row: int


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """The caller pressed a key (RFC 4733)."""

    row: int
    key: str


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing was said for ``Limits.silence_ns``."""

    row: int


@dataclass(frozen=True, slots=True)
class ToneHeard:
    """A call-progress tone has filled ``Limits.tone_ns``."""

    row: int


@dataclass(frozen=True, slots=True)
class LongestReached:
    """The recording is as long as one may be."""

    row: int


@dataclass(frozen=True, slots=True)
class Latched:
    """The first valid packet came, from this address; we answer there."""

    row: int
    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class PlainSound:
    """The peer agreed on keys and sends plain sound; this recording takes it from now on."""

    row: int


MediaEvent = Played | KeyPressed | Silent | ToneHeard | LongestReached | Latched | PlainSound


class Plane:
    """The sound of up to ``capacity`` calls.

    ``journal`` takes one packed batch and the arrival of its oldest packet; it must not block. ``report_sockets``: how many calls may
    have a second socket for their reports, all of them when None.
    """

    def __init__(
        self,
        capacity: int,
        *,
        host: str,
        ports: PortRange,
        limits: Limits,
        silence: Mapping[Codec, bytes],
        journal: Callable[[bytes, int], None],
        entropy: Callable[[int], bytes],
        report_sockets: int | None = None,
    ) -> None:
        self.table = Table(capacity)
        self.watch = SoundWatch(capacity)
        self.player = Player(self.table, silence)
        most = capacity if report_sockets is None else report_sockets
        self.reports = Reports(self.table, host=host, most_sockets=most, entropy=entropy)
        self._ear = Ear(self.table, self.watch)
        self._host, self._ports, self._limits = host, ports, limits
        self._journal, self._entropy = journal, entropy
        self._receiver = make_receiver(ARENA_ROWS)
        self._latch = SourceLatch(capacity)
        self._digits: list[DigitDetector | None] = [None] * capacity
        self._free = list(range(capacity - 1, -1, -1))
        self._next_port = int.from_bytes(entropy(2), "big")
        # Twice the block: neighbouring blocks are visited 40 ms apart, which is close to the interval of the journal's commits.
        self._stripe = np.arange(capacity) // BLOCK_ROWS * 2 % STRIPES
        self._turn = 0
        self._starts = [0] * STRIPES
        """Where each stripe begins: after whom the arena was full the last time."""
        self._sources: list[tuple[str, int] | None] = [None] * capacity
        self._sieved: dict[int, int] = {}
        """Rows behind a sieve, and what the kernel had refused there before."""
        self.floods = 0
        self.received_packets = 0
        self.dropped: dict[str, int] = {"malformed": 0, "stranger": 0, "payload_type": 0, "unauthentic": 0, "flood": 0}

    @property
    def live(self) -> int:
        """How many rows are leased."""
        return self.table.capacity - len(self._free)

    def lease(self) -> tuple[int, int]:
        """Take a row and bind a port for it. Returns (row, UDP port); nothing is received before ``agree``.

        Raises BusyError when no row or no port is left.
        """
        if not self._free:
            raise BusyError(f"all {self.table.capacity} places for calls are taken (calls.at_once)")
        try:
            bound = bind_port(self._host, self._ports.first, self._ports.last, self._next_port)
        except OSError as error:
            raise BusyError(f"no socket for the sound of a call: {error}") from None
        if bound is None:
            raise BusyError(f"no free UDP port in rtp.ports = {self._ports}")
        sock, port = bound
        self._next_port = (port - self._ports.first) // 2 + 1
        self._receiver.prepare(sock)
        row = self._free.pop()
        noise = self._entropy(10)
        self.table.begin(
            row,
            sock,
            sequence=int.from_bytes(noise[:2], "big") & 0x7FFF,
            timestamp=int.from_bytes(noise[2:6], "big"),
            ssrc=int.from_bytes(noise[6:], "big"),
        )
        self._latch.open(row)
        self._digits[row] = DigitDetector()
        return row, port

    def agree(self, row: int, stream: Stream) -> None:
        """Offer and answer agreed, at first or anew: take it over, and let the source latch anew when the peer moved."""
        self.table.agree(row, stream)
        # Compared with what was signalled before, not with where packets really come from: behind a NAT these differ, and
        # a refresh of the session must not make us forget the address that works.
        if self._latch.signal(row, _key_of(stream.remote)):
            self._set_remote(row, stream.remote)
            self._open_to_all(row)
        if self.reports.agree(row, stream):
            self.reports.send_to(row, self._name_of(row, stream.remote_rtcp))

    def release(self, row: int) -> None:
        """Give row and port back."""
        self.reports.end(row)
        self._open_to_all(row)
        sock = self.table.end(row)
        if sock is not None:
            sock.close()
            self._digits[row] = None
            self._ear.reset(row)
            self._free.append(row)

    def play(self, row: int, frames: tuple[bytes, ...], frame_ms: int = FRAME_MS) -> None:
        """Play ``frames`` of ``frame_ms`` each; ``Played`` follows unless something else is played or ``stop`` is called first."""
        self.player.play(row, frames, frame_ms)

    def played_ms(self, row: int) -> int:
        """Return how much of what plays on ``row`` has been sent."""
        return int(self.table.frame[row] * self.table.frame_ns[row] // 1_000_000)

    def stop(self, row: int) -> None:
        """Stop playing."""
        self.player.stop(row)

    def hold(self, row: int, now_ns: int, *, is_held: bool) -> None:
        """The caller put the call on hold or took it back: silence and tones do not count until then, length does."""
        self.table.held[row] = is_held
        self.table.resumed_ns[row] = now_ns

    def record(self, row: int, journal_call: int, now_ns: int) -> None:
        """Journal what arrives on ``row`` from now on under ``journal_call``, and watch it."""
        self.watch.reset(row)
        self._ear.reset(row)
        self.table.journal_call[row] = journal_call
        self.table.recording_since_ns[row] = now_ns
        self.table.told[row] = False
        self.table.protection.listen(row)
        self.table.recording[row] = True

    def finish(self, row: int, now_ns: int) -> int:
        """Stop recording, after taking what waits in the socket. Returns the arrival of the last sound, 0 if there was none."""
        if self.table.recording[row]:
            self._receive(np.array([row]), now_ns, [])
            self.table.recording[row] = False
        return int(self.watch.last_sound_ns[row])

    def unopened(self, row: int) -> Unopened:
        """Return what came for this recording that was not encrypted as agreed."""
        return self.table.protection.unopened(row)

    def quality(self, row: int) -> LineQuality:
        """Return what the peer has said about the sound of this call."""
        return self.reports.quality(row)

    def tick(self, now_ns: int) -> list[MediaEvent]:
        """Receive one stripe, journal it, listen, send what is due. Call it each ``TICK_NS``; returns what happened."""
        events: list[MediaEvent] = []
        self._turn = (self._turn + 1) % STRIPES
        stripe = np.flatnonzero(self.table.active & (self._stripe == self._turn))
        if stripe.size:
            self._visit(np.roll(stripe, -self._starts[self._turn]), now_ns, events)
        waiting = self.reports.waiting()
        if waiting:
            self._receive_reports(waiting, now_ns)
        events += [Played(row) for row in self.player.tick(now_ns)]
        self.reports.tick(now_ns)
        self._judge(now_ns, events)
        return events

    def _visit(self, stripe: npt.NDArray[np.intp], now_ns: int, events: list[MediaEvent]) -> None:
        """Empty the sockets of a stripe, fairly: whom the arena had no room for is the first the next time."""
        counts = self._receive(stripe, now_ns, events)
        served = self._starts[self._turn] + int(np.flatnonzero(counts)[-1]) + 1 if any(counts) else 0
        self._starts[self._turn] = served % len(stripe) if sum(counts) >= ARENA_ROWS else 0
        # What fills a socket up may be a flood. Its buffer is emptied once behind the sieve, for what is the caller's in it.
        full = [row for row, count in zip(stripe.tolist(), counts, strict=True) if count >= MOST_PER_SOCKET]
        full = [row for row in full if self._sieve(row)]
        for _ in range(MOST_DRAINS):
            if not full:
                break
            counts = self._receive(np.array(full), now_ns, events)
            full = [row for row, count in zip(full, counts, strict=True) if count >= MOST_PER_SOCKET]

    def _sieve(self, row: int) -> bool:
        """Put a sieve before the socket of a latched call. False when there is none to put, or it is there already."""
        sock, source = self.table.sockets[row], self._sources[row]
        if sock is None or source is None or row in self._sieved:
            return False
        self._sieved[row] = sieve.refused(sock)
        self.floods += 1
        return sieve.only_from(sock, *source)

    def _open_to_all(self, row: int) -> None:
        """Take the sieve away, if there is one, and count what it kept out."""
        sock, before = self.table.sockets[row], self._sieved.pop(row, None)
        self._sources[row] = None
        if sock is not None and before is not None:
            self.dropped["flood"] += sieve.refused(sock) - before
            sieve.from_anybody(sock)

    def _receive(self, rows: npt.NDArray[np.intp], now_ns: int, events: list[MediaEvent]) -> list[int]:
        receiver, sockets = self._receiver, self.table.sockets
        counts = receiver.receive_all([sockets[row] for row in rows.tolist()], MOST_PER_SOCKET)
        filled = sum(counts)
        if not filled:
            return counts
        arrived = receiver.arrivals(filled, now_ns)
        owner = np.repeat(rows, counts)
        self.received_packets += filled
        refused = self.table.protection.open(owner, receiver.arena, receiver.lengths, arrived)
        for row, is_plain, held in self.table.protection.take_turned():
            if is_plain and self.table.recording[row]:
                events.append(PlainSound(row))
                self._recover(row, held)
            elif is_plain:
                # Before the beep it may be what is left of an earlier call on this port; `unopened` tells when that matters.
                continue
            else:
                # Whoever was plain was not the caller, whose place it may have taken.
                self._latch.open(row, int(self._latch.signalled[row]))
                self._open_to_all(row)
        # Their length is 0 now, which would read as malformed.
        self.dropped["unauthentic"] += refused
        self.dropped["malformed"] -= refused
        headers = parse(receiver.arena[:filled], receiver.lengths[:filled])
        good = self._admit(headers, owner, filled, events)
        if headers.refusals.rtcp:
            self._hear_reports(headers, owner, arrived)
        self._count(headers, owner, np.flatnonzero(good), arrived)
        self._hear_keys(headers, owner, good, events, now_ns)
        recorded = np.flatnonzero(good & self.table.recording[owner])
        for first in range(0, recorded.size, MOST_PER_RECORD):
            self._write(receiver.arena, headers, owner, recorded[first : first + MOST_PER_RECORD], arrived)
        if recorded.size:
            self._ear.listen(receiver.arena, headers, owner, recorded, arrived)
        return counts

    def _admit(
        self, headers: Headers, owner: npt.NDArray[np.intp], count: int, events: list[MediaEvent]
    ) -> npt.NDArray[np.bool_]:
        """Return which packets count, latching sources on the way."""
        known = self.table.accepts[owner, headers.payload_type]
        self.dropped["malformed"] += int(count - headers.valid.sum()) - headers.refusals.rtcp
        self.dropped["payload_type"] += int((headers.valid & ~known).sum())
        candidates = np.flatnonzero(headers.valid & known)
        good = np.zeros(count, dtype=np.bool_)
        if not candidates.size:
            return good
        admission = self._latch.admit(owner[candidates], self._receiver.sources(count)[candidates])
        good[candidates] = admission.accepted
        self.dropped["stranger"] += int(candidates.size - admission.accepted.sum())
        for index in candidates[admission.locked].tolist():
            row, address = int(owner[index]), source_address(self._receiver, index)
            self._set_remote(row, address)
            self._sources[row] = address
            port = self.reports.port_for(row, address[1])
            self.reports.send_to(row, self._name_of(row, (address[0], port)))
            events.append(Latched(row, address))
        return good

    def _count(
        self, headers: Headers, owner: npt.NDArray[np.intp], rows: npt.NDArray[np.intp], arrived: npt.NDArray[np.int64]
    ) -> None:
        """Count what arrived, for the reports that we send."""
        calls = owner[rows]
        is_key = headers.payload_type[rows] == self.table.event_type[calls]
        self.reports.reception.count(
            calls, headers.ssrc[rows], headers.sequence[rows], headers.timestamp[rows], arrived[rows], is_key
        )

    def _hear_reports(self, headers: Headers, owner: npt.NDArray[np.intp], arrived: npt.NDArray[np.int64]) -> None:
        """Take the reports that came on ports of sound: from the very source of the sound."""
        rows = np.flatnonzero(headers.rtcp)
        calls, source = owner[rows], self._receiver.sources(len(owner))[rows]
        believed = source == self._latch.expected(calls)
        self.reports.hear_muxed(self._receiver.arena, self._receiver.lengths, owner, rows, believed, arrived)

    def _receive_reports(self, waiting: list[int], now_ns: int) -> None:
        """Take the reports that came on ports of their own: from the host of the sound, whose port for them is not known."""
        owner, source, arrived = self.reports.collect(waiting, now_ns)
        host = np.uint64(PORT_BITS)
        self.reports.read(owner, source >> host == self._latch.expected(owner) >> host, arrived)

    def _hear_keys(
        self,
        headers: Headers,
        owner: npt.NDArray[np.intp],
        good: npt.NDArray[np.bool_],
        events: list[MediaEvent],
        now_ns: int,
    ) -> None:
        is_event = good & (headers.payload_type == self.table.event_type[owner])
        for index in np.flatnonzero(is_event).tolist():
            row = int(owner[index])
            detector = self._digits[row]
            if detector is None:
                continue
            payload = self._receiver.arena[index, headers.payload_start[index] : headers.payload_end[index]].tobytes()
            key = detector.receive(
                payload,
                int(headers.timestamp[index]),
                now_ns,
                ssrc=int(headers.ssrc[index]),
                marker=bool(headers.marker[index]),
            )
            if key is not None:
                events.append(KeyPressed(row, key))

    def _recover(self, row: int, held: list[Arrived]) -> None:
        """Journal what was held back on ``row`` until it was sure that it is sound, as far as it belongs to the recording."""
        since_ns = int(self.table.recording_since_ns[row])
        held = [(data, at_ns) for data, at_ns in held if at_ns >= since_ns]
        if not held:
            return
        arena = np.zeros((len(held), ROW_BYTES), np.uint8)
        for index, (data, _) in enumerate(held):
            arena[index, : len(data)] = np.frombuffer(data, np.uint8)
        headers = parse(arena, np.array([len(data) for data, _ in held], np.int32))
        owner, arrived = np.full(len(held), row), np.array([at_ns for _, at_ns in held], np.int64)
        good = np.flatnonzero(headers.valid & self.table.accepts[row, headers.payload_type])
        if good.size:
            self._write(arena, headers, owner, good, arrived)
            self._ear.listen(arena, headers, owner, good, arrived)

    def _write(
        self,
        arena: npt.NDArray[np.uint8],
        headers: Headers,
        owner: npt.NDArray[np.intp],
        rows: npt.NDArray[np.intp],
        arrived: npt.NDArray[np.int64],
    ) -> None:
        start, end = headers.payload_start[rows], headers.payload_end[rows]
        if (start == start[0]).all() and (end == end[0]).all():
            payloads = arena[rows, start[0] : end[0]].tobytes()
        else:
            wide = arena[rows, : int(end.max())]
            at = np.arange(wide.shape[1])
            # Boolean indexing runs row by row, so the payloads come out concatenated in row order.
            payloads = wide[(at >= start[:, None]) & (at < end[:, None])].tobytes()
        batch = PacketBatch(
            call=self.table.journal_call[owner[rows]],
            arrival_ns=arrived[rows],
            sequence=headers.sequence[rows],
            timestamp=headers.timestamp[rows],
            ssrc=headers.ssrc[rows],
            payload_type=headers.payload_type[rows],
            marker=headers.marker[rows].astype(np.uint8),
            length=(end - start).astype(np.uint16),
            payloads=payloads,
        )
        self._journal(pack_batch(batch), int(arrived[rows].min()))

    def _judge(self, now_ns: int, events: list[MediaEvent]) -> None:
        """Say once of each recording that it is over: too long, a tone, or silence."""
        table, watch, limits = self.table, self.watch, self._limits
        rows = np.flatnonzero(table.recording & ~table.told)
        if not rows.size:
            return
        since = table.recording_since_ns[rows]
        long = now_ns - since >= limits.longest_ns
        tone_since = watch.tone_since_ns[rows]
        resumed, listens = table.resumed_ns[rows], ~table.held[rows]
        tone = (
            listens & (tone_since > 0) & (watch.last_tone_ns[rows] - np.maximum(tone_since, resumed) >= limits.tone_ns)
        )
        quiet_since = np.maximum(np.maximum(since, resumed), watch.last_sound_ns[rows])
        silent = listens & (now_ns - quiet_since >= limits.silence_ns)
        over = long | tone | silent
        for row, is_long, is_tone in zip(rows[over].tolist(), long[over].tolist(), tone[over].tolist(), strict=True):
            table.told[row] = True
            events.append(LongestReached(row) if is_long else ToneHeard(row) if is_tone else Silent(row))

    def _set_remote(self, row: int, address: tuple[str, int] | None) -> None:
        name = self._name_of(row, address)
        self.table.remote_name[row, : len(name)] = np.frombuffer(name, dtype=np.uint8)
        self.table.remote_length[row] = len(name)

    def _name_of(self, row: int, address: tuple[str, int] | None) -> bytes:
        """Return the raw ``sockaddr`` of an address, empty when there is none that can be reached from the row's socket."""
        sock = self.table.sockets[row]
        if address is None or sock is None:
            return b""
        try:
            return pack_address(*address, sock.family)
        except OSError:
            # A name instead of an address, or IPv6 on an IPv4 socket: we hear where the caller is when sound comes.
            return b""


def _key_of(address: tuple[str, int] | None) -> int:
    try:
        return NO_ADDRESS if address is None else source_key(*address)
    except OSError:
        return NO_ADDRESS
