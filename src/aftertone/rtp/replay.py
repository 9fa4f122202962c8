"""Packet indices of one encrypted stream: which round a sequence number belongs to, and whether it was here before.

Owns: the estimate of the rollover counter and the replay window. Refuses to know: keys and packets.

Theory of operation: 16 bits of sequence number travel, 48 bits of index count. Of the indices that end with the number that
came, the one nearest to the highest authentic index is meant. Nothing changes before a packet has proven to be authentic:
``guess`` and ``is_fresh`` ask, ``take`` tells. The window is a number whose bit n says that the index n below the highest
was here.

Spec: RFC 3711 sections 3.3.1 and 3.3.2, appendix A.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 128
"""Indices that may come late: RFC 3711 wants 64 or more; 2.5 s of packets of 20 ms."""
_ROUND: Final = 1 << 16
_HALF: Final = 1 << 15
_MASK: Final = (1 << WINDOW) - 1


class ReplayWindow:
    """The indices of one stream."""

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = -1
        """Highest authentic index; -1 before the first."""
        self._seen = 0

    def guess(self, sequence: int) -> int:
        """Return the index that a packet with this sequence number most likely has."""
        if self.highest < 0:
            return sequence
        index = self.highest & ~(_ROUND - 1) | sequence
        if index - self.highest > _HALF and index >= _ROUND:
            return index - _ROUND
        if self.highest - index > _HALF:
            return index + _ROUND
        return index

    def is_fresh(self, index: int) -> bool:
        """Say whether ``index`` is neither a repetition nor older than the window."""
        behind = self.highest - index
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def take(self, index: int) -> None:
        """Note that the packet with this fresh index was authentic."""
        ahead = index - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead & _MASK if ahead < WINDOW else 0) | 1
            self.highest = index
        else:
            self._seen |= 1 << -ahead
