"""Real programs that tests call: present, or skipped with the reason; required in CI.

Owns: that rule. Refuses to know: what the programs do.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def require(*programs: str) -> None:
    """Skip the test when a program is missing; fail instead when ``AFTERTONE_REQUIRE_PEERS`` is 1."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        missing(f"not installed: {', '.join(absent)}")


def missing(reason: str) -> NoReturn:
    """Skip the test for that reason; fail instead when ``AFTERTONE_REQUIRE_PEERS`` is 1."""
    if os.environ.get("AFTERTONE_REQUIRE_PEERS") == "1":
        pytest.fail(f"{reason} (required in CI)")
    pytest.skip(reason)
