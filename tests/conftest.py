"""Settings of all tests: hypothesis looks for new cases on a developer's machine, and repeats the same ones in CI; figures that tests
counted are printed at the end."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.support.figures import told

settings.register_profile("ci", derandomize=True)
if os.environ.get("AFTERTONE_REQUIRE_PEERS") == "1":
    settings.load_profile("ci")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests had to tell."""
    if told():
        terminalreporter.section("figures")
        for line in told():
            terminalreporter.line(line)
