"""The JSON forms of the API.

Owns: field names and types, which clients rely on: add, never rename. Refuses to know: where values come from.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from aftertone.model import Clock, Kind, Message, Origin, State
from aftertone.store.rows import Counts, MailboxRow


def rfc3339(unix_ms: int) -> str:
    """Return a wall clock in milliseconds as RFC 3339 in UTC; what no calendar holds becomes 1970."""
    try:
        moment = datetime.fromtimestamp(unix_ms // 1000, UTC).replace(microsecond=unix_ms % 1000 * 1000)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class CallerOut(BaseModel):
    """Who called, as claimed by the call; empty when nothing was claimed."""

    number: str
    name: str


class OriginOut(BaseModel):
    """By which way the call came. Who forwarded it and why is what the call claimed."""

    line_kind: str
    """``account``, ``trunk``, ``phone`` or ``stranger``; empty when that is not known."""
    line: str
    caller_header: str
    verstat: str
    diverted_by: str
    divert_reason: str


def origin_out(origin: Origin) -> OriginOut:
    """Return the JSON form of ``origin``."""
    return OriginOut(
        line_kind=origin.line_kind,
        line=origin.line,
        caller_header=origin.caller_header,
        verstat=origin.verstat,
        diverted_by=origin.diverted_by,
        divert_reason="" if origin.divert_reason is None else origin.divert_reason.value,
    )


class MessageOut(BaseModel):
    """One message or hang-up."""

    id: str
    mailbox: str
    state: State
    kind: Kind
    caller: CallerOut
    started_at: str
    """RFC 3339, UTC; an annotation: the order of messages is the order of their ids."""
    clock: Clock
    """``unsure`` when the clock of the machine was not set: ``started_at`` is a guess then."""
    duration_ms: int
    audio_ms: int
    cut_off: bool
    codec: str
    sample_rate_hz: int
    lost_packets: int
    end_reason: str
    forwarded: bool
    mailbox_reason: str
    origin: OriginOut
    heard_at: str | None
    notes: list[str]
    holds: list[tuple[int, int]]
    """When the caller had put the call on hold: from and to, in milliseconds of the audio."""
    end_detail: str
    """What the caller's side said about the end (a Reason header, RFC 3326), empty when it said nothing."""
    srtp: str
    """What the sound was encrypted with on its way, such as ``AES_CM_128_HMAC_SHA1_80``; empty unless all of it was."""
    jitter_ms: int | None
    """How unevenly the caller's packets came, on average."""
    peer_lost: int | None
    """Packets of ours that the caller's side missed, by its own reports; null when it sent none."""
    round_trip_ms: int | None
    """To the caller's side and back; null when its reports did not tell."""


def message_out(message: Message) -> MessageOut:
    """Return the JSON form of ``message``."""
    return MessageOut(
        id=str(message.id),
        mailbox=message.mailbox,
        state=message.state,
        kind=message.kind,
        caller=CallerOut(number=message.caller.number, name=message.caller.name),
        started_at=rfc3339(message.started_unix_ms),
        clock=message.clock,
        duration_ms=message.duration_ms,
        audio_ms=message.audio_ms,
        cut_off=message.cut_off,
        codec=message.codec,
        sample_rate_hz=message.sample_rate_hz,
        lost_packets=message.lost_packets,
        end_reason=message.end_reason.value,
        forwarded=message.forwarded,
        mailbox_reason=message.mailbox_reason,
        origin=origin_out(message.origin),
        heard_at=None if message.heard_unix_ms is None else rfc3339(message.heard_unix_ms),
        notes=list(message.notes),
        holds=list(message.holds),
        end_detail=message.end_detail,
        srtp=message.srtp,
        jitter_ms=message.jitter_ms,
        peer_lost=message.peer_lost,
        round_trip_ms=message.round_trip_ms,
    )


class MessagesOut(BaseModel):
    """One page of messages, newest first."""

    messages: list[MessageOut]
    next: str | None
    """Give this as ``before`` to get the page after this one; null at the end."""


class CountsOut(BaseModel):
    """How many there are of each; ``new`` and ``heard`` count messages, not hang-ups."""

    new: int
    heard: int
    hangups: int
    deleted: int


class GreetingOut(BaseModel):
    """The owner's greeting."""

    sha256: str
    audio: str
    """Address of the audio."""


class MailboxOut(BaseModel):
    """One mailbox."""

    name: str
    rings: int | None
    """Rings before the machine answers; null takes the setting ``calls.rings``."""
    numbers: list[str]
    """Numbers under which it is called, besides its name."""
    greeting: GreetingOut | None
    """Null while the default greeting is played."""
    created_at: str
    counts: CountsOut


def mailbox_out(row: MailboxRow, counts: Counts) -> MailboxOut:
    """Return the JSON form of a mailbox."""
    greeting = None
    if row.greeting_sha256:
        greeting = GreetingOut(sha256=row.greeting_sha256, audio=f"/api/v1/mailboxes/{row.name}/greeting")
    return MailboxOut(
        name=row.name,
        rings=row.rings,
        numbers=list(row.numbers),
        greeting=greeting,
        created_at=rfc3339(row.created_unix_ms),
        counts=CountsOut(new=counts.new, heard=counts.heard, hangups=counts.hangups, deleted=counts.deleted),
    )


class MailboxesOut(BaseModel):
    """Every mailbox."""

    mailboxes: list[MailboxOut]


Numbers = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=80)]], Field(max_length=100, examples=[["+1 202 555 0143"]])
]


class NewMailbox(BaseModel):
    """A mailbox to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{1,64}$", examples=["anna"])]
    rings: Annotated[int, Field(ge=0, le=20)] | None = None
    numbers: Numbers = []


class MailboxChange(BaseModel):
    """What is to be changed of a mailbox; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    rings: Annotated[int, Field(ge=0, le=20)] | None = None
    """Null goes back to the setting ``calls.rings``."""
    numbers: Numbers = []
    """All its numbers from now on."""


class AlarmOut(BaseModel):
    """Something that a person should look at."""

    code: str
    text: str


class RoleOut(BaseModel):
    """How one part of the machine is."""

    up: bool
    calls: int | None = None


class AccountOut(BaseModel):
    """A number that the line registers for; why it is not registered says the alarm ``account``."""

    name: str
    registered: bool


class HealthOut(BaseModel):
    """How the machine is."""

    status: str
    """``ok``; ``alarm`` when calls are taken but something needs a look; ``down`` when no calls are taken."""
    version: str
    taking_calls: bool
    sip_address: str
    line: RoleOut
    delivery: RoleOut
    alarms: list[AlarmOut]
    accounts: list[AccountOut]
    now: str


class SessionOut(BaseModel):
    """Who is signed in."""

    via: str
    """``session`` or ``token``."""
    csrf_token: str
    """Send it back in X-CSRF-Token with every unsafe request of a session."""
    password_set: bool
