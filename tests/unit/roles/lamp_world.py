"""A line's lamps between a real agent and phones of bytes, in virtual time.

Owns: an endpoint without sockets, phones that log in, what was sent to whom. Refuses to know: what is right.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ParamSpec, cast

import structlog

from aftertone.config.sip import Sip
from aftertone.errors import EnvironmentFault
from aftertone.model import Mailbox
from aftertone.net.endpoint import SipEndpoint
from aftertone.net.resolver import Target
from aftertone.roles.counts import Waiting
from aftertone.roles.enrolment import Sender
from aftertone.roles.lamps import Lamps, lamp_settings
from aftertone.roles.memory import Memory
from aftertone.roles.peers import Peers
from aftertone.sip.agent import Agent
from aftertone.sip.digest_client import AuthenticationError, DigestClient
from aftertone.sip.events import Event, RequestId, SubscriptionId, TransactionId, Transmit
from aftertone.sip.flow import Address, Flow, Transport
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.mwi import Summary
from aftertone.sip.mwi import parse as parse_summary
from aftertone.sip.settings import AgentSettings
from aftertone.sip.subscriptions import Kept
from aftertone.sip.uri import Uri
from aftertone.voicemail.directory import Directory
from tests.support.clerk import AtOnce
from tests.unit.sip.kit import US, S, agent, request, seeded

BOXES = Directory(mailboxes={"main": Mailbox("main"), "office": Mailbox("office", numbers=("+12025550143",))})
TRUNK: Address = ("198.51.100.1", 5060)
STRANGER: Address = ("203.0.113.5", 5060)


P = ParamSpec("P")


def in_a_loop(story: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test's story on an event loop of its own."""

    @functools.wraps(story)
    def run(*arguments: P.args, **more: P.kwargs) -> None:
        asyncio.run(story(*arguments, **more))

    return run


class Endpoint:
    """As much of ``SipEndpoint`` as lamps use."""

    def __init__(self, world: World) -> None:
        self.world = world

    def respond(self, transaction_id: TransactionId, status: int, **more: Any) -> None:
        self.world.agent.respond(transaction_id, status, now_ns=self.world.now_ns, **more)

    def accept_subscription(self, transaction_id: TransactionId, body: bytes) -> SubscriptionId | None:
        return self.world.agent.accept_subscription(transaction_id, body, self.world.now_ns)

    @property
    def agent(self) -> Agent:
        return self.world.agent

    def notify(self, subscription_id: SubscriptionId, body: bytes, *, again: bool = False) -> None:
        self.world.agent.notify(subscription_id, body, self.world.now_ns, again=again)

    def resume(self, kept: Kept, body: bytes) -> SubscriptionId | None:
        return self.world.agent.resume(kept, body, self.world.now_ns)

    def request(self, method: str, target_uri: str, **more: Any) -> RequestId:
        return self.world.agent.request(method, target_uri, now_ns=self.world.now_ns, **more)

    def flow_for(self, target: Target) -> Flow:
        return Flow(target.transport, target.address, US)


class World:
    """One line without sockets. ``counts`` is what the catalog would say."""

    def __init__(self, memory: Path | None = None, **sip: Any) -> None:
        self.settings = Sip(**sip)
        self.now_ns = 1000 * S
        self.counts: Waiting | None = {}
        self.sent: list[tuple[Request | Response, Flow]] = []
        self.servers: dict[str, Sequence[Target]] = {}
        self.senders: dict[str, Sender] = {}
        self.others: list[Event] = []
        self.logs = structlog.testing.LogCapture()
        logger = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[self.logs])
        self.agent = agent(AgentSettings(**lamp_settings(self.settings)))
        self.peers = Peers(self.settings, secret=bytes(16), logger=logger, clock_ns=lambda: self.now_ns)
        self.lamps = Lamps(
            self.settings,
            cast(SipEndpoint, Endpoint(self)),
            self.peers,
            counts=lambda: self.counts,
            directory=lambda: BOXES,
            sender=self.senders.get,
            resolve=self._resolve,
            memory=None if memory is None else Memory(memory, boot_id=b"boot", clerk=AtOnce()),
            logger=logger,
            entropy=seeded(),
            clock_ns=lambda: self.now_ns,
        )

    async def _resolve(self, uri: Uri, _transport: str | None) -> Sequence[Target]:
        try:
            return self.servers[uri.host]
        except KeyError:
            raise EnvironmentFault(f"no address for {uri.host}") from None

    def drain(self) -> None:
        """Give events to the lamps and keep what was sent."""
        while outputs := self.agent.outputs():
            for output in outputs:
                if isinstance(output, Transmit):
                    self.sent.append((parse(output.data, stream=output.flow.reliable), output.flow))
                elif not self.lamps.on_sip(output):
                    self.others.append(output)

    def take(self, data: bytes, flow: Flow) -> None:
        """Let the line receive this."""
        self.agent.receive(data, flow, self.now_ns)
        self.drain()

    async def after(self, seconds: float) -> None:
        """Let time pass, in steps of 100 ms, with a beat in each."""
        for _ in range(round(seconds * 10)):
            self.now_ns += S // 10
            self.agent.advance(self.now_ns)
            self.drain()
            self.lamps.beat()
            await asyncio.sleep(0)
            self.drain()

    def notifies(self) -> list[Request]:
        """Return and forget the NOTIFY requests sent."""
        found = [m for m, _ in self.sent if isinstance(m, Request) and m.method == "NOTIFY"]
        self.sent.clear()
        return once(found)


class Phone:
    """A phone at an address, that answers what it is told as it is told to."""

    def __init__(self, world: World, user: str = "anna", secret: str = "geheim", at: Address = ("192.0.2.7", 5062),
                 transport: Transport = "UDP") -> None:  # fmt: skip
        self.world, self.user, self.at = world, user, at
        self.flow = Flow(transport, at, US)
        self.login = DigestClient(user, secret, seeded(7))
        self.cseq = 0
        self.lamp: Summary | None = None
        self.status = 200
        self.asked = 0
        self.heard: list[Request] = []

    def ask(self, method: str, uri: str, extra: str, *, to: str = "", call_id: str = "", tag: str = "") -> Response:
        """Send a request, answer a challenge once, and return the last response."""
        sent: tuple[tuple[str, str], ...] = ()
        for _ in range(2):
            self.cseq += 1
            sent = self.login.authorize(method, uri)
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent)
            branch = f"z9hG4bK{self.user}{self.cseq}{self.at[1]}"
            data = request(
                method,
                uri=uri,
                via=f"SIP/2.0/{self.flow.transport} {self.at[0]}:{self.at[1]};branch={branch};rport",
                call_id=call_id or f"{method}-{self.user}-{self.at[1]}",
                cseq=self.cseq,
                to_tag=tag,
                extra=lines + extra,
                drop="Contact",
            )
            data = data.replace(b"To: <sip:box@192.0.2.1>", f"To: <sip:{to or self.user}@192.0.2.1>".encode())
            self.world.take(data, self.flow)
            response = next(
                m for m, flow in reversed(self.world.sent)
                if isinstance(m, Response) and flow.remote == self.at and m.cseq.number == self.cseq
            )  # fmt: skip
            if response.status != 401:
                break
            try:
                self.login.challenged(response, sent)
            except AuthenticationError:
                break
        self.answer()
        return response

    @property
    def contact(self) -> str:
        suffix = "" if self.flow.transport == "UDP" else ";transport=tcp"
        return f"Contact: <sip:{self.user}@{self.at[0]}:{self.at[1]}{suffix}>\r\n"

    def register(self, expires: int = 600, to: str = "", extra: str = "") -> Response:
        return self.ask("REGISTER", "sip:192.0.2.1", f"{extra}{self.contact}Expires: {expires}\r\n", to=to)

    def subscribe(self, user: str, expires: int = 600) -> Response:
        extra = f"{self.contact}Event: message-summary\r\nExpires: {expires}\r\n"
        self.asked += 1
        return self.ask("SUBSCRIBE", f"sip:{user}@192.0.2.1" if user else "sip:192.0.2.1", extra,
                        call_id=f"sub-{self.user}-{self.at[1]}-{self.asked}")  # fmt: skip

    def answer(self) -> list[Request]:
        """Answer every NOTIFY that lies here, light the lamp, and return them."""
        mine = [m for m, flow in self.world.sent if isinstance(m, Request) and flow.remote == self.at]
        self.world.sent = [(m, f) for m, f in self.world.sent if not (isinstance(m, Request) and f.remote == self.at)]
        self.heard += mine
        for notify in mine:
            if notify.body and self.status == 200:
                self.lamp = parse_summary(notify.body).summary
            self.world.take(reply(notify, self.status), self.flow)
        return once(mine)


def once(requests: Sequence[Request]) -> list[Request]:
    """Return requests without their retransmissions."""
    return list({one.via.branch: one for one in requests}.values())


def reply(notify: Request, status: int, extra: str = "") -> bytes:
    """Return a response to one of our requests."""
    to = notify.get("to")
    tagged = to if notify.to.tag else f"{to};tag=phone"
    return (
        f"SIP/2.0 {status} X\r\nVia: {notify.get('via')}\r\nFrom: {notify.get('from')}\r\nTo: {tagged}\r\n"
        f"Call-ID: {notify.call_id}\r\nCSeq: {notify.get('cseq')}\r\n{extra}Content-Length: 0\r\n\r\n"
    ).encode()
