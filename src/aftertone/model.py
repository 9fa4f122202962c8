"""The words of the house as values: mailbox, envelope, message, and the one table of legal message states.

Owns: value types that travel between packages, and their JSON forms where a journal or snapshot stores them. Refuses to
know: how anything is stored, sent or shown.

Theory of operation: everything here is frozen and comparable. Ids are UUIDv7 (RFC 9562 section 5.7): minted once, when
the call begins, and the key of a message for ever; nothing is identified by its position or its file name. They ascend in
the order in which calls were answered, whatever the wall clock does, so they are the order of messages too.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from aftertone.errors import StateError


def mint_id(unix_ms: int, entropy: bytes) -> UUID:
    """Make a UUIDv7 from a wall clock in milliseconds and 10 bytes of entropy.

    Uniqueness rests on the entropy. Order rests on ``unix_ms``: who wants ids that ascend gives numbers that do
    (``roles.timekeeper``). Raises ValueError when ``entropy`` is not 10 bytes long. Spec: RFC 9562 section 5.7.
    """
    if len(entropy) != 10:
        raise ValueError("a UUIDv7 takes exactly 10 bytes of entropy")
    value = (unix_ms & (2**48 - 1)) << 80 | int.from_bytes(entropy, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def id_time_ms(message_id: UUID) -> int:
    """Return the milliseconds since 1970 in a UUIDv7, 0 for any other id. Spec: RFC 9562 section 5.7."""
    return message_id.int >> 80 if message_id.version == 7 else 0


class Clock(enum.StrEnum):
    """Whether the wall clock was to be believed when it was read. Stored: add, never rename."""

    TRUSTED = "trusted"
    UNSURE = "unsure"
    """The clock was not set, as on a board without one after a power cut: the time is a guess that was not too late."""

    @staticmethod
    def read(word: object) -> Clock:
        """Return what a stored word means; one that is missing is from before there was a doubt."""
        return Clock.TRUSTED if word in (None, Clock.TRUSTED.value) else Clock.UNSURE


class Kind(enum.StrEnum):
    """What a finished recording turned out to be."""

    MESSAGE = "message"
    HANGUP = "hangup"


class State(enum.StrEnum):
    """Where a message stands with its owner."""

    NEW = "new"
    HEARD = "heard"
    DELETED = "deleted"


class Action(enum.StrEnum):
    """What somebody may ask of a message."""

    HEAR = "heard"
    UNHEAR = "unheard"
    DELETE = "delete"
    RESTORE = "restore"


TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = {
    (State.NEW, Action.HEAR): State.HEARD,
    (State.HEARD, Action.HEAR): State.HEARD,
    (State.HEARD, Action.UNHEAR): State.NEW,
    (State.NEW, Action.UNHEAR): State.NEW,
    (State.NEW, Action.DELETE): State.DELETED,
    (State.HEARD, Action.DELETE): State.DELETED,
    (State.DELETED, Action.DELETE): State.DELETED,
    (State.DELETED, Action.RESTORE): State.NEW,
    (State.NEW, Action.RESTORE): State.NEW,
    (State.HEARD, Action.RESTORE): State.HEARD,
}
"""Every legal step. Restoring gives back whichever of NEW and HEARD the message had: see ``next_state``."""


def next_state(state: State, action: Action, *, heard_before: bool) -> State:
    """Return the state after ``action``; asking again for what already holds changes nothing.

    ``heard_before`` says whether the message had been heard when it was deleted. Raises StateError for a step that the
    table does not have.
    """
    if state is State.DELETED and action is Action.RESTORE:
        return State.HEARD if heard_before else State.NEW
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        raise StateError(f"a message that is {state.value!r} cannot be asked to {action.value!r}") from None


class EndReason(enum.StrEnum):
    """Why an answered call ended. The journal stores these words: add, never rename."""

    CALLER_HUNG_UP = "caller_hung_up"
    KEY = "key"
    SILENCE = "silence"
    TONE = "tone"
    LONGEST = "longest"
    NO_ACK = "no_ack"
    SHUTDOWN = "shutdown"
    STORAGE = "storage"
    CUT_OFF = "cut_off"
    SESSION_EXPIRED = "session_expired"
    """The caller's side no longer said that it was there (RFC 4028)."""


class Codec(enum.StrEnum):
    """The voice codecs the machine speaks."""

    PCMU = "PCMU"
    PCMA = "PCMA"
    G722 = "G722"
    OPUS = "opus"


SAMPLE_RATE_HZ: Final[Mapping[Codec, int]] = {
    Codec.PCMU: 8000,
    Codec.PCMA: 8000,
    Codec.G722: 16000,
    Codec.OPUS: 48000,
}
"""Rate of the decoded audio."""

CLOCK_RATE_HZ: Final[Mapping[Codec, int]] = {
    Codec.PCMU: 8000,
    Codec.PCMA: 8000,
    Codec.G722: 8000,
    Codec.OPUS: 48000,
}
"""Rate of RTP timestamps, which is not the sample rate: G.722 counts 8000 for 16000 samples (RFC 3551 section 4.5.2)."""


class Suite(enum.StrEnum):
    """The ways of encrypting sound that the machine speaks, by their names in SDP (RFC 4568, RFC 6188, RFC 7714)."""

    AES_256_GCM = "AEAD_AES_256_GCM"
    AES_128_GCM = "AEAD_AES_128_GCM"
    AES_256_CM_80 = "AES_256_CM_HMAC_SHA1_80"
    AES_128_CM_80 = "AES_CM_128_HMAC_SHA1_80"
    AES_256_CM_32 = "AES_256_CM_HMAC_SHA1_32"
    AES_128_CM_32 = "AES_CM_128_HMAC_SHA1_32"

    @property
    def is_gcm(self) -> bool:
        """Whether encryption and authentication are one."""
        return self in (Suite.AES_256_GCM, Suite.AES_128_GCM)

    @property
    def key_bytes(self) -> int:
        """Length of the master key."""
        return 32 if self in (Suite.AES_256_GCM, Suite.AES_256_CM_80, Suite.AES_256_CM_32) else 16

    @property
    def salt_bytes(self) -> int:
        """Length of the master salt."""
        return 12 if self.is_gcm else 14


MAX_MKI_BYTES: Final = 128
"""Longest master key identifier (RFC 4568 section 6.1)."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """What one direction of an encrypted stream is protected with. Nothing shows its secrets: not repr, not a message."""

    suite: Suite
    key: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    mki: bytes = b""
    """Identifier that stands in each packet; empty when there is none."""

    def __post_init__(self) -> None:
        if len(self.key) != self.suite.key_bytes or len(self.salt) != self.suite.salt_bytes:
            raise ValueError(
                f"{self.suite} takes {self.suite.key_bytes} bytes of key and {self.suite.salt_bytes} of salt"
            )
        if len(self.mki) > MAX_MKI_BYTES:
            raise ValueError(f"a master key identifier has at most {MAX_MKI_BYTES} bytes, not {len(self.mki)}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called, as claimed by the signalling. A number that a caller can forge never opens anything."""

    number: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class PayloadType:
    """One RTP payload type as negotiated: what its number means during this call."""

    number: int
    name: str
    """A ``Codec`` value, ``telephone-event`` or ``CN``."""
    clock_rate_hz: int


class DivertReason(enum.StrEnum):
    """Why a call was forwarded, in the words of RFC 5806. The journal stores these words: add, never rename."""

    NO_ANSWER = "no-answer"
    BUSY = "user-busy"
    UNCONDITIONAL = "unconditional"
    UNAVAILABLE = "unavailable"
    DEFLECTION = "deflection"
    DO_NOT_DISTURB = "do-not-disturb"
    AWAY = "away"
    TIME_OF_DAY = "time-of-day"
    FOLLOW_ME = "follow-me"
    OUT_OF_SERVICE = "out-of-service"
    UNKNOWN = "unknown"

    @staticmethod
    def read(word: object) -> DivertReason | None:
        """Return what a stored or spoken word means: None for none, UNKNOWN for one that nobody knows."""
        if word in (None, ""):
            return None
        try:
            return DivertReason(str(word).lower())
        except ValueError:
            return DivertReason.UNKNOWN


@dataclass(frozen=True, slots=True)
class Origin:
    """By which way a call came to us. All but ``line_kind`` and ``line`` is what somebody claims."""

    line_kind: str = ""
    """``account``, ``trunk``, ``phone`` or ``stranger``; empty in what was written before this was known."""
    line: str = ""
    """Name of the account, trunk or phone."""
    caller_header: str = ""
    """The header that named the caller's number."""
    verstat: str = ""
    """What the peer, if trusted, says of having checked the number: ``TN-Validation-Passed`` and the like."""
    diverted_by: str = ""
    """Number or name that was called first and forwarded the call."""
    divert_reason: DivertReason | None = None

    def to_json(self) -> dict[str, object]:
        """Return the form that journal, audio files and catalog store."""
        return {
            "line_kind": self.line_kind,
            "line": self.line,
            "caller_header": self.caller_header,
            "verstat": self.verstat,
            "diverted_by": self.diverted_by,
            "divert_reason": "" if self.divert_reason is None else self.divert_reason.value,
        }

    @staticmethod
    def from_json(data: object) -> Origin:
        """Read what ``to_json`` wrote; whatever is missing or nothing of the kind becomes empty."""
        known = data if isinstance(data, dict) else {}
        words = {
            name: str(known.get(name, "")) for name in ("line_kind", "line", "caller_header", "verstat", "diverted_by")
        }
        return Origin(**words, divert_reason=DivertReason.read(known.get("divert_reason")))


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything known about a call when it is answered; the journal's begin record holds it as JSON."""

    id: UUID
    mailbox: str
    caller: Caller
    started_unix_ms: int
    """Wall clock when the call was answered; an annotation, never a key and never an order."""
    codec: str
    payload_types: tuple[PayloadType, ...]
    mailbox_reason: str = ""
    """Why this mailbox: which header or rule chose it."""
    forwarded: bool = False
    call_id: str = ""
    request_uri: str = ""
    peer: str = ""
    """Signalling address of the peer, ``host:port``."""
    clock: Clock = Clock.TRUSTED
    """Whether ``started_unix_ms`` is to be believed."""
    origin: Origin = Origin()
    identity: str = ""
    """The Identity header (RFC 8224) of a trusted peer. Nobody here has checked its signature."""
    srtp: str = ""
    """What the sound was encrypted with when the call was answered, a ``Suite``; empty when it was not."""

    def to_json(self) -> dict[str, object]:
        """Return the form that the journal and the audio files store (version 1)."""
        return {
            "v": 1,
            "id": str(self.id),
            "mailbox": self.mailbox,
            "caller": {"number": self.caller.number, "name": self.caller.name},
            "started_unix_ms": self.started_unix_ms,
            "codec": self.codec,
            "payload_types": [[p.number, p.name, p.clock_rate_hz] for p in self.payload_types],
            "mailbox_reason": self.mailbox_reason,
            "forwarded": self.forwarded,
            "call_id": self.call_id,
            "request_uri": self.request_uri,
            "peer": self.peer,
            "clock": self.clock.value,
            "origin": self.origin.to_json(),
            "identity": self.identity,
            "srtp": self.srtp,
        }

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Envelope:
        """Read what ``to_json`` wrote; unknown keys are ignored, missing ones take their defaults.

        Raises KeyError, TypeError or ValueError on data that no version wrote.
        """
        caller = data.get("caller")
        caller_map: Mapping[str, object] = caller if isinstance(caller, dict) else {}
        types = data.get("payload_types")
        started = data["started_unix_ms"]
        if not isinstance(started, int) or not isinstance(types, list):
            raise ValueError("not an envelope")
        return Envelope(
            id=UUID(str(data["id"])),
            mailbox=str(data["mailbox"]),
            caller=Caller(str(caller_map.get("number", "")), str(caller_map.get("name", ""))),
            started_unix_ms=started,
            codec=str(data["codec"]),
            payload_types=tuple(PayloadType(int(n), str(name), int(rate)) for n, name, rate in types),
            mailbox_reason=str(data.get("mailbox_reason", "")),
            forwarded=bool(data.get("forwarded", False)),
            call_id=str(data.get("call_id", "")),
            request_uri=str(data.get("request_uri", "")),
            peer=str(data.get("peer", "")),
            clock=Clock.read(data.get("clock")),
            origin=Origin.from_json(data.get("origin")),
            identity=str(data.get("identity", "")),
            srtp=str(data.get("srtp", "")),
        )


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox as the line sees it in its snapshot."""

    name: str
    rings: int | None = None
    """Rings before answering; None takes ``calls.rings``."""
    greeting: str | None = None
    """File name of the owner's greeting inside the snapshot folder, or None for the default greeting."""
    numbers: tuple[str, ...] = ()
    """Numbers under which it is called, besides its name; as their owner wrote them."""


@dataclass(frozen=True, slots=True)
class Message:
    """One delivered recording, as the catalog knows it."""

    id: UUID
    mailbox: str
    kind: Kind
    state: State
    caller: Caller
    started_unix_ms: int
    duration_ms: int
    """What a listener hears as the message: trailing silence or tone that ended the call is not counted."""
    audio_ms: int
    """Length of the stored audio, which is never trimmed."""
    cut_off: bool
    codec: str
    sample_rate_hz: int
    lost_packets: int
    end_reason: EndReason
    blob: str
    """Key of the audio in the blob store; empty when a hang-up brought no audio."""
    blob_sha256: str
    blob_bytes: int
    mailbox_reason: str = ""
    forwarded: bool = False
    delivered_unix_ms: int = 0
    heard_unix_ms: int | None = None
    notes: tuple[str, ...] = field(default=())
    """Facts about the delivery worth showing: damaged journal, codec changed."""
    clock: Clock = Clock.TRUSTED
    """Whether ``started_unix_ms`` is to be believed."""
    holds: tuple[tuple[int, int], ...] = ()
    """When the caller had put the call on hold, as (from, to) in milliseconds of the audio."""
    end_detail: str = ""
    """What the peer said about the end, a Reason header as it came (RFC 3326), such as ``Q.850;cause=16``."""
    origin: Origin = Origin()
    srtp: str = ""
    """What the sound was encrypted with on its way, a ``Suite``; empty unless all of the call was."""
    jitter_ms: int | None = None
    """How unevenly the caller's packets came, on average."""
    peer_lost: int | None = None
    """Packets of ours that did not reach the caller, by its own reports (RTCP); None when it sent none."""
    round_trip_ms: int | None = None
    """From us to the caller's side and back."""
