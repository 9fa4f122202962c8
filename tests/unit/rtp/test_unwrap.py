"""Counters that wrap, widened."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.rtp.unwrap import unwrap_sequence, unwrap_timestamp


def sequence(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.array(values, dtype=np.uint16)


@pytest.mark.parametrize(
    ("arrived", "previous", "wide"),
    [
        ((), None, []),
        ((), 70_000, []),
        ((5,), None, [5]),
        ((65534, 65535, 0, 1), None, [65534, 65535, 65536, 65537]),
        ((65535, 1, 0, 2), None, [65535, 65537, 65536, 65538]),
        ((0, 65535, 1), None, [0, -1, 1]),
        ((0, 65535), 65535, [65536, 65535]),
        ((4,), 5 * 65536 - 2, [5 * 65536 + 4]),
        ((65530,), 5 * 65536 + 2, [5 * 65536 - 6]),
        ((65530,), -3, [-6]),
        ((32767,), 0, [32767]),
        ((32768,), 0, [-32768]),
        ((10, 10, 10), None, [10, 10, 10]),
    ],
)
def test_sequence_numbers(arrived: tuple[int, ...], previous: int | None, wide: list[int]) -> None:
    result = unwrap_sequence(sequence(*arrived), previous)
    assert result.dtype == np.int64
    assert result.tolist() == wide


def test_many_turns_of_the_circle() -> None:
    counted = np.arange(0, 1_000_000, 1000)
    assert unwrap_sequence(counted.astype(np.uint16)).tolist() == counted.tolist()


@pytest.mark.parametrize(
    ("arrived", "previous", "wide"),
    [
        ((2**32 - 160, 0, 160), None, [2**32 - 160, 2**32, 2**32 + 160]),
        ((160, 2**32 - 160), None, [160, -160]),
        ((160,), 3 * 2**32 - 960, [3 * 2**32 + 160]),
        ((), None, []),
    ],
)
def test_timestamps(arrived: tuple[int, ...], previous: int | None, wide: list[int]) -> None:
    assert unwrap_timestamp(np.array(arrived, dtype=np.uint32), previous).tolist() == wide


def test_columns_that_are_not_contiguous() -> None:
    every = np.arange(65_500, 65_600).astype(np.uint16)
    assert unwrap_sequence(every[::2]).tolist() == list(range(65_500, 65_600, 2))
