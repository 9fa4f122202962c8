"""The real program on a machine whose clock is wrong: nothing is lost or reordered, and what is a guess says so.

The clock is put wrong by libfaketime, which answers for the kernel; the monotonic clock stays as it is, as it does when a
real clock is set.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.callers import Party, wish
from tests.support.machine import Machine
from tests.support.peers import missing

PLACES = ("usr/lib/*/faketime", "usr/lib/faketime", "usr/lib64/faketime", "usr/local/lib/faketime")


def library() -> str:
    """Return the library that puts clocks wrong; without it the test is skipped, or fails where peers are required."""
    found = [path for place in PLACES for path in Path("/").glob(f"{place}/libfaketimeMT.so.1")]
    if not found:
        missing("not installed: libfaketime (Debian: apt-get install faketime)")
    return str(found[0])


def call(made: Machine, number: str) -> None:
    """Leave one message."""
    with Party([wish(made.uri, number, 1.0)]) as party:
        assert party.outcomes()[0].bye_status == 200


@pytest.fixture
def made(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "var")


def start_at(made: Machine, clock: str | None) -> None:
    """Start the machine with its clock at ``clock``, None for the real one."""
    wrong = {"LD_PRELOAD": library(), "FAKETIME": f"@{clock}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    made.settings = {} if clock is None else wrong
    made.start()


def test_calls_keep_their_order_whatever_the_clock_says(made: Machine) -> None:
    """A board that boots at 1970, in 2031, at 1970 again, and now: the power fails in between."""
    numbers: list[str] = []
    try:
        for clock in ("1970-01-01 00:00:10", "2031-05-05 12:00:00", "1970-01-01 00:00:10", None):
            if made.process is not None:
                made.kill()
            start_at(made, clock)
            if clock is not None and clock.startswith("1970"):
                alarms = json.loads((made.data / "run" / "line.json").read_text())["alarms"]
                assert "clock" in [alarm["code"] for alarm in alarms]
            numbers.append(f"boot{len(numbers)}")
            call(made, numbers[-1])
            made.wait_for_messages(len(numbers))
        listed = json.loads(made.run("message", "list", "--json").stdout)
        assert [message["caller"]["number"] for message in reversed(listed)] == numbers
        _, third, second, first = listed
        assert (first["clock"], third["clock"]) == ("unsure", "unsure")
        assert first["started_at"].startswith("2026-01-01"), "not before the program was made"
        assert third["started_at"] >= second["started_at"] > "2031", "not before the call that came last"
        assert json.loads(made.run("message", "show", "last", "--json").stdout) == listed[0]
        assert made.books()["ok"]
    finally:
        if made.process is not None:
            made.kill()
