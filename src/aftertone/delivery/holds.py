"""When a call was on hold, from its journalled events.

Owns: reading ``hold`` and ``resume`` events as spans of time. Refuses to know: where these lie in the audio.

Theory of operation: a hold lasts from its event to the next resume, or to the end of the recording: what a crash or a
hang-up cut off was still held. A second hold inside a hold says nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aftertone.journal import Event

HOLD: Final = "hold"
RESUME: Final = "resume"
MOST_SPANS: Final = 50
"""Spans that a message keeps: a peer that toggles for minutes shall not make its envelope grow."""


def hold_spans(events: Iterable[Event], end_ns: int) -> list[tuple[int, int]]:
    """Return from when to when the caller had put the call on hold, in monotonic nanoseconds, in order."""
    spans: list[tuple[int, int]] = []
    since_ns: int | None = None
    for event in sorted(events, key=lambda event: event.at_ns):
        if event.name == HOLD and since_ns is None:
            since_ns = event.at_ns
        elif event.name == RESUME and since_ns is not None:
            spans.append((since_ns, event.at_ns))
            since_ns = None
    if since_ns is not None and since_ns < end_ns:
        spans.append((since_ns, end_ns))
    return spans[:MOST_SPANS]
