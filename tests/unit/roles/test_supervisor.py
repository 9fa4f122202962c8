"""The supervisor over tiny roles that are real processes: starting, starting again, stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from aftertone.roles import supervisor as supervisors
from aftertone.roles.process import EXIT_USAGE
from aftertone.roles.supervisor import ROLES, Supervisor

STEADY = """
    ready({"role": role, "life": life, "arguments": sys.argv[1:]})
    wait()
"""
PREAMBLE = """\
import json, os, signal, sys, time
from pathlib import Path
role = Path(__file__).stem
data = Path(sys.argv[sys.argv.index("--data") + 1])
descriptor = int(sys.argv[sys.argv.index("--ready-fd") + 1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with (data / "story").open("a") as story:
    story.write(f"{role} starts\\n")
life = (data / "story").read_text().count(f"{role} starts\\n")
def ready(facts):
    os.write(descriptor, json.dumps(facts).encode() + b"\\n")
    os.close(descriptor)
def wait():
    signal.sigwait({signal.SIGTERM})
    with (data / "story").open("a") as story:
        story.write(f"{role} stops\\n")
"""


class Theatre:
    """A folder with roles of its own under the names of the real ones, and a supervisor for them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data = folder / "data"
        self.roles = folder / "code" / "aftertone" / "roles"
        self.data.mkdir()
        self.roles.mkdir(parents=True)
        for package in (self.roles, self.roles.parent):
            (package / "__init__.py").write_text("")
        for role in ROLES:
            self.cast(role, STEADY)
        monkeypatch.setenv("PYTHONPATH", str(folder / "code"))
        self.log = structlog.testing.LogCapture()
        self.facts: list[tuple[str, Mapping[str, Any]]] = []
        self.config: Path | None = None

    def cast(self, role: str, text: str) -> None:
        """Say what a role does."""
        (self.roles / f"{role}.py").write_text(PREAMBLE + textwrap.dedent(text))

    def run(self, until: Callable[[str, Mapping[str, Any]], bool]) -> int:
        """Run until ``until`` is true of something that got ready, then press Ctrl-C. Returns the exit status."""

        def on_ready(role: str, facts: Mapping[str, object]) -> None:
            self.facts.append((role, facts))
            if until(role, facts):
                os.kill(os.getpid(), signal.SIGTERM)

        logger = structlog.wrap_logger(
            None, wrapper_class=structlog.make_filtering_bound_logger(10), processors=[self.log]
        )

        async def run() -> int:
            async with asyncio.timeout(20):
                return await Supervisor(self.data, self.config, logger, on_ready).run()

        return asyncio.run(run())

    def everybody_ready(self, _role: str, _facts: Mapping[str, Any]) -> bool:
        return {role for role, _ in self.facts} == set(ROLES)

    def story(self) -> list[str]:
        return (self.data / "story").read_text().splitlines()

    def restarts(self, role: str) -> list[tuple[int, float]]:
        return [
            (entry["status"], entry["after_s"])
            for entry in self.log.entries
            if entry.get("role") == role and "after_s" in entry
        ]


@pytest.fixture
def theatre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Theatre:
    monkeypatch.setattr(supervisors, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(supervisors, "LONGEST_BACKOFF_S", {"line": 0.02})
    return Theatre(tmp_path, monkeypatch)


def test_every_role_is_started_heard_and_stopped_with_the_line_before_delivery(theatre: Theatre) -> None:
    theatre.config = theatre.data / "aftertone.toml"
    assert theatre.run(theatre.everybody_ready) == 0
    story = theatre.story()
    assert sorted(story) == sorted([f"{role} {what}" for role in ROLES for what in ("starts", "stops")])
    assert story.index("line stops") < story.index("delivery stops")
    for role, facts in theatre.facts:
        assert facts["role"] == role
        assert facts["arguments"][:2] == ["--data", str(theatre.data)]
        assert facts["arguments"][-2:] == ["--config", str(theatre.config)]
    assert not theatre.log.entries


def test_a_role_that_dies_is_started_again_after_growing_pauses(theatre: Theatre) -> None:
    theatre.cast("desk", "if life < 4: sys.exit(life)" + STEADY.replace("\n    ", "\n"))
    assert theatre.run(lambda role, _: role == "desk") == 0
    assert theatre.restarts("desk") == [(1, 0.01), (2, 0.02), (3, 0.04)]
    assert theatre.story().count("desk starts") == 4


def test_the_line_never_waits_long(theatre: Theatre) -> None:
    theatre.cast("line", "if life < 5: os.kill(os.getpid(), signal.SIGKILL)" + STEADY.replace("\n    ", "\n"))
    assert theatre.run(lambda role, _: role == "line") == 0
    assert theatre.restarts("line") == [(-9, 0.01), (-9, 0.02), (-9, 0.02), (-9, 0.02)]


def test_a_role_that_lived_long_is_forgiven(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "FORGIVEN_AFTER_S", 0.0)
    theatre.cast("desk", "if life < 4: sys.exit(1)" + STEADY.replace("\n    ", "\n"))
    assert theatre.run(lambda role, _: role == "desk") == 0
    assert theatre.restarts("desk") == [(1, 0.01)] * 3


def test_a_role_that_needs_a_person_at_its_first_start_stops_the_machine(theatre: Theatre) -> None:
    theatre.cast("desk", f"sys.exit({EXIT_USAGE})")
    assert theatre.run(lambda *_: False) == EXIT_USAGE
    assert theatre.story().count("desk starts") == 1
    assert theatre.story().count("line starts") == theatre.story().count("line stops")


def test_a_role_that_needs_a_person_later_is_tried_again(theatre: Theatre) -> None:
    again = f"ready({{'life': life}})\nif life == 1: sys.exit({EXIT_USAGE})\nwait()"
    theatre.cast("desk", again)
    assert theatre.run(lambda role, facts: role == "desk" and facts["life"] == 2) == 0
    assert theatre.restarts("desk") == [(EXIT_USAGE, 0.01)]


def test_a_role_that_does_not_hear_is_killed(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "STOP_WITHIN_S", 0.3)
    theatre.cast("desk", "ready({'pid': os.getpid()})\nwhile True: time.sleep(60)")
    assert theatre.run(theatre.everybody_ready) == 0
    assert [e["role"] for e in theatre.log.entries if "killed" in e["event"]] == ["desk"]
    pid = next(facts["pid"] for role, facts in theatre.facts if role == "desk")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert theatre.story().count("delivery stops") == 1


def test_a_listener_that_fails_costs_no_role_its_keeper(theatre: Theatre) -> None:
    theatre.cast("desk", "ready({'life': life})\nif life == 1: sys.exit(3)\nwait()")

    def until(role: str, facts: Mapping[str, Any]) -> bool:
        if role == "desk" and facts["life"] == 1:
            raise BrokenPipeError("the terminal is closed")
        return role == "desk"

    assert theatre.run(until) == 0
    assert theatre.restarts("desk") == [(3, 0.01)]


def test_a_process_that_cannot_be_started_is_tried_again_and_leaks_nothing(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, failures = asyncio.create_subprocess_exec, [3]

    async def fail(*arguments: Any, **rest: Any) -> asyncio.subprocess.Process:
        if failures[0] and "aftertone.roles.line" in arguments:
            failures[0] -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await start(*arguments, **rest)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert theatre.run(lambda role, _: role == "line") == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert sum("could not be started" in entry["event"] for entry in theatre.log.entries) == 3
