"""aftertone.roles.attackers: what log, alarm and metrics say about those who are refused."""

from __future__ import annotations

import structlog
from structlog.testing import LogCapture

from aftertone.config import Settings
from aftertone.net.connection import ConnectionLimits
from aftertone.roles import attackers
from aftertone.sip.budgets import ATTACK_STAYS_NS, Guard, Limits, Verdict, Why
from aftertone.sip.guesses import Guesses

A = "203.0.113.9"


def attacked(*hosts: str) -> Guard:
    guard = Guard(Limits(messages_a_second=1))
    for host in hosts or (A,):
        for _ in range(100):
            guard.message(host, 0)
    return guard


def test_the_budgets_are_those_of_the_settings() -> None:
    settings = Settings.model_validate({"defence": {"calls_a_second": 0.5, "silence_s": 7}, "calls": {"at_once": 10}})
    guard = attackers.guard_of(settings)
    assert guard.limits.silence_ns == 7_000_000_000
    assert guard.limits.strangers_unanswered == 5
    assert [guard.call(A, 0) for _ in range(6)] == [Verdict.TAKE] * 5 + [Verdict.REFUSE]


def test_what_connections_may_occupy_is_what_the_settings_say() -> None:
    wanted = {"connections": 8, "connections_from_one": 2, "first_message_s": 1, "idle_s": 5, "transactions": 2000}
    settings = Settings.model_validate({"defence": wanted})
    limits = attackers.connection_limits(settings)
    assert (limits.max_connections, limits.max_from_one, limits.first_s, limits.idle_s) == (8, 2, 1.0, 5.0)
    assert attackers.guard_of(settings).limits.strangers_transactions == 1000
    assert attackers.connection_limits(Settings()) == ConnectionLimits(), "the defaults are written down once"


def test_every_default_lets_a_usual_evening_through() -> None:
    guard = attackers.guard_of(Settings())
    assert all(guard.call(A, number) is Verdict.TAKE for number in range(100))
    assert all(guard.message(A, number) for number in range(500))
    # A hundred phones behind one address come back after a power cut: each registers and subscribes, with a challenge.
    assert all(guard.registration(A, 0) is Verdict.TAKE for _ in range(400))
    assert all(guard.crowded(A, number, 0) is Verdict.TAKE for number in range(5000))


def test_an_attack_is_logged_once() -> None:
    captured = LogCapture()
    logger = structlog.wrap_logger(None, processors=[captured])
    guard = attacked()
    attackers.tell(guard, logger)
    attackers.tell(guard, logger)
    (entry,) = captured.entries
    assert (entry["source"], entry["setting"]) == (A, "defence.messages_a_second")


def test_the_alarm_names_the_source_and_is_gone_later() -> None:
    guard = attacked()
    (alarm,) = attackers.alarms(guard, 0)
    assert alarm["code"] == "attack"
    assert alarm["text"].startswith(f"Many messages from {A} are dropped. ")
    assert attackers.alarms(guard, ATTACK_STAYS_NS) == []


def test_whose_password_is_guessed_at_is_named_and_logged_once() -> None:
    captured = LogCapture()
    logger = structlog.wrap_logger(None, processors=[captured])
    guard, guesses = Guard(Limits()), Guesses(["desk"], 1)
    guesses.failed("desk", 0)
    assert attackers.alarms(guard, 0, guesses) == []
    for _ in range(3):
        guesses.may_try("desk", 0)
        attackers.tell(guard, logger, guesses)
    (entry,) = captured.entries
    assert (entry["user"], entry["setting"]) == ("desk", "defence.user_failures")
    (alarm,) = attackers.alarms(guard, 0, guesses)
    assert alarm["code"] == "attack"
    assert alarm["text"].startswith("Somebody tries to guess the password of desk. ")
    assert attackers.alarms(guard, ATTACK_STAYS_NS, guesses) == []


def test_many_sources_are_summed_up() -> None:
    text = attackers.alarms(attacked(*(f"203.0.113.{n}" for n in range(6))), 0)[0]["text"]
    assert "; and 3 more. Other callers" in text


def test_every_reason_has_words_and_a_setting() -> None:
    told = set(Why) - {Why.SCANNERS, Why.ANSWERS}
    assert set(attackers._WHAT) == told
    assert set(attackers._SETTING.values()) <= set(type(Settings().defence).model_fields)
    assert set(attackers._SETTING) == told


def test_metrics_count_every_reason() -> None:
    counted = attackers.metrics(attacked())
    assert counted["sip_refused_messages_total"] == 95
    assert set(counted) == {f"sip_refused_{why.value}_total" for why in Why}
