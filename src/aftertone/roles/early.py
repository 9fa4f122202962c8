"""The greeting before the answer: early media, where an operator asks for it (`sip.early_media`).

Owns: which ringing calls are being greeted, and when each is due to be answered. Refuses to know: how a call is answered.

Specification: RFC 3261 section 13.3.1.1, RFC 3960 section 3.

Theory of operation: instead of the 200 comes a 183 with our description, and the greeting is played on it. The 200 comes when the
greeting is over, or when the caller presses ``#``; so whoever only listens is not charged for it, and what follows the
answer is the beep, with the begin record in the journal before it as ever. A network that lets no sound through before an
answer leaves its caller in silence, which is why this is off by default. Sound goes to an address that nobody has
proven to be at, as in `refusals`; so no more than ``TO_ONE_ADDRESS`` are greeted at one address at a time, and the others are
answered first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

TO_ONE_ADDRESS: Final = 30
"""A PBX through which everybody calls; a liar could have 30 x 64 kbit/s sent to somebody for the length of a greeting."""
LONGEST_S: Final = 120.0
"""A longer greeting follows the answer: with the rings before it, it would come near the four minutes after which an INVITE is over."""
PATIENCE_S: Final = 2.0
"""Longer than the greeting by this much, the caller waits for nothing: the ticks have stopped."""


@dataclass(slots=True)
class _Greeted(Generic[T]):
    call: T
    address: str
    timer: asyncio.TimerHandle


class EarlyGreetings(Generic[T]):
    """Calls that hear their greeting before they are answered, by row. ``answer`` is called once for each that is due."""

    def __init__(self, answer: Callable[[T], None]) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._rows: dict[int, _Greeted[T]] = {}

    def has_room(self, address: str, seconds: float) -> bool:
        """Tell whether one more may be greeted at this address, for so long."""
        return seconds <= LONGEST_S and sum(one.address == address for one in self._rows.values()) < TO_ONE_ADDRESS

    def begin(self, row: int, call: T, address: str, seconds: float) -> None:
        """The greeting of ``call`` plays on ``row`` and takes so long."""
        timer = self._loop.call_later(seconds + PATIENCE_S, self.due, row)
        self._rows[row] = _Greeted(call, address, timer)

    def due(self, row: int) -> bool:
        """The greeting on this row is over, or was skipped: answer; False when nobody is being greeted there."""
        greeted = self._rows.get(row)
        if greeted is None:
            return False
        self.forget(row)
        self._answer(greeted.call)
        return True

    def forget(self, row: int) -> None:
        """The call on this row is answered or over."""
        greeted = self._rows.pop(row, None)
        if greeted is not None:
            greeted.timer.cancel()
