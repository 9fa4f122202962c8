"""Reports: what each call's two sides tell each other about its sound, by RTCP.

Owns: when a report is due, what is in it, the sockets that are for reports alone, and what the peers said. Refuses to know: whose
packets are to be believed (the plane's latch says so) and how a report is written (``rtp.rtcp``).

Theory of operation: the facts are columns, as in the table. Every ``TURN_TICKS`` ticks the rows that are due are found with one comparison
and their reports written as rows of bytes, ``MOST_PER_TURN`` of them at most: the rest comes with the next turn. A call whose peer muxes has its reports on the socket of its sound and costs nothing more; another one
gets a second socket on the next port, as long as there are descriptors for it. Those sockets are asked only when the kernel says that
something waits, which at one datagram in five seconds is hardly ever (decision 0022), and the kernel is asked once a turn: it
notes when a datagram came.

The time in our reports counts from the beginning of the call and not from 1900: only its differences mean something, a wall clock
may step, and nobody needs to know ours.

A report is read only when it comes from the host of the call's sound, and no more than ``MOST_READ`` of one visit. It decides nothing
but figures: RTCP is not authenticated, so a BYE in it is noted and ends no call.

Spec: RFC 3550 sections 6.2 to 6.4 and appendix A.8, RFC 3605, RFC 5761.
"""

from __future__ import annotations

import base64
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aftertone.media.sockets import NAME_BYTES, Sender, bind_exactly, make_receiver, pack_address, source_address
from aftertone.media.table import Stream, Table, clock_rate_hz
from aftertone.model import CLOCK_RATE_HZ
from aftertone.rtp import rtcp
from aftertone.rtp.compounds import CNAME_BYTES, LONGEST_BYTES, Figures, write_compounds
from aftertone.rtp.reception import Reception

TURN_TICKS: Final = 10
"""Reports are looked after every 200 ms: they are due at random moments anyway, and many at once cost less than one by one."""
MOST_PER_TURN: Final = 400
"""Reports in one turn: 8,000 calls with one in four seconds each."""
MOST_READ: Final = 2
"""Datagrams of one call that are read at a visit. A peer sends one in seconds; the latest says what the others said."""
MOST_WAITING: Final = 8
SOCKETS_AT_ONCE: Final = 32
LONGEST_TRIP_NS: Final = 30_000_000_000
"""A round trip that took longer is somebody's wrong arithmetic."""
_UNKNOWN: Final = -1

Rows = npt.NDArray[np.intp]
_EPOCH_NS: Final = 1_000_000_000
"""Our time at the beginning of a call: not 0, which would mean that no report came."""


@dataclass(frozen=True, slots=True)
class LineQuality:
    """What the caller's side said about the call."""

    peer_lost: int | None = None
    """Packets of ours that did not reach it."""
    sent_packets: int = 0
    """Packets of ours, for comparison."""
    peer_jitter_ms: int | None = None
    round_trip_ms: int | None = None
    said_goodbye: bool = False


class Reports:
    """The reports of the calls in a table. One thread.

    ``most_sockets`` is how many descriptors may be used for reports alone. Beyond that, and where the next port is taken, a call that
    does not mux goes without reports, and is counted.
    """

    def __init__(self, table: Table, *, host: str, most_sockets: int, entropy: Callable[[int], bytes]) -> None:
        capacity = table.capacity
        self.reception = Reception(capacity)
        self.sent = 0
        self.received = 0
        self.goodbyes = 0
        self.without_socket = 0
        self.dropped: dict[str, int] = {"malformed": 0, "stranger": 0, "unauthentic": 0}
        self._table, self._host, self._most_sockets, self._entropy = table, host, most_sockets, entropy
        self._sockets: dict[int, socket.socket] = {}
        self._selector: selectors.BaseSelector | None = None
        self._receiver = make_receiver(SOCKETS_AT_ONCE * MOST_WAITING)
        self._sender = Sender(min(capacity, MOST_PER_TURN))
        self._turn = 0
        self._known = np.zeros(capacity, np.bool_)
        self._cname = np.zeros((capacity, CNAME_BYTES), np.uint8)
        self._signalled: list[tuple[str, int] | None] = [None] * capacity
        self._fresh: list[int] = []
        self._muxed = np.zeros(capacity, np.bool_)
        self._due_ns = np.full(capacity, np.iinfo(np.int64).max, np.int64)
        self._began_ns = np.zeros(capacity, np.int64)
        self._told_packets = np.zeros(capacity, np.int64)
        self._has_sent = np.zeros(capacity, np.bool_)
        self._name = np.zeros((capacity, NAME_BYTES), np.uint8)
        self._name_length = np.zeros(capacity, np.int32)
        self._last_report = np.zeros(capacity, np.uint32)
        self._last_report_ns = np.zeros(capacity, np.int64)
        self._peer_lost = np.full(capacity, _UNKNOWN, np.int64)
        self._peer_jitter = np.zeros(capacity, np.int64)
        self._trip_ns = np.full(capacity, _UNKNOWN, np.int64)
        self._goodbye = np.zeros(capacity, np.bool_)
        self._now_ns = 0

    def figures(self) -> dict[str, float]:
        """Return the metrics of reports, by name."""
        return {
            "rtcp_sent_reports_total": self.sent,
            "rtcp_received_reports_total": self.received,
            "rtcp_goodbyes_total": self.goodbyes,
            "rtcp_calls_without_total": self.without_socket,
            "rtcp_dropped_malformed_reports_total": self.dropped["malformed"],
            "rtcp_dropped_stranger_reports_total": self.dropped["stranger"],
            "rtcp_dropped_unauthentic_reports_total": self.dropped["unauthentic"],
        }

    def agree(self, row: int, stream: Stream) -> bool:
        """Begin to report, or go on as agreed anew. True when the peer named another place for its reports than before."""
        self._muxed[row] = stream.rtcp_mux
        if not self._known[row]:
            self._begin(row)
        self.reception.ticks_per_ns[row] = CLOCK_RATE_HZ[stream.codec] / 1e9
        if not stream.rtcp_mux:
            self._open(row)
        if stream.remote_rtcp == self._signalled[row]:
            return False
        self._signalled[row] = stream.remote_rtcp
        return True

    def send_to(self, row: int, name: bytes) -> None:
        """Send to this raw ``sockaddr`` from now on; an empty one is nowhere."""
        self._name[row, : len(name)] = np.frombuffer(name, np.uint8)
        self._name_length[row] = len(name)

    def port_for(self, row: int, sound_port: int) -> int:
        """Return where reports go when the sound turned out to come from ``sound_port``."""
        signalled = self._signalled[row]
        return sound_port if self._muxed[row] or signalled is None else signalled[1]

    def end(self, row: int) -> None:
        """Say goodbye if anything was said before (RFC 3550 section 6.3.7), and forget the row."""
        if not self._known[row]:
            return
        if self._has_sent[row] or self._table.sent_packets[row]:
            self._report(np.array([row]), is_last=True)
        sock = self._sockets.pop(row, None)
        if sock is not None:
            if self._selector is not None:
                self._selector.unregister(sock)
            sock.close()
        self._known[row] = False
        self._due_ns[row] = np.iinfo(np.int64).max

    def quality(self, row: int) -> LineQuality:
        """Return what the peer of this call has said so far."""
        jitter_ms = self._peer_jitter[row] * 1000 // clock_rate_hz(int(self._table.codec[row]))
        is_known = self._peer_lost[row] != _UNKNOWN
        return LineQuality(
            peer_lost=int(self._peer_lost[row]) if is_known else None,
            sent_packets=int(self._table.sent_packets[row]),
            peer_jitter_ms=int(jitter_ms) if is_known else None,
            round_trip_ms=int(self._trip_ns[row] // 1_000_000) if self._trip_ns[row] != _UNKNOWN else None,
            said_goodbye=bool(self._goodbye[row]),
        )

    def tick(self, now_ns: int) -> None:
        """Send what is due, when it is time to look."""
        self._now_ns = now_ns
        if self._turn:
            return
        for row in self._fresh:
            if not self._known[row]:
                continue  # over before the first tick
            self._began_ns[row] = now_ns - _EPOCH_NS
            self._due_ns[row] = now_ns + self._pause_ns(is_first=True)
        self._fresh.clear()
        due = np.flatnonzero(self._due_ns <= now_ns)[: len(self._sender.lengths)]
        if due.size:
            self._report(due)
            self._due_ns[due] = [now_ns + self._pause_ns(is_first=False) for _ in range(len(due))]

    def waiting(self) -> list[int]:
        """Return the rows whose own sockets have something to read, when it is time to look. Call it once a tick, first."""
        self._turn = (self._turn + 1) % TURN_TICKS
        if self._turn or self._selector is None or not self._sockets:
            return []
        return [key.data for key, _ in self._selector.select(0)[:SOCKETS_AT_ONCE]]

    def collect(
        self, rows: list[int], now_ns: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Receive from the own sockets of ``rows``: returns row, source key and arrival of each datagram, for ``read``."""
        receiver = self._receiver
        counts = receiver.receive_all([self._sockets[row] for row in rows], MOST_WAITING)
        filled = sum(counts)
        owner = np.repeat(np.array(rows, np.intp), counts)
        return owner, receiver.sources(filled).copy(), receiver.arrivals(filled, now_ns)

    def read(
        self, owner: npt.NDArray[np.intp], believed: npt.NDArray[np.bool_], arrived: npt.NDArray[np.int64]
    ) -> None:
        """Read what ``collect`` brought, as far as it is believed; where an answer goes is where it came from."""
        receiver = self._receiver
        self.dropped["stranger"] += int(np.count_nonzero(~believed))
        for index in _latest(owner, np.flatnonzero(believed)):
            row = int(owner[index])
            data = self._table.protection.open_report(row, receiver.arena[index, : receiver.lengths[index]].tobytes())
            if data is None:
                self.dropped["unauthentic"] += 1
            elif self.hear(row, data, int(arrived[index])) and not self._muxed[row]:
                sock = self._sockets[row]
                self.send_to(row, pack_address(*source_address(receiver, index), sock.family))

    def hear_muxed(
        self,
        arena: npt.NDArray[np.uint8],
        lengths: npt.NDArray[np.int32],
        owner: npt.NDArray[np.intp],
        rows: npt.NDArray[np.intp],
        believed: npt.NDArray[np.bool_],
        arrived: npt.NDArray[np.int64],
    ) -> None:
        """Read the ``rows`` of an arena of sound that are reports, as far as they are ``believed``."""
        self.dropped["stranger"] += int(np.count_nonzero(~believed))
        for index in _latest(owner, rows[believed]):
            self.hear(int(owner[index]), arena[index, : lengths[index]].tobytes(), int(arrived[index]))

    def hear(self, row: int, data: bytes, arrived_ns: int) -> bool:
        """Take one datagram of the peer; False when it is no report."""
        if len(data) < 8 or data[0] & 0xE0 != 0x80 or data[1] not in (rtcp.SENDER_REPORT, rtcp.RECEIVER_REPORT):
            # RFC 3550 appendix A.2: version 2, no padding, and a report comes first.
            self.dropped["malformed"] += 1
            return False
        self.received += 1
        compound = rtcp.parse(data)
        for block in compound.blocks:
            if block.ssrc == int(self._table.ssrc[row]):
                self._hear_block(row, block, arrived_ns)
        source = int(self.reception.ssrc[row])
        for sender in compound.senders:
            if sender.ssrc == source and self.reception.begun[row]:
                self._last_report[row] = sender.ntp >> 16 & 0xFFFFFFFF
                self._last_report_ns[row] = arrived_ns
        if compound.goodbyes and not self._goodbye[row]:
            self._goodbye[row] = True
            self.goodbyes += 1
        return True

    def _hear_block(self, row: int, block: rtcp.ReportBlock, arrived_ns: int) -> None:
        if block.packets_lost > self._table.sent_packets[row]:
            # More than there were: whoever says so is not counting our stream.
            return
        self._peer_lost[row] = max(0, block.packets_lost)
        self._peer_jitter[row] = block.jitter
        if block.last_report:
            trip = (self._ntp(row, arrived_ns) >> 16) - block.last_report - block.delay & 0xFFFFFFFF
            trip_ns = trip * 1_000_000_000 >> 16
            if trip_ns <= LONGEST_TRIP_NS:
                self._trip_ns[row] = trip_ns

    def _begin(self, row: int) -> None:
        # RFC 7022 section 4.2: 96 random bits, new for each call, so that no two calls can be told to be ours.
        self._cname[row] = np.frombuffer(base64.b64encode(self._entropy(12)), np.uint8)
        self._known[row] = True
        self._signalled[row] = None
        self.reception.open(row)
        for column in (self._told_packets, self._has_sent, self._name_length, self._last_report, self._last_report_ns):
            column[row] = 0
        self._peer_jitter[row] = self._goodbye[row] = 0
        self._peer_lost[row] = self._trip_ns[row] = _UNKNOWN
        self._fresh.append(row)

    def _open(self, row: int) -> None:
        """Open the port above that of the sound (RFC 3550 section 11), if it is not open yet."""
        sound = self._table.sockets[row]
        if row in self._sockets or sound is None:
            return
        try:
            full = len(self._sockets) >= self._most_sockets
            sock = None if full else bind_exactly(self._host, sound.getsockname()[1] + 1)
        except OSError:
            sock = None
        if sock is None:
            self.without_socket += 1
            return
        self._receiver.prepare(sock)
        self._sockets[row] = sock
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ, row)

    def _pause_ns(self, *, is_first: bool) -> int:
        return rtcp.pause_ns(int.from_bytes(self._entropy(2), "big"), is_first=is_first)

    def _ntp(self, row: int, at_ns: int) -> int:
        passed_ns = max(0, at_ns - int(self._began_ns[row]))
        return (passed_ns // 1_000_000_000 << 32) + ((passed_ns % 1_000_000_000 << 32) // 1_000_000_000)

    def _report(self, rows: Rows, *, is_last: bool = False) -> None:
        """Send the reports of ``rows``, with our farewell if they are the last."""
        table = self._table
        packets = table.sent_packets[rows]
        rate_hz = self.reception.ticks_per_ns[rows] * 1e9
        since_ns = self._now_ns - table.sent_ns[rows]
        passed_ns = np.maximum(self._now_ns - self._began_ns[rows], 0)
        seconds, rest_ns = passed_ns // 1_000_000_000, passed_ns % 1_000_000_000
        last = self._last_report[rows].astype(np.int64)
        delay = np.maximum(self._now_ns - self._last_report_ns[rows], 0) * 1e-9 * 65_536
        figures = Figures(
            ssrc=table.ssrc[rows].astype(np.int64),
            cname=self._cname[rows],
            sends=packets != self._told_packets[rows],
            ntp=(seconds << 32 | (rest_ns << 32) // 1_000_000_000).astype(np.uint64),
            timestamp=table.timestamp[rows].astype(np.int64) + (since_ns * 1e-9 * rate_hz).astype(np.int64),
            packets=packets,
            octets=table.sent_octets[rows],
            hears=self.reception.begun[rows],
            blocks=self.reception.blocks(rows),
            last_report=last,
            delay=np.where(last == 0, 0, np.minimum(delay, 0xFFFFFFFF)).astype(np.int64),
        )
        self._told_packets[rows] = packets
        self._send(rows, *write_compounds(figures), is_last=is_last)

    def _send(
        self, rows: Rows, compounds: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int32], *, is_last: bool
    ) -> None:
        sender, protection, count = self._sender, self._table.protection, len(rows)
        sender.arena[:count, :LONGEST_BYTES] = compounds
        sender.lengths[:count] = lengths
        if is_last or protection.live:
            for index, row in enumerate(rows.tolist()):
                data = compounds[index, : lengths[index]].tobytes()
                if is_last:
                    data += rtcp.farewell(int(self._table.ssrc[row]))
                data = protection.protect_report(row, data)
                sender.arena[index, : len(data)] = np.frombuffer(data, np.uint8)
                sender.lengths[index] = len(data)
        sender.names[:count] = self._name[rows]
        sender.name_lengths[:count] = self._name_length[rows]
        sender.ready(count)
        is_reachable = self._name_length[rows] > 0
        for index, row in enumerate(rows.tolist()):
            sock = self._table.sockets[row] if self._muxed[row] else self._sockets.get(row)
            if sock is not None and is_reachable[index]:
                self.sent += sender.send(sock, index, 1)
                self._has_sent[row] = True


def _latest(owner: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]) -> list[int]:
    """Return the last ``MOST_READ`` of the ``rows`` of each owner; ``owner`` is grouped."""
    if len(rows) > MOST_READ:
        mine = owner[rows]
        is_late = np.ones(len(rows), np.bool_)
        is_late[:-MOST_READ] = mine[:-MOST_READ] != mine[MOST_READ:]
        rows = rows[is_late]
    latest: list[int] = rows.tolist()
    return latest
