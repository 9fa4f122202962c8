"""Sequence numbers and timestamps that wrap, as integers that do not.

Owns: the widening of 16 and 32 bit counters to int64. Refuses to know: what is counted.

Theory of operation: on a circle of 2^16 (or 2^32) numbers the step from one arrival to the next is taken to be the shorter
way round, forwards or backwards; the widened numbers are the running sum of those steps. That is one subtraction and one
cumulative sum, and it is exact whenever any two packets that arrive one after the other lie less than half the circle
apart: 32768 packets (eleven minutes at 20 ms) or 2^31 ticks (three days at 8000 Hz, twelve hours at 48000 Hz). Beyond that
nobody can tell; the result still has the right low bits.

Spec: RFC 3550 appendix A.1 has the same idea, packet by packet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def unwrap_sequence(values: npt.NDArray[np.uint16], previous: int | None = None) -> npt.NDArray[np.int64]:
    """Widen sequence numbers (uint16[n], in order of arrival) to int64[n] that never wrap.

    ``previous`` is the widened number of the arrival before the first: the last element of the result for the batch before.
    Without it the first number stands for itself. A packet older than the first may come out negative.
    """
    steps = np.diff(values).view(np.int16)
    return _widen(values, steps, previous, 16)


def unwrap_timestamp(values: npt.NDArray[np.uint32], previous: int | None = None) -> npt.NDArray[np.int64]:
    """Widen timestamps (uint32[n], in order of arrival) to int64[n] that never wrap; see ``unwrap_sequence``."""
    steps = np.diff(values).view(np.int32)
    return _widen(values, steps, previous, 32)


def _widen(
    values: npt.NDArray[np.uint16] | npt.NDArray[np.uint32],
    steps: npt.NDArray[np.int16] | npt.NDArray[np.int32],
    previous: int | None,
    bits: int,
) -> npt.NDArray[np.int64]:
    wide = np.empty(len(values), dtype=np.int64)
    if len(values) == 0:
        return wide
    first = int(values[0])
    if previous is not None:
        half = 1 << (bits - 1)
        first = previous + ((first - previous + half) & ((1 << bits) - 1)) - half
    wide[0] = first
    wide[1:] = steps
    return np.cumsum(wide, out=wide)
