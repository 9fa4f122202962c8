"""How the machine stands, from what its roles say about themselves.

Owns: the words and the one judgement that the health answers, the banner and the event stream share. Refuses to know:
how the roles' words get here.

Theory of operation: pure. What a role wrote is read with suspicion (it comes from a file): wrong types count as not
said. A role that says nothing is down, and that is an alarm like any other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aftertone.errors import AftertoneError
from aftertone.web.services import DeskServices

MAX_ALARMS: Final = 20
MAX_METRICS: Final = 500
MAX_LINES: Final = 500
MAX_ACCOUNTS: Final = 100

_WORD: Final = re.compile(r"[a-z0-9_-]{1,64}")
_METRIC: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,120}")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should look at: a stable code and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class LineUse:
    """How much an account or trunk was used since the line started."""

    kind: str
    name: str
    calls: int
    last_call_unix_ms: int
    """0 when there was none yet."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the machine at one moment."""

    line_up: bool
    delivery_up: bool
    taking_calls: bool
    calls: int
    sip_address: str
    alarms: tuple[Alarm, ...]
    line_metrics: tuple[tuple[str, float], ...]
    lines: tuple[LineUse, ...] = ()
    accounts: tuple[tuple[str, bool], ...] = ()
    """Numbers that the line registers for, and whether they are registered."""

    @property
    def status(self) -> str:
        """``ok``, ``alarm`` or ``down``."""
        if not self.taking_calls:
            return "down"
        return "alarm" if self.alarms else "ok"

    @property
    def reason(self) -> str:
        """One word: why no calls are taken; ``ok`` when they are."""
        if self.taking_calls:
            return "ok"
        if not self.line_up:
            return "line_down"
        code = self.alarms[0].code if self.alarms else ""
        return code if _WORD.fullmatch(code) else "not_taking_calls"

    @property
    def mark(self) -> str:
        """A short text that changes exactly when what people are shown changes."""
        shown = [self.status, self.sip_address, [[alarm.code, alarm.text] for alarm in self.alarms]]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def _alarms(said: Mapping[str, object] | None) -> list[Alarm]:
    given = said.get("alarms") if said is not None else None
    found = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    return [Alarm(str(one.get("code", ""))[:64], str(one.get("text", ""))[:500]) for one in found[:MAX_ALARMS]]


def _metrics(said: Mapping[str, object] | None) -> tuple[tuple[str, float], ...]:
    given = said.get("metrics") if said is not None else None
    if not isinstance(given, Mapping):
        return ()
    numbers = [
        (name, float(value))
        for name, value in given.items()
        if isinstance(name, str) and _METRIC.fullmatch(name) and isinstance(value, (int, float))
    ]
    return tuple(sorted(numbers)[:MAX_METRICS])


def _lines(said: Mapping[str, object] | None) -> tuple[LineUse, ...]:
    given = said.get("lines") if said is not None else None
    found = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    uses = []
    for one in found[:MAX_LINES]:
        kind, name, calls, last = (one.get(key) for key in ("kind", "name", "calls", "last_call_unix_ms"))
        if isinstance(kind, str) and isinstance(name, str) and isinstance(calls, int) and isinstance(last, int):
            uses.append(LineUse(kind[:32], name[:64], calls, last))
    return tuple(uses)


def _accounts(said: Mapping[str, object] | None) -> tuple[tuple[str, bool], ...]:
    given = said.get("accounts") if said is not None else None
    found = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    named = ((str(one.get("name", "")), one.get("state") == "registered") for one in found[:MAX_ACCOUNTS])
    return tuple((name, registered) for name, registered in named if _WORD.fullmatch(name))


def judge(line: Mapping[str, object] | None, delivery: Mapping[str, object] | None) -> Standing:
    """Return how the machine stands by what the line and delivery said last (None: nothing lately)."""
    taking_calls = line is not None and line.get("taking_calls") is True
    alarms = _alarms(line) + _alarms(delivery)
    if line is None:
        alarms.insert(0, Alarm("line_down", "The machine is not answering the phone. See its log and start it again."))
    elif not taking_calls and not alarms:
        alarms.append(Alarm("not_taking_calls", "The machine is not taking calls at the moment."))
    if delivery is None:
        alarms.append(
            Alarm(
                "delivery_down", "New messages are recorded and safe, but they appear here only when delivery is back."
            )
        )
    calls = line.get("calls") if line is not None else 0
    address = line.get("sip_address") if line is not None else ""
    return Standing(
        line_up=line is not None,
        delivery_up=delivery is not None,
        taking_calls=taking_calls,
        calls=calls if isinstance(calls, int) else 0,
        sip_address=address[:200] if isinstance(address, str) else "",
        alarms=tuple(alarms[:MAX_ALARMS]),
        line_metrics=_metrics(line),
        lines=_lines(line),
        accounts=_accounts(line),
    )


def standing_of(services: DeskServices) -> Standing:
    """Return how the machine stands now; reads two small files."""
    return judge(services.line_status(), services.role_status())


def greeting_alarms(services: DeskServices) -> tuple[Alarm, ...]:
    """Return an alarm for every greeting whose audio cannot be found: callers hear the default greeting instead."""
    alarms = []
    for row in services.catalog.mailboxes():
        if row.greeting_blob is None:
            continue
        try:
            services.blobs.size(row.greeting_blob)
        except AftertoneError:
            text = f"The greeting of {row.name} cannot be read: callers hear the default greeting. Set it again."
            alarms.append(Alarm("greeting_missing", text))
    return tuple(alarms[:MAX_ALARMS])
