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

from aftertone.rtp.rtcp import ReportBlock

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
        self._base = np.zeros(calls, np.int64)
        self._highest = np.zeros(calls, np.int64)
        self._strange = np.full(calls, _NOWHERE, np.int64)
        """The number after one that was too far away: if it comes, the numbering has moved there."""
        self._transit = np.zeros(calls, np.uint32)
        self._timed = np.zeros(calls, np.bool_)
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
        arrived_ticks: npt.NDArray[np.int64],
        timed: npt.NDArray[np.bool_],
    ) -> None:
        """Take a batch, in order of arrival and grouped by call.

        ``ticks`` are the timestamps, ``arrived_ticks`` the arrivals by the same clock, from any origin. Packets that are not
        ``timed`` (keys share one timestamp) say nothing about jitter.
        """
        if not len(call):
            return
        others = ~self.begun[call] | (ssrc != self.ssrc[call])
        if others.any():
            self._meet(call, ssrc, sequence, others)
            kept = ssrc == self.ssrc[call]
            if not kept.all():
                call, sequence, timed = call[kept], sequence[kept], timed[kept]
                ticks, arrived_ticks = ticks[kept], arrived_ticks[kept]
        step = self._steps(call, sequence)
        far = (step > MAX_DROPOUT) | (step < -MAX_MISORDER)
        if far.any():
            strays = np.flatnonzero(far)[self._move(call[far], sequence[far])]
            step = self._steps(call, sequence)
            near = (step <= MAX_DROPOUT) & (step >= -MAX_MISORDER)
            near[strays] = False
            call, step, timed = call[near], step[near], timed[near]
            ticks, arrived_ticks = ticks[near], arrived_ticks[near]
            if not len(call):
                return
        first = _groups(call)
        rows = call[first]
        furthest = np.maximum.reduceat(step, first)
        self._highest[rows] += np.maximum(furthest, 0)
        self.received[rows] += np.diff(first, append=len(call))
        if not timed.all():
            call, ticks, arrived_ticks = call[timed], ticks[timed], arrived_ticks[timed]
        self._time(call, (arrived_ticks - ticks).astype(np.uint32))

    def block(self, call: int, last_report: int, delay: int) -> ReportBlock | None:
        """Return the report on a call's stream since the one before, None when nothing came yet."""
        if not self.begun[call]:
            return None
        expected, received = int(self._highest[call] - self._base[call]) + 1, int(self.received[call])
        lately = expected - int(self._expected_before[call])
        lost_lately = lately - (received - int(self._received_before[call]))
        self._expected_before[call], self._received_before[call] = expected, received
        return ReportBlock(
            ssrc=int(self.ssrc[call]),
            fraction_lost=min(255, lost_lately * 256 // lately) if lately > 0 and lost_lately > 0 else 0,
            packets_lost=expected - received,
            highest_sequence=int(self._highest[call]) & 0xFFFFFFFF,
            jitter=min(int(self.jitter[call]), 0xFFFFFFFF),
            last_report=last_report,
            delay=delay,
        )

    def _steps(self, call: Rows, sequence: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        """Return how far each number is from the highest of its call, the shorter way round."""
        return (sequence - self._highest[call].astype(np.uint16)).view(np.int16).astype(np.int64)

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
        self._base[row] = self._highest[row] = sequence
        self.received[row] = self._expected_before[row] = self._received_before[row] = 0
        self._strange[row] = _NOWHERE
        self.jitter[row] = 0
        self._timed[row] = False

    def _time(self, call: Rows, transit: npt.NDArray[np.uint32]) -> None:
        """Take the transit times of a batch into the jitter."""
        if not len(call):
            return
        first = _groups(call)
        rows = call[first]
        before = np.empty_like(transit)
        before[1:] = transit[:-1]
        before[first] = np.where(self._timed[rows], self._transit[rows], transit[first])
        deviation = np.abs((transit - before).view(np.int32).astype(np.float64))
        sizes = np.diff(first, append=len(call))
        last = first + sizes - 1
        followed_by = np.repeat(last, sizes) - np.arange(len(call))
        most = len(_KEEPS) - 1
        added = np.add.reduceat(deviation * _KEEPS[np.minimum(followed_by, most)], first) / 16
        self.jitter[rows] = self.jitter[rows] * _KEEPS[np.minimum(sizes, most)] + added
        self._transit[rows] = transit[last]
        self._timed[rows] = True


def _groups(call: Rows) -> Rows:
    """Return where each call's run begins."""
    return np.flatnonzero(np.concatenate(([True], call[1:] != call[:-1])))
