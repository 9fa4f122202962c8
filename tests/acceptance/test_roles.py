"""Each role may die while calls are being recorded: every message arrives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import httpx
import pytest

from tests.support.callers import Party, wish
from tests.support.machine import Machine, machine, wait_until

CALLS = 20
SECONDS = 4.0


@pytest.mark.parametrize("victim", ["delivery", "desk", "catalog", "all three"])
def test_twenty_recordings_survive_the_death_of(tmp_path: Path, victim: str) -> None:
    with machine(tmp_path / "var") as made:
        pid = made.role_pid("line")
        with Party([wish(made.uri, f"n{n}", SECONDS) for n in range(CALLS)]) as party:
            wait_until(lambda: party.speaking() == CALLS, "everybody to speak", 60)
            with contextlib.ExitStack() as stack:
                if victim in ("catalog", "all three"):
                    lock = stack.enter_context(
                        contextlib.closing(sqlite3.connect(made.data / "catalog" / "aftertone.db"))
                    )
                    lock.execute("BEGIN EXCLUSIVE")
                for role in ("delivery", "desk"):
                    if victim in (role, "all three"):
                        made.kill_role(role)
                outcomes = party.outcomes()
        assert [o.bye_status for o in outcomes] == [200] * CALLS
        rows = wait_until(lambda: all_there(made), "all twenty messages", 40)
        assert {row["number"] for row in rows} == {f"n{n}" for n in range(CALLS)}
        assert {row["audio_ms"] for row in rows} == {int(SECONDS * 1000)}
        assert not any(row["cut_off"] for row in rows)
        assert made.role_pid("line") == pid
        wait_until(lambda: made.run("verify", check=False).returncode == 0, "the books to balance")


def all_there(made: Machine) -> list[dict[str, object]] | None:

    try:
        rows = made.messages()
    except (httpx.HTTPError, OSError):
        return None
    assert len(rows) <= CALLS
    flat = [{**row, "number": row["caller"]["number"]} for row in rows]
    return flat if len(rows) == CALLS else None


def test_the_line_starts_and_answers_with_everything_else_down(tmp_path: Path) -> None:
    """Delivery and desk stopped for good: a call is taken with the mailboxes that the line knows, and delivered later."""
    with machine(tmp_path / "var") as made:
        made.run("mailbox", "add", "office")
        for role in ("delivery", "desk"):
            os.kill(made.role_pid(role), signal.SIGSTOP)
        made.kill_role("line")
        old = made.role_pid("line")
        wait_until(lambda: made.role_pid("line") != old, "a new line")
        uri = made.uri.replace("main", "office")
        with Party([wish(uri, "alone", 1.0)]) as party:
            assert party.outcomes()[0].bye_status == 200
        for role in ("delivery", "desk"):
            os.kill(made.role_pid(role), signal.SIGCONT)
        row = made.wait_for_messages(1)[0]
        assert (row["mailbox"], row["caller"]["number"]) == ("office", "alone")


def test_a_deleted_catalog_is_rebuilt(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        with Party([wish(made.uri, f"n{n}", 1.0) for n in range(3)]) as party:
            party.outcomes()
        before = {row["id"]: row for row in made.wait_for_messages(3)}
        made.stop()
        shutil.rmtree(made.data / "catalog")
        made.start()
        after = {row["id"]: row for row in made.wait_for_messages(3)}
        assert after == before
        assert made.books()["ok"]
