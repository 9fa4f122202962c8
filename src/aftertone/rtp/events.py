"""Keys pressed on a telephone, as named events in RTP.

Owns: the four bytes of a telephone-event payload, and the judgement which packets are one press. Refuses to know: what a
key does.

Theory of operation: one press is a run of packets that share the RTP timestamp of its beginning, with a growing duration
and the last one sent three times with the end bit. Any one of them is enough: the press is reported with the first packet
that arrives, whichever it is, so that losing the rest (all the ends included) changes nothing and no timer is needed to
notice. Later packets are recognised by their timestamp, which is remembered for the last few presses: repeats, late
arrivals and ends that were overtaken by the next key. Two more rules make this whole:

- a key held longer than a duration can say continues in a new segment, whose timestamp follows on the one before and which
  has no marker (RFC 4733 section 2.5.1.3): the same press;
- a peer that leaves its timestamp as it was has pressed again when, after a pause without packets, the duration begins anew
  or the key is another one.

Spec: RFC 4733 sections 2.3 and 2.5, events of section 3.2.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

DIGITS: Final = "0123456789*#ABCD"
"""Key of each event number. Others (hook flash, modem tones) are not keys."""
PAYLOAD_BYTES: Final = 4

PAUSE_NS: Final = 500_000_000
"""After so long without a packet a press is over, end or no end: senders repeat themselves every 50 ms at most
(RFC 4733 section 2.5.1.2), so ten in a row would have to be lost."""
_REMEMBERED: Final = 8
_LONGEST: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """One telephone-event payload."""

    event: int
    end: bool
    volume: int
    """Power of the tone in dBm0 below zero, 0 to 63."""
    duration: int
    """Ticks of the clock rate since the timestamp of the packet."""


@dataclass(frozen=True, slots=True)
class Events:
    """Columns over telephone-event payloads. Where ``valid`` is False the rest is 0."""

    valid: npt.NDArray[np.bool_]
    event: npt.NDArray[np.uint8]
    end: npt.NDArray[np.bool_]
    volume: npt.NDArray[np.uint8]
    duration: npt.NDArray[np.uint16]


def parse(payload: bytes | memoryview) -> TelephoneEvent | None:
    """Read one payload; None when it is too short. What follows the first event is ignored."""
    if len(payload) < PAYLOAD_BYTES:
        return None
    flags = payload[1]
    return TelephoneEvent(payload[0], flags >= 0x80, flags & 0x3F, payload[2] << 8 | payload[3])


def parse_rows(arena: npt.NDArray[np.uint8], start: npt.NDArray[np.int32], end: npt.NDArray[np.int32]) -> Events:
    """Read one payload from each row of ``arena`` (uint8[N, W]), in ``arena[i, start[i]:end[i]]``, as ``parse`` does."""
    rows = np.arange(len(arena))
    valid = (start >= 0) & (end - start >= PAYLOAD_BYTES) & (end <= arena.shape[1])
    at = np.where(valid, start, 0)[:, None] + np.arange(PAYLOAD_BYTES)
    fields = arena[rows[:, None], np.minimum(at, arena.shape[1] - 1)] * valid[:, None]
    return Events(
        valid=valid,
        event=fields[:, 0],
        end=fields[:, 1] >= 0x80,
        volume=fields[:, 1] & 0x3F,
        duration=fields[:, 2].astype(np.uint16) << 8 | fields[:, 3],
    )


def serialize(event: TelephoneEvent) -> bytes:
    """Write one payload."""
    flags = (0x80 if event.end else 0) | event.volume & 0x3F
    return bytes((event.event, flags, event.duration >> 8, event.duration & 0xFF))


@dataclass(slots=True)
class _Press:
    """One press as far as it is known."""

    ssrc: int
    timestamp: int
    event: int
    duration: int
    ended: bool
    last_ns: int


class DigitDetector:
    """Turns the telephone-event packets of one call into one digit for each press. Not shared between threads."""

    __slots__ = ("_presses",)

    def __init__(self) -> None:
        self._presses: deque[_Press] = deque(maxlen=_REMEMBERED)

    def receive(
        self, payload: bytes | memoryview, timestamp: int, now_ns: int, *, ssrc: int = 0, marker: bool = False
    ) -> str | None:
        """Take the payload of one telephone-event packet; return the digit when it is the first of a press, else None.

        ``timestamp``, ``ssrc`` and ``marker`` are those of the RTP header, ``now_ns`` is when the packet arrived
        (monotonic). Packets may come in any order, repeatedly or not at all. A malformed payload is no press.
        """
        event = parse(payload)
        if event is None or event.event >= len(DIGITS):
            return None
        for press in reversed(self._presses):
            if press.ssrc == ssrc and press.timestamp == timestamp:
                return self._again(press, event, now_ns)
        if self._presses and self._continues(self._presses[-1], event, timestamp, now_ns, ssrc, marker):
            return None
        self._presses.append(_Press(ssrc, timestamp, event.event, event.duration, event.end, now_ns))
        return DIGITS[event.event]

    def _again(self, press: _Press, event: TelephoneEvent, now_ns: int) -> str | None:
        """Another packet of a press that is known, unless its timestamp has been used for a second one."""
        silent_ns = now_ns - press.last_ns
        fresh = event.event != press.event or event.duration < press.duration
        if fresh and silent_ns >= PAUSE_NS:
            press.event, press.duration, press.ended = event.event, event.duration, event.end
            press.last_ns = now_ns
            return DIGITS[event.event]
        press.duration = max(press.duration, event.duration)
        press.ended = press.ended or event.end
        press.last_ns = max(press.last_ns, now_ns)
        return None

    def _continues(
        self, press: _Press, event: TelephoneEvent, timestamp: int, now_ns: int, ssrc: int, marker: bool
    ) -> bool:
        """True when the packet begins the next segment of ``press``, which is then moved on to it."""
        if marker or press.ended or press.ssrc != ssrc or press.event != event.event:
            return False
        follows = (timestamp - press.timestamp) & 0xFFFFFFFF
        if follows not in (_LONGEST, press.duration) or now_ns - press.last_ns >= PAUSE_NS:
            return False
        # The old segment stays known, so that its late packets are still its own.
        self._presses.append(_Press(ssrc, timestamp, event.event, event.duration, event.end, now_ns))
        return True
