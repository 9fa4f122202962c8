"""Pieces that the tests of the SIP side share: messages to send, seeded entropy, and two agents on a wire."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from aftertone.sip.agent import Agent
from aftertone.sip.events import Event, Transmit
from aftertone.sip.flow import Address, Flow
from aftertone.sip.message import Request, Response, parse
from aftertone.sip.settings import AgentSettings

MS = 1_000_000
S = 1_000_000_000
PEER: Address = ("192.0.2.7", 5062)
US: Address = ("192.0.2.1", 5060)
FLOW = Flow("UDP", PEER, US)
TCP_FLOW = Flow("TCP", PEER, US)
SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"


def seeded(seed: int = 1) -> Callable[[int], bytes]:
    """Return entropy that is the same each time."""
    return random.Random(seed).randbytes


def agent(settings: AgentSettings | None = None, seed: int = 1) -> Agent:
    """Return an agent with seeded entropy."""
    return Agent(settings or AgentSettings(), seeded(seed))


def request(
    method: str = "INVITE",
    *,
    uri: str = "sip:box@192.0.2.1",
    branch: str = "z9hG4bKone",
    from_tag: str = "caller",
    to_tag: str = "",
    call_id: str = "call-1@peer",
    cseq: int = 1,
    body: bytes | None = None,
    content_type: str = "application/sdp",
    extra: str = "",
    via: str = "",
    drop: str = "",
) -> bytes:
    """Return a well-formed request; ``extra`` holds whole lines, ``drop`` the name of a usual header to leave out."""
    if body is None:
        body = SDP if method in ("INVITE", "UPDATE") else b""
    lines = [
        f"Via: {via or f'SIP/2.0/UDP 192.0.2.7:5062;branch={branch};rport'}",
        "Max-Forwards: 70",
        f'From: "Ann" <sip:ann@192.0.2.7>{f";tag={from_tag}" if from_tag else ""}',
        f"To: <sip:box@192.0.2.1>{f';tag={to_tag}' if to_tag else ''}",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}",
        "Contact: <sip:ann@192.0.2.7:5062>",
        *([f"Content-Type: {content_type}"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    kept = [line for line in lines if not drop or not line.startswith(f"{drop}:")]
    kept += [line for line in extra.split("\r\n") if line]
    head = "\r\n".join([f"{method} {uri} SIP/2.0", *kept, "", ""])
    return head.encode("utf-8", "surrogateescape") + body


def parts(subject: Agent) -> tuple[list[Request | Response], list[Event]]:
    """Drain an agent into the messages it sends and the events it tells."""
    messages: list[Request | Response] = []
    events: list[Event] = []
    for output in subject.outputs():
        if isinstance(output, Transmit):
            messages.append(parse(output.data, stream=output.flow.reliable))
        else:
            events.append(output)
    return messages, events


def statuses(messages: list[Request | Response]) -> list[int | str]:
    """Return status codes of responses and methods of requests."""
    return [m.status if isinstance(m, Response) else m.method for m in messages]


def run_out(subject: Agent, now_ns: int) -> tuple[int, list[Request | Response], list[Event]]:
    """Let time pass until the agent waits for nothing any more; return when that was and what came out meanwhile."""
    messages: list[Request | Response] = []
    events: list[Event] = []
    while (deadline_ns := subject.deadline_ns()) is not None:
        now_ns = max(now_ns, deadline_ns)
        subject.advance(now_ns)
        more_messages, more_events = parts(subject)
        messages += more_messages
        events += more_events
    return now_ns, messages, events


class Wire:
    """Two agents, A at one address and B at another, in virtual time, over a network that obeys a plan.

    ``deliver(rng) -> list[int]``: the delays in nanoseconds of the copies of a datagram that arrive; empty loses it.
    """

    def __init__(
        self,
        a: Agent,
        b: Agent,
        *,
        transport: str = "UDP",
        deliver: Callable[[random.Random], list[int]] | None = None,
        seed: int = 0,
    ) -> None:
        self.now_ns = 0
        self.a, self.b = a, b
        at_a: Address = ("192.0.2.10", 5060)
        at_b: Address = ("192.0.2.20", 5060)
        kind = "TCP" if transport == "TCP" else "UDP"
        self.flow_a = Flow(kind, at_b, at_a)  # type: ignore[arg-type]
        self.flow_b = Flow(kind, at_a, at_b)  # type: ignore[arg-type]
        self.on_a: Callable[[Event], None] = lambda event: None
        self.on_b: Callable[[Event], None] = lambda event: None
        self.sent: list[Request | Response] = []
        self._deliver = deliver or (lambda rng: [1 * MS])
        self._rng = random.Random(seed)
        self._flying: list[tuple[int, int, Agent, bytes, Flow]] = []
        self._count = 0

    def drain(self) -> None:
        """Carry what the agents have put out."""
        busy = True
        while busy:
            busy = False
            for subject, other, flow, tell in (
                (self.a, self.b, self.flow_b, self.on_a),
                (self.b, self.a, self.flow_a, self.on_b),
            ):
                for output in subject.outputs():
                    busy = True
                    if isinstance(output, Transmit):
                        self.sent.append(parse(output.data))
                        for delay_ns in self._deliver(self._rng):
                            self._count += 1
                            entry = (self.now_ns + delay_ns, self._count, other, output.data, flow)
                            heapq.heappush(self._flying, entry)
                    else:
                        tell(output)

    def next_ns(self) -> int | None:
        """Return when the next thing happens, or None."""
        self.drain()
        times = [self.a.deadline_ns(), self.b.deadline_ns(), self._flying[0][0] if self._flying else None]
        return min((time_ns for time_ns in times if time_ns is not None), default=None)

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is left to happen."""
        coming_ns = self.next_ns()
        if coming_ns is None:
            return False
        self.now_ns = max(self.now_ns, coming_ns)
        while self._flying and self._flying[0][0] <= self.now_ns:
            _, _, target, data, flow = heapq.heappop(self._flying)
            target.receive(data, flow, self.now_ns)
            self.drain()
        self.a.advance(self.now_ns)
        self.b.advance(self.now_ns)
        self.drain()
        return True

    def run(self, until_ns: int | None = None) -> None:
        """Run to a time, or until nothing is left; a wire that never comes to rest fails."""
        for _ in range(200_000):
            if until_ns is not None and self.now_ns >= until_ns:
                return
            if not self.step():
                return
        raise AssertionError("the wire does not come to rest")
