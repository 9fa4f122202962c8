"""How often a password may be tried.

Owns: token buckets per source and for all together. Refuses to know: clocks (``now_ms`` is an argument), passwords.

Theory of operation: each source has a bucket of tries that refills slowly, and one bucket is shared by everybody, so
that many sources together are no faster than that. A right password gives its try back. Sessions never pass here: an
attacker can make others wait at the login page, but nobody who is signed in notices. Memory is bounded: beyond
``MAX_SOURCES`` the source not seen for longest is forgotten, and the shared bucket still holds.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_SOURCES: Final = 4096


@dataclass(frozen=True, slots=True)
class Pace:
    """A bucket holds ``burst`` tries and regains one every ``refill_ms``."""

    burst: int
    refill_ms: int


PER_SOURCE: Final = Pace(burst=10, refill_ms=30_000)
FOR_ALL: Final = Pace(burst=100, refill_ms=1_000)


def source_of(host: str) -> str:
    """Return the source that an address counts as: itself, or its /64 for IPv6, where one subscriber has them all."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class _Bucket:
    __slots__ = ("level", "seen_ms")

    def __init__(self, pace: Pace, now_ms: int) -> None:
        self.level = float(pace.burst)
        self.seen_ms = now_ms

    def refill(self, pace: Pace, now_ms: int) -> None:
        passed_ms = max(0, now_ms - self.seen_ms)
        self.level = min(float(pace.burst), self.level + passed_ms / pace.refill_ms)
        self.seen_ms = now_ms

    def wait_ms(self, pace: Pace) -> int:
        return 0 if self.level >= 1 else max(1, round((1 - self.level) * pace.refill_ms))


class Throttle:
    """Counts tries per source and together. Not thread-safe: one event loop owns it."""

    def __init__(self, per_source: Pace = PER_SOURCE, for_all: Pace = FOR_ALL) -> None:
        self._per_source = per_source
        self._for_all = for_all
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()
        self._shared: _Bucket | None = None

    def take(self, host: str, now_ms: int) -> int:
        """Take one try for ``host``; returns 0 when it may go ahead, else how many milliseconds to wait."""
        source = source_of(host)
        bucket = self._sources.setdefault(source, _Bucket(self._per_source, now_ms))
        self._sources.move_to_end(source)
        while len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        shared = self._shared = self._shared or _Bucket(self._for_all, now_ms)
        bucket.refill(self._per_source, now_ms)
        shared.refill(self._for_all, now_ms)
        wait_ms = max(bucket.wait_ms(self._per_source), shared.wait_ms(self._for_all))
        if wait_ms == 0:
            bucket.level -= 1
            shared.level -= 1
        return wait_ms

    def give_back(self, host: str) -> None:
        """Return a try that was not a guess (the password was right)."""
        bucket = self._sources.get(source_of(host))
        if bucket is not None:
            bucket.level = min(float(self._per_source.burst), bucket.level + 1)
        if self._shared is not None:
            self._shared.level = min(float(self._for_all.burst), self._shared.level + 1)

    def __len__(self) -> int:
        return len(self._sources)
