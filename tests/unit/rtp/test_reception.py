"""Figures of what arrived, against the standard's own sums, packet by packet."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aftertone.rtp.reception import MAX_DROPOUT, Reception
from aftertone.rtp.rtcp import ReportBlock

Packet = tuple[int, int, int, int, int]
"""Call, SSRC, sequence number, timestamp, arrival: of a clock with a tick a nanosecond, so that sums are exact."""


def made(calls: int) -> Reception:
    reception = Reception(calls)
    reception.ticks_per_ns[:] = 1.0
    return reception


def count(reception: Reception, packets: list[Packet], timed: list[bool] | None = None) -> None:
    call, ssrc, sequence, ticks, arrived = (list(column) for column in zip(*packets, strict=True))
    reception.count(
        np.array(call, np.intp),
        np.array(ssrc, np.uint32),
        np.array(sequence, np.uint16),
        np.array(ticks, np.uint32),
        np.array(arrived, np.int64),
        None if timed is None else ~np.array(timed),
    )


def told(reception: Reception, call: int = 0) -> ReportBlock:
    assert reception.begun[call]
    return ReportBlock(*reception.blocks(np.array([call]))[0].tolist())


def stream(numbers: list[int], *, call: int = 0, ssrc: int = 7, late: dict[int, int] | None = None) -> list[Packet]:
    """Return 20 ms packets of an 8000 Hz clock; ``late`` delays some by so many ticks."""
    return [
        (call, ssrc, n & 0xFFFF, n * 160 & 0xFFFFFFFF, 1_000_000 + n * 160 + (late or {}).get(n, 0)) for n in numbers
    ]


def jitter_of(packets: list[Packet]) -> float:
    """RFC 3550 appendix A.8, in floating point."""
    jitter, before = 0.0, None
    for _, _, _, ticks, arrived in packets:
        transit = arrived - ticks
        if before is not None:
            deviation = abs((transit - before + 2**31) % 2**32 - 2**31)
            jitter += (deviation - jitter) / 16
        before = transit
    return jitter


def test_nothing_is_told_before_anything_came() -> None:
    assert not made(1).begun[0]


def test_loss_is_told_since_the_beginning_and_since_the_last_report() -> None:
    reception = made(1)
    count(reception, stream([n for n in range(100) if n % 4]))
    # The first number that came is the first that was expected.
    assert told(reception) == ReportBlock(7, 24 * 256 // 99, 24, 99, 0)
    count(reception, stream(list(range(100, 200))))
    assert told(reception) == ReportBlock(7, 0, 24, 199, 0)
    count(reception, stream([249]))
    assert (told(reception).fraction_lost, told(reception).packets_lost) == (49 * 256 // 50, 73)


def test_doubled_packets_make_the_loss_negative_and_the_fraction_zero() -> None:
    reception = made(1)
    count(reception, stream([0, 0, 1, 1, 2, 2]))
    assert told(reception) == ReportBlock(7, 0, -3, 2, 0)


def test_numbers_wrap() -> None:
    reception = made(1)
    count(reception, stream(list(range(65_500, 65_600))))
    assert told(reception) == ReportBlock(7, 0, 0, 65_599, 0)
    count(reception, stream(list(range(65_600, 65_700))))
    assert told(reception).highest_sequence == 65_699


def test_a_new_source_is_counted_anew() -> None:
    reception = made(1)
    count(reception, stream([1, 2, 9], late={9: 4000}))
    assert told(reception).packets_lost == 6
    count(reception, [*stream([10]), *stream([500, 501, 502], ssrc=8)])
    assert told(reception) == ReportBlock(8, 0, 0, 502, 0)


def test_a_stray_number_is_left_out_and_a_numbering_that_moved_is_followed() -> None:
    reception = made(1)
    count(reception, stream([1, 2, 3]))
    count(reception, stream([4, 30_000, 5]))
    assert told(reception) == ReportBlock(7, 0, 0, 5, 0)
    count(reception, stream([20_000, 20_001, 20_002]))
    assert told(reception).highest_sequence == 20_002
    assert reception.received[0] == 2
    count(reception, stream([20_002 + MAX_DROPOUT]))
    assert told(reception).packets_lost == MAX_DROPOUT - 1


def test_keys_say_nothing_about_jitter() -> None:
    reception = made(1)
    packets = stream(list(range(10)))
    packets[5] = (0, 7, 5, 0, packets[5][4])
    count(reception, packets, [n != 5 for n in range(10)])
    assert (reception.jitter[0], reception.received[0]) == (0, 10)


def test_a_row_that_is_opened_again_knows_nothing() -> None:
    reception = made(1)
    count(reception, stream([1, 5], late={5: 900}))
    reception.open(0)
    assert not reception.begun[0]
    count(reception, stream([8], late={8: 7}))
    assert told(reception) == ReportBlock(7, 0, 0, 8, 0)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 4))
def test_any_batches_give_the_standards_figures(seed: int, sizes: list[int], calls: int) -> None:
    chance = random.Random(seed)
    reception = made(calls)
    first = [chance.randrange(70_000) for _ in range(calls)]
    sent: list[list[Packet]] = [[] for _ in range(calls)]
    for size in sizes:
        batch: list[Packet] = []
        for call in range(calls):
            begin = first[call] + (sent[call][-1][3] // 160 - first[call] + 1 if sent[call] else 0)
            numbers = [n for n in range(begin, begin + size) if chance.random() > 0.2 or not sent[call]]
            chance.shuffle(numbers)
            late = {n: chance.randrange(2000) for n in numbers}
            # The widened number is the timestamp's, so that the expectation needs no wrapping of its own.
            mine = [(call, 9, n & 0xFFFF, n * 160, 10**9 + n * 160 + late[n]) for n in numbers]
            sent[call] += mine
            batch += mine
        if batch:
            count(reception, batch)
    for call in range(calls):
        if not sent[call]:
            continue
        numbers = [ticks // 160 for _, _, _, ticks, _ in sent[call]]
        block = told(reception, call)
        # What was sent before the first that came counts for nothing (appendix A.1): the base is the first that came.
        base = numbers[0]
        assert block.packets_lost == max(numbers) - base + 1 - len(numbers)
        assert block.highest_sequence & 0xFFFF == max(numbers) & 0xFFFF
        assert abs(reception.jitter[call] - jitter_of(sent[call])) < 1e-6
