"""Phones that subscribe over a network that loses, doubles and reorders: in the end each knows the last state, and nothing is left."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest

from aftertone.sip.agent import Agent
from aftertone.sip.events import SubscriptionAsked, SubscriptionEnded, SubscriptionId, Transmit
from aftertone.sip.flow import Flow
from aftertone.sip.message import Response, parse
from aftertone.sip.mwi import Summary, build
from aftertone.sip.mwi import parse as parse_summary
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import MS, US, S, agent

SETTINGS = AgentSettings(allow_events=("message-summary",))
SEEDS = 120
EVENING_NS = 200 * S
QUIET_NS = 60 * S
"""After the last change the network is good, and everybody has this long to learn of it."""


@dataclass
class Phone:
    """A subscriber as simple as can be: asks, asks again, answers each NOTIFY, and begins anew when it is over."""

    number: int
    rng: random.Random
    call: int = 0
    cseq: int = 0
    tag: str = ""
    seen: int = -1
    """CSeq of the newest NOTIFY of this dialog."""
    lamp: Summary | None = None
    next_ns: int = 0
    resend_ns: int | None = None
    asking: bytes = b""
    done: bool = False
    over: bool = False
    notified: int = 0
    out: list[bytes] = field(default_factory=list)

    @property
    def flow(self) -> Flow:
        return Flow("UDP", (f"192.0.2.{100 + self.number}", 5060), US)

    @property
    def call_id(self) -> str:
        return f"c{self.call}-p{self.number}"

    def advance(self, now_ns: int) -> None:
        if self.resend_ns is not None and now_ns >= self.resend_ns:
            self.resend_ns = now_ns + S
            self.out.append(self.asking)
        if not self.over and now_ns >= self.next_ns:
            self.next_ns = now_ns + int(self.rng.uniform(20, 50) * S)
            self.ask(90)
            self.resend_ns = now_ns + S

    def leave(self) -> None:
        if not self.over:
            self.over = True
            self.ask(0)

    def ask(self, expires_s: int) -> None:
        if not self.tag:
            self.call += 1
            self.seen = -1
        self.cseq += 1
        host = self.flow.remote[0]
        to = f"<sip:box@192.0.2.1>{f';tag={self.tag}' if self.tag else ''}"
        self.asking = (
            f"SUBSCRIBE sip:box@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bK{self.call_id}-{self.cseq}\r\n"
            f"From: <sip:p@{host}>;tag=p{self.number}\r\nTo: {to}\r\nCall-ID: {self.call_id}\r\nCSeq: {self.cseq} SUBSCRIBE\r\n"
            f"Contact: <sip:p@{host}>\r\nEvent: message-summary\r\nExpires: {expires_s}\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        self.out.append(self.asking)

    def receive(self, data: bytes, now_ns: int) -> None:
        message = parse(data)
        if isinstance(message, Response):
            if message.cseq.number != self.cseq or message.call_id != self.call_id:
                return
            self.resend_ns = None
            if message.status == 200:
                self.tag = message.to.tag
            else:
                assert message.status in (481, 500), message.status
                self.tag, self.next_ns = "", now_ns
                self.done = self.over
            return
        ours = message.call_id == self.call_id and self.tag in ("", message.from_.tag)
        status = 200 if ours else 481
        self.out.append(
            (
                f"SIP/2.0 {status} X\r\nVia: {message.get('via')}\r\nFrom: {message.get('from')}\r\nTo: {message.get('to')}\r\n"
                f"Call-ID: {message.call_id}\r\nCSeq: {message.get('cseq')}\r\nContent-Length: 0\r\n\r\n"
            ).encode()
        )
        if not ours:
            return
        self.notified += 1
        if message.cseq.number > self.seen:
            self.seen = message.cseq.number
            self.lamp = parse_summary(message.body).summary
        if message.get("subscription-state").startswith("terminated"):
            self.tag, self.done = "", self.over
            self.resend_ns = None if self.over else self.resend_ns
            self.next_ns = now_ns


class World:
    """One agent that notifies, some phones, and the network between them."""

    def __init__(self, seed: int, phones: int = 3, loss: float = 0.2) -> None:
        self.rng = random.Random(seed)
        self.agent: Agent = agent(SETTINGS, seed)
        self.phones = {(f"192.0.2.{100 + n}", 5060): Phone(n, self.rng) for n in range(phones)}
        self.loss = loss
        self.now_ns = 0
        self.state = Summary()
        self.subscriptions: set[SubscriptionId] = set()
        self.flying: list[tuple[int, int, Phone | None, Flow, bytes]] = []
        self.count = 0
        self.last_sent: dict[tuple[str, int], int] = {}

    def fly(self, to: Phone | None, flow: Flow, data: bytes) -> None:
        copies = 0 if self.rng.random() < self.loss else 2 if self.rng.random() < self.loss else 1
        for _ in range(copies):
            self.count += 1
            worst_ms = self.rng.choice((1, 20, 200, 1500)) if self.loss else 1
            heapq.heappush(
                self.flying, (self.now_ns + int(worst_ms * MS * self.rng.random()) + MS, self.count, to, flow, data)
            )

    def drain(self) -> None:
        for output in self.agent.outputs():
            if isinstance(output, Transmit):
                self.fly(self.phones[output.flow.remote], output.flow, output.data)
            elif isinstance(output, SubscriptionAsked):
                granted = self.agent.accept_subscription(output.transaction_id, build(self.state), self.now_ns)
                assert granted is not None
                self.subscriptions.add(granted)
            elif isinstance(output, SubscriptionEnded):
                self.subscriptions.remove(output.subscription)
        for phone in self.phones.values():
            for data in phone.out:
                self.fly(None, phone.flow, data)
            phone.out.clear()

    def run(self, until_ns: int) -> None:
        while self.now_ns < until_ns:
            self.now_ns += 20 * MS
            while self.flying and self.flying[0][0] <= self.now_ns:
                _, _, to, flow, data = heapq.heappop(self.flying)
                if to is None:
                    self.agent.receive(data, flow, self.now_ns)
                else:
                    to.receive(data, self.now_ns)
                self.drain()
            self.agent.advance(self.now_ns)
            for phone in self.phones.values():
                phone.advance(self.now_ns)
            while self.agent._core.outputs or any(phone.out for phone in self.phones.values()):
                self.drain()

    def change(self) -> None:
        self.state = Summary(self.rng.randrange(4), self.rng.randrange(9))
        for subscription in self.subscriptions:
            self.agent.notify(subscription, build(self.state), self.now_ns)
        self.drain()


@pytest.mark.parametrize("block", range(6))
def test_every_subscriber_knows_the_last_state_in_the_end(block: int) -> None:
    for seed in range(block * SEEDS // 6, (block + 1) * SEEDS // 6):
        world = World(seed)
        while world.now_ns < EVENING_NS:
            world.run(world.now_ns + int(world.rng.choice((0.1, 2, 20)) * S))
            world.change()
        world.loss = 0.0
        world.run(world.now_ns + QUIET_NS)
        for phone in world.phones.values():
            assert phone.lamp == world.state, (seed, phone)
            phone.leave()
        world.run(world.now_ns + 200 * S)
        held = world.agent.held()
        left = (held.server_transactions, held.client_transactions, held.timers, held.subscriptions)
        assert left == (0, 0, 0, 0), (seed, held)
        assert not world.subscriptions


def test_on_a_good_network_a_change_is_known_within_moments_and_told_once() -> None:
    world = World(1, loss=0.0)
    world.run(5 * S)
    before = {phone.number: phone.notified for phone in world.phones.values()}
    for _ in range(50):
        world.change()
        world.run(world.now_ns + 20 * MS)
    world.run(world.now_ns + 2 * S)
    for phone in world.phones.values():
        assert phone.lamp == world.state
        # Fifty changes within a second are two or three notes: one at once, and the newest after each second.
        assert phone.notified - before[phone.number] <= 3


def test_phones_that_vanish_are_forgotten() -> None:
    world = World(2, loss=0.0)
    world.run(5 * S)
    assert world.agent.held().subscriptions == 3
    world.loss = 1.0
    world.change()
    world.run(world.now_ns + 40 * S)
    for phone in world.phones.values():
        phone.next_ns = 10**18
    world.run(world.now_ns + 200 * S)
    assert world.agent.held().subscriptions == world.agent.held().timers == 0
    assert not world.subscriptions
