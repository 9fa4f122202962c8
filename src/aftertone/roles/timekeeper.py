"""Time without a clock to rely on: what the wall clock is worth, what is shown instead, and ids that only ever ascend.

Owns: the judgement whether a reading of the wall clock is to be believed, the floor under what is shown, steps of the clock,
and minting ids. Refuses to know: clocks, files, the kernel; every time and every piece of evidence is an argument.

Specification: RFC 9562 sections 6.1 and 6.2: a UUIDv7 need not tell the real time, and a generator whose clock was set back
goes on from the last time it used, so that the next id is greater than the last.

Theory of operation: the order of calls is the order of their ids, and an id's time is the later of the time that is shown and
one millisecond after the id before. So nothing depends on the wall clock but what people are shown. That is the wall clock
while it is believed; otherwise it is the latest time that is known to have passed (what the journal said last, and the time
since by the monotonic clock), marked as unsure.

A clock is believed when the kernel says that it is synchronised, even below the floor: an earlier clock that was wrong must
not cast doubt on a right one. Without that word it is believed when something kept time while the machine was off, or when it was believed
before and nobody has set it since (the word lapses after some hours without a network, and the clock goes on as well as
before), and when it says neither less than what has passed already nor an absurd future. Who sets the clock of a running machine back has a
reason, so that counts as known time; a clock that is behind when the machine starts does not. No clock is believed that
stands before this program was made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from aftertone.journal.segment import NO_FLOOR, Floor
from aftertone.model import Clock, mint_id

RELEASED_UNIX_MS: Final = 1_767_225_600_000
"""1 January 2026: this program is not older, so a clock that stands before has not been set."""
BELIEVED_FOR_MS: Final = 30 * 365 * 86_400_000
"""A clock that nothing synchronises is not believed when it stands further than this behind the release: it ran wild."""
SLACK_MS: Final = 60_000
"""Hardware clocks count whole seconds and drift: so much less than what has passed is no reason for doubt."""
STEP_MS: Final = 2_000
"""Where the wall clock leaves the monotonic one by more than this between two readings, somebody has set it."""
LAST_ID_MS: Final = 2**48 - 1
"""The latest time that a UUIDv7 holds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to say for the wall clock."""

    synchronised: bool
    """The kernel says that something keeps the clock right."""
    kept_time: bool
    """Something counted on while the machine was off: a hardware clock that agrees, or a host."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the clock."""

    unix_ms: int
    """What is shown: the wall clock, or a time that is not too late."""
    clock: Clock
    step_ms: int = 0
    """By how much somebody set the clock since the last reading; 0 when nobody did."""


def judge(wall_ms: int, passed_ms: int, evidence: Evidence) -> Clock:
    """Say whether a wall clock that stands at ``wall_ms`` is to be believed.

    ``passed_ms`` is the latest time that is known to have passed; anything before the release does no harm.
    """
    if wall_ms < RELEASED_UNIX_MS:
        return Clock.UNSURE
    if evidence.synchronised:
        return Clock.TRUSTED
    is_possible = passed_ms - SLACK_MS <= wall_ms <= RELEASED_UNIX_MS + BELIEVED_FOR_MS
    return Clock.TRUSTED if evidence.kept_time and is_possible else Clock.UNSURE


class Timekeeper:
    """The clock of one line. One thread at a time."""

    def __init__(self, floor: Floor = NO_FLOOR) -> None:
        self._last_id_ms = floor.id_ms
        self._passed_ms = floor.clock_ms
        self._passed_at_ns: int | None = None
        self._offset_ms: int | None = None
        self._was_trusted = False

    def resume(self, floor: Floor) -> None:
        """Go on from where an earlier run was; ids that were minted meanwhile keep their order."""
        self._last_id_ms = max(self._last_id_ms, floor.id_ms)
        if floor.clock_ms:
            self._passed_ms, self._passed_at_ns = floor.clock_ms, None

    def floor(self) -> Floor:
        """Return what the next segment's header should say."""
        return Floor(self._last_id_ms, self._passed_ms)

    def step_ms(self, wall_ms: int, now_ns: int) -> int:
        """Return by how much the clock was set since the last reading, 0 for less than ``STEP_MS``."""
        if self._offset_ms is None:
            return 0
        step_ms = wall_ms - now_ns // 1_000_000 - self._offset_ms
        return step_ms if abs(step_ms) > STEP_MS else 0

    def read(self, wall_ms: int, now_ns: int, evidence: Evidence) -> Reading:
        """Take a reading of the wall clock and return what to make of it. ``now_ns`` is monotonic."""
        step_ms = self.step_ms(wall_ms, now_ns)
        self._offset_ms = wall_ms - now_ns // 1_000_000
        since_ns = 0 if self._passed_at_ns is None else now_ns - self._passed_at_ns
        passed_ms = max(self._passed_ms, RELEASED_UNIX_MS) + max(0, since_ns) // 1_000_000
        if step_ms < 0:
            passed_ms = min(passed_ms, max(wall_ms, RELEASED_UNIX_MS)) if evidence.kept_time else passed_ms
        went_on = self._was_trusted and not step_ms
        clock = judge(wall_ms, passed_ms, replace(evidence, kept_time=evidence.kept_time or went_on))
        self._was_trusted = clock is Clock.TRUSTED
        if clock is Clock.TRUSTED:
            shown_ms = wall_ms
        else:
            is_possible = wall_ms <= RELEASED_UNIX_MS + BELIEVED_FOR_MS
            shown_ms = max(passed_ms, wall_ms) if is_possible else passed_ms
        self._passed_ms, self._passed_at_ns = shown_ms, now_ns
        return Reading(shown_ms, clock, step_ms)

    def mint(self, unix_ms: int, entropy: bytes) -> UUID:
        """Return an id greater than every one before, of this run and of those that ``resume`` told of.

        ``unix_ms`` is the time of the reading, ``entropy`` 10 random bytes. Two ids never share a millisecond, so a
        line that minted more than a thousand a second would run ahead of the time; nothing but their looks suffers.
        """
        self._last_id_ms = min(max(unix_ms, self._last_id_ms + 1), LAST_ID_MS)
        return mint_id(self._last_id_ms, entropy)
