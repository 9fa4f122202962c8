"""All connections of an endpoint: who may connect, what is sent to whom, what is opened.

Owns: the table from flow to connection, the places that sources occupy, TLS handshakes, connections being opened and what
waits for them. Refuses to know: SIP, the one timer, UDP.

Specification: RFC 3261 sections 18.1.1 and 18.2.2; RFC 5923 in its plain form: what belongs to a flow goes by its connection
as long as that lives.

Theory of operation: a place is taken when a connection comes, before any TLS handshake, and given back when it is gone, so
that handshakes count too. A connection of ours is opened when something is to be sent; bytes wait for it within a bound, and when
it does not come about, or shows a certificate that does not stand for its host, the owner is told at once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Coroutine
from typing import Final, Protocol

from aftertone.net.addresses import is_literal, plain_address
from aftertone.net.connection import Connection, ConnectionLimits
from aftertone.net.tls import Tls
from aftertone.sip.budgets import source_of
from aftertone.sip.flow import Address, Flow, Transport

MAX_CONNECTING: Final = 64
"""Connections being opened at once, half of them to strangers, and seconds that each may take (``CONNECT_S``), the TLS handshake included."""
CONNECT_S: Final = 5.0
MAX_QUEUED_BYTES: Final = 65_536
"""Bytes that may wait for a connection that is being opened."""
UNHEARD_MS: Final = 60_000
"""How long bytes on a connection of ours may go unacknowledged before it counts as lost."""
CONNECTION_COST: Final = 1
HANDSHAKE_COST: Final = 10
"""Of a connection that comes, in messages of its source's budget: a handshake takes about as long as ten."""
SHUTDOWN_S: Final = 0.5
"""For a peer to say that it has seen the end of a TLS connection; a line that stops has less than two seconds for everything."""


class StreamsOwner(Protocol):
    """What connections lead to; the endpoint."""

    def stream_message(self, data: bytes, flow: Flow) -> None:
        """Take one message."""

    def stream_gone(self, flow: Flow) -> None:
        """Hear that a connection is closed."""

    def stream_failed(self, flow: Flow, why: str) -> None:
        """Hear that a connection could not be opened."""

    def may_connect(self, host: str, cost: int) -> bool:
        """Return whether a source may connect once more; ``cost`` is in messages of its budget."""

    def local_towards(self, remote: Address, transport: Transport) -> Address:
        """Return our address as a peer reaches it."""

    def knows(self, host: str) -> bool:
        """Tell whether an address is that of somebody who is known."""

    def bound_host(self, remote: Address) -> str | None:
        """Return the address that a connection of ours must come from, or None for the kernel's choice."""

    def in_use(self, flow: Flow) -> bool:
        """Return whether a call or registration lives on a flow."""


class Streams:
    """The connections of one endpoint, on the event loop's thread."""

    def __init__(self, owner: StreamsOwner, limits: ConnectionLimits, tls: Tls | None, stats: Counter[str]) -> None:
        """``stats`` is the owner's; the names counted are fixed."""
        self.tls = tls
        self._owner = owner
        self._limits = limits
        self._stats = stats
        self._by_flow: dict[Flow, Connection] = {}
        self._places: dict[asyncio.Protocol, str] = {}
        self._from: Counter[str] = Counter()
        self._ours: set[Connection] = set()
        self._connecting: dict[Flow, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._empty = asyncio.Event()

    @property
    def live(self) -> int:
        """Return how many connections there are, handshakes included."""
        return len(self._places) + len(self._ours)

    def accepted(self) -> asyncio.Protocol:
        """Return the protocol for a TCP connection that came."""
        return Connection(self, self._limits)

    def accepted_tls(self) -> asyncio.Protocol:
        """Return the protocol for a TLS connection that came, until its handshake is over."""
        return _Door(self)

    def send(self, data: bytes, flow: Flow) -> None:
        """Send over the connection of a flow, or open it; whoever waits is told by ``stream_failed`` when it fails."""
        connection = self._by_flow.get(flow)
        if connection is not None:
            connection.send(data)
            return
        queue = self._connecting.get(flow)
        if queue is None:
            # A stranger's answers can be led to many ports where nobody answers; accounts connect to their servers all the same.
            share = 1 if self._owner.knows(flow.remote[0]) else 2
            crowded = (
                len(self._connecting) >= MAX_CONNECTING // share
                or len(self._ours) >= self._limits.max_connections // share
            )
            if self._closing or crowded or not is_literal(flow.remote[0]):
                self._stats["unsendable"] += 1
                self._owner.stream_failed(flow, "too many connections" if crowded else "no connection can be opened")
                return
            queue = self._connecting[flow] = []
            self._start(self._connect(flow))
        if sum(map(len, queue)) + len(data) <= MAX_QUEUED_BYTES:
            queue.append(data)

    def keep_alive(self, flow: Flow, *, answered: bool) -> None:
        """Send a keepalive over a connection that lives; see ``SipEndpoint.keep_alive``."""
        connection = self._by_flow.get(flow)
        if connection is not None:
            connection.keep_alive(answered=answered)

    async def close(self) -> None:
        """Close everything, politely at first. Afterwards the object can be used again."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for polite in (True, False):
            if not self.live:
                break
            self._empty.clear()
            for protocol in (*self._places, *self._ours):
                transport = getattr(protocol, "transport", None)
                if transport is not None:
                    transport.close() if polite else transport.abort()
            try:
                async with asyncio.timeout(SHUTDOWN_S):
                    await self._empty.wait()
            except TimeoutError:
                continue
        self._closing = False

    # What connections tell (net.connection.Owner)

    def connection_opened(self, connection: Connection) -> Flow | None:
        """Name a connection, unless it is one too many or not who it should be."""
        transport = connection.transport
        if transport is None or self._closing:
            return None
        if connection.flow is not None:
            flow = connection.flow
            self._ours.add(connection)
            if flow.transport == "TLS" and not self._is_genuine(transport, flow):
                self._stats["tls_wrong_name"] += 1
                return None
        else:
            secure = transport.get_extra_info("ssl_object") is not None
            if connection not in self._places and not self.take_place(connection, transport, CONNECTION_COST):
                return None
            kind: Transport = "TLS" if secure else "TCP"
            remote = plain_address(transport.get_extra_info("peername"))
            flow = Flow(kind, remote, self._owner.local_towards(remote, kind))
            self._stats["connections_accepted"] += 1
        self._by_flow[flow] = connection
        return flow

    def connection_message(self, data: bytes, flow: Flow) -> None:
        """Hand on one message."""
        self._owner.stream_message(data, flow)

    def connection_closed(self, connection: Connection) -> None:
        """Forget a connection; its calls are reached at their Contact from now on."""
        flow = connection.flow
        if flow is not None and self._by_flow.get(flow) is connection:
            del self._by_flow[flow]
            self._owner.stream_gone(flow)
        self._ours.discard(connection)
        self.give_place(connection)

    def in_use(self, flow: Flow) -> bool:
        """Return whether a call or registration lives on a flow."""
        return self._owner.in_use(flow)

    def cut_off(self, why: str) -> None:
        """Count a connection that we ended."""
        self._stats[f"connections_cut_{why}"] += 1

    # Places

    def take_place(self, protocol: asyncio.Protocol, transport: asyncio.Transport, cost: int) -> bool:
        """Count a connection that came; False when there are too many, in all, from its source or in this second."""
        name = transport.get_extra_info("peername")
        if name is None:
            # Reset before we looked.
            return False
        source = source_of(name[0])
        if len(self._places) >= self._limits.max_connections:
            self._stats["connections_refused"] += 1
        elif self._from[source] >= self._limits.max_from_one and (
            # Half of all stays for others, whoever it is.
            not self._owner.knows(name[0])
            or self._from[source]
            >= min(self._limits.max_from_one * self._limits.known_factor, self._limits.max_connections // 2)
        ):
            self._stats["connections_refused_source"] += 1
        elif not self._owner.may_connect(name[0], cost):
            self._stats["connections_refused_budget"] += 1
        else:
            self._places[protocol] = source
            self._from[source] += 1
            return True
        return False

    def give_place(self, protocol: asyncio.Protocol) -> None:
        """Count a connection off; does nothing for one that is not counted."""
        source = self._places.pop(protocol, None)
        if source is not None:
            self._from[source] -= 1
            if not self._from[source]:
                del self._from[source]
        if not self.live:
            self._empty.set()

    # Handshakes and connections of ours

    def door_opened(self, door: _Door, transport: asyncio.Transport) -> bool:
        """Begin the handshake of a connection that came; False when it is one too many."""
        if self._closing or self.tls is None or self.tls.server is None:
            return False
        if not self.take_place(door, transport, HANDSHAKE_COST):
            return False
        self._start(self._shake_hands(door, transport, self.tls.server))
        return True

    async def _shake_hands(self, door: _Door, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        connection = Connection(self, self._limits)
        secure: asyncio.Transport | None = None
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                connection,
                context,
                server_side=True,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError:  # of which SSLError and TimeoutError are kinds
            self._stats["tls_handshake_errors"] += 1
        finally:
            if secure is None:
                transport.abort()
                self.give_place(door)
        if secure is not None:
            self._places[connection] = self._places.pop(door)
            connection.connection_made(secure)

    async def _connect(self, flow: Flow) -> None:
        """Open a connection for what waits; when that fails, tell the owner why."""
        connection = Connection(self, self._limits, flow)
        where, why = f"{flow.remote[0]} port {flow.remote[1]}", ""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._open(connection, flow)
        except ssl.SSLCertVerificationError as error:
            self._stats["tls_handshake_errors"] += 1
            why = f"the certificate of {where} is not trusted: {error.verify_message}"
        except ssl.SSLError as error:
            self._stats["tls_handshake_errors"] += 1
            why = f"no TLS with {where}: {error.reason or error}"
        except TimeoutError:
            self._stats["connect_errors"] += 1
            why = f"{where} did not answer in {CONNECT_S:.0f} s"
        except OSError as error:
            self._stats["connect_errors"] += 1
            why = f"no connection to {where}: {error.strerror or error}"
        finally:
            queue = self._connecting.pop(flow, [])
        if not why and self._by_flow.get(flow) is not connection:
            why = f"the certificate of {where} does not stand for {_host_of(flow)}"
        for data in queue:
            connection.send(data)
        if why and not self._closing:
            self._owner.stream_failed(flow, why)

    async def _open(self, connection: Connection, flow: Flow) -> None:
        secure = flow.transport == "TLS"
        if secure and self.tls is None:
            raise ConnectionError("there is no TLS here")
        host = self._owner.bound_host(flow.remote)
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: connection,
            flow.remote[0],
            flow.remote[1],
            local_addr=None if host is None else (host, 0),
            ssl=self.tls.client if secure and self.tls is not None else None,
            server_hostname=_host_of(flow).partition("%")[0] if secure else None,
            ssl_shutdown_timeout=SHUTDOWN_S if secure else None,
        )
        # A peer that lost its power says nothing: the kernel then tells us, instead of trying for a quarter of an hour.
        taken: socket.socket | None = transport.get_extra_info("socket")
        if taken is not None and not transport.is_closing():
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)

    def _is_genuine(self, transport: asyncio.Transport, flow: Flow) -> bool:
        return self.tls is not None and self.tls.accepts(transport.get_extra_info("peercert"), _host_of(flow))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Door(asyncio.Protocol):
    """A connection that came for TLS, until its handshake is over; it reads nothing itself."""

    def __init__(self, streams: Streams) -> None:
        self.transport: asyncio.Transport | None = None
        self._streams = streams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, or close."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what the loop hands to a stream protocol)
        self.transport = transport
        transport.pause_reading()
        if not self._streams.door_opened(self, transport):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Give the place back, when the handshake has not begun."""
        self._streams.give_place(self)


def _host_of(flow: Flow) -> str:
    """Return what the certificate of the peer must stand for."""
    return flow.hostname or flow.remote[0]
