"""Calls that change, over a network that loses, doubles, reorders and delays: every one ends, once, and both sides know how.

What happens is drawn from the seed: offers in the INVITE or late, reliable rings and early descriptions, PRACKs with offers,
changes by both sides at the same time, refused changes, session timers, callers that vanish, REFER, CANCEL and BYE that
cross. ``PINNED`` are seeds that found something once: an UPDATE sent before the answer was taken for a sign that the answer had been
seen, so a lost 200 was not sent again; and a refresh that said nothing of timers ended the watch over a ghost.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from aftertone.sip.agent import Agent
from aftertone.sip.dialog import Phase
from aftertone.sip.events import (
    ByeFinished,
    CallAnswered,
    CallCancelled,
    CallConfirmed,
    CallFailed,
    CallId,
    CallNotConfirmed,
    CallProgress,
    DialogEnded,
    DialogId,
    Event,
    IncomingCall,
    ProvisionalConfirmed,
    ReofferAnswered,
    ReofferConfirmed,
    ReofferFailed,
    ReofferReceived,
    SessionExpired,
    TransactionId,
    Transmit,
)
from aftertone.sip.flow import Address, Flow
from aftertone.sip.proof import Login
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import MS, S, Wire, seeded, statuses

SEEDS = 6_000
BLOCKS = 8
CALLS = 2
TYPE = "application/sdp"
EMPTY = (0, 0, 0, 0, 0)
PINNED = (2244, 2514, 3797, 5012, 5576)

CALLER: Address = ("192.0.2.10", 5060)

Pair = tuple[bytes, bytes]


def bad_network(loss: float) -> Callable[[random.Random], list[int]]:
    """Return a network: copies of a datagram arrive after 1 ms to 1.5 s each, out of order, or not at all."""

    def deliver(rng: random.Random) -> list[int]:
        if rng.random() < loss:
            return []
        copies = 2 if rng.random() < loss else 1
        return [int(rng.choice((1, 20, 200, 1500)) * MS * rng.random()) + MS for _ in range(copies)]

    return deliver


@dataclass
class Side:
    """What one side's application keeps of its calls, and what is wrong with what it is told."""

    agent: Agent
    name: str
    rng: random.Random
    now_ns: Callable[[], int]
    after: Callable[[int, Callable[[], None]], None]
    ends: dict[DialogId, str] = field(default_factory=dict)
    confirmed: set[DialogId] = field(default_factory=set)
    agreed: dict[str, list[Pair]] = field(default_factory=dict)
    """By Call-ID: offer and answer of each change, as far as this side knows."""
    offers: itertools.count[int] = field(default_factory=itertools.count)
    unconfirmed: set[str] = field(default_factory=set)
    """Call-IDs of calls or changes whose 2xx was given up."""
    seen: set[str] = field(default_factory=set)
    """Kinds of events, to know that the simulation reaches them."""
    refused: list[int | None] = field(default_factory=list)
    """How requests of this side ended that were refused."""
    login: Login | None = None

    def words(self) -> bytes:
        return f"{self.name} {next(self.offers)}".encode()

    def end(self, dialog: DialogId, how: str) -> None:
        assert dialog not in self.ends, (dialog, self.ends[dialog], how)
        self.ends[dialog] = how

    def change(self, dialog: DialogId) -> None:
        self.agent.reoffer(dialog, self.words(), TYPE, self.now_ns())

    def on_change(self, event: Event) -> bool:
        """Take what both sides have in common; False for what the side itself must look at."""
        self.seen.add(type(event).__name__)
        if isinstance(event, ReofferReceived | ReofferConfirmed | ReofferAnswered | ReofferFailed | SessionExpired):
            assert event.dialog_id not in self.ends, "told of a call that is over"
        if isinstance(event, ReofferReceived):
            self.after(self.rng.choice((0, 0, 1)) * self.rng.randrange(S), lambda: self.answer(event))
        elif isinstance(event, ReofferAnswered):
            self.agreed.setdefault(event.dialog_id.call_id, []).append((event.offer, event.response.body))
        elif isinstance(event, DialogEnded):
            self.end(event.dialog_id, "hung up by peer")
            self.after(
                self.rng.randrange(S), lambda: self.agent.respond(event.transaction_id, 200, now_ns=self.now_ns())
            )
        elif isinstance(event, ByeFinished):
            self.refused += [] if event.status == 200 else [event.status]
            self.end(event.dialog_id, "hung up by us")
        elif isinstance(event, ReofferFailed):
            self.refused.append(event.status)
        elif isinstance(event, CallNotConfirmed):
            self.unconfirmed.add(event.dialog_id.call_id)
        else:
            return isinstance(event, ReofferConfirmed | SessionExpired)
        return True

    def answer(self, event: ReofferReceived) -> None:
        if self.rng.random() < 0.2:
            self.agent.respond(event.transaction_id, 488, now_ns=self.now_ns())
            return
        words = self.words()
        if event.request.body:
            self.agreed.setdefault(event.dialog_id.call_id, []).append((event.request.body, words))
        self.agent.respond(event.transaction_id, 200, body=words, content_type=TYPE, now_ns=self.now_ns())


class Called(Side):
    """B: rings, perhaps describes itself early, answers or refuses, changes things, hangs up some."""

    calls: dict[TransactionId, str]
    dialogs: dict[DialogId, TransactionId]
    late: set[TransactionId]

    def prepare(self) -> Called:
        self.calls, self.dialogs, self.late = {}, {}, set()
        return self

    def on_event(self, event: Event) -> None:
        if isinstance(event, CallConfirmed):
            assert event.dialog_id not in self.confirmed
            self.confirmed.add(event.dialog_id)
            self.seen.add("CallConfirmed")
            self.live(event.dialog_id)
            return
        if self.on_change(event):
            return
        if isinstance(event, IncomingCall):
            assert event.transaction_id not in self.calls
            self.calls[event.transaction_id] = "ringing"
            self.dialogs[event.dialog_id] = event.transaction_id
            if self.login is not None:
                self.agent.log_in(event.dialog_id, self.login)
            if not event.request.body:
                self.late.add(event.transaction_id)
            self.ring(event)
        elif isinstance(event, CallCancelled):
            assert self.calls[event.transaction_id] in ("ringing", "answered")
            self.calls[event.transaction_id] = "cancelled"
        else:
            assert isinstance(event, ProvisionalConfirmed)

    def ring(self, event: IncomingCall) -> None:
        described = self.rng.random() < 0.5
        body = self.words() if described else b""
        status = 183 if described else 180
        self.agent.respond(
            event.transaction_id, status, body=body, content_type=TYPE if body else "", now_ns=self.now_ns()
        )
        if self.rng.random() < 0.3:
            self.agent.respond(event.transaction_id, 180, now_ns=self.now_ns())
        self.after(self.rng.randrange(6 * S), lambda: self.decide(event, body))

    def decide(self, event: IncomingCall, early: bytes) -> None:
        if self.calls[event.transaction_id] != "ringing":
            return
        fate = self.rng.random()
        if fate < 0.15:
            self.calls[event.transaction_id] = "refused"
            self.agent.respond(event.transaction_id, 486, now_ns=self.now_ns())
        elif fate < 0.9:
            self.calls[event.transaction_id] = "answered"
            body = early or self.words()
            self.agent.respond(event.transaction_id, 200, body=body, content_type=TYPE, now_ns=self.now_ns())

    def live(self, dialog: DialogId) -> None:
        for _ in range(self.rng.randrange(3)):
            self.after(self.rng.randrange(10 * S), lambda: self.change(dialog))
        if self.rng.random() < 0.4:
            self.after(self.rng.randrange(12 * S), lambda: self.agent.bye(dialog, self.now_ns()))


class Calling(Side):
    """A: places calls, cancels some, changes things, hangs up; or vanishes."""

    calls: dict[CallId, str]
    dialogs: dict[DialogId, CallId]
    forgotten: set[str]
    """Call-IDs of calls whose offer this side never answers."""

    def prepare(self) -> Calling:
        self.calls, self.dialogs, self.forgotten = {}, {}, set()
        return self

    def place(self, wire: Wire) -> None:
        late = self.rng.random() < 0.25
        headers = [("Require", "100rel")] if self.rng.random() < 0.3 else []
        call = self.agent.invite(
            "sip:box@192.0.2.20",
            from_uri="sip:ann@192.0.2.10",
            body=b"" if late else self.words(),
            content_type=TYPE,
            flow=wire.flow_a,
            headers=headers,
            now_ns=self.now_ns(),
        )
        self.calls[call] = "open"
        if self.rng.random() < 0.35:
            self.after(self.rng.randrange(8 * S), lambda: self.agent.cancel(call, self.now_ns()))

    def on_event(self, event: Event) -> None:
        if self.on_change(event):
            return
        if isinstance(event, CallProgress):
            if event.dialog_id is not None and event.response.body:
                self.owe(event.dialog_id)
        elif isinstance(event, CallAnswered):
            assert self.calls[event.call] == "open"
            self.calls[event.call] = "answered"
            self.dialogs[event.dialog_id] = event.call
            self.live(event.dialog_id)
            self.owe(event.dialog_id)
        else:
            assert isinstance(event, CallFailed)
            assert self.calls[event.call] == "open"
            self.calls[event.call] = f"failed {event.status}"

    def owe(self, dialog: DialogId) -> None:
        """Answer an offer of the peer's, if there is one: sometimes at once, sometimes later, sometimes never."""
        if self.rng.random() < 0.15:
            self.forgotten.add(dialog.call_id)
            return
        words = self.words()
        self.after(
            self.rng.choice((0, 0, S)) and self.rng.randrange(S),
            lambda: self.agent.acknowledge(dialog, words, TYPE, self.now_ns()),
        )

    def live(self, dialog: DialogId) -> None:
        for _ in range(self.rng.randrange(3)):
            self.after(self.rng.randrange(10 * S), lambda: self.change(dialog))
        self.after(self.rng.randrange(2 * S, 200 * S), lambda: self.agent.bye(dialog, self.now_ns()))


class Evening:
    """Some calls between A and B, until both agents wait for nothing."""

    def __init__(
        self,
        seed: int,
        loss: float,
        *,
        vanish: bool = False,
        transport: str = "UDP",
        caller: Callable[[AgentSettings, Callable[[int], bytes]], Agent] = Agent,
        login: Login | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        timing = AgentSettings(session_expires_s=self.rng.choice((0, 90, 90, 1800)))
        quiet = AgentSettings(
            session_expires_s=self.rng.choice((0, 90)),
            allow=("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "PRACK", *self.rng.choice(((), ("UPDATE",)))),
        )
        if vanish:
            timing = quiet = AgentSettings(session_expires_s=90)
        self.cut_ns = self.rng.randrange(40 * S) if vanish else None
        network = bad_network(loss)
        self.wire = wire = Wire(
            caller(quiet, seeded(2 * seed)),
            Agent(timing, seeded(2 * seed + 1)),
            deliver=lambda rng: [] if self.cut_ns is not None and wire.now_ns >= self.cut_ns else network(rng),
            seed=seed,
            transport=transport,
        )
        self.later: list[tuple[int, int, Callable[[], None]]] = []
        self.count = itertools.count()
        self.calling = Calling(wire.a, "a", self.rng, lambda: wire.now_ns, self.after).prepare()
        self.called = Called(wire.b, "b", self.rng, lambda: wire.now_ns, self.after, login=login).prepare()
        wire.on_a, wire.on_b = self.calling.on_event, self.called.on_event
        for number in range(CALLS):
            self.after(number * self.rng.randrange(2 * S), lambda: self.calling.place(wire))
        for _ in range(3):
            self.after(self.rng.randrange(15 * S), self.intrude)

    def after(self, delay_ns: int, what: Callable[[], None]) -> None:
        self.later.append((self.wire.now_ns + delay_ns, next(self.count), what))

    def intrude(self) -> None:
        """Send what our own agent does not: REFER in calls, UPDATE before the answer; A takes the answers for strays."""
        for dialog in list(self.wire.a._core.dialogs.values()):
            branch = f"z9hG4bKintruder{next(self.count)}"
            if dialog.phase is Phase.CONFIRMED:
                data = dialog.request("REFER", branch, fields=[("Refer-To", "<sip:x@192.0.2.99>")])
            elif dialog.phase is Phase.EARLY:
                body = self.rng.choice((b"", b"early"))
                data = dialog.request("UPDATE", branch, body=body, content_type=TYPE)
            else:
                continue
            self.wire.b.receive(data, self.wire.flow_b, self.wire.now_ns)

    def run(self) -> Evening:
        wire, moves = self.wire, 0
        while True:
            moves += 1
            assert moves < 20_000, "the network does not come to rest"
            self.later.sort()
            if self.later and self.later[0][0] <= wire.now_ns:
                self.later.pop(0)[2]()
                continue
            due_ns = self.later[0][0] if self.later else None
            times = [time_ns for time_ns in (wire.next_ns(), due_ns) if time_ns is not None]
            if not times:
                return self
            if due_ns == min(times):
                wire.drain()
                wire.now_ns = max(wire.now_ns, min(times))
                continue
            wire.step()

    def check(self, seed: int) -> None:
        for side in (self.calling, self.called):
            held = side.agent.held()
            left = (held.server_transactions, held.client_transactions, held.dialogs, held.calls_placed, held.timers)
            assert left == EMPTY, (seed, side.name, held)
            assert held.counted_calls == 0, (seed, side.name, "a call that is over is counted in a budget")
        for state in self.calling.calls.values():
            assert state == "answered" or state.startswith("failed"), (seed, state)
        for dialog in self.calling.dialogs:
            assert dialog in self.calling.ends, (seed, "answered and never over")
        assert "ringing" not in self.called.calls.values(), seed
        assert self.called.confirmed <= self.called.ends.keys(), (seed, "a deposit without an end")
        for dialog, transaction in self.called.dialogs.items():
            state = self.called.calls[transaction]
            assert (dialog in self.called.ends) == (state == "answered"), (seed, state)
        # An ACK that was lost is sent again: only what A leaves unanswered is given up.
        assert not self.calling.unconfirmed, seed
        known = {dialog.call_id for dialog in self.calling.dialogs}
        assert self.called.unconfirmed & known <= self.calling.forgotten, seed
        # Whoever was told that a change was accepted agrees with the other side about it.
        for one, other in ((self.calling, self.called), (self.called, self.calling)):
            for call_id, pairs in one.agreed.items():
                for pair in pairs:
                    asked_by_one = pair[0].startswith(one.name.encode())
                    if asked_by_one:
                        assert pair in other.agreed.get(call_id, []), (seed, pair)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_calls_that_change_end_once_on_a_bad_network(block: int) -> None:
    seen: set[str] = set()
    ends: set[str] = set()
    said: set[int | str] = set()
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        evening = Evening(seed, loss=(seed % 5) * 0.05).run()
        evening.check(seed)
        seen |= evening.calling.seen | evening.called.seen
        ends |= set(evening.called.ends.values()) | set(evening.called.calls.values())
        ends |= set(evening.calling.calls.values())
        said |= {word for word in statuses(evening.wire.sent) if word in (481, 491, 500, 504, 603, "PRACK", "UPDATE")}
    expected = {CallConfirmed, CallCancelled, ProvisionalConfirmed, ReofferReceived, ReofferAnswered, ReofferFailed}
    expected |= {DialogEnded, ByeFinished, ReofferConfirmed}
    assert {kind.__name__ for kind in expected} <= seen
    assert {481, 491, 500, 504, 603, "PRACK", "UPDATE"} <= said
    assert {"hung up by us", "hung up by peer", "cancelled", "refused", "answered", "failed 486", "failed 487"} <= ends


@pytest.mark.parametrize("seed", PINNED)
def test_seeds_that_found_something(seed: int) -> None:
    Evening(seed, loss=(seed % 5) * 0.05).run().check(seed)


def test_calls_that_change_end_once_over_a_connection() -> None:
    """Nothing is lost and nothing doubled; a reliable ring is sent again all the same until its PRACK."""
    for seed in range(200):
        evening = Evening(seed, loss=0.0, transport="TCP").run()
        evening.check(seed)
        assert "failed 408" not in evening.calling.calls.values()


def test_a_caller_that_vanishes_is_a_deposit_that_ends() -> None:
    expired = 0
    for seed in range(300):
        evening = Evening(seed, loss=0.1, vanish=True).run()
        called = evening.called
        assert called.confirmed <= called.ends.keys(), seed
        held = called.agent.held()
        assert (held.server_transactions, held.client_transactions, held.dialogs, held.timers) == (0, 0, 0, 0), seed
        expired += "SessionExpired" in called.seen
    assert expired > 30


class Fork:
    """A proxy that rings two phones at once, over a bad network; it passes everything on and keeps to one Via."""

    def __init__(self, seed: int, loss: float) -> None:
        self.rng = random.Random(seed)
        self.now_ns = 0
        self.network = bad_network(loss)
        self.caller = Agent(AgentSettings(session_expires_s=90), seeded(3 * seed))
        self.phones = [Agent(AgentSettings(), seeded(3 * seed + 1 + number)) for number in range(2)]
        self.flying: list[tuple[int, int, Agent, bytes, Flow]] = []
        self.count = itertools.count()
        self.outcomes: list[Event] = []
        self.ended: list[DialogId] = []
        self.answered: dict[DialogId, bool] = {}
        self.later: list[tuple[int, int, Callable[[], None]]] = []

    def after(self, delay_ns: int, what: Callable[[], None]) -> None:
        self.later.append((self.now_ns + delay_ns, next(self.count), what))

    def carry(self) -> None:
        """Give what the caller says to the phone that it is for, or to both; and what a phone says to the caller."""
        busy = True
        while busy:
            busy = False
            for output in self.caller.outputs():
                busy = True
                if isinstance(output, Transmit):
                    for number in range(2):
                        if output.flow.remote[0] in ("192.0.2.20", f"192.0.2.{21 + number}"):
                            self.send(
                                self.phones[number], output.data, Flow("UDP", CALLER, (f"192.0.2.{21 + number}", 5060))
                            )
                else:
                    self.hear(output)
            for number, phone in enumerate(self.phones):
                for output in phone.outputs():
                    busy = True
                    if isinstance(output, Transmit):
                        self.send(self.caller, output.data, Flow("UDP", (f"192.0.2.{21 + number}", 5060), CALLER))
                    else:
                        self.ring(phone, output)

    def send(self, to: Agent, data: bytes, flow: Flow) -> None:
        for delay_ns in self.network(self.rng):
            heapq.heappush(self.flying, (self.now_ns + delay_ns, next(self.count), to, data, flow))

    def ring(self, phone: Agent, event: Event) -> None:
        if isinstance(event, IncomingCall):
            phone.respond(event.transaction_id, 183, body=b"early", content_type=TYPE, now_ns=self.now_ns)
            self.answered[event.dialog_id] = False
            if self.rng.random() < 0.8:
                self.after(self.rng.randrange(3 * S), lambda: self.take(phone, event))
        elif isinstance(event, DialogEnded):
            self.ended.append(event.dialog_id)
            phone.respond(event.transaction_id, 200, now_ns=self.now_ns)
        elif isinstance(event, ByeFinished):
            self.ended.append(event.dialog_id)

    def take(self, phone: Agent, event: IncomingCall) -> None:
        self.answered[event.dialog_id] = True
        phone.respond(event.transaction_id, 200, body=b"answer", content_type=TYPE, now_ns=self.now_ns)

    def hear(self, event: Event) -> None:
        if isinstance(event, CallAnswered | CallFailed):
            self.outcomes.append(event)
        if isinstance(event, CallAnswered):
            dialog = event.dialog_id
            self.after(self.rng.randrange(20 * S), lambda: self.caller.bye(dialog, self.now_ns))
        elif isinstance(event, DialogEnded):
            self.caller.respond(event.transaction_id, 200, now_ns=self.now_ns)

    def run(self) -> Fork:
        flow = Flow("UDP", ("192.0.2.20", 5060), CALLER)
        self.caller.invite("sip:b@192.0.2.20", from_uri="sip:a@x", body=b"o", content_type=TYPE, flow=flow, now_ns=0)
        for _ in range(20_000):
            self.carry()
            self.later.sort()
            agents = (self.caller, *self.phones)
            times = [one.deadline_ns() for one in agents]
            times += [self.flying[0][0] if self.flying else None, self.later[0][0] if self.later else None]
            coming = [time_ns for time_ns in times if time_ns is not None]
            if not coming:
                return self
            self.now_ns = max(self.now_ns, min(coming))
            while self.flying and self.flying[0][0] <= self.now_ns:
                _, _, to, data, way = heapq.heappop(self.flying)
                to.receive(data, way, self.now_ns)
            if self.later and self.later[0][0] <= self.now_ns:
                self.later.pop(0)[2]()
            for one in agents:
                one.advance(self.now_ns)
        raise AssertionError("the fork does not come to rest")


def test_a_forked_call_has_one_outcome_and_every_phone_that_took_it_is_let_go() -> None:
    both = 0
    for seed in range(600):
        fork = Fork(seed, loss=(seed % 3) * 0.1).run()
        assert len(fork.outcomes) == 1, seed
        for one in (fork.caller, *fork.phones):
            held = one.held()
            assert (held.server_transactions, held.client_transactions, held.dialogs, held.timers) == (0, 0, 0, 0), seed
            assert (held.calls_placed, held.counted_calls) == (0, 0), seed
        taken = {dialog for dialog, was_taken in fork.answered.items() if was_taken}
        assert len(fork.ended) == len(set(fork.ended)), seed
        assert set(fork.ended) <= taken, seed
        both += len(fork.ended) == 2
    assert both > 100, "two phones answered, and the second was let go"
