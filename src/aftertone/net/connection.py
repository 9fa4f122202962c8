"""One TCP or TLS connection with a SIP peer.

Owns: cutting its bytes into messages, keepalives both ways, its time limits, and the bound on what waits to be sent. Refuses
to know: what the messages mean, encryption, and how many connections there are.

Specification: RFC 3261 section 18.3, RFC 5626 sections 3.5.1 and 4.4.1.

Theory of operation: a peer that does not read is not read from either, and is cut off when more than a fixed amount
waits for it. A peer that leaves a message half sent is cut off sooner than one that is merely quiet; a quiet one stays long
while a call or a registration lives on its connection, and briefly when nothing does. Each end has a name, so that an
operator sees in the counters what ends connections.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from aftertone.sip.flow import Flow
from aftertone.sip.stream import PING, PONG, StreamSplitter


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What peers may occupy with connections."""

    max_connections: int = 1000
    """Each costs a file descriptor and up to half a megabyte; beyond it a new one is closed at once. As many more may be
    opened by ourselves, half of them to strangers."""
    max_from_one: int = 64
    """From one IPv4 address, or one IPv6 network of 64 bits, of which nobody is known; an office whose phones have logged in
    may have ``known_factor`` times as many, up to half of all."""
    known_factor: int = 10
    idle_s: float = 120.0
    """Without a byte from or to a peer with whom nothing is going on; it can always connect again."""
    idle_in_use_s: float = 1800.0
    """The same while a call or a registration lives on the connection: longer than any message is spoken, so that the
    BYE of a call finds its connection."""
    first_s: float = 10.0
    """From the connection to the end of the first message."""
    unfinished_s: float = 20.0
    """For the rest of a message that has begun."""
    handshake_s: float = 10.0
    """For the TLS handshake."""
    pong_s: float = 10.0
    """For the answer to a ping (RFC 5626 section 4.4.1)."""
    max_waiting_bytes: int = 262_144
    """Unsent bytes at which a peer counts as gone."""


class Owner(Protocol):
    """What a connection tells; ``net.streams``, or a recorder in tests."""

    def connection_opened(self, connection: Connection) -> Flow | None:
        """Return the name for the connection, or None to refuse it."""

    def connection_message(self, data: bytes, flow: Flow) -> None:
        """Take one message."""

    def connection_closed(self, connection: Connection) -> None:
        """Forget the connection."""

    def in_use(self, flow: Flow) -> bool:
        """Return whether a call or a registration lives on the flow."""

    def cut_off(self, why: str) -> None:
        """Count a connection that we end: ``idle``, ``slow``, ``unread``, ``silent`` or ``broken``."""


class Connection(asyncio.Protocol):
    """The asyncio protocol of one connection."""

    def __init__(self, owner: Owner, limits: ConnectionLimits, flow: Flow | None = None) -> None:
        """``flow``: given for a connection that we opened ourselves."""
        self.flow = flow
        self.ours = flow is not None
        self.transport: asyncio.Transport | None = None
        self._owner = owner
        self._limits = limits
        self._splitter = StreamSplitter()
        self._greeted = self.ours
        self._waits_for = ""
        self._quiet_since_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._pong_alarm: asyncio.TimerHandle | None = None
        self._early = b""
        self._opened = self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the name, or close."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what the loop hands to a stream protocol)
        self.transport = transport
        self._opened = True
        if self._lost:
            transport.abort()
            self._owner.connection_closed(self)
            return
        flow = self._owner.connection_opened(self)
        if flow is None:
            transport.abort()
            return
        self.flow = flow
        transport.set_write_buffer_limits(high=self._limits.max_waiting_bytes // 4)
        self._watch()
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        """Hand on what is whole now; close a stream that cannot be followed once it is answered."""
        if not self._opened:
            # The end of a TLS handshake can bring the first bytes before we are told that it is over.
            self._early += data
            return
        if self.flow is None or self.transport is None or self.transport.is_closing():
            return
        pings = self._splitter.pings
        messages = self._splitter.feed(data)
        if self._pong_alarm is not None and not self._splitter.awaits_pong:
            self._pong_alarm.cancel()
            self._pong_alarm = None
        if self._splitter.pings > pings:
            self._greeted = True
            self.send(PONG)
        for message in messages:
            self._greeted = True
            self._owner.connection_message(message, self.flow)
        if self._splitter.failed:
            self._owner.cut_off("broken")
            self.transport.close()
        self._watch()

    def pause_writing(self) -> None:
        """The peer does not read: stop reading from it."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell the owner."""
        for alarm in (self._alarm, self._pong_alarm):
            if alarm is not None:
                alarm.cancel()
        self._lost = True
        if self._opened:
            self._owner.connection_closed(self)

    def send(self, data: bytes) -> None:
        """Queue bytes, or cut off a peer for which too many wait already."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() + len(data) > self._limits.max_waiting_bytes:
            self._cut_off("unread")
            return
        self.transport.write(data)
        self._watch()

    def keep_alive(self, *, answered: bool) -> None:
        """Send a keepalive; if it should be ``answered`` and is not in ``pong_s``, the connection is dead and is closed."""
        if self._pong_alarm is not None or self.transport is None or self.transport.is_closing():
            return
        if answered:
            self._splitter.awaits_pong = True
            self._pong_alarm = asyncio.get_running_loop().call_later(self._limits.pong_s, self._cut_off, "silent")
        self.send(PING)

    def _watch(self) -> None:
        """Begin to wait anew; but what is unfinished must be finished in one go, however slowly its bytes trickle."""
        limits, loop = self._limits, asyncio.get_running_loop()
        waits_for, seconds = "", min(limits.idle_s, limits.idle_in_use_s)
        if not self._greeted:
            waits_for, seconds = "first", limits.first_s
        elif self._splitter.pending:
            waits_for, seconds = "rest", limits.unfinished_s
        else:
            self._quiet_since_s = loop.time()
        if waits_for and waits_for == self._waits_for and self._alarm is not None:
            return
        self._waits_for = waits_for
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_later(seconds, self._time_is_over)

    def _time_is_over(self) -> None:
        if self._waits_for or self.flow is None:
            self._cut_off("slow")
            return
        loop = asyncio.get_running_loop()
        left_s = self._quiet_since_s + self._limits.idle_in_use_s - loop.time()
        if left_s <= 0 or not self._owner.in_use(self.flow):
            self._cut_off("idle")
            return
        self._alarm = loop.call_later(min(self._limits.idle_s, left_s), self._time_is_over)

    def _cut_off(self, why: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._owner.cut_off(why)
            self.transport.abort()
