"""What the line says about those whom it refuses again and again.

Owns: the budgets that the settings ask for, and the words of log, alarm and metrics about them. Refuses to know: how a budget works.

Theory of operation: refusing is silent, because a flood must not become a flood of log lines. Each source is logged when its
attack begins, at most once a minute; while it goes on, and for five minutes afterwards, there is an alarm that names the latest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from aftertone.config import Settings
from aftertone.sip.budgets import Attack, Guard, Limits, Why
from aftertone.sip.settings import AgentSettings

SHOWN: Final = 3
"""Sources that an alarm names; more would be no help."""

_WHAT: Final[Mapping[Why, str]] = {
    Why.MESSAGES: "many messages from {} are dropped",
    Why.CALLS: "many calls from {} are being refused",
    Why.CALLS_AT_ONCE: "calls from {} are being refused: it has too many at the same time",
    Why.UNANSWERED: "calls from {} are being refused: too many ring, or were never confirmed",
    Why.STRANGERS: "requests from {} are being refused: strangers have too many calls that nobody confirms",
    Why.REGISTRATIONS: "many registrations from {} are being refused",
    Why.FAILURES: "{} tried too many wrong passwords and gets no answer for a while",
}
_SETTING: Final[Mapping[Why, str]] = {
    Why.MESSAGES: "messages_a_second",
    Why.CALLS: "calls_a_second",
    Why.CALLS_AT_ONCE: "calls_at_once",
    Why.UNANSWERED: "unanswered_calls",
    Why.STRANGERS: "unanswered_calls",
    Why.REGISTRATIONS: "registrations_a_minute",
    Why.FAILURES: "failures",
}


def guard_of(settings: Settings) -> Guard:
    """Return the budgets that the settings ask for. Nobody is known yet: set ``known``."""
    wanted = settings.defence
    return Guard(
        Limits(
            messages_a_second=wanted.messages_a_second,
            calls_a_second=wanted.calls_a_second,
            calls_at_once=wanted.calls_at_once,
            unanswered_calls=wanted.unanswered_calls,
            # Half of the places: the other half is for those who are known, and for calls that are confirmed.
            strangers_unanswered=max(1, settings.calls.at_once // 2),
            strangers_transactions=AgentSettings().max_transactions // 2,
            registrations_a_minute=wanted.registrations_a_minute,
            failures_a_minute=wanted.failures,
            silence_ns=round(wanted.silence_s * 1e9),
            known_factor=wanted.known_factor,
        )
    )


def tell(guard: Guard, logger: structlog.typing.FilteringBoundLogger) -> None:
    """Log whose attack has begun; to be called once a second."""
    for attack in guard.news():
        setting = f"defence.{_SETTING[attack.why]}"
        logger.warning(
            "a source asks too much", source=attack.source, why=_WHAT[attack.why].format(attack.source), setting=setting
        )


def alarms(guard: Guard, now_ns: int) -> list[dict[str, str]]:
    """Return the alarm about those who are being refused, if there are any."""
    found = guard.attacks(now_ns)
    if not found:
        return []
    return [{"code": "attack", "text": _sentence(found)}]


def _sentence(found: tuple[Attack, ...]) -> str:
    parts = [_WHAT[attack.why].format(attack.source) for attack in found[:SHOWN]]
    more = len(found) - len(parts)
    said = "; ".join(parts) + (f"; and {more} more" if more else "")
    setting = f"defence.{_SETTING[found[0].why]}"
    return (
        f"{said[0].upper()}{said[1:]}. Other callers are not affected. If it is a telephone system of yours, name it in "
        f"sip.trunks or raise {setting}."
    )


def metrics(guard: Guard) -> dict[str, float]:
    """Return how often something was refused, by reason."""
    counts: dict[str, float] = {f"sip_refused_{why.value}_total": guard.refused[why] for why in Why}
    return counts
