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
from aftertone.net.connection import ConnectionLimits
from aftertone.sip.budgets import Attack, Guard, Limits, Why
from aftertone.sip.guesses import GuessedUser, Guesses

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
            strangers_transactions=wanted.transactions // 2,
            registrations_a_minute=wanted.registrations_a_minute,
            failures_a_minute=wanted.failures,
            silence_ns=round(wanted.silence_s * 1e9),
            known_factor=wanted.known_factor,
        )
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return what peers may occupy with connections."""
    wanted = settings.defence
    return ConnectionLimits(
        max_connections=wanted.connections,
        max_from_one=wanted.connections_from_one,
        first_s=wanted.first_message_s,
        idle_s=wanted.idle_s,
    )


def tell(guard: Guard, logger: structlog.typing.FilteringBoundLogger, guesses: Guesses | None = None) -> None:
    """Log whose attack has begun; to be called once a second."""
    for attack in guard.news():
        setting = f"defence.{_SETTING[attack.why]}"
        logger.warning(
            "a source asks too much", source=attack.source, why=_WHAT[attack.why].format(attack.source), setting=setting
        )

    for one in guesses.news() if guesses is not None else ():
        logger.warning(
            "a password is being guessed at: logins from new places are not looked at",
            user=one.user,
            setting="defence.user_failures",
        )


def alarms(guard: Guard, now_ns: int, guesses: Guesses | None = None) -> list[dict[str, str]]:
    """Return the alarms about those who are being refused, and about those whose password is being guessed at."""
    found, guessed = guard.attacks(now_ns), guesses.guessed(now_ns) if guesses is not None else ()
    said = [{"code": "attack", "text": _sentence(found)}] if found else []
    return said + ([{"code": "attack", "text": _guessed(guessed)}] if guessed else [])


def _guessed(found: tuple[GuessedUser, ...]) -> str:
    names = ", ".join(one.user for one in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"Somebody tries to guess the password of {names}{more}. Where the user has logged in before he still can; logins from "
        "new places are not looked at while it goes on. A long random password cannot be guessed."
    )


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
