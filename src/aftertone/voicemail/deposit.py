"""Deposit: the script by which a caller leaves a message.

Owns: what is said and done in which order, from the answered call to the goodbye. Refuses to know: SIP, RTP, files, the
clock. It hears of the world by events and asks for things by effects.

Theory of operation: a state table with one method an event. The order that keeps the promises is here and nowhere else:
the beep is played only when the beginning of the recording is durable, a hang-up is confirmed only when its end is.

    GREETING --played or #--> COMMITTING --durable--> BEEP --played--> RECORDING --> FAREWELL --> OVER
        (any state) --gone--> OVER          (no durability in time, storage failed) --> FAREWELL with an apology
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from aftertone.model import EndReason

GREETING: Final = "greeting"
BEEP: Final = "beep"
FAREWELLS: Final = {
    EndReason.KEY: "goodbye",
    EndReason.LONGEST: "longest_reached",
    EndReason.STORAGE: "storage_apology",
}
"""What is said before the machine hangs up; whoever only left silence or a tone behind is not there to hear
anything, and a machine that is being stopped has no time left."""

DURABLE_WITHIN_S: Final = 3.0
"""How long the beginning may take to reach the disk before the caller hears the truth instead of the beep."""


class Stage(enum.Enum):
    """Where the conversation is."""

    GREETING = "greeting"
    COMMITTING = "committing"
    BEEP = "beep"
    RECORDING = "recording"
    FAREWELL = "farewell"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Play:
    """Play the named clip from its start; ``played`` follows unless something else is played or stopped first."""

    clip: str


@dataclass(frozen=True, slots=True)
class StopPlaying:
    """Stop the clip that plays."""


@dataclass(frozen=True, slots=True)
class StartRecording:
    """Journal what arrives from now on and watch it for silence, tones and length."""


@dataclass(frozen=True, slots=True)
class End:
    """Journal the end of the recording. Nothing that arrives afterwards belongs to it."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class HangUp:
    """Say BYE, once the end is durable."""


@dataclass(frozen=True, slots=True)
class ConfirmHangUp:
    """Answer the caller's BYE, once the end is durable."""


Effect = Play | StopPlaying | StartRecording | End | HangUp | ConfirmHangUp


class Deposit:
    """One caller's deposit. Every method returns what is to be done, in order; after OVER they return nothing."""

    def __init__(self) -> None:
        self.stage = Stage.GREETING
        self._durable = False

    def answered(self, *, greeted: bool = False) -> list[Effect]:
        """The call is confirmed: the caller can hear us. Nothing is greeted that is over already.

        ``greeted``: the greeting was played before the answer, so what comes is the beep.
        """
        if self.stage is not Stage.GREETING:
            return []
        return [StopPlaying(), *self._commit()] if greeted else [Play(GREETING)]

    def durable(self) -> list[Effect]:
        """The beginning of this recording has reached the disk."""
        self._durable = True
        return self._beep() if self.stage is Stage.COMMITTING else []

    def played(self) -> list[Effect]:
        """The clip that was asked for last has been played to its end."""
        if self.stage is Stage.GREETING:
            return self._commit()
        if self.stage is Stage.BEEP:
            self.stage = Stage.RECORDING
            return []
        if self.stage is Stage.FAREWELL:
            self.stage = Stage.OVER
            return [HangUp()]
        return []

    def key(self, key: str) -> list[Effect]:
        """The caller pressed a key: ``#`` skips the greeting or ends the recording, others mean nothing here."""
        if key != "#":
            return []
        if self.stage is Stage.GREETING:
            return [StopPlaying(), *self._commit()]
        if self.stage in (Stage.BEEP, Stage.RECORDING):
            return self._finish(EndReason.KEY)
        return []

    def silent(self) -> list[Effect]:
        """Nothing was said for as long as the settings allow."""
        return self._finish(EndReason.SILENCE) if self.stage is Stage.RECORDING else []

    def tone(self) -> list[Effect]:
        """A dial or busy tone: the caller's line hung up without telling us."""
        return self._finish(EndReason.TONE) if self.stage is Stage.RECORDING else []

    def longest(self) -> list[Effect]:
        """The recording is as long as one may be."""
        return self._finish(EndReason.LONGEST) if self.stage is Stage.RECORDING else []

    def not_durable(self) -> list[Effect]:
        """The beginning did not reach the disk within ``DURABLE_WITHIN_S``."""
        return self.storage_failed() if self.stage is Stage.COMMITTING else []

    def storage_failed(self) -> list[Effect]:
        """The journal takes nothing any more: apologise, keep what is kept."""
        return self._finish(EndReason.STORAGE)

    def shutting_down(self) -> list[Effect]:
        """The machine is being stopped: end politely at once."""
        if self.stage is Stage.OVER:
            return []
        ended = self.stage is not Stage.FAREWELL
        self.stage = Stage.OVER
        return [StopPlaying(), *([End(EndReason.SHUTDOWN)] if ended else []), HangUp()]

    def caller_gone(self, reason: EndReason = EndReason.CALLER_HUNG_UP) -> list[Effect]:
        """The caller hung up, or never confirmed the call."""
        if self.stage is Stage.OVER:
            return [ConfirmHangUp()]
        ended = self.stage is not Stage.FAREWELL
        self.stage = Stage.OVER
        return [StopPlaying(), *([End(reason)] if ended else []), ConfirmHangUp()]

    def _commit(self) -> list[Effect]:
        self.stage = Stage.COMMITTING
        return self._beep() if self._durable else []

    def _beep(self) -> list[Effect]:
        self.stage = Stage.BEEP
        # Recording starts with the beep, not after it: a quick caller's first word is kept.
        return [StartRecording(), Play(BEEP)]

    def _finish(self, reason: EndReason) -> list[Effect]:
        if self.stage in (Stage.FAREWELL, Stage.OVER):
            return []
        farewell = FAREWELLS.get(reason)
        if farewell is None:
            self.stage = Stage.OVER
            return [StopPlaying(), End(reason), HangUp()]
        self.stage = Stage.FAREWELL
        return [StopPlaying(), End(reason), Play(farewell)]
