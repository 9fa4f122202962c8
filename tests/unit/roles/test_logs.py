"""Logs: a line an event, no secrets, and never an error of their own."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from aftertone.config import Log
from aftertone.roles.logs import set_up


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_hidden_whatever_they_are_called(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    logger = set_up(Log.model_validate({"format": form}), "desk")
    logger.info(
        "somebody came",
        password="hunter2",
        api_token="hunter2",
        Authorization="hunter2",
        set_cookie="hunter2",
        client_secret="hunter2",
        peer="192.0.2.7",
    )
    printed = capfd.readouterr().err
    assert "hunter2" not in printed
    assert "192.0.2.7" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_peers_write_stays_in_its_line(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    logger = set_up(Log.model_validate({"format": form}), "line")
    logger.warning(
        "a lamp cannot be told", why="500 No\n2026-11-25 [error] all is lost\x1b[2J\u2028\u202eback", lamp="Zo\u00eb"
    )
    printed = capfd.readouterr().err
    assert len(printed.splitlines()) == 1
    assert "500 No?2026-11-25 [error] all is lost?[2J??back" in printed
    assert "\x1b[2J" not in printed


def test_json_is_a_line_for_machines(capfd: pytest.CaptureFixture[str]) -> None:
    set_up(Log(format="json"), "line").warning("a tick was late", ms=7)
    event = json.loads(capfd.readouterr().err)
    assert (event["event"], event["level"], event["role"], event["ms"]) == ("a tick was late", "warning", "line", 7)


def test_what_is_less_serious_than_asked_for_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    logger = set_up(Log(level="error"), "line")
    logger.warning("quiet")
    logger.error("loud")
    printed = capfd.readouterr().err
    assert "quiet" not in printed
    assert "loud" in printed


def test_an_exception_is_told_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    logger = set_up(Log(), "line")
    try:
        raise ValueError("broken thing")
    except ValueError:
        logger.exception("a tick failed")
    assert "broken thing" in capfd.readouterr().err


def test_a_log_that_nobody_can_take_raises_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = set_up(Log(), "line")

    def fail(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fail)
        logger.error("nobody hears this")
    logger.error("and this is heard", name="\udcff")
    assert "and this is heard" in capfd.readouterr().err
