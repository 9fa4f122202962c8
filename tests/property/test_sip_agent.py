"""Properties of the agent: no bytes and no order of events make it raise, and its memory stays bounded."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aftertone.sip.events import CallId, DialogId, IncomingCall, SubscriptionId, TransactionId, Transmit
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.settings import AgentSettings
from tests.unit.sip.kit import FLOW, SDP, TCP_FLOW, S, agent, request

LIMITS = AgentSettings(
    allow=(*AgentSettings().allow, "SUBSCRIBE", "REGISTER"),
    allow_events=("message-summary",),
    max_transactions=20,
    max_dialogs=5,
    max_subscriptions=4,
)
METHODS = (
    *("INVITE", "ACK", "BYE", "CANCEL", "INFO", "UPDATE", "PRACK", "REFER"),
    *("OPTIONS", "REGISTER", "NOTIFY", "X", "SUBSCRIBE"),
)
SAID = (
    "",
    "Require: 100rel\r\nRSeq: 1\r\n",
    "Require: 100rel\r\nRSeq: 2\r\n",
    "Session-Expires: 90;refresher=uas\r\n",
    "Session-Expires: 90;refresher=uac\r\nAllow: UPDATE\r\nMin-SE: 200\r\n",
)
MORE = (
    "",
    "Supported: 100rel",
    "Require: 100rel",
    "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\nAllow: UPDATE",
    "Supported: timer\r\nSession-Expires: 90;refresher=uas",
    "Require: timer, 100rel\r\nSession-Expires: 90;refresher=uac",
    "Session-Expires: 20\r\nSupported: timer",
)


@given(st.binary(max_size=400))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for flow in (FLOW, TCP_FLOW):
        subject = agent()
        subject.receive(data, flow, 0)
        subject.outputs()


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_no_damage_makes_it_raise_or_answer_elsewhere(seed: int) -> None:
    rng = random.Random(seed)
    subject = agent(seed=1)
    for number in range(6):
        data = bytearray(request(rng.choice(METHODS), branch=f"z9hG4bK{number}", extra="Record-Route: <sip:a;lr>"))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        subject.receive(bytes(data), FLOW, number)
        for output in subject.outputs():
            if isinstance(output, Transmit):
                assert output.flow == FLOW
                # An answer is no lever: hardly larger than its request.
                assert len(output.data) < len(data) + 600


class AgentMachine(RuleBasedStateMachine):
    """Any order of requests, answers and time."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = agent(LIMITS)
        self.now_ns = 0
        self.transactions: list[TransactionId] = []
        self.dialogs: list[DialogId] = []
        self.calls: list[CallId] = []
        self.sent: list[Request] = []
        self.rseq = "1"
        self.subscriptions: list[SubscriptionId] = []

    def drain(self) -> None:
        for output in self.agent.outputs():
            if isinstance(output, Transmit):
                message = parse(output.data)
                if isinstance(message, Request) and message.method != "ACK":
                    self.sent.append(message)
                elif isinstance(message, Response):
                    self.rseq = message.get("rseq") or self.rseq
                continue
            if isinstance(output, IncomingCall):
                self.dialogs.append(output.dialog_id)
            self.transactions += [output.transaction_id] if hasattr(output, "transaction_id") else []
            named = getattr(output, "dialog_id", None)
            self.dialogs += [named] if named is not None else []

    @rule(
        method=st.sampled_from(METHODS), branch=st.integers(0, 5), call=st.integers(0, 3), cseq=st.integers(1, 5),
        inside=st.booleans(), pick=st.integers(0, 99), body=st.sampled_from([b"", SDP]), more=st.sampled_from(MORE),
    )  # fmt: skip
    def ask(
        self, method: str, branch: int, call: int, cseq: int, inside: bool, pick: int, body: bytes, more: str
    ) -> None:
        dialog = self.dialogs[pick % len(self.dialogs)] if inside and self.dialogs else None
        data = request(
            method,
            branch=f"z9hG4bK{branch}",
            call_id=dialog.call_id if dialog else f"c{call}",
            from_tag=dialog.remote_tag if dialog else "caller",
            to_tag=dialog.local_tag if dialog else "",
            cseq=cseq,
            body=body,
            extra="Event: message-summary"
            if method in ("SUBSCRIBE", "NOTIFY")
            else f"RAck: {self.rseq} {pick % 3} INVITE"
            if method == "PRACK"
            else more,
        )
        self.agent.receive(data, FLOW, self.now_ns)
        self.drain()

    @rule(
        call=st.integers(0, 5), cseq=st.integers(1, 5), expires=st.sampled_from([0, 60, 3600]), pick=st.integers(0, 9)
    )
    def subscribe(self, call: int, cseq: int, expires: int, pick: int) -> None:
        asked = self.sent[pick % len(self.sent)] if self.sent and pick < 5 else None
        data = request(
            "SUBSCRIBE",
            branch=f"z9hG4bKs{call}{cseq}{pick}",
            call_id=asked.call_id if asked else f"s{call}",
            to_tag=asked.from_.tag if asked else "",
            cseq=cseq,
            extra=f"Event: message-summary\r\nExpires: {expires}",
        )
        self.agent.receive(data, FLOW, self.now_ns)
        self.drain()

    @rule(pick=st.integers(0, 99), body=st.sampled_from([b"", b"on", b"off"]))
    def tell(self, pick: int, body: bytes) -> None:
        if self.transactions and pick % 2:
            name = self.agent.accept_subscription(self.transactions[pick % len(self.transactions)], body, self.now_ns)
            self.subscriptions += [name] if name is not None else []
        elif self.subscriptions:
            name = self.subscriptions[pick % len(self.subscriptions)]
            if pick % 10 == 0:
                self.agent.end_subscription(name, "noresource", self.now_ns)
            else:
                self.agent.notify(name, body, self.now_ns)
        self.drain()

    @rule(pick=st.integers(0, 99), body=st.sampled_from([b"x", b"y"]))
    def change(self, pick: int, body: bytes) -> None:
        if self.dialogs:
            self.agent.reoffer(self.dialogs[pick % len(self.dialogs)], body, "a/b", self.now_ns)
            self.drain()

    @rule()
    def lose_the_connection(self) -> None:
        self.agent.flow_lost(FLOW, self.now_ns)
        self.drain()

    @rule(
        pick=st.integers(0, 99),
        status=st.sampled_from([100, 180, 200, 302, 486, 603]),
        body=st.sampled_from([b"", SDP]),
    )
    def respond(self, pick: int, status: int, body: bytes) -> None:
        if self.transactions:
            name = self.transactions[pick % len(self.transactions)]
            self.agent.respond(name, status, body=body, content_type="application/sdp", now_ns=self.now_ns)
            self.drain()

    @rule(pick=st.integers(0, 99))
    def hang_up(self, pick: int) -> None:
        if self.dialogs:
            self.agent.bye(self.dialogs[pick % len(self.dialogs)], self.now_ns)
            self.drain()

    @rule(body=st.sampled_from([b"", SDP]))
    def call(self, body: bytes) -> None:
        held = self.agent.held()
        if (
            held.client_transactions < 10
            and held.client_transactions + held.server_transactions < LIMITS.max_transactions
        ):
            name = self.agent.invite(
                "sip:a@b", from_uri="sip:c@d", body=body, content_type="application/sdp", flow=FLOW, now_ns=self.now_ns
            )
            self.calls.append(name)
            self.drain()

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if self.calls:
            self.agent.cancel(self.calls[pick % len(self.calls)], self.now_ns)
            self.drain()

    @rule(pick=st.integers(0, 99), status=st.sampled_from([100, 180, 200, 404, 422, 481, 491]),
          tag=st.sampled_from(["", "t", "u"]), body=st.sampled_from([b"", SDP]), more=st.sampled_from(SAID))  # fmt: skip
    def answer(self, pick: int, status: int, tag: str, body: bytes, more: str) -> None:
        if self.sent:
            asked = self.sent[pick % len(self.sent)]
            to = asked.get("to") if asked.to.tag or not tag else f"{asked.get('to')};tag={tag}"
            head = (
                f"SIP/2.0 {status} X\r\nVia: {asked.get('via')}\r\nFrom: {asked.get('from')}\r\nTo: {to}\r\n"
                f"Call-ID: {asked.call_id}\r\nCSeq: {asked.get('cseq')}\r\n{more}"
                f"l: {len(body)}\r\n\r\n"
            )
            self.agent.receive(head.encode() + body, FLOW, self.now_ns)
            self.drain()
            for dialog in self.dialogs[-2:]:
                if pick % 3 == 0:
                    self.agent.acknowledge(dialog, b"x", "application/sdp", self.now_ns)
            self.drain()

    @rule(seconds=st.sampled_from([0, 1, 10, 40, 300]))
    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * S
        self.agent.advance(self.now_ns)
        self.drain()

    @invariant()
    def bounded(self) -> None:
        held = self.agent.held()
        assert held.dialogs <= LIMITS.max_dialogs + 8
        assert held.server_transactions <= 2 * LIMITS.max_transactions + 8
        assert held.subscriptions <= LIMITS.max_subscriptions + len(self.transactions)
        deadline_ns = self.agent.deadline_ns()
        assert deadline_ns is None or deadline_ns > 0

    def teardown(self) -> None:
        """Whatever happened: hang up what stands, let time pass, and nothing is left."""
        for _ in range(4):
            for dialog in self.dialogs:
                self.agent.bye(dialog, self.now_ns)
            while (deadline_ns := self.agent.deadline_ns()) is not None:
                self.now_ns = max(self.now_ns, deadline_ns)
                self.agent.advance(self.now_ns)
                self.drain()
        held = self.agent.held()
        assert (held.server_transactions, held.client_transactions, held.dialogs, held.timers) == (0, 0, 0, 0)
        assert held.calls_placed == held.subscriptions == 0


TestAgentMachine = AgentMachine.TestCase
TestAgentMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
