"""Messages as people read them: words for who, when, how long and why it ended.

Owns: the wording of the inbox. Refuses to know: markup (templates), the reader's clock and time zone: a time is given in
UTC together with its machine form, and the page's module turns that into the reader's own words.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aftertone.model import Caller, Clock, DivertReason, EndReason, Kind, Message, State
from aftertone.web.schemas import rfc3339

NOBODY: Final = "Unknown caller"

CLOCK_NOT_SET: Final = (
    "The clock of the machine was not set when this came in: the time is a guess, its place in the list is right."
)

_ANONYMOUS: Final = frozenset({"anonymous", "anonym", "private", "restricted", "unavailable", "unknown", "withheld"})
NOTABLE_JITTER_MS: Final = 20
"""Less than a packet is nothing to mention."""
_LONGEST_NAME: Final = 120

_ENDINGS: Final = {
    EndReason.CALLER_HUNG_UP: "The caller hung up.",
    EndReason.KEY: "The caller ended it with the # key.",
    EndReason.SILENCE: "Ended after a long silence.",
    EndReason.TONE: "Ended at a busy or dial tone.",
    EndReason.LONGEST: "It reached the longest duration.",
    EndReason.NO_ACK: "The call was never confirmed by the other side.",
    EndReason.SHUTDOWN: "The machine was switched off during the call.",
    EndReason.STORAGE: "The disk was full: the end is missing.",
    EndReason.CUT_OFF: "Cut off by a crash or a power failure: the end is missing.",
    EndReason.SESSION_EXPIRED: "The caller's side was gone without a word; the machine hung up.",
}


_DIVERSIONS: Final = {
    DivertReason.NO_ANSWER: " on no answer",
    DivertReason.BUSY: " on busy",
    DivertReason.UNCONDITIONAL: " always",
    DivertReason.UNAVAILABLE: " as not reachable",
    DivertReason.DEFLECTION: " by hand",
    DivertReason.DO_NOT_DISTURB: " as not to be disturbed",
    DivertReason.AWAY: " as away",
    DivertReason.TIME_OF_DAY: " by the time of day",
    DivertReason.FOLLOW_ME: " to follow",
    DivertReason.OUT_OF_SERVICE: " as out of service",
    DivertReason.UNKNOWN: "",
}


_PLAIN_REASONS: Final = ("", "request URI", "default mailbox")
"""What needs no words: the caller called this mailbox, or there is no other."""


def clean(text: str) -> str:
    """Return ``text`` without what cannot be seen or reorders the line; callers choose these characters."""
    visible = "".join(" " if char.isspace() else char for char in text if _shown(char))
    return " ".join(visible.split())[:_LONGEST_NAME]


def _shown(char: str) -> bool:
    # Joiners (U+200C, U+200D) are format characters too, but names in Persian and emoji need them.
    return char.isspace() or char in "\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")


def who(caller: Caller) -> tuple[str, str]:
    """Return (title, second line) for a caller: name and number, or number alone, or an unknown caller."""
    name, number = clean(caller.name), clean(caller.number)
    if name.casefold() in _ANONYMOUS or name == number:
        name = ""
    if number.casefold() in _ANONYMOUS:
        number = ""
    return name or number or NOBODY, number if name else ""


def clock_length(duration_ms: int) -> str:
    """Return a duration as ``0:07`` or ``1:02:03``; a part of a second counts as one, so nothing shows as 0:00."""
    seconds = max(1, round(max(0, duration_ms) / 1000))
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def spoken_length(duration_ms: int) -> str:
    """Return a duration in words, as a screen reader should say it."""
    seconds = max(1, round(max(0, duration_ms) / 1000))
    minutes, second = divmod(seconds, 60)
    parts = [
        f"{number} {unit}{'' if number == 1 else 's'}"
        for number, unit in ((minutes, "minute"), (second, "second"))
        if number
    ]
    return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the inbox."""

    id: str
    title: str
    subtitle: str
    is_new: bool
    is_deleted: bool
    is_hangup: bool
    mailbox: str
    cut_off: bool
    forwarded: bool
    started_at: str
    started_text: str
    is_time_unsure: bool
    duration_ms: int
    audio_ms: int
    length: str
    length_spoken: str
    has_audio: bool
    facts: tuple[str, ...]
    mark: str
    """Changes whenever the row has to be drawn anew."""


def item_of(message: Message) -> Item:
    """Return the row that shows ``message``."""
    title, subtitle = who(message.caller)
    started_at = rfc3339(message.started_unix_ms)
    moment = datetime.fromisoformat(started_at).astimezone(UTC)
    is_unsure = message.clock is Clock.UNSURE
    return Item(
        id=str(message.id),
        title=title,
        subtitle=subtitle,
        is_new=message.state is State.NEW,
        is_deleted=message.state is State.DELETED,
        is_hangup=message.kind is Kind.HANGUP,
        mailbox=message.mailbox,
        cut_off=message.cut_off,
        forwarded=message.forwarded,
        started_at=started_at,
        started_text=f"{'about ' if is_unsure else ''}{moment.day} {moment:%b %Y, %H:%M} UTC",
        is_time_unsure=is_unsure,
        duration_ms=message.duration_ms,
        audio_ms=max(message.audio_ms, 1),
        length=clock_length(message.duration_ms),
        length_spoken=spoken_length(message.duration_ms),
        has_audio=bool(message.blob),
        facts=_facts(message),
        mark=message.state.value,
    )


def _way(message: Message) -> list[str]:
    """Return by which way the call came: who forwarded it and why, the line, and why it is in this mailbox."""
    origin, facts = message.origin, []
    if message.forwarded:
        by = f" from {clean(origin.diverted_by)}" if origin.diverted_by else " to the machine"
        why = "" if origin.divert_reason is None else _DIVERSIONS[origin.divert_reason]
        facts.append(f"The call was forwarded{why}{by}.")
    if origin.line:
        facts.append(f"It came by the {clean(origin.line_kind)} {clean(origin.line)}.")
    if message.mailbox_reason not in _PLAIN_REASONS:
        facts.append(f"The mailbox was chosen by: {clean(message.mailbox_reason)}.")
    if origin.verstat.lower().startswith("tn-validation-passed"):
        facts.append("The phone company says that it checked the caller's number.")
    elif origin.verstat.lower().startswith("tn-validation-failed"):
        facts.append("The phone company says that the caller's number may be forged.")
    return facts


def _facts(message: Message) -> tuple[str, ...]:
    facts = [CLOCK_NOT_SET] if message.clock is Clock.UNSURE else []
    facts.append(_ENDINGS[message.end_reason])
    if message.end_detail:
        facts.append(f"The caller's side said why: {clean(message.end_detail)}.")
    if message.holds:
        spans = ", ".join(f"{clock_length(first)} to {clock_length(last)}" for first, last in message.holds[:5])
        more = " and more often" if len(message.holds) > 5 else ""
        facts.append(f"On hold from {spans}{more}.")
    facts.extend(_way(message))
    if message.srtp:
        facts.append(f"Encrypted on its way ({clean(message.srtp)}).")
    if message.lost_packets:
        lost = message.lost_packets
        facts.append(f"{lost} packet{'' if lost == 1 else 's'} lost on the way; the gaps were smoothed over.")
    facts.extend(_line(message))
    facts.extend(clean(note) for note in message.notes)
    return tuple(facts[:12])


def _line(message: Message) -> list[str]:
    """Say how good the line was, where its other end reported and where sound came unevenly enough to be worth a word."""
    facts = []
    if message.peer_lost:
        facts.append(
            f"The caller missed {message.peer_lost} packet{'' if message.peer_lost == 1 else 's'} of what we said."
        )
    figures = []
    if message.round_trip_ms is not None:
        figures.append(f"{message.round_trip_ms} ms to the caller and back")
    if message.jitter_ms is not None and (figures or message.jitter_ms >= NOTABLE_JITTER_MS):
        figures.append(f"{message.jitter_ms} ms of jitter")
    if figures:
        facts.append(f"The line: {', '.join(figures)}.")
    return facts
