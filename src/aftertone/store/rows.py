"""The values that the catalog gives out beside ``model.Message``, and what a mailbox may be called.

Owns: those types and the naming rule. Refuses to know: how they are stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aftertone.errors import UsageError
from aftertone.model import Caller

_MAILBOX_NAME: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of what; deleted ones count only as deleted."""

    new: int = 0
    """Messages not heard yet."""
    heard: int = 0
    hangups: int = 0
    deleted: int = 0
    """Messages and hang-ups."""


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A mailbox as its owner set it up."""

    name: str
    rings: int | None
    greeting_blob: str | None
    greeting_sha256: str | None
    created_unix_ms: int
    numbers: tuple[str, ...] = ()
    """Numbers under which it is called, besides its name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changed, for those who follow along."""

    sequence: int
    """Grows, never used twice, may skip."""
    at_unix_ms: int
    what: str
    """``message``, ``mailbox`` or ``refusal``."""
    mailbox: str | None
    message_id: UUID | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that was refused for a reason that an owner should see."""

    id: UUID
    at_unix_ms: int
    status: int
    reason: str
    caller: Caller
    request_uri: str


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is logged in, known by the hash of its token."""

    token_sha256: str
    expires_unix_ms: int


def valid_mailbox_name(name: str) -> bool:
    """Tell whether ``name`` is 1 to 64 letters, digits, dots, underscores, plus and minus signs."""
    return _MAILBOX_NAME.fullmatch(name) is not None


def mailbox_key(name: str) -> str:
    """Return what mailbox names are compared by. Raises UsageError when ``name`` cannot be a mailbox."""
    if not valid_mailbox_name(name):
        raise UsageError(f"{name[:80]!r} cannot be a mailbox name; use 1 to 64 letters, digits or the signs . _ + -")
    return name.lower()
