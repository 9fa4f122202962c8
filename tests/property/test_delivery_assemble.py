"""A network may do what it likes: the length stays, the memory stays bounded, nothing raises."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.delivery.assemble import assemble
from aftertone.model import SAMPLE_RATE_HZ, Codec
from tests.support.recordings import Row, a_batch, an_envelope, rows_of, spoil


@pytest.mark.parametrize("codec", list(Codec))
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sequence=st.integers(0, 65_535),
    timestamp=st.integers(0, 2**32 - 1),
    lost=st.floats(0, 0.3),
)
def test_the_length_is_that_of_the_clean_recording(
    codec: Codec, seed: int, sequence: int, timestamp: int, lost: float
) -> None:
    rows = rows_of(codec, 1.0, sequence=sequence, timestamp=timestamp)
    spoiled = spoil(rows, seed, lost=lost)
    found = assemble(an_envelope(codec), a_batch(spoiled), None)
    assert len(found.samples) == SAMPLE_RATE_HZ[codec]
    assert found.packets == len({row[1] for row in spoiled})
    assert found.lost_packets == 50 - found.packets
    assert found.concealed_ms <= 20 * found.lost_packets
    assert found.notes == ()


def _wild(seed: int, count: int) -> list[Row]:
    chance = random.Random(seed)
    arrival_ns, sequence, timestamp, rows = 10**9, chance.randrange(65_536), chance.randrange(2**32), []
    sources = [chance.randrange(2**32) for _ in range(chance.randrange(1, 4))]
    numbers = chance.choice([[0], [0, 8], [0, 9, 111, 101, 13], list(range(128))])
    for _ in range(count):
        arrival_ns += chance.choice([0, 20_000_000, 20_000_000, 20_000_000, 700_000_000, -5_000_000])
        sequence += chance.choice([1, 1, 1, 1, 2, 0, -1, 500, 30_000])
        timestamp += chance.choice([160, 160, 160, 160, 0, 8000, -160, 2**31, 10**7])
        payload = chance.randbytes(chance.choice([0, 1, 160, 160, 40, 1400]))
        source = chance.choice(sources) if chance.random() < 0.1 else sources[0]
        rows.append((arrival_ns, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, source, chance.choice(numbers), payload))
    return rows


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 150))
def test_whatever_arrives_is_bounded_and_repeatable(seed: int, count: int) -> None:
    batch: Any = a_batch(_wild(seed, count))
    found = assemble(an_envelope(), batch, None)
    span_ms = int(np.ptp(batch.arrival_ns)) // 1_000_000 if count else 0
    assert found.audio_ms <= 2 * span_ms + 60_001
    assert 0 <= found.duration_ms <= found.audio_ms
    assert found.packets <= count
    assert found.samples.dtype == np.int16
    again = assemble(an_envelope(), batch, None)
    assert np.array_equal(again.samples, found.samples)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_sample_of_g711_that_came_is_in_the_recording(seed: int) -> None:
    """Unless it was left out with a note, all sound that arrived is there, in full."""
    chance = random.Random(seed)
    rows = [(*row[:4], 0, bytes(chance.choices(range(1, 127), k=160))) for row in _wild(seed, 60)]
    found = assemble(an_envelope(), a_batch(rows), None)
    assert len(found.samples) >= 160 * found.packets
    if not found.keep_packets:
        assert found.packets >= len({row[1] for row in rows if row[3] == rows[0][3]})
