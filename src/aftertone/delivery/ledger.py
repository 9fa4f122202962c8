"""Which segment of the journal is still needed, and by whom.

Owns: the references from calls, refusals and signalling to segments. Refuses to know: files; it says what may go.

Theory of operation: a segment may go when every call with a record in it is delivered, every refusal and all signalling in it is
stored, and nothing in it was unreadable. Delivered calls are remembered while a segment mentions them, so that late records of theirs
are recognised.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from aftertone.delivery.held import CallKey
from aftertone.journal import SegmentName


class Ledger:
    """References to segments; memory grows with the segments that are there."""

    def __init__(self) -> None:
        self.kept: set[SegmentName] = set()
        """Segments with something that this program cannot read; they stay."""
        self._calls: dict[SegmentName, set[CallKey]] = {}
        self._mentions: Counter[CallKey] = Counter()
        self._done: set[CallKey] = set()
        self._owed: defaultdict[SegmentName, int] = defaultdict(int)

    def saw(self, segment: SegmentName) -> None:
        """Note that there is such a segment."""
        self._calls.setdefault(segment, set())

    def mention(self, segment: SegmentName, key: CallKey) -> None:
        """Note that a record of that call lies there."""
        calls = self._calls.setdefault(segment, set())
        if key not in calls:
            calls.add(key)
            self._mentions[key] += 1

    def finish(self, key: CallKey) -> None:
        """Note that the call is delivered."""
        self._done.add(key)

    def is_done(self, key: CallKey) -> bool:
        """Tell whether that call is delivered."""
        return key in self._done

    def owe(self, segment: SegmentName) -> None:
        """Note that a refusal or signalling lies there and is not stored yet."""
        self.saw(segment)
        self._owed[segment] += 1

    def settle(self, segment: SegmentName) -> None:
        """Note that one of those is stored."""
        self._owed[segment] -= 1

    def removable(self) -> list[SegmentName]:
        """Return the segments that nobody needs, oldest first."""
        return sorted(
            segment
            for segment, calls in self._calls.items()
            if segment not in self.kept and not self._owed.get(segment) and calls <= self._done
        )

    def forget(self, segment: SegmentName) -> None:
        """Note that a segment is gone."""
        for key in self._calls.pop(segment, set()):
            self._mentions[key] -= 1
            if not self._mentions[key]:
                del self._mentions[key]
                self._done.discard(key)
        self._owed.pop(segment, None)

    def __contains__(self, segment: SegmentName) -> bool:
        """Tell whether a segment was seen and is not gone."""
        return segment in self._calls

    def segments_of(self, key: CallKey) -> list[SegmentName]:
        """Return the segments with a record of that call, oldest first."""
        return sorted(segment for segment, calls in self._calls.items() if key in calls)

    def segments(self) -> list[SegmentName]:
        """Return every segment that was seen and is not gone, oldest first."""
        return sorted(self._calls)
