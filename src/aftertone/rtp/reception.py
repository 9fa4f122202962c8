"""What arrived of each call's stream: the figures of a receiver's report, as columns.

Owns: counting packets against their sequence numbers, and the jitter of their arrival. Refuses to know: reports on the wire, when
they are due, and what a packet sounds like.

Theory of operation: calls are rows. A batch is grouped by call, as one tick receives it; each fact is updated for all calls of
the batch with a few operations on whole columns. The jitter is a running mean, packet by packet: with m packets of a call in a
batch it becomes J * (15/16)^m plus the sum of their deviations, each weighted by the powers of 15/16 that follow it, which is
one multiplication and one sum over each group.

A source that changes, or that jumps in its numbering and goes on from there, is counted anew; one stray number is left out.

Spec: RFC 3550 section 6.4.1 and appendices A.1, A.3 and A.8.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

MAX_DROPOUT: Final = 3000
"""How far a number may be ahead: a minute of 20 ms packets (RFC 3550 appendix A.1)."""
MAX_MISORDER: Final = 100
_KEEPS: Final = (15 / 16) ** np.arange(256)
"""What is left of a deviation after so many packets; nothing worth counting is left at the end of this table."""
_NOWHERE: Final = -1

Rows = npt.NDArray[np.intp]


class Reception:
    """The columns of ``calls`` calls. Used from one thread."""

    def __init__(self, calls: int) -> None:
        self.ssrc = np.zeros(calls, np.uint32)
        """Source of each call's stream; means nothing before its first packet."""
        self.begun = np.zeros(calls, np.bool_)
        self.received = np.zeros(calls, np.int64)
        """Packets since the stream began, doubled ones included."""
        self.jitter = np.zeros(calls, np.float64)
        """In ticks of the clock rate."""
        self.ticks_per_ns = np.zeros(calls, np.float64)
        """The clock rate of each call; written by the owner of this object."""
        self._base = np.zeros(calls, np.int64)
        self._highest = np.zeros(calls, np.int64)
        self._low = np.zeros(calls, np.uint16)
        """The low bits of ``_highest``, to be compared with numbers as they come."""
        self._strange = np.full(calls, _NOWHERE, np.int64)
        """The number after one that was too far away: if it comes, the numbering has moved there."""
        self._ticks = np.zeros(calls, np.uint32)
        self._arrived_ns = np.zeros(calls, np.int64)
        """Timestamp and arrival of the latest packet; 0 before the first."""
        self._expected_before = np.zeros(calls, np.int64)
        self._received_before = np.zeros(calls, np.int64)

    def open(self, call: int) -> None:
        """Begin with a fresh row."""
        self.begun[call] = False

    def count(
        self,
        call: Rows,
        ssrc: npt.NDArray[np.uint32],
        sequence: npt.NDArray[np.uint16],
        ticks: npt.NDArray[np.uint32],
        arrived_ns: npt.NDArray[np.int64],
        untimed: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Take a batch, in order of arrival and grouped by call; ``ticks`` are the timestamps.

        Packets that are ``untimed`` (keys share one timestamp) say nothing about jitter.
        """
        if not len(call):
            return
        first = _groups(call)
        others = ssrc != self.ssrc[call]
        step = (sequence - self._low[call]).view(np.int16)
        if others.any() or not self.begun[call[first]].all() or _far(step).any():
            kept = self._follow(call, ssrc, sequence, others | ~self.begun[call])
            call, sequence, ticks, arrived_ns = call[kept], sequence[kept], ticks[kept], arrived_ns[kept]
            untimed = None if untimed is None else untimed[kept]
            if not len(call):
                return
            first = _groups(call)
            step = (sequence - self._low[call]).view(np.int16)
        rows = call[first]
        self._highest[rows] += np.maximum(np.maximum.reduceat(step, first), 0)
        self._low[rows] = self._highest[rows].astype(np.uint16)
        self.received[rows] += np.diff(first, append=len(call))
        if untimed is not None and untimed.any():
            call, ticks, arrived_ns = call[~untimed], ticks[~untimed], arrived_ns[~untimed]
            first = _groups(call) if len(call) else first[:0]
        if len(call):
            self._time(call, first, ticks, arrived_ns)

    def blocks(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return what is reported of the streams of ``rows`` since the reports before: int64[n, 5].

        The columns are those of a `ReportBlock` up to its jitter. Rows where nothing has come yet mean nothing.
        """
        expected, received = self._highest[rows] - self._base[rows] + 1, self.received[rows]
        lately = expected - self._expected_before[rows]
        lost_lately = lately - (received - self._received_before[rows])
        self._expected_before[rows], self._received_before[rows] = expected, received
        fraction = np.clip(lost_lately * 256 // np.maximum(lately, 1), 0, 255)
        jitter = np.minimum(self.jitter[rows], 0xFFFFFFFF).astype(np.int64)
        columns = (self.ssrc[rows], fraction, expected - received, self._highest[rows] & 0xFFFFFFFF, jitter)
        return np.stack([column.astype(np.int64) for column in columns], axis=1)

    def _follow(
        self,
        call: Rows,
        ssrc: npt.NDArray[np.uint32],
        sequence: npt.NDArray[np.uint16],
        others: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.intp]:
        """Follow sources and numberings that changed. Returns which packets belong to what is followed now."""
        if others.any():
            self._meet(call, ssrc, sequence, others)
        kept = np.flatnonzero(ssrc == self.ssrc[call])
        far = kept[_far((sequence[kept] - self._low[call[kept]]).view(np.int16))]
        strays = far[self._move(call[far], sequence[far])]
        is_kept = np.zeros(len(call), np.bool_)
        is_kept[kept] = ~_far((sequence[kept] - self._low[call[kept]]).view(np.int16))
        is_kept[strays] = False
        return np.flatnonzero(is_kept)

    def _meet(
        self, call: Rows, ssrc: npt.NDArray[np.uint32], sequence: npt.NDArray[np.uint16], others: npt.NDArray[np.bool_]
    ) -> None:
        """Let each call with a packet of another source follow its latest one."""
        for row in np.unique(call[others]).tolist():
            mine = np.flatnonzero(call == row)
            source = ssrc[mine[-1]]
            if self.begun[row] and source == self.ssrc[row]:
                continue
            self.ssrc[row] = source
            self._restart(row, int(sequence[mine[ssrc[mine] == source][0]]))

    def _move(self, call: Rows, sequence: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
        """Follow a numbering that has jumped and goes on: two in a row tell. Returns which packets came before that."""
        is_stray = np.zeros(len(call), np.bool_)
        for index, (row, number) in enumerate(zip(call.tolist(), sequence.tolist(), strict=True)):
            if number == self._strange[row]:
                self._restart(row, number)
            elif not 0 <= self._step(row, number) <= MAX_DROPOUT:
                self._strange[row] = (number + 1) & 0xFFFF
                is_stray[index] = True
        return is_stray

    def _step(self, row: int, number: int) -> int:
        return ((number - int(self._highest[row]) + 0x8000) & 0xFFFF) - 0x8000

    def _restart(self, row: int, sequence: int) -> None:
        self.begun[row] = True
        self._base[row] = self._highest[row] = self._low[row] = sequence
        self.received[row] = self._expected_before[row] = self._received_before[row] = 0
        self._strange[row] = _NOWHERE
        self.jitter[row] = 0
        self._arrived_ns[row] = 0

    def _time(self, call: Rows, first: Rows, ticks: npt.NDArray[np.uint32], arrived_ns: npt.NDArray[np.int64]) -> None:
        """Take the pace of a batch into the jitter."""
        rows = call[first]
        sizes = np.diff(first, append=len(call))
        last = first + sizes - 1
        moved = np.empty(len(call), np.int32)
        waited_ns = np.empty(len(call), np.int64)
        moved[1:] = (ticks[1:] - ticks[:-1]).view(np.int32)
        waited_ns[1:] = arrived_ns[1:] - arrived_ns[:-1]
        moved[first] = (ticks[first] - self._ticks[rows]).view(np.int32)
        waited_ns[first] = arrived_ns[first] - self._arrived_ns[rows]
        deviation = np.abs(waited_ns * self.ticks_per_ns[call] - moved)
        is_new = self._arrived_ns[rows] == 0
        if is_new.any():
            deviation[first[is_new]] = 0
        followed_by = np.repeat(last, sizes) - np.arange(len(call))
        most = len(_KEEPS) - 1
        added = np.add.reduceat(deviation * _KEEPS.take(followed_by, mode="clip"), first) / 16
        self.jitter[rows] = self.jitter[rows] * _KEEPS[np.minimum(sizes, most)] + added
        self._ticks[rows], self._arrived_ns[rows] = ticks[last], arrived_ns[last]


def _groups(call: Rows) -> Rows:
    """Return where each call's run begins."""
    return np.flatnonzero(np.concatenate(([True], call[1:] != call[:-1])))


def _far(step: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Return which steps lead out of the numbering: one comparison, since what is too far back wraps to the far end."""
    return (step + np.int16(MAX_MISORDER)).view(np.uint16) > MAX_MISORDER + MAX_DROPOUT
