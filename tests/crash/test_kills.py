"""A few random kills in every test run; ``make crash`` plays two hundred."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.crash import kills


@pytest.mark.parametrize("seed", [1, 20261122])
def test_random_kills_lose_nothing(tmp_path: Path, seed: int) -> None:
    tally = asyncio.run(kills.play(5, seed, tmp_path / "var", show=False))
    assert tally.violations == []
    assert tally.calls == 5 * kills.CALLERS
    assert sum(tally.kills.values()) == 5
