"""The one queue of deadlines of an agent.

Owns: which object wants to be woken when. Refuses to know: clocks; the time is an argument.

Theory of operation: a heap whose stale entries are skipped when they surface, and swept out when they outnumber the live
ones, so that memory stays within twice what is wanted. Setting and clearing cost O(log n).
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Timers(Generic[T]):
    """At most one deadline per object."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._live: dict[T, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._live)

    def set(self, item: T, deadline_ns: int | None) -> None:
        """Wake ``item`` at the deadline instead of whenever it was to be woken; None forgets it."""
        if deadline_ns is None:
            self._live.pop(item, None)
        elif self._live.get(item) != deadline_ns:
            self._live[item] = deadline_ns
            self._count += 1
            heapq.heappush(self._heap, (deadline_ns, self._count, item))
        if len(self._heap) > 64 + 2 * len(self._live):
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def next_ns(self) -> int | None:
        """Return the nearest deadline, or None when nobody waits."""
        heap = self._heap
        while heap and self._live.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now_ns: int) -> Iterator[T]:
        """Yield and forget each object whose deadline has come, earliest first; objects set meanwhile count too."""
        while (deadline_ns := self.next_ns()) is not None and deadline_ns <= now_ns:
            item = heapq.heappop(self._heap)[2]
            del self._live[item]
            yield item
