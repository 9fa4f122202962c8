"""Settings of all tests: hypothesis looks for new cases on a developer's machine, and repeats the same ones in CI."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("AFTERTONE_REQUIRE_PEERS") == "1":
    settings.load_profile("ci")
