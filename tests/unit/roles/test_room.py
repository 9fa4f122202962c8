"""The mark below which no new call is taken."""

from __future__ import annotations

import pytest

from aftertone.config import Settings
from aftertone.roles.room import Mark, mark_of, reserve_bytes

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("disk_gb", "megabytes", "why"),
    [
        (4000, 200, "storage.low_water_mb = 200"),
        (32, 200, "storage.low_water_mb = 200"),
        (4, 80, "storage.low_water_percent = 2 of 4.0 GB"),
        (0, 200, "storage.low_water_mb = 200"),
        (1, 48.777216, "the least: storage.reserve_mb = 32 and a file of journal.segment_mb = 16"),
    ],
)
def test_the_smaller_of_an_amount_and_a_share_but_never_less_than_calls_may_need(
    disk_gb: int, megabytes: float, why: str
) -> None:
    mark = mark_of(Settings(), disk_gb * GB)
    assert mark == Mark(round(megabytes * 1_000_000), why)
    assert str(mark) == f"{megabytes:.0f} MB ({why})"


def test_it_follows_the_settings() -> None:
    settings = Settings.model_validate(
        {"storage": {"low_water_mb": 500, "low_water_percent": 10, "reserve_mb": 0}, "journal": {"segment_mb": 1}}
    )
    assert mark_of(settings, 100 * GB).free_bytes == 500_000_000
    assert mark_of(settings, 2 * GB).free_bytes == 200_000_000
    assert mark_of(settings, 1_000_000).free_bytes == 1 << 20
    assert reserve_bytes(settings) == 0
    assert reserve_bytes(Settings()) == 32_000_000
