"""One call at the switchboard, before and after its answer.

Owns: what is remembered of it, and that a call that was answered is the ports of its script. Refuses to know: what happens to it;
that is the switchboard's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aftertone.model import EndReason, Envelope, Mailbox
from aftertone.roles.peers import Peer
from aftertone.sdp.crypto import Policy
from aftertone.sdp.negotiation import MediaPlan
from aftertone.sip import events as sip
from aftertone.sip.diversion import Diversion
from aftertone.voicemail.call import Call

if TYPE_CHECKING:
    from aftertone.roles.switchboard import Switchboard


@dataclass(slots=True)
class Ringing:
    """An INVITE that has not been answered yet."""

    event: sip.IncomingCall
    mailbox: Mailbox
    reason: str
    row: int
    port: int
    peer: Peer
    diversion: Diversion | None
    timer: asyncio.TimerHandle | None = None
    media: Media | None = None
    """What was described before the answer."""
    said: bytes = field(default=b"", repr=False)
    """Our description, when the 200 has to say it again."""
    greeted: bool = False


@dataclass(slots=True)
class Media:
    """What was agreed about one call's sound, and what the next description of ours must say."""

    host: str
    port: int
    session_id: int
    version: int = 0
    offer: bytes = field(default=b"", repr=False)
    plan: MediaPlan | None = None
    srtp: Policy | None = None
    """Policy of the account or trunk that the call came by; None leaves it to the settings."""


@dataclass(slots=True)
class Live:
    """An answered call: the ports of its script."""

    board: Switchboard
    row: int
    number: int
    envelope: Envelope
    media: Media
    dialog: sip.DialogId
    invite: sip.TransactionId
    call: Call = field(init=False)
    bye: sip.TransactionId | None = None
    confirmed: bool = False
    clip: str = ""
    """What was played last."""
    waiting: asyncio.TimerHandle | None = None
    kept: bool = False
    """The end is durable: only then may a BYE be answered with 200."""
    greeted: bool = False
    """The greeting was played before the answer."""
    held: bool = False
    """The caller has put us on hold."""
    plain: bool = False
    """It is noted that the sound was not encrypted as agreed."""
    cancelled: bool = False
    """The caller gave up before the 200 could go out: there is nobody to say goodbye to."""

    def __post_init__(self) -> None:
        self.call = Call(self)

    def play(self, clip: str) -> None:
        self.board.play(self, clip)

    def stop_playing(self) -> None:
        self.board.plane.stop(self.row)

    def start_recording(self) -> None:
        self.board.start_recording(self)

    def end_recording(self, reason: EndReason) -> None:
        self.board.end_recording(self, reason)

    def hang_up(self) -> None:
        self.board.endpoint.bye(self.dialog)

    def confirm_hang_up(self) -> None:
        self.board.confirm_hang_up(self)
