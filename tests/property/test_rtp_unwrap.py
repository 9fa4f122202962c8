"""Widening recovers what was counted, whatever the order of arrival, as long as neighbours are less than half a turn apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aftertone.rtp.unwrap import unwrap_sequence, unwrap_timestamp


@st.composite
def arrivals(draw: st.DrawFn, bits: int) -> list[int]:
    """A counter that never goes back, in an order of arrival in which no packet is overtaken by half a turn or more.

    It is sent in groups that span less than a sixth of the circle and lie less than a sixth apart; each group arrives
    shuffled, so that neighbours in arrival (two groups and the way between) are less than half the circle apart.
    """
    sixth = 2**bits // 6
    start = draw(st.integers(0, 2**bits - 1))
    order: list[int] = []
    for _ in range(draw(st.integers(1, 6))):
        offsets = draw(st.lists(st.integers(0, sixth - 1), min_size=1, max_size=6))
        order += draw(st.permutations([start + offset for offset in offsets]))
        start += max(offsets) + draw(st.integers(0, sixth - 1))
    return order


@given(arrivals(16), st.data())
def test_sequence_numbers_are_recovered(counted: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(counted)))
    values = np.array(counted, dtype=np.int64).astype(np.uint16)
    base = counted[0] - int(values[0])
    assert (unwrap_sequence(values) + base).tolist() == counted
    head = unwrap_sequence(values[:cut])
    tail = unwrap_sequence(values[cut:], int(head[-1]) if cut else None)
    assert (np.concatenate([head, tail]) + base).tolist() == counted


@given(arrivals(32))
def test_timestamps_are_recovered(counted: list[int]) -> None:
    values = np.array(counted, dtype=np.int64).astype(np.uint32)
    assert (unwrap_timestamp(values) + counted[0] - int(values[0])).tolist() == counted


@given(st.lists(st.integers(0, 2**16 - 1)), st.none() | st.integers(-(2**40), 2**40))
def test_the_low_bits_are_always_right(values: list[int], previous: int | None) -> None:
    wide = unwrap_sequence(np.array(values, dtype=np.uint16), previous)
    assert (wide % 2**16).tolist() == values
    steps = np.diff(wide) if previous is None else np.diff(wide, prepend=previous)
    assert bool(np.all((steps >= -(2**15)) & (steps < 2**15)))
