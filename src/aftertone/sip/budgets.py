"""Budgets: how much one source may ask before it is refused, and before it is not even answered.

Owns: the token buckets of every source, how many calls each has open, and who is being refused at the moment. Refuses to know:
what is asked (the agent says whether it is a call or a registration), sockets, and who is known: a callable says that.

Specification: RFC 3261 section 26.3.2.4 (denial of service), section 21.5.4 (503 with Retry-After); RFC 4291 section 2.5.1 (an interface has a /64).

Theory of operation: a source is an IPv4 address, or the /64 of an IPv6 address, since whoever has one address there has all.
Each has buckets that fill with time; what is asked takes from them. A message beyond its budget is dropped before it is read.
A new call beyond its budget is refused without state; refusals have a budget too, and beyond that there is silence, so that
nobody is made to flood somebody else. A source that keeps trying passwords gets no answer at all until the silence ends; it
always ends. The table has a fixed size and forgets the source that was quiet for longest: forging addresses gains each of them a
fresh budget, and so calls that nobody has confirmed have a limit for all strangers together as well.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

MAX_SOURCES: Final = 8192
"""Sources that are remembered: 4 MB at most, and more than call a machine within a minute."""
MESSAGE_BURST_S: Final = 5.0
CALL_BURST_S: Final = 10.0
KNOWN_AGAIN_NS: Final = 5_000_000_000
"""How long an answer about who is known holds: phones register and go."""
KNOWN_SILENCE_NS: Final = 10_000_000_000
"""A trunk whose address somebody forges must be heard again soon."""
ATTACK_REFUSALS: Final = 30
"""So many refusals of one source within ``WINDOW_NS`` are an attack, or a PBX that is set up wrongly."""
WINDOW_NS: Final = 60_000_000_000
ATTACK_STAYS_NS: Final = 300_000_000_000
"""An attack is shown for a while, so that somebody can see it."""
MAX_ATTACKS: Final = 8
"""Attackers that are named; the others are counted only."""
_NEVER: Final = -(10**18)


class Verdict(enum.Enum):
    """What becomes of a request."""

    TAKE = "take"
    REFUSE = "refuse"
    IGNORE = "ignore"


class Why(enum.StrEnum):
    """For what somebody was refused; a label of the metric."""

    # An enumeration's own hash is computed in Python, and floods are counted by it.
    __hash__ = str.__hash__

    MESSAGES = "messages"
    CALLS = "calls"
    CALLS_AT_ONCE = "calls_at_once"
    UNANSWERED = "unanswered_calls"
    STRANGERS = "strangers"
    REGISTRATIONS = "registrations"
    FAILURES = "failures"
    SCANNERS = "scanners"
    ANSWERS = "answers"
    """Refused calls that got no answer any more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one stranger may; the settings explain each. The default is no limit, for agents that only call."""

    messages_a_second: float = float("inf")
    calls_a_second: float = float("inf")
    calls_at_once: float = float("inf")
    unanswered_calls: float = float("inf")
    strangers_unanswered: float = float("inf")
    """Unconfirmed calls of all strangers together, so that there is a place left for those who are known."""
    strangers_transactions: float = float("inf")
    """Open transactions, of whomever, beyond which strangers open no more. A refused call holds one for half a minute when
    nobody acknowledges the refusal, and whoever forges addresses never does."""
    registrations_a_minute: float = float("inf")
    failures_a_minute: float = float("inf")
    silence_ns: int = 0
    known_factor: float = 1.0


@dataclass(slots=True)
class Attack:
    """A source that is being refused again and again."""

    source: str
    why: Why
    refused: int
    """How often since it began."""
    last_ns: int


@dataclass(frozen=True, slots=True)
class OpenCall:
    """Under whose name a call is counted."""

    source: str
    stranger: bool
    line: str = ""
    """The trunk, account or phone that it came by."""


class _Bucket:
    """Tokens that come with time. ``burst`` is the most it holds."""

    __slots__ = ("at_ns", "tokens")

    def __init__(self, burst: float, now_ns: int) -> None:
        self.tokens, self.at_ns = burst, now_ns

    def take(self, a_second: float, burst: float, now_ns: int) -> bool:
        """Take a token, if there is one."""
        if now_ns > self.at_ns:
            self.tokens = min(burst, self.tokens + (now_ns - self.at_ns) * a_second / 1e9)
            self.at_ns = now_ns
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class _Source:
    """What is remembered of one source."""

    __slots__ = (
        "asked_ns",
        "buckets",
        "factor",
        "known",
        "messages",
        "refused",
        "silenced",
        "silent_until_ns",
        "streamed",
        "window_ns",
    )

    def __init__(self, burst: float, now_ns: int) -> None:
        self.messages = _Bucket(burst, now_ns)
        self.streamed: _Bucket | None = None
        self.buckets: dict[Why, _Bucket] = {}
        self.known = False
        self.factor = 1.0
        self.asked_ns = _NEVER
        self.silent_until_ns = _NEVER
        self.silenced = ""
        self.window_ns = now_ns
        self.refused = 0


def source_of(host: str) -> str:
    """Return the name under which an address is counted: itself, or its /64."""
    return host if ":" not in host else _network_of(host)


@functools.lru_cache(maxsize=1024)
def _network_of(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_link_local:
        # Everybody in the house shares that network.
        return host
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


class Guard:
    """The budgets of one line. Everything happens on one thread; ``now_ns`` is monotonic and does not fall."""

    def __init__(self, limits: Limits, known: Callable[[str], bool] = lambda _: False) -> None:
        """``known``: whether an address belongs to a trunk, an account or a registered phone; asked every few seconds."""
        self.limits: Final = limits
        self.known = known
        self.refused: Final[Counter[str]] = Counter()
        """How often something was refused, by ``Why``."""
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._calls: Counter[str] = Counter()
        self._unanswered: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()
        self._strangers_unanswered = 0
        self._attacks: OrderedDict[str, Attack] = OrderedDict()
        self._fresh: list[Attack] = []

    def __len__(self) -> int:
        """Return how many sources are remembered."""
        return len(self._sources)

    # What comes in

    def message(self, host: str, now_ns: int, *, stream: bool = False) -> bool:
        """Tell whether a message of ``host`` may be read; costs about a microsecond when it may not.

        ``stream``: it came by a connection, so that ``host`` is not forged. Datagrams with a forged address cost a provider
        none of what it says over its connection.
        """
        name = source_of(host)
        source = self._sources.get(name)
        if source is None:
            source = self._admit(name, now_ns)
        else:
            self._sources.move_to_end(name)
        # A phone with a wrong password silences its network, and not the PBX beside it that is known.
        if now_ns < source.silent_until_ns and (host == source.silenced or not self.known(host)):
            self._refuse(name, source, Why.FAILURES, now_ns)
            return False
        if now_ns - source.asked_ns >= KNOWN_AGAIN_NS:
            self._ask(source, host, now_ns)
        rate = self.limits.messages_a_second * source.factor
        bucket = source.messages
        if stream:
            bucket = source.streamed = source.streamed or _Bucket(rate * MESSAGE_BURST_S, now_ns)
        if bucket.take(rate, rate * MESSAGE_BURST_S, now_ns):
            return True
        self._refuse(name, source, Why.MESSAGES, now_ns)
        return False

    def call(self, host: str, now_ns: int) -> Verdict:
        """Say what becomes of a new call."""
        name, source, limits = source_of(host), self._source(host, now_ns), self.limits
        if self._calls[name] >= limits.calls_at_once * source.factor:
            why = Why.CALLS_AT_ONCE
        elif self._unanswered[name] >= limits.unanswered_calls * source.factor:
            why = Why.UNANSWERED
        elif not source.known and self._strangers_unanswered >= limits.strangers_unanswered:
            why = Why.STRANGERS
        elif not self._take(source, Why.CALLS, limits.calls_a_second, CALL_BURST_S, now_ns):
            why = Why.CALLS
        else:
            return Verdict.TAKE
        self._refuse(name, source, why, now_ns)
        return self._answer(source, limits.calls_a_second, CALL_BURST_S, now_ns)

    def registration(self, host: str, now_ns: int) -> Verdict:
        """Say what becomes of a registration or a subscription."""
        source, rate = self._source(host, now_ns), self.limits.registrations_a_minute / 60
        if self._take(source, Why.REGISTRATIONS, rate, 60.0, now_ns):
            return Verdict.TAKE
        self._refuse(source_of(host), source, Why.REGISTRATIONS, now_ns)
        return self._answer(source, self.limits.calls_a_second, CALL_BURST_S, now_ns)

    def crowded(self, host: str, transactions: int, now_ns: int) -> Verdict:
        """Say what becomes of a request of ``host`` when so many transactions are open, whatever it asks."""
        if transactions < self.limits.strangers_transactions:
            return Verdict.TAKE
        source = self._source(host, now_ns)
        if source.known:
            return Verdict.TAKE
        self._refuse(source_of(host), source, Why.STRANGERS, now_ns)
        return self._answer(source, self.limits.calls_a_second, CALL_BURST_S, now_ns)

    def failed(self, host: str, now_ns: int) -> None:
        """Note a wrong password; the one too many begins a silence."""
        source, limits = self._source(host, now_ns), self.limits
        if self._take(source, Why.FAILURES, limits.failures_a_minute / 60, 60.0, now_ns):
            return
        name = source_of(host)
        quiet_ns = min(limits.silence_ns, KNOWN_SILENCE_NS) if source.known else limits.silence_ns
        source.silent_until_ns, source.silenced = now_ns + quiet_ns, host
        # Each silence is one decision and is shown at once, however few messages follow.
        self._refuse(name, source, Why.FAILURES, now_ns, ATTACK_REFUSALS)

    def scanned(self, host: str, now_ns: int) -> None:
        """Note a message of a scanner that is not answered. Whoever has a public address hears one each minute: no attack."""
        self._source(host, now_ns)
        self.refused[Why.SCANNERS] += 1

    # Calls that are open

    def began(self, host: str, now_ns: int, line: str = "") -> OpenCall:
        """Note an open call that nobody has confirmed yet; give what is returned to ``confirmed`` and ``ended``.

        ``line``: the trunk, account or phone that it came by, one of few.
        """
        call = OpenCall(source_of(host), not self._source(host, now_ns).known, line)
        if line:
            self._lines[line] += 1
        self._calls[call.source] += 1
        self._unanswered[call.source] += 1
        self._strangers_unanswered += call.stranger
        return call

    def confirmed(self, call: OpenCall) -> None:
        """Note that the caller's side has confirmed it."""
        self._strangers_unanswered -= call.stranger
        _count_down(self._unanswered, call.source)

    def ended(self, call: OpenCall, *, confirmed: bool) -> None:
        """Note that it is over."""
        _count_down(self._calls, call.source)
        if call.line:
            _count_down(self._lines, call.line)
        if not confirmed:
            self.confirmed(call)

    @property
    def counted_calls(self) -> int:
        """Return how many calls are counted, as open or as unconfirmed; 0 when all are over."""
        return self._calls.total() + self._lines.total() + self._unanswered.total() + self._strangers_unanswered

    def open_calls(self, host: str) -> int:
        """Return how many calls of a source are open."""
        return self._calls[source_of(host)]

    def open_calls_by(self, line: str) -> int:
        """Return how many calls of a trunk, account or phone are open, wherever they come from."""
        return self._lines[line]

    # Who is being refused

    def attacks(self, now_ns: int) -> tuple[Attack, ...]:
        """Return who was refused again and again lately, the latest first."""
        while self._attacks and now_ns - next(iter(self._attacks.values())).last_ns >= ATTACK_STAYS_NS:
            self._attacks.popitem(last=False)
        return tuple(replace(attack) for attack in reversed(self._attacks.values()))

    def news(self) -> list[Attack]:
        """Return and forget whose attack has begun since the last call: at most one a source and ``WINDOW_NS``."""
        fresh, self._fresh = self._fresh, []
        return fresh

    # Inside

    def _source(self, host: str, now_ns: int) -> _Source:
        name = source_of(host)
        source = self._sources.get(name) or self._admit(name, now_ns)
        if now_ns - source.asked_ns >= KNOWN_AGAIN_NS:
            self._ask(source, host, now_ns)
        return source

    def _admit(self, name: str, now_ns: int) -> _Source:
        if len(self._sources) >= MAX_SOURCES:
            self._sources.popitem(last=False)
        source = self._sources[name] = _Source(self.limits.messages_a_second * MESSAGE_BURST_S, now_ns)
        return source

    def _ask(self, source: _Source, host: str, now_ns: int) -> None:
        source.asked_ns = now_ns
        source.known = self.known(host)
        source.factor = self.limits.known_factor if source.known else 1.0

    def _take(self, source: _Source, why: Why, a_second: float, burst_s: float, now_ns: int) -> bool:
        rate = a_second * source.factor
        burst = max(1.0, rate * burst_s)
        bucket = source.buckets.get(why)
        if bucket is None:
            bucket = source.buckets[why] = _Bucket(burst, now_ns)
        return bucket.take(rate, burst, now_ns)

    def _answer(self, source: _Source, a_second: float, burst_s: float, now_ns: int) -> Verdict:
        """Refusing costs an answer, and an answer to a forged address is somebody else's trouble: there is a budget."""
        if self._take(source, Why.ANSWERS, a_second, burst_s, now_ns):
            return Verdict.REFUSE
        self.refused[Why.ANSWERS] += 1
        return Verdict.IGNORE

    def _refuse(self, name: str, source: _Source, why: Why, now_ns: int, weight: int = 1) -> None:
        self.refused[why] += 1
        if now_ns - source.window_ns >= WINDOW_NS:
            source.window_ns, source.refused = now_ns, 0
        before = source.refused
        source.refused += weight
        if source.refused < ATTACK_REFUSALS:
            return
        attack = self._attacks.get(name)
        if attack is None:
            attack = self._attacks[name] = Attack(name, why, before + 1, now_ns)
            if len(self._attacks) > MAX_ATTACKS:
                self._attacks.popitem(last=False)
        else:
            attack.refused += 1
            attack.why, attack.last_ns = why, now_ns
            self._attacks.move_to_end(name)
        if before < ATTACK_REFUSALS and len(self._fresh) < MAX_ATTACKS:
            self._fresh.append(replace(attack))


def _count_down(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if counter[name] <= 0:
        del counter[name]
