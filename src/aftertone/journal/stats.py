"""What the writer tells about itself.

Owns: the state, the figures, the histogram of sync times. Refuses to know: how they are published.
"""

from __future__ import annotations

import bisect
import enum
from dataclasses import dataclass
from typing import Final

SYNC_BOUNDS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the histogram's buckets in seconds; one more bucket holds what took longer."""


class WriterState(enum.StrEnum):
    """Whether new calls may be taken."""

    OK = "ok"
    FAILED = "failed"
    """Two errors in a row: nothing becomes durable until a new segment takes the waiting batch."""
    CLOSED = "closed"


class Histogram:
    """Counts durations in fixed buckets. Not thread-safe: one owner adds, copies travel."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SYNC_BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one duration."""
        self.counts[bisect.bisect_left(SYNC_BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s


@dataclass(frozen=True, slots=True)
class WriterStats:
    """A snapshot of the writer; the counters run since it was opened."""

    state: WriterState
    epoch: int
    segment: str
    """File name of the segment that takes records, empty while there is none."""
    appended_sequence: int
    durable_sequence: int
    queued_bytes: int
    """Payload and header bytes that are not durable yet."""
    commits: int
    written_bytes: int
    """Bytes of acknowledged commits with headers and padding."""
    retired_segments: int
    """Segments given up after an error."""
    last_error: str
    """The latest error in words, empty when there was none; it stays after recovery."""
    full: bool
    """What went wrong last is that there is no room; false again when a commit succeeds."""
    reserve_bytes: int
    """What the reserve held when it was last looked at."""
    reserve_why: str
    """Why it does not hold what it should, empty when it does or when none was made yet."""
    sync_counts: tuple[int, ...]
    """Syncs per bucket of `SYNC_BOUNDS_S`, not cumulative."""
    sync_sum_s: float
