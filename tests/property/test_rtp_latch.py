"""The latch on arrays is the latch packet by packet."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aftertone.rtp.latch import PROBATION_PACKETS, SourceLatch

CALLS = 3
PACKETS = st.lists(st.tuples(st.integers(0, CALLS - 1), st.integers(0, 4)), max_size=40)


class OneCall:
    """The policy in the words of the module, for one call."""

    def __init__(self, signalled: int) -> None:
        self.signalled, self.locked, self.row = signalled, 0, [0]

    def lets_in(self, source: int) -> bool:
        if source == 0:
            return False
        if self.locked:
            return source == self.locked
        self.row.append(source)
        if source == self.signalled or self.row[-PROBATION_PACKETS:] == [source] * PROBATION_PACKETS:
            self.locked = source
        return True


@given(st.lists(st.integers(0, 4), min_size=CALLS, max_size=CALLS), st.lists(PACKETS, max_size=5))
def test_batches_equal_packet_by_packet(signalled: list[int], batches: list[list[tuple[int, int]]]) -> None:
    latch = SourceLatch(CALLS)
    slow = [OneCall(source) for source in signalled]
    for call, source in enumerate(signalled):
        latch.open(call, source)
    for batch in batches:
        before = latch.address.tolist()
        admission = latch.admit(
            np.array([call for call, _ in batch], dtype=np.int64),
            np.array([source for _, source in batch], dtype=np.uint64),
        )
        assert admission.accepted.tolist() == [slow[call].lets_in(source) for call, source in batch]
        assert latch.address.tolist() == [call.locked for call in slow]
        changed = [call for call in range(CALLS) if before[call] != latch.address[call]]
        assert sorted(batch[row][0] for row in admission.locked.tolist()) == changed
