"""Packets in memory are small, and a spill file that fails loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aftertone.delivery.held import HeldPackets
from aftertone.errors import DamagedError
from aftertone.journal import PacketBatch
from tests.support.recordings import a_batch, rows_of

COLUMNS = ("call", "arrival_ns", "sequence", "timestamp", "ssrc", "payload_type", "marker", "length")


def _same(found: PacketBatch, wanted: PacketBatch) -> bool:
    columns = all(np.array_equal(getattr(found, name), getattr(wanted, name)) for name in COLUMNS)
    return columns and found.payloads == wanted.payloads


def test_what_went_in_comes_out_spilled_or_not(tmp_path: Path) -> None:
    rows = rows_of(seconds=1.0)
    held = HeldPackets()
    for start in range(0, 50, 10):
        held.append(a_batch(rows[start : start + 10]))
        if start in (10, 30):
            held.spill(tmp_path / "spill")
    assert _same(held.load(7), a_batch(rows))
    held.discard()
    assert list(tmp_path.iterdir()) == []
    assert len(held) == 0
    assert len(held.load(7)) == 0


def test_ten_minutes_take_less_than_eight_megabytes() -> None:
    held = HeldPackets()
    second = a_batch(rows_of(seconds=1.0))
    for _ in range(600):
        held.append(second)
    assert len(held) < 6_000_000


def test_a_spill_that_fails_stays_in_memory(tmp_path: Path) -> None:
    rows = rows_of(seconds=0.4)
    held = HeldPackets()
    held.append(a_batch(rows))
    with pytest.raises(OSError):
        held.spill(tmp_path / "missing" / "spill")
    assert _same(held.load(7), a_batch(rows))


def test_a_spill_file_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    held = HeldPackets()
    held.append(a_batch(rows_of(seconds=0.4)))
    held.spill(tmp_path / "spill")
    data = (tmp_path / "spill").read_bytes()
    for length in (len(data) - 1, 5):
        (tmp_path / "spill").write_bytes(data[:length])
        with pytest.raises(DamagedError, match="cut short"):
            held.load(7)
