"""The SIP endpoint: sockets and time around one agent.

Owns: UDP sockets and TCP listeners on one port, TLS listeners on another, the one timer handle, and the order in which bytes and
events leave. Refuses to know: connections (``net.streams``), SIP messages, and what an event leads to.

Specification: RFC 3261 section 18; asyncio is the only loop it knows.

Theory of operation: whatever enters (a datagram, a message from a connection, the timer, a command) goes to the agent
with the time, then ``_flush`` empties the agent: bytes to sockets, events to the callback, the next deadline to the timer.
A callback may give commands; they are carried out at once and their outputs are flushed in the same turn, in order.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from aftertone.errors import EnvironmentFault, UsageError
from aftertone.net.addresses import WILDCARDS, Routes, SocketName, family_of, is_literal, plain_address
from aftertone.net.connection import ConnectionLimits
from aftertone.net.datagrams import Datagrams, bound_socket
from aftertone.net.resolver import PORTS, Target
from aftertone.net.streams import Streams
from aftertone.net.tls import Tls
from aftertone.sip.agent import Agent
from aftertone.sip.budgets import Guard, Limits
from aftertone.sip.builder import Fields
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.events import CallId, DialogId, Event, RequestId, SubscriptionId, TransactionId, Transmit
from aftertone.sip.flow import Address, Flow, Transport
from aftertone.sip.settings import AgentSettings
from aftertone.sip.stream import PING
from aftertone.sip.subscriptions import Kept
from aftertone.sip.trace import Recorder


class SipEndpoint:
    """One agent on the network. Everything runs on the event loop's thread."""

    def __init__(
        self,
        settings: AgentSettings,
        on_event: Callable[[Event], None],
        *,
        hosts: Sequence[str] = ("0.0.0.0",),  # noqa: S104  (a phone must reach it)
        port: int = 5060,
        tls: Tls | None = None,
        tls_port: int | None = None,
        advertise: Callable[[Address], str | None] | None = None,
        limits: ConnectionLimits | None = None,
        guard: Guard | None = None,
        recorder: Recorder | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``hosts``: address literals to bind, ``::`` for IPv6 alone; ``port`` 0 takes a free one.

        ``tls``: for TLS connections of ours, and for those that come to ``tls_port``, if that is given.
        ``advertise`` returns the address under which a peer reaches us (a public address before a NAT), or None for
        the one that the kernel's route says.
        """
        self.guard = guard if guard is not None else Guard(Limits())
        self.agent = Agent(settings, entropy, self.guard)
        self._recorder = recorder
        self.stats: Counter[str] = Counter()
        self._on_event = on_event
        self._hosts = tuple(hosts)
        self._wanted_port = port
        self._advertise = advertise
        self._wanted_tls_port = tls_port
        self.lives_on: list[Callable[[Flow], bool]] = []
        """Asked whether something besides calls, a registration for instance, keeps a quiet connection open."""
        self._clock_ns = clock_ns
        self._routes = Routes(clock_ns)
        self._port = self._tls_port = 0
        self._datagrams: dict[str, Datagrams] = {}
        self._servers: list[asyncio.Server] = []
        self._streams = Streams(self, limits or ConnectionLimits(), tls, self.stats)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns: int | None = None
        self._flushing = False
        self._stopped = False

    @property
    def port(self) -> int:
        """Return the port that is bound; 0 before ``start``."""
        return self._port

    @property
    def tls_port(self) -> int:
        """Return the port for TLS that is bound; 0 when there is none."""
        return self._tls_port

    @property
    def connections(self) -> int:
        """Return how many connections there are, those in their TLS handshake included."""
        return self._streams.live

    async def start(self) -> None:
        """Bind all sockets, or none: raises EnvironmentFault that names the port and its setting."""
        self._stopped = False
        attempts = 1 if self._wanted_port else 8
        for attempt in range(attempts):
            try:
                await self._bind()
                return
            except OSError as error:
                await self._close_sockets()
                if attempt == attempts - 1 or error.errno != errno.EADDRINUSE:
                    raise EnvironmentFault(self._explain(error)) from error

    async def stop(self) -> None:
        """Send what is ready, then close everything; no event comes afterwards. May be called twice."""
        if self._datagrams or self._servers:
            self._flush()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_ns = None
        await self._close_sockets()

    def flow_to(
        self, remote: Address, transport: Transport = "UDP", *, hostname: str = "", either: bool = False
    ) -> Flow:
        """Return the flow to a peer that we want to call; a connection is opened when something is sent.

        ``hostname``: what the peer's certificate must stand for, when it is not the address. ``either``: UDP was nobody's
        wish, so that a large request may go by TCP. Raises UsageError for a host that is a name: looking names up takes
        time, and is done before.
        """
        if not is_literal(remote[0]):
            raise UsageError(f"{remote[0]!r} is no address: look the name up first")
        local = self.local_towards(remote, transport)
        return Flow(transport, remote, local, hostname if transport == "TLS" else "", either=either)

    def flow_for(self, target: Target) -> Flow:
        """Return the flow to a server that ``net.resolver`` found."""
        return self.flow_to(target.address, target.transport, hostname=target.hostname, either=target.either)

    # Commands: as in Agent, with the time filled in and the outputs sent

    def respond(
        self,
        transaction_id: TransactionId,
        status: int,
        *,
        reason: str = "",
        headers: Fields = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        """Answer a request; see ``Agent.respond``."""
        self.agent.respond(
            transaction_id,
            status,
            reason=reason,
            headers=headers,
            body=body,
            content_type=content_type,
            now_ns=self._clock_ns(),
        )
        self._flush()

    def bye(self, dialog_id: DialogId, *, reason: str = "") -> None:
        """End a call; see ``Agent.bye``."""
        self.agent.bye(dialog_id, self._clock_ns(), reason=reason)
        self._flush()

    def reoffer(self, dialog_id: DialogId, body: bytes, content_type: str) -> None:
        """Offer a new description; see ``Agent.reoffer``."""
        self.agent.reoffer(dialog_id, body, content_type, self._clock_ns())
        self._flush()

    def invite(
        self,
        target_uri: str,
        *,
        from_uri: str,
        display_name: str = "",
        body: bytes = b"",
        content_type: str = "",
        flow: Flow,
        headers: Fields = (),
        login: DigestClient | None = None,
    ) -> CallId:
        """Place a call; see ``Agent.invite``."""
        call = self.agent.invite(
            target_uri,
            from_uri=from_uri,
            display_name=display_name,
            body=body,
            content_type=content_type,
            flow=flow,
            headers=headers,
            login=login,
            now_ns=self._clock_ns(),
        )
        # The caller must know the name of its call before it hears of it.
        self._flush_soon()
        return call

    def cancel(self, call: CallId) -> None:
        """Give up a call; see ``Agent.cancel``."""
        self.agent.cancel(call, self._clock_ns())
        self._flush()

    def acknowledge(self, dialog_id: DialogId, body: bytes, content_type: str) -> None:
        """Answer a late offer; see ``Agent.acknowledge``."""
        self.agent.acknowledge(dialog_id, body, content_type, self._clock_ns())
        self._flush()

    def request(
        self,
        method: str,
        target_uri: str,
        *,
        from_uri: str,
        to_uri: str | None = None,
        flow: Flow,
        route: Sequence[str] = (),
        headers: Fields = (),
        body: bytes = b"",
        content_type: str = "",
        call_id: str = "",
        from_tag: str = "",
        cseq: int = 0,
    ) -> RequestId:
        """Send a request that belongs to no call; see ``Agent.request``."""
        request = self.agent.request(
            method,
            target_uri,
            from_uri=from_uri,
            to_uri=to_uri,
            flow=flow,
            route=route,
            headers=headers,
            body=body,
            content_type=content_type,
            call_id=call_id,
            from_tag=from_tag,
            cseq=cseq,
            now_ns=self._clock_ns(),
        )
        # As with a call: its name must be known before its answer.
        self._flush_soon()
        return request

    def accept_subscription(self, transaction_id: TransactionId, body: bytes) -> SubscriptionId | None:
        """Grant a subscription; see ``Agent.accept_subscription``."""
        subscription = self.agent.accept_subscription(transaction_id, body, self._clock_ns())
        self._flush_soon()
        return subscription

    def notify(self, subscription_id: SubscriptionId, body: bytes, *, again: bool = False) -> None:
        """Tell a new state; see ``Agent.notify``."""
        self.agent.notify(subscription_id, body, self._clock_ns(), again=again)
        self._flush()

    def resume(self, kept: Kept, body: bytes) -> SubscriptionId | None:
        """Go on with a subscription of an earlier process; see ``Agent.resume``."""
        subscription = self.agent.resume(kept, body, self._clock_ns())
        self._flush_soon()
        return subscription

    def end_subscription(self, subscription_id: SubscriptionId, reason: str) -> None:
        """End a subscription; see ``Agent.end_subscription``."""
        self.agent.end_subscription(subscription_id, reason, self._clock_ns())
        self._flush()

    def keep_alive(self, flow: Flow, *, answered: bool = False) -> None:
        """Send an empty line, so that NATs and peers on the way keep the path (RFC 5626 sections 3.5.1 and 4.4.1).


        A connection that is gone is not opened for it. ``answered``: the peer is known to answer (it supports outbound), so
        that a connection without an answer in time counts as lost, and FlowLost follows.
        """
        if flow.reliable:
            self._streams.keep_alive(flow, answered=answered)
        else:
            self._send(PING, flow)

    # What sockets and connections tell (net.streams.StreamsOwner, net.datagrams.DatagramOwner)

    def stream_message(self, data: bytes, flow: Flow) -> None:
        """Take one message of a connection."""
        if self.guard.message(flow.remote[0], self._clock_ns(), stream=True):
            self._receive(data, flow)

    def stream_gone(self, flow: Flow) -> None:
        """Hear that a connection is closed."""
        self.agent.flow_lost(flow, self._clock_ns())
        self._flush_soon()

    def stream_failed(self, flow: Flow, why: str) -> None:
        """Hear that a connection could not be opened."""
        self.agent.transport_failed(flow, self._clock_ns(), why)
        self._flush_soon()

    def may_connect(self, host: str, cost: int) -> bool:
        """Take a connection out of its source's budget; False when that is used up."""
        now_ns = self._clock_ns()
        return all(self.guard.message(host, now_ns, stream=True) for _ in range(cost))

    def in_use(self, flow: Flow) -> bool:
        """Return whether a call, or whatever else ``lives_on`` knows of, lives on a flow."""
        return self.agent.uses(flow) or any(lives(flow) for lives in self.lives_on)

    def knows(self, host: str) -> bool:
        """Tell whether an address is a trunk's, an account's server, or one from which somebody logged in."""
        return self.guard.known(host)

    def bound_host(self, remote: Address) -> str | None:
        """Return the address that a connection to a peer must come from; None leaves it to the kernel."""
        family = family_of(remote[0])
        bound = [host for host in self._hosts if family_of(host) == family]
        if not bound or any(host in WILDCARDS for host in bound):
            return None
        if len(bound) == 1:
            return bound[0]
        host = self._routes.towards(remote)
        return host if host in bound else bound[0]

    def datagram(self, data: bytes, address: SocketName, host: str) -> None:
        """Take one datagram, if its source has not sent too many: then it costs next to nothing, and nobody hears of it."""
        if not self.guard.message(address[0], self._clock_ns()):
            return
        remote = plain_address(address)
        self._receive(data, Flow("UDP", remote, self.local_towards(remote, "UDP", host)))

    def socket_error(self) -> None:
        """Hear that the network refused an earlier datagram; the transaction timers will notice what it costs."""
        self.stats["socket_errors"] += 1

    def local_towards(self, remote: Address, transport: Transport, host: str = "") -> Address:
        """Return our address as a peer reaches it. ``host``: the address that it has reached already."""
        port = (self._tls_port or PORTS["TLS"]) if transport == "TLS" else self._port
        told = self._advertise(remote) if self._advertise is not None else None
        if told is not None:
            return told, port
        if host and host not in WILDCARDS:
            return host, port
        return self.bound_host(remote) or self._routes.towards(remote), port

    # Inside

    def _receive(self, data: bytes, flow: Flow) -> None:
        now_ns = self._clock_ns()
        if self._recorder is not None:
            self._recorder.received(data, flow, now_ns)
        try:
            self.agent.receive(data, flow, now_ns)
        finally:
            self._flush()

    def _flush(self) -> None:
        """Empty the agent: bytes to sockets, events to the application, the deadline to the timer."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while outputs := self.agent.outputs():
                for output in outputs:
                    if isinstance(output, Transmit):
                        self._send(output.data, output.flow)
                    else:
                        self._tell(output)
        finally:
            self._flushing = False
        self._set_timer()

    def _flush_soon(self) -> None:
        """Flush in a turn of its own; not when everything is being closed, for no timer may be set any more."""
        if not self._stopped:
            asyncio.get_running_loop().call_soon(self._flush)

    def _tell(self, event: Event) -> None:
        if self._stopped:
            return
        try:
            self._on_event(event)
        except Exception as error:
            # One call's fault must not cost the others their bytes.
            self.stats["callback_errors"] += 1
            context = {"message": f"the handler of {type(event).__name__} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _set_timer(self) -> None:
        deadline_ns = self.agent.deadline_ns()
        if deadline_ns == self._timer_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_ns = None, deadline_ns
        if deadline_ns is not None:
            delay_s = max(0, deadline_ns - self._clock_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_ns = None
        try:
            self.agent.advance(self._clock_ns())
        finally:
            # Whatever one call's timer did, the others still have theirs.
            self._flush()

    def _send(self, data: bytes, flow: Flow) -> None:
        if self._recorder is not None:
            self._recorder.sent(data, flow, self._clock_ns())
        if flow.reliable:
            self._streams.send(data, flow)
            return
        family = family_of(flow.remote[0])
        port = self._datagrams.get(flow.local[0]) or self._datagrams.get(self.bound_host(flow.remote) or "")
        if port is None or family_of(port.host) != family:
            port = next((one for host, one in self._datagrams.items() if family_of(host) == family), None)
        if port is None or port.transport is None or not is_literal(flow.remote[0]):
            self.stats["unsendable"] += 1
            if data != PING:
                self.stream_failed(flow, "we do not listen on addresses of that kind")
        elif port.full:
            self.stats["dropped_unsent"] += 1
        else:
            port.transport.sendto(data, flow.remote)

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        self._port, self._tls_port = self._wanted_port, self._wanted_tls_port or 0
        for host in self._hosts:
            udp = bound_socket(host, self._port, socket.SOCK_DGRAM)
            self._port = udp.getsockname()[1]
            _, self._datagrams[host] = await loop.create_datagram_endpoint(partial(Datagrams, self, host), sock=udp)
            tcp = bound_socket(host, self._port, socket.SOCK_STREAM)
            self._servers.append(await loop.create_server(self._streams.accepted, sock=tcp, backlog=256))
            if self._wanted_tls_port is not None:
                tls = bound_socket(host, self._tls_port, socket.SOCK_STREAM)
                self._tls_port = tls.getsockname()[1]
                self._servers.append(await loop.create_server(self._streams.accepted_tls, sock=tls, backlog=256))

    async def _close_sockets(self) -> None:
        for port in self._datagrams.values():
            if port.transport is not None:
                port.transport.close()
        self._datagrams.clear()
        for server in self._servers:
            server.close()
        self._servers.clear()
        await self._streams.close()
        # Transports close in a callback of the loop; afterwards nothing of ours is left open.
        await asyncio.sleep(0)

    def _explain(self, error: OSError) -> str:
        secure = "" if self._wanted_tls_port is None else f" (or {self._wanted_tls_port} for TLS, `sip.tls_port`)"
        where = f"SIP port {self._wanted_port}{secure} on {', '.join(self._hosts)}"
        if error.errno == errno.EADDRINUSE:
            return f"{where} is in use by another program: stop that program or choose another port in `sip.port`"
        if error.errno == errno.EACCES:
            return f"{where} may not be opened by this user: choose a port above 1023 in `sip.port`"
        return f"{where} cannot be opened ({error.strerror}): check `sip.port` and the address to listen on"
