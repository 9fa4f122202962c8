"""Settings of all tests: hypothesis looks for new cases on a developer's machine, and repeats the same ones in CI; figures that tests
counted are printed at the end."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.figures import tell, told

LIVE: Final = ("tests/acceptance/", "tests/interop/", "tests/e2e/", "tests/crash/test_kills.py")
"""Tests of running programs."""

settings.register_profile("ci", derandomize=True)
if os.environ.get("AFTERTONE_REQUIRE_PEERS") == "1":
    settings.load_profile("ci")


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]
    """Three workers for ``make test``: two for the tests of running programs, one for the others.

    Tests that talk to running programs wait most of the time and measure some of it; the others compute. Side by side they use
    two cores as well as they can be used.
    """

    def _split_scope(self, nodeid: str) -> str:
        if not nodeid.startswith(LIVE):
            return "computing"
        return "peers" if nodeid.startswith("tests/interop/") else "machines"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    """Deal the tests out like that, whatever ``--dist`` says."""
    return SideBySide(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let those that compute step back behind those that measure, where both run."""
    if "PYTEST_XDIST_WORKER" in os.environ and not item.nodeid.startswith(LIVE) and os.nice(0) == 0:
        os.nice(10)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a worker's tests had to tell to the process that prints it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["told"] = list(told())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take it."""
    for line in getattr(node, "workeroutput", {}).get("told", ()):
        tell(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests had to tell."""
    if told():
        terminalreporter.section("figures")
        for line in told():
            terminalreporter.line(line)
