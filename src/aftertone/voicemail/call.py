"""One call: its script, and the rule that nobody is told of an end before it is durable.

Owns: carrying out a script's effects in order, and holding back the good-bye until the journal has the end. Refuses to
know: how a clip is played, how a journal is written, what a BYE looks like; it asks its ``Ports``.
"""

from __future__ import annotations

from typing import Protocol

from aftertone.model import EndReason
from aftertone.voicemail.deposit import (
    ConfirmHangUp,
    Deposit,
    Effect,
    End,
    HangUp,
    Play,
    StartRecording,
    StopPlaying,
)


class Ports(Protocol):
    """What a call can have done in the world. The line is one implementation, a test's notebook another."""

    def play(self, clip: str) -> None: ...
    def stop_playing(self) -> None: ...
    def start_recording(self) -> None: ...
    def end_recording(self, reason: EndReason) -> None: ...
    def hang_up(self) -> None: ...
    def confirm_hang_up(self) -> None: ...


class Call:
    """A script and its ports. The owner calls ``run`` with what the script returned."""

    def __init__(self, ports: Ports) -> None:
        self.script = Deposit()
        self.ended = False
        self.end_durable = False
        self._ports = ports
        self._held: list[HangUp | ConfirmHangUp] = []

    def run(self, effects: list[Effect]) -> None:
        """Carry out what the script asked for, in order; farewells wait for ``end_became_durable``."""
        for effect in effects:
            match effect:
                case Play(clip):
                    self._ports.play(clip)
                case StopPlaying():
                    self._ports.stop_playing()
                case StartRecording():
                    self._ports.start_recording()
                case End(reason):
                    self.ended = True
                    self._ports.end_recording(reason)
                case HangUp() | ConfirmHangUp():
                    if self.end_durable:
                        self._say_goodbye(effect)
                    else:
                        self._held.append(effect)

    def end_became_durable(self) -> None:
        """The end record is on the disk, or waiting for it any longer would help nobody: release what was held back."""
        self.end_durable = True
        held, self._held = self._held, []
        for effect in held:
            self._say_goodbye(effect)

    def _say_goodbye(self, effect: HangUp | ConfirmHangUp) -> None:
        if isinstance(effect, HangUp):
            self._ports.hang_up()
        else:
            self._ports.confirm_hang_up()
