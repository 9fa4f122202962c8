"""The four transaction machines.

Owns: the states of one request and its responses, what is resent when, and when it is over. Refuses to know: dialogs,
calls, sockets, and the content of what it resends.

Specification: RFC 3261 section 17 and its figures 5 to 8, as corrected by RFC 6026 (Accepted states) and RFC 4320.

Theory of operation: a machine is a table from (state, input) to a rule: the next state, what its owner has to do, which
timers start and stop. Timers carry the letters of the RFC; R and P are ours and bound what the RFC leaves open for ever
(an INVITE that rings, a request that the application does not answer), S says again that it rings (section 13.3.1.1). An input without a rule changes nothing: that is
how retransmissions are absorbed. Every way through a table ends in TERMINATED, because each state but that one has a
timer or an owner that has one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aftertone.sip.flow import Flow
from aftertone.sip.settings import Timing


class State(enum.Enum):
    """Where a transaction stands."""

    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    COMPLETED = "completed"
    ACCEPTED = "accepted"
    CONFIRMED = "confirmed"
    TERMINATED = "terminated"


class On(enum.Enum):
    """What can happen to a transaction: messages by kind (from the peer or the user, by the side), and its timers."""

    REQUEST = "request"
    ACK = "ACK"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "3xx-6xx"
    A = "A"
    B = "B"
    D = "D"
    E = "E"
    F = "F"
    G = "G"
    H = "H"
    I = "I"  # noqa: E741  (the letter that the RFC gives this timer)
    J = "J"
    K = "K"
    L = "L"
    M = "M"
    P = "P"
    R = "R"
    S = "S"


class Do(enum.Enum):
    """What the owner of a machine carries out after a step."""

    SEND = "send the last message"
    ACK = "send the ACK of a failure"
    PASS = "give the message to the user"  # noqa: S105  (no password)
    EXPIRED = "tell the user that the time is over"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a table."""

    next: State
    do: tuple[Do, ...] = ()
    start: str = ""
    stop: str = ""


Table = Mapping[tuple[State, On], Rule]

_S = State

SERVER_INVITE: Final[Table] = {
    (_S.PROCEEDING, On.REQUEST): Rule(_S.PROCEEDING, (Do.SEND,)),
    (_S.PROCEEDING, On.PROVISIONAL): Rule(_S.PROCEEDING, (Do.SEND,)),
    (_S.PROCEEDING, On.SUCCESS): Rule(_S.ACCEPTED, (Do.SEND,), start="L", stop="RS"),
    (_S.PROCEEDING, On.FAILURE): Rule(_S.COMPLETED, (Do.SEND,), start="GH", stop="RS"),
    (_S.PROCEEDING, On.R): Rule(_S.PROCEEDING, (Do.EXPIRED,)),
    (_S.PROCEEDING, On.S): Rule(_S.PROCEEDING, (Do.SEND,), start="S"),
    (_S.COMPLETED, On.REQUEST): Rule(_S.COMPLETED, (Do.SEND,)),
    (_S.COMPLETED, On.G): Rule(_S.COMPLETED, (Do.SEND,), start="G"),
    (_S.COMPLETED, On.ACK): Rule(_S.CONFIRMED, start="I", stop="GH"),
    (_S.COMPLETED, On.H): Rule(_S.TERMINATED, (Do.EXPIRED,)),
    (_S.CONFIRMED, On.I): Rule(_S.TERMINATED),
    (_S.ACCEPTED, On.SUCCESS): Rule(_S.ACCEPTED, (Do.SEND,)),
    (_S.ACCEPTED, On.ACK): Rule(_S.ACCEPTED, (Do.PASS,)),
    (_S.ACCEPTED, On.L): Rule(_S.TERMINATED),
}
"""RFC 3261 figure 7 with RFC 6026 section 7.1. A 2xx is resent by the dialog, not here; 100 Trying goes out at once."""

SERVER_OTHER: Final[Table] = {
    (_S.TRYING, On.PROVISIONAL): Rule(_S.PROCEEDING, (Do.SEND,)),
    (_S.TRYING, On.SUCCESS): Rule(_S.COMPLETED, (Do.SEND,), start="J", stop="P"),
    (_S.TRYING, On.FAILURE): Rule(_S.COMPLETED, (Do.SEND,), start="J", stop="P"),
    (_S.TRYING, On.P): Rule(_S.TERMINATED, (Do.EXPIRED,)),
    (_S.PROCEEDING, On.REQUEST): Rule(_S.PROCEEDING, (Do.SEND,)),
    (_S.PROCEEDING, On.PROVISIONAL): Rule(_S.PROCEEDING, (Do.SEND,)),
    (_S.PROCEEDING, On.SUCCESS): Rule(_S.COMPLETED, (Do.SEND,), start="J", stop="P"),
    (_S.PROCEEDING, On.FAILURE): Rule(_S.COMPLETED, (Do.SEND,), start="J", stop="P"),
    (_S.PROCEEDING, On.P): Rule(_S.TERMINATED, (Do.EXPIRED,)),
    (_S.COMPLETED, On.REQUEST): Rule(_S.COMPLETED, (Do.SEND,)),
    (_S.COMPLETED, On.J): Rule(_S.TERMINATED),
}
"""RFC 3261 figure 8. After 64*T1 nobody waits for an answer any more (RFC 4320 section 4.2): timer P."""

CLIENT_INVITE: Final[Table] = {
    (_S.CALLING, On.A): Rule(_S.CALLING, (Do.SEND,), start="A"),
    (_S.CALLING, On.B): Rule(_S.TERMINATED, (Do.EXPIRED,)),
    (_S.CALLING, On.PROVISIONAL): Rule(_S.PROCEEDING, (Do.PASS,), start="R", stop="AB"),
    (_S.CALLING, On.SUCCESS): Rule(_S.ACCEPTED, (Do.PASS,), start="M", stop="AB"),
    (_S.CALLING, On.FAILURE): Rule(_S.COMPLETED, (Do.ACK, Do.PASS), start="D", stop="AB"),
    (_S.PROCEEDING, On.PROVISIONAL): Rule(_S.PROCEEDING, (Do.PASS,)),
    (_S.PROCEEDING, On.SUCCESS): Rule(_S.ACCEPTED, (Do.PASS,), start="M", stop="R"),
    (_S.PROCEEDING, On.FAILURE): Rule(_S.COMPLETED, (Do.ACK, Do.PASS), start="D", stop="R"),
    (_S.PROCEEDING, On.R): Rule(_S.PROCEEDING, (Do.EXPIRED,)),
    (_S.COMPLETED, On.FAILURE): Rule(_S.COMPLETED, (Do.ACK,)),
    (_S.COMPLETED, On.D): Rule(_S.TERMINATED),
    (_S.ACCEPTED, On.SUCCESS): Rule(_S.ACCEPTED, (Do.PASS,)),
    (_S.ACCEPTED, On.M): Rule(_S.TERMINATED),
}
"""RFC 3261 figure 5 with RFC 6026 section 7.2."""

CLIENT_OTHER: Final[Table] = {
    (_S.TRYING, On.E): Rule(_S.TRYING, (Do.SEND,), start="E"),
    (_S.TRYING, On.F): Rule(_S.TERMINATED, (Do.EXPIRED,)),
    (_S.TRYING, On.PROVISIONAL): Rule(_S.PROCEEDING, (Do.PASS,)),
    (_S.TRYING, On.SUCCESS): Rule(_S.COMPLETED, (Do.PASS,), start="K", stop="EF"),
    (_S.TRYING, On.FAILURE): Rule(_S.COMPLETED, (Do.PASS,), start="K", stop="EF"),
    (_S.PROCEEDING, On.E): Rule(_S.PROCEEDING, (Do.SEND,), start="E"),
    (_S.PROCEEDING, On.F): Rule(_S.TERMINATED, (Do.EXPIRED,)),
    (_S.PROCEEDING, On.PROVISIONAL): Rule(_S.PROCEEDING, (Do.PASS,)),
    (_S.PROCEEDING, On.SUCCESS): Rule(_S.COMPLETED, (Do.PASS,), start="K", stop="EF"),
    (_S.PROCEEDING, On.FAILURE): Rule(_S.COMPLETED, (Do.PASS,), start="K", stop="EF"),
    (_S.COMPLETED, On.K): Rule(_S.TERMINATED),
}
"""RFC 3261 figure 6."""

RESENDING: Final = frozenset("AEG")
"""Timers that only an unreliable transport needs."""
LINGERING: Final = frozenset("DIJK")
"""Timers that wait for stragglers of an unreliable transport; zero on a reliable one."""

_FIRST: Final[Mapping[int, tuple[State, str]]] = {
    id(SERVER_INVITE): (_S.PROCEEDING, "R"),
    id(SERVER_OTHER): (_S.TRYING, "P"),
    id(CLIENT_INVITE): (_S.CALLING, "AB"),
    id(CLIENT_OTHER): (_S.TRYING, "EF"),
}


class Transaction:
    """One machine with its timers and the bytes that it resends.

    ``last``: what SEND transmits; the owner sets it before the input that sends it. ``ack``: what ACK transmits.
    Identity is equality, so that a transaction can be a key.
    """

    __slots__ = ("_pause_ns", "_table", "_timers", "_timing", "ack", "flow", "last", "state")

    def __init__(self, table: Table, flow: Flow, timing: Timing, now_ns: int, last: bytes = b"") -> None:
        self._table = table
        self._timing = timing
        self._timers: dict[str, int] = {}
        self._pause_ns = 0
        self.flow = flow
        self.last = last
        self.ack = b""
        self.state, start = _FIRST[id(table)]
        for letter in start:
            self._start(letter, now_ns)

    @property
    def pending(self) -> bool:
        """Return whether no final response has passed yet."""
        return self.state in (State.CALLING, State.TRYING, State.PROCEEDING)

    def deadline_ns(self) -> int | None:
        """Return when ``due`` has something to say, or None."""
        return min(self._timers.values()) if self._timers else None

    def due(self, now_ns: int) -> On | None:
        """Take the earliest timer that has run out by ``now_ns``, as an input for ``handle``."""
        if not self._timers:
            return None
        letter = min(self._timers, key=self._timers.__getitem__)
        if self._timers[letter] > now_ns:
            return None
        del self._timers[letter]
        return On[letter]

    def handle(self, event: On, now_ns: int) -> tuple[Do, ...]:
        """Step the machine and return what its owner has to do; nothing for an input that the state absorbs."""
        rule = self._table.get((self.state, event))
        if rule is None:
            return ()
        self.state = rule.next
        for letter in rule.stop:
            self._timers.pop(letter, None)
        for letter in rule.start:
            self._start(letter, now_ns)
        if rule.next is State.TERMINATED:
            self._timers.clear()
        return rule.do

    def extend(self, letter: str, deadline_ns: int) -> None:
        """Let a running limit of ours (R) end at another time."""
        self._timers[letter] = deadline_ns

    def restart(self, flow: Flow, last: bytes, now_ns: int) -> None:
        """Begin anew over another flow: the first could not be opened, so nobody has seen anything of it."""
        self.flow, self.last, self._pause_ns = flow, last, 0
        self._timers.clear()
        self.state, start = _FIRST[id(self._table)]
        for letter in start:
            self._start(letter, now_ns)

    def terminate(self) -> None:
        """End at once: the user has no more interest."""
        self.state = State.TERMINATED
        self._timers.clear()

    def _start(self, letter: str, now_ns: int) -> None:
        timing = self._timing
        if self.flow.reliable and letter in RESENDING:
            return
        if letter in RESENDING:
            self._timers[letter] = now_ns + self._next_pause_ns(letter)
        elif letter in LINGERING and self.flow.reliable:
            self._timers[letter] = now_ns
        elif letter in ("I", "K"):
            self._timers[letter] = now_ns + timing.t4_ns
        elif letter == "R":
            self._timers[letter] = now_ns + timing.ring_limit_ns
        elif letter == "S":
            self._timers[letter] = now_ns + timing.remind_ns
        else:
            self._timers[letter] = now_ns + timing.give_up_ns

    def _next_pause_ns(self, letter: str) -> int:
        """Double the pause each time: without a limit for INVITE, up to T2 for the others (sections 17.1.1.2, 17.1.2.2)."""
        timing = self._timing
        pause_ns = self._pause_ns * 2 or timing.t1_ns
        if letter != "A":
            pause_ns = min(pause_ns, timing.t2_ns)
        if letter == "E" and self.state is State.PROCEEDING:
            pause_ns = timing.t2_ns
        self._pause_ns = pause_ns
        return pause_ns
