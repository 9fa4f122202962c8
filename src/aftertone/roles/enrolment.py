"""One account at work: its registration, the servers that it may be made at, and the flow that calls come by.

Owns: which server is asked, the keepalives, and the task that waits for the next moment. Refuses to know: what a REGISTER says
(``sip.registration``), other accounts, and calls.

Specification: RFC 3263 section 4.3 (the next server after a failure), RFC 5626 sections 3.5.1 and 4.4 (keepalive).

Theory of operation: one task an account. It sleeps until the registration or the keepalive is due, resolves the registrar anew for
each round, asks its servers one after the other, and comes back to the one that took the registration. Nothing that goes
wrong here reaches anybody else: a name that does not resolve, a file that cannot be read, a bug are all a reason and a pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from aftertone.config import Account
from aftertone.errors import AftertoneError, ConfigError
from aftertone.net.endpoint import SipEndpoint
from aftertone.net.resolver import Target
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.events import RequestAnswered, RequestFailed, RequestId
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow, bracketed
from aftertone.sip.proof import Login
from aftertone.sip.registration import PASSING_ON, Registrant, Registration, State
from aftertone.sip.settings import SECOND_NS
from aftertone.sip.uri import Uri, parse_uri

PING_UDP_S: Final = 25.0
"""Below the 30 s after which the most impatient NATs forget a mapping (RFC 5626 section 4.4.2)."""
PING_STREAM_S: Final = 110.0
"""RFC 5626 section 4.4.1: 95 to 120 s where the server does not say."""

Answer = RequestAnswered | RequestFailed
Resolve = Callable[[Uri, str | None], Awaitable[Sequence[Target]]]


@dataclass(frozen=True, slots=True)
class Sender:
    """How a request of ours leaves in the name of an account."""

    address: str
    """The address of record: From, and To where it is meant for ourselves."""
    flow: Flow
    route: tuple[str, ...]
    """URIs for Route: the Service-Route, else the outbound proxy."""
    login: DigestClient
    """Shared with the registration; give ``challenged`` what ``authorize`` returned for the request."""


def server_uri(text: str) -> Uri:
    """Read ``host``, ``host:port``, an IPv6 literal or a SIP URI as settings have it. Raises ParseError."""
    text = text.strip()
    if text.lower().startswith(("sip:", "sips:")):
        uri = parse_uri(text)
    elif text.count(":") > 1 and not text.startswith("["):
        uri = parse_uri(f"sip:[{text}]")
    else:
        uri = parse_uri(f"sip:{text}")
    return Uri(uri.scheme, "", uri.host, uri.port, uri.params)


def registrant_of(account: Account, *, line: str, instance: str, learn: bool) -> tuple[Registrant, Uri]:
    """Return who registers where, and the URI whose servers are asked. Raises ConfigError for what is no address."""
    try:
        registrar = server_uri(account.registrar)
        proxy = server_uri(account.proxy) if account.proxy else None
        user, at, domain = account.user.rpartition("@")
        user, domain = (user, domain) if at else (account.user, registrar.host)
        address = f"{registrar.scheme}:{user}@{domain}"
        if parse_uri(address).user != user:
            raise ParseError(f"{account.user!r} is no user name of a SIP address")
    except ParseError as error:
        raise ConfigError(f"the settings of account {account.name} cannot be used: {error}") from None
    plain = Uri(registrar.scheme, "", registrar.host, registrar.port, {}).serialize()
    route: tuple[str, ...] = ()
    if proxy is not None and (proxy.host, proxy.port) != (registrar.host, registrar.port):
        route = (Uri(proxy.scheme, "", proxy.host, proxy.port, {**proxy.params, "lr": None}).serialize(),)
    who = Registrant(
        registrar=plain,
        address=address,
        user=user,
        line=line,
        instance=instance,
        expires_s=account.expires_s,
        route=route,
        learn=learn,
        first_pause_ns=account.retry_s * SECOND_NS,
    )
    return who, proxy or registrar


class Enrolment:
    """One account; see the module. Everything runs on the event loop's thread."""

    def __init__(
        self,
        account: Account,
        who: Registrant,
        server: Uri,
        endpoint: SipEndpoint,
        resolve: Resolve,
        *,
        entropy: Callable[[int], bytes],
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self.account: Final = account
        self.who: Final = who
        self.target: Target | None = None
        """The server that was asked last."""
        self.flow: Flow | None = None
        self.hosts: frozenset[str] = frozenset()
        """Addresses of the account's servers as last resolved: what calls of this account come from."""
        self.attempts = self.failures = 0
        self._server, self._endpoint, self._resolve, self._entropy = server, endpoint, resolve, entropy
        self._logger = logger.bind(account=account.name)
        self._password: str | None = None
        self._leaving = False
        self.registration = Registration(who, DigestClient("", "", entropy), entropy, time.monotonic_ns())
        self._round: list[Target] = []
        self._wake = asyncio.Event()
        self._answer: tuple[RequestId, asyncio.Future[Answer]] | None = None
        self._ping_ns: int | None = None
        self._told: tuple[State, str] = (State.REGISTERING, "")

    async def run(self) -> None:
        """Keep the account registered until ``leave`` has done its work."""
        while (deadline_ns := self._next_ns()) is not None:
            delay_s = (deadline_ns - time.monotonic_ns()) / 1e9
            if delay_s > 0:
                self._wake.clear()
                try:
                    async with asyncio.timeout(delay_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            due_ns = self.registration.deadline_ns()
            if due_ns is not None and due_ns <= time.monotonic_ns():
                await self._guarded()
                self._tell()
            self._ping()

    def leave(self) -> None:
        """Remove the registration; ``run`` returns when that is done or given up."""
        self._leaving = True
        self.registration.leave(time.monotonic_ns())
        self._wake.set()

    def take(self, event: Answer) -> bool:
        """Take the answer that this account waits for; return False for one that is not its own."""
        if self._answer is None or event.request != self._answer[0]:
            return False
        if not self._answer[1].done():
            self._answer[1].set_result(event)
        return True

    def flow_lost(self, flow: Flow) -> None:
        """Hear that a connection is gone; when it was ours, register anew."""
        if flow == self.flow:
            self.registration.flow_lost(time.monotonic_ns())
            self._tell()
            self._wake.set()

    def sender(self) -> Sender | None:
        """Return how to send in this account's name, None when it is not registered."""
        if self.registration.state is not State.REGISTERED or self.flow is None:
            return None
        route = self.registration.service_route or self.who.route
        return Sender(self.who.address, self.flow, route, self.registration.login)

    def dialog_login(self) -> Login:
        """Return the login of calls that came by this account: for its own servers, and no less protected than its registration."""
        return Login(self._login_anew, self._may_ask)

    def _login_anew(self) -> DigestClient:
        # The secret may have changed since the call began.
        return self.registration.login.for_dialog()

    def _may_ask(self, flow: Flow, host: str) -> bool:
        own = self.flow
        encrypted = own is not None and (flow.transport == "TLS" or own.transport != "TLS")
        names = {parse_uri(self.who.registrar).host.strip("[]").lower(), self._server.host.strip("[]").lower()}
        return encrypted and flow.remote[0] in self.hosts and host in self.hosts | names

    # The rounds

    def _next_ns(self) -> int | None:
        due_ns = self.registration.deadline_ns()
        if due_ns is None:
            return None
        return due_ns if self._ping_ns is None else min(due_ns, self._ping_ns)

    async def _guarded(self) -> None:
        """Ask once; whatever goes wrong is this account's own trouble."""
        self.attempts += 1
        try:
            await self._ask()
        except AftertoneError as error:
            self._round.clear()
            self.registration.failed(str(error), time.monotonic_ns())
        except Exception:
            self._logger.exception("a registration failed inside")
            self._round.clear()
            self.registration.failed("a fault of ours, see the log", time.monotonic_ns())
        if self.registration.state is State.FAILING:
            self.failures += 1
            self._round.clear()

    async def _ask(self) -> None:
        if not self._round:
            await self._read_secret()
            self._round = await self._targets()
        target = self.target = self._round[0]
        flow = self.flow = self._endpoint.flow_for(target)
        asked = self.registration.ask(flow)
        request = self._endpoint.request(
            "REGISTER",
            asked.target_uri,
            from_uri=asked.address,
            to_uri=asked.address,
            flow=flow,
            route=asked.route,
            headers=asked.headers,
            call_id=asked.call_id,
            from_tag=asked.from_tag,
            cseq=asked.cseq,
        )
        self._answer = request, asyncio.get_running_loop().create_future()
        try:
            event = await self._answer[1]
        finally:
            self._answer = None
        others, now_ns = len(self._round) > 1, time.monotonic_ns()
        if isinstance(event, RequestAnswered):
            self.registration.answered(event.response, now_ns, others=others)
            over = event.response.status in PASSING_ON
        else:
            self.registration.failed(_no_answer(target, event), now_ns, others=others)
            over = True
        if over:
            self._round.pop(0)
        elif self.registration.state is State.REGISTERED and self.registration.deadline_ns() != now_ns:
            self._round.clear()
            self._schedule_ping()

    async def _read_secret(self) -> None:
        """Read the secret anew, so that it can be changed without a restart; keep the login while it is the same."""
        # A file may lie on a disk that holds its reader.
        password = await asyncio.to_thread(self.account.password)
        if password != self._password:
            user = self.account.auth_user or self.who.user
            self.registration.login = DigestClient(user, password, self._entropy)
            self._password = password

    async def _targets(self) -> list[Target]:
        """Return the servers to ask, first the one that holds our registration."""
        wanted = None if self.account.transport == "auto" else self.account.transport
        held = self.target if self.registration.expires_ns is not None else None
        if self._leaving and held is not None:
            return [held]
        try:
            found = list(await self._resolve(self._server, wanted))
        except AftertoneError:
            # Name servers may be away while the registrar is not.
            if held is None:
                raise
            return [held]
        self.hosts = frozenset(target.host for target in found)
        if held in found:
            found.remove(held)
            found.insert(0, held)
        return found

    # Keepalive

    def _schedule_ping(self) -> None:
        flow, wanted_s = self.flow, self.registration.flow_timer_s
        if flow is None:
            return
        usual_s = PING_STREAM_S if flow.reliable else PING_UDP_S
        longest_s = min(usual_s, float(wanted_s)) if wanted_s and self.registration.outbound else usual_s
        share = 0.8 + 0.2 * self._entropy(1)[0] / 255
        self._ping_ns = time.monotonic_ns() + int(max(longest_s * share, 1.0) * 1e9)

    def _ping(self) -> None:
        if self._ping_ns is None or self._ping_ns > time.monotonic_ns():
            return
        if self.registration.state is not State.REGISTERED or self.flow is None:
            self._ping_ns = None
            return
        self._endpoint.keep_alive(self.flow, answered=self.registration.outbound)
        self._schedule_ping()

    def _tell(self) -> None:
        """Log a change of state or reason, and no repetition."""
        registration = self.registration
        if (registration.state, registration.reason) == self._told:
            return
        was, self._told = self._told[0], (registration.state, registration.reason)
        where = {} if self.target is None else {"server": shown_target(self.target)}
        if registration.state is State.REGISTERED:
            if was is not State.REGISTERED:
                self._logger.info("account is registered", registrar=self.who.registrar, **where)
        elif registration.state is State.FAILING:
            self._logger.warning("account is not registered", why=registration.reason, **where)
        elif registration.state is State.REGISTERING:
            self._logger.warning("account registers anew: the connection is lost", **where)
        else:
            self._logger.info("account is signed off")


def shown_target(target: Target) -> str:
    """Return ``udp 192.0.2.1:5060``."""
    return f"{target.transport.lower()} {bracketed(target.host)}:{target.port}"


def _no_answer(target: Target, event: RequestFailed) -> str:
    if event.status == 408:
        return f"no answer from {shown_target(target)}: check the network, the registrar's name and the firewall"
    todo = "check the network, the registrar's name and the transport"
    return f"no connection to {shown_target(target)}: {todo} ({event.reason})"
