"""One TCP connection with a SIP peer.

Owns: cutting its bytes into messages, keepalive answers, idle time, and the bound on what waits to be sent. Refuses to
know: what the messages mean.

Specification: RFC 3261 section 18.3, RFC 5626 section 3.5.1.

Theory of operation: a peer that does not read is not read from either, and is cut off when more than a fixed amount
waits for it. A peer that leaves a message half sent is cut off sooner than one that is merely quiet: quiet calls last.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from aftertone.sip.flow import Flow
from aftertone.sip.stream import PONG, StreamSplitter


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What TCP peers may occupy."""

    max_connections: int = 1000
    """Each costs a file descriptor and up to half a megabyte; beyond it a new one is closed at once."""
    idle_s: float = 1800.0
    """Longer than any message is spoken, so that the BYE of a call finds its connection."""
    unfinished_s: float = 20.0
    """For a first message, or for the rest of one."""
    max_waiting_bytes: int = 262_144
    """Unsent bytes at which a peer counts as gone."""


class Owner(Protocol):
    """What a connection tells; the endpoint, or a recorder in tests."""

    def connection_opened(self, connection: Connection) -> Flow | None:
        """Return the name for the connection, or None to refuse it."""

    def connection_message(self, data: bytes, flow: Flow) -> None:
        """Take one message."""

    def connection_closed(self, connection: Connection) -> None:
        """Forget the connection."""


class Connection(asyncio.Protocol):
    """The asyncio protocol of one connection."""

    def __init__(self, owner: Owner, limits: ConnectionLimits, flow: Flow | None = None) -> None:
        """``flow``: given for a connection that we opened ourselves."""
        self.flow = flow
        self.transport: asyncio.Transport | None = None
        self._owner = owner
        self._limits = limits
        self._splitter = StreamSplitter()
        self._greeted = False
        self._unfinished = False
        self._alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the name, or close."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what the loop hands to a stream protocol)
        self.transport = transport
        flow = self._owner.connection_opened(self)
        if flow is None:
            transport.abort()
            return
        self.flow = flow
        transport.set_write_buffer_limits(high=self._limits.max_waiting_bytes // 4)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Hand on what is whole now; close a stream that cannot be followed once it is answered."""
        if self.flow is None or self.transport is None or self.transport.is_closing():
            return
        pings = self._splitter.pings
        messages = self._splitter.feed(data)
        if self._splitter.pings > pings:
            self._greeted = True
            self.send(PONG)
        for message in messages:
            self._greeted = True
            self._owner.connection_message(message, self.flow)
        if self._splitter.failed:
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
        if self._alarm is not None:
            self._alarm.cancel()
        self._owner.connection_closed(self)

    def send(self, data: bytes) -> None:
        """Queue bytes, or cut off a peer for which too many wait already."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() + len(data) > self._limits.max_waiting_bytes:
            self.transport.abort()
            return
        self.transport.write(data)
        self._watch()

    def _watch(self) -> None:
        """Begin to wait anew; but what is unfinished must be finished in one go, however slowly its bytes trickle."""
        unfinished = self._splitter.pending > 0 or not self._greeted
        if unfinished and self._unfinished and self._alarm is not None:
            return
        self._unfinished = unfinished
        if self._alarm is not None:
            self._alarm.cancel()
        seconds = self._limits.unfinished_s if unfinished else self._limits.idle_s
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
