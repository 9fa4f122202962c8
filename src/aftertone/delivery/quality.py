"""How good the line was: what the packets of a recording and the peer's own reports say about it.

Owns: the jitter of a recording, and reading the ``quality`` event. Refuses to know: loss, which assembly counts as it fills the gaps.

Specification: RFC 3550 section 6.4.1 for jitter: how much longer or shorter the way of a packet was than that of the one before.
The standard's figure is a running mean for the moment of a report; of a recording that is over, the mean over all of it says more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aftertone.journal import Event, PacketBatch

QUALITY: Final = "quality"
"""Name of the event by which the line tells what the peer reported."""
LONGEST_MS: Final = 60_000
MOST_PACKETS: Final = 2**31
_OUTAGE_NS: Final = 1_000_000_000
"""A difference beyond this is an outage, or a timestamp that jumped, and no jitter."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the peer reported; None for what it did not."""

    peer_lost: int | None = None
    round_trip_ms: int | None = None


def told(events: Iterable[Event]) -> Told:
    """Return what the last ``quality`` event says; nothing for one that makes no sense."""
    found = Told()
    for event in events:
        if event.name != QUALITY:
            continue
        try:
            detail = json.loads(event.detail)
        except (ValueError, RecursionError):
            continue
        if isinstance(detail, dict):
            lost = _whole(detail, "peer_lost", MOST_PACKETS)
            found = Told(lost, _whole(detail, "round_trip_ms", LONGEST_MS))
    return found


def jitter_ms(packets: PacketBatch, kind: NDArray[np.int8], ns_per_tick: NDArray[np.float64]) -> int | None:
    """Return the mean jitter of the sound, in whole milliseconds; None when there are no two packets to compare.

    ``kind`` and ``ns_per_tick`` as ``cut_streams`` takes them.
    """
    sound = np.flatnonzero((kind >= 0) & (ns_per_tick > 0))
    first, second = sound[:-1], sound[1:]
    same = (packets.ssrc[first] == packets.ssrc[second]) & (kind[first] == kind[second])
    first, second = first[same], second[same]
    sent_ns = np.diff(packets.timestamp[sound]).view(np.int32)[same] * ns_per_tick[second]
    deviation_ns = np.abs(packets.arrival_ns[second] - packets.arrival_ns[first] - sent_ns)
    counted = deviation_ns[deviation_ns <= _OUTAGE_NS]
    return round(float(counted.mean()) / 1e6) if len(counted) else None


def _whole(detail: Mapping[str, object], name: str, most: int) -> int | None:
    value = detail.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None
