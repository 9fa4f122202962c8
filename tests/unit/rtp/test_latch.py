"""Sources and strangers."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.rtp.latch import NO_ADDRESS, PROBATION_PACKETS, Admission, SourceLatch

PEER, OTHER, THIRD = 0xC0000201_0FA0, 0xCB007101_1388, 0x0A000001_1000


def admit(latch: SourceLatch, *packets: tuple[int, int]) -> Admission:
    """Admit packets given as (call, source)."""
    calls = np.array([call for call, _ in packets], dtype=np.int64)
    return latch.admit(calls, np.array([source for _, source in packets], dtype=np.uint64))


def test_the_signalled_source_locks_at_once() -> None:
    latch = SourceLatch(3)
    latch.open(1, PEER)
    admission = admit(latch, (1, PEER), (1, OTHER), (1, PEER))
    assert admission.accepted.tolist() == [True, False, True]
    assert admission.locked.tolist() == [0]
    assert latch.address.tolist() == [NO_ADDRESS, PEER, NO_ADDRESS]
    assert latch.strangers.tolist() == [0, 1, 0]


def test_another_source_locks_after_its_probation_and_loses_nothing() -> None:
    latch = SourceLatch(1)
    latch.open(0, PEER)
    admission = admit(latch, *[(0, OTHER)] * (PROBATION_PACKETS + 2))
    assert admission.accepted.all()
    assert admission.locked.tolist() == [PROBATION_PACKETS - 1]
    assert latch.address[0] == OTHER


def test_probation_goes_on_from_batch_to_batch() -> None:
    latch = SourceLatch(1)
    latch.open(0)
    locked = [admit(latch, (0, OTHER)).locked.tolist() for _ in range(PROBATION_PACKETS + 1)]
    assert locked == [[]] * (PROBATION_PACKETS - 1) + [[0], []]


def test_a_stray_packet_between_begins_the_probation_again() -> None:
    latch = SourceLatch(1)
    latch.open(0)
    admission = admit(latch, (0, OTHER), (0, OTHER), (0, THIRD), (0, OTHER), (0, OTHER))
    assert admission.accepted.all()
    assert latch.address[0] == NO_ADDRESS
    assert admit(latch, (0, OTHER)).locked.tolist() == [0]


def test_the_signalled_source_is_preferred_while_waiting() -> None:
    latch = SourceLatch(1)
    latch.open(0, PEER)
    admission = admit(latch, (0, OTHER), (0, OTHER), (0, PEER), (0, OTHER))
    assert admission.accepted.tolist() == [True, True, True, False]
    assert latch.address[0] == PEER


def test_a_lock_holds_against_any_number_of_strangers_even_the_signalled_one() -> None:
    latch = SourceLatch(1)
    latch.open(0, PEER)
    admit(latch, *[(0, OTHER)] * PROBATION_PACKETS)
    admission = admit(latch, *[(0, THIRD)] * 50, *[(0, PEER)] * 50, (0, OTHER))
    assert admission.accepted.tolist() == [False] * 100 + [True]
    assert admission.locked.tolist() == []
    assert latch.strangers[0] == 100


def test_calls_do_not_touch_each_other() -> None:
    latch = SourceLatch(3)
    for call, source in ((0, PEER), (1, OTHER), (2, NO_ADDRESS)):
        latch.open(call, source)
    admission = admit(latch, (0, PEER), (1, PEER), (1, OTHER), (2, THIRD), (0, OTHER), (1, PEER))
    assert admission.accepted.tolist() == [True, True, True, True, False, False]
    assert admission.locked.tolist() == [0, 2]
    assert latch.address.tolist() == [PEER, OTHER, NO_ADDRESS]
    assert latch.strangers.tolist() == [1, 1, 0]


def test_no_address_is_never_let_in() -> None:
    latch = SourceLatch(1)
    latch.open(0)
    assert admit(latch, (0, NO_ADDRESS)).accepted.tolist() == [False]
    admit(latch, *[(0, PEER)] * PROBATION_PACKETS)
    assert admit(latch, (0, NO_ADDRESS)).accepted.tolist() == [False]
    assert latch.strangers[0] == 2


def test_signalling_the_same_address_again_keeps_the_lock() -> None:
    latch = SourceLatch(1)
    latch.open(0, PEER)
    admit(latch, *[(0, OTHER)] * PROBATION_PACKETS)
    assert not latch.signal(0, PEER)
    assert latch.address[0] == OTHER


def test_signalling_another_address_opens_the_lock() -> None:
    latch = SourceLatch(1)
    latch.open(0, PEER)
    admit(latch, (0, PEER), (0, OTHER))
    assert latch.signal(0, THIRD)
    assert latch.strangers[0] == 1
    assert admit(latch, (0, THIRD)).locked.tolist() == [0]
    assert admit(latch, (0, PEER)).accepted.tolist() == [False]


def test_a_row_is_clean_for_its_next_call() -> None:
    latch = SourceLatch(1)
    latch.open(0, PEER)
    admit(latch, (0, PEER), (0, OTHER))
    latch.open(0)
    admit(latch, *[(0, OTHER)] * (PROBATION_PACKETS - 1))
    latch.open(0)
    assert admit(latch, (0, OTHER)).locked.tolist() == []
    assert latch.strangers[0] == 0


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint32, np.intp])
def test_an_empty_batch(dtype: type[np.integer]) -> None:
    admission = SourceLatch(1).admit(np.zeros(0, dtype=dtype), np.zeros(0, dtype=np.uint64))
    assert admission.accepted.tolist() == []
    assert admission.locked.tolist() == []
