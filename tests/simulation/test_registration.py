"""A registration over hours of bad network and a registrar that comes and goes, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from aftertone.sip.agent import Agent
from aftertone.sip.builder import build_response, echo_of
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.digest_server import DigestServer, Verdict
from aftertone.sip.events import RequestAnswered, RequestFailed, Transmit
from aftertone.sip.message import Request, parse
from aftertone.sip.registration import Registrant, Registration, State
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import FLOW, MS, S, seeded

HOUR_NS = 3600 * S
WHO = Registrant(
    registrar="sip:provider.example",
    address="sip:ann@provider.example",
    user="ann",
    line="0123456789abcdef",
    instance="urn:uuid:00000000-0000-4000-8000-000000000001",
    expires_s=600,
)


@dataclass
class Registrar:
    """A registrar with digest that forgets everything when it is started again."""

    number: int = 0
    up: bool = True
    bound_until_ns: int = -1
    asked: int = 0
    last: tuple[str, bytes] = ("", b"")
    """What a copy of the last request gets, as its transaction would."""
    digest: DigestServer = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Come up with a new secret and no bindings, as a process that was killed."""
        self.number += 1
        self.digest = DigestServer("provider", self.number.to_bytes(16, "big"), life_ns=120 * S)
        self.bound_until_ns = -1

    def answer(self, data: bytes, now_ns: int) -> bytes | None:
        """Return the answer to a REGISTER, None when down."""
        if not self.up:
            return None
        request = parse(data)
        assert isinstance(request, Request)
        if request.via.branch == self.last[0]:
            return self.last[1]
        self.asked += 1
        self.last = request.via.branch, self._decide(request, now_ns)
        return self.last[1]

    def _decide(self, request: Request, now_ns: int) -> bytes:
        echo = echo_of(request, FLOW)
        verdict = self.digest.verify(request, {"ann": "sesame"}.get, now_ns).verdict
        if verdict is not Verdict.OK:
            stale = verdict is Verdict.STALE
            asks = [("WWW-Authenticate", value) for value in self.digest.challenges(now_ns, stale=stale)]
            return build_response(echo, 401, tag="r", fields=asks)
        granted_s = int(request.get("expires"))
        self.bound_until_ns = now_ns + granted_s * S if granted_s else -1
        assert request.contact is not None
        contact = f"<{request.contact.uri}>;expires={granted_s}"
        return build_response(echo, 200, tag="r", fields=[("Contact", contact)])


class World:
    """A line with one account, a lossy wire, and the registrar behind it."""

    def __init__(self, seed: int, loss: float) -> None:
        self.chance = random.Random(seed)
        self.loss = loss
        self.registrar = Registrar()
        self.agent = Agent(AgentSettings(), seeded(seed))
        self.account = Registration(WHO, DigestClient("ann", "sesame", seeded(seed)), seeded(seed), 0)
        self.now_ns = 0
        self.wire: list[tuple[int, int, bytes]] = []
        self.sent = 0

    def run_until(self, end_ns: int) -> None:
        """Let time pass, event by event."""
        while (next_ns := min(self._moments(), default=end_ns)) < end_ns:
            self.now_ns = max(self.now_ns, next_ns)
            while self.wire and self.wire[0][0] <= self.now_ns:
                self.agent.receive(heapq.heappop(self.wire)[2], FLOW, self.now_ns)
            self.agent.advance(self.now_ns)
            self._act()
        self.now_ns = end_ns

    def state(self) -> State:
        """Return how the registration stands."""
        return self.account.state

    def _moments(self) -> Iterator[int]:
        if self.wire:
            yield self.wire[0][0]
        for deadline_ns in (self.agent.deadline_ns(), self.account.deadline_ns()):
            if deadline_ns is not None:
                yield deadline_ns

    def _act(self) -> None:
        deadline_ns = self.account.deadline_ns()
        if deadline_ns is not None and deadline_ns <= self.now_ns:
            asked = self.account.ask(FLOW)
            self.agent.request(
                "REGISTER", asked.target_uri, from_uri=asked.address, to_uri=asked.address, flow=FLOW,
                headers=asked.headers, call_id=asked.call_id, from_tag=asked.from_tag, cseq=asked.cseq, now_ns=self.now_ns,
            )  # fmt: skip
        for output in self.agent.outputs():
            if isinstance(output, Transmit):
                self._send(output.data)
            elif isinstance(output, RequestAnswered):
                self.account.answered(output.response, self.now_ns)
            elif isinstance(output, RequestFailed):
                self.account.failed(output.reason, self.now_ns)

    def _send(self, data: bytes) -> None:
        self.sent += 1
        for _ in range(1 + (self.chance.random() < self.loss / 2)):
            if self.chance.random() < self.loss:
                continue
            answer = self.registrar.answer(data, self.now_ns)
            if answer is not None and self.chance.random() >= self.loss:
                heapq.heappush(self.wire, (self.now_ns + self.chance.randrange(1, 900) * MS, self.sent, answer))


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_network_and_the_registrar_did_it_ends_registered(seed: int) -> None:
    world = World(seed, loss=0.25)
    chance = world.chance
    for _ in range(6):
        world.run_until(world.now_ns + chance.randrange(HOUR_NS))
        world.registrar.up = False
        world.run_until(world.now_ns + chance.randrange(HOUR_NS))
        world.registrar.up = True
        if chance.random() < 0.5:
            world.registrar.restart()
    # The longest pause after a failure is half an hour, and a try over this network may fail.
    world.run_until(world.now_ns + 2 * HOUR_NS)
    world.loss = 0.0
    world.run_until(world.now_ns + HOUR_NS)
    assert world.state() is State.REGISTERED
    assert world.registrar.bound_until_ns > world.now_ns
    assert world.sent < 60 * world.now_ns / HOUR_NS + 600
    world.account.leave(world.now_ns)
    world.run_until(world.now_ns + 60 * S)
    assert world.state() is State.GONE
    assert world.registrar.bound_until_ns == -1
    assert world.agent.held().client_transactions == 0


@pytest.mark.parametrize("seed", range(5))
def test_on_a_calm_network_the_registration_never_lapses(seed: int) -> None:
    world = World(seed, loss=0.0)
    for _ in range(24 * 60):
        world.run_until(world.now_ns + 60 * S)
        assert world.registrar.bound_until_ns > world.now_ns
    # A day of ten-minute registrations: a request each 300 to 540 s, and another for each nonce that grew old.
    assert 24 * 3600 / 540 <= world.registrar.asked <= 2 * 24 * 3600 / 300 + 2
