"""The lamp's words: how many messages wait, as phones read it.

Owns: the body ``application/simple-message-summary``, built and read. Refuses to know: who is told, and when.

Specification: RFC 3842 section 5 (grammar) and section 3 (the package ``message-summary``).

Theory of operation: a summary is four numbers. The lamp is lit while there are new messages: old ones, which somebody
has heard, light nothing. Reading is for tests and phones; it is linear in the body and its only exception is ParseError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aftertone.sip.faults import ParseError
from aftertone.sip.headers import BLANK, parse_number

PACKAGE: Final = "message-summary"
CONTENT_TYPE: Final = "application/simple-message-summary"
MAX_COUNT: Final = 2**32 - 1
"""RFC 3842 section 5.2."""
MAX_LINES: Final = 64
"""A summary has a line for each of half a dozen classes of messages; the optional headers behind them are not read."""

_VOICE: Final = "voice-message"


@dataclass(frozen=True, slots=True)
class Summary:
    """What waits in a mailbox, or in several together. The urgent ones are counted among the others as well."""

    new: int = 0
    old: int = 0
    urgent_new: int = 0
    urgent_old: int = 0

    @property
    def waiting(self) -> bool:
        """Return whether the lamp is lit."""
        return self.new > 0

    def __add__(self, other: Summary) -> Summary:
        """Return both mailboxes as one."""
        return Summary(
            self.new + other.new,
            self.old + other.old,
            self.urgent_new + other.urgent_new,
            self.urgent_old + other.urgent_old,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What a body says."""

    waiting: bool
    account: str
    """The mailbox's URI; empty when it is not named."""
    summary: Summary


def build(summary: Summary, account: str = "") -> bytes:
    """Return the body; ``account`` is the URI of the mailbox, left out when empty. Numbers beyond 2**32-1 stay there."""
    new, old, urgent_new, urgent_old = (
        min(count, MAX_COUNT) for count in (summary.new, summary.old, summary.urgent_new, summary.urgent_old)
    )
    named = f"Message-Account: {account}\r\n" if account else ""
    waiting = "yes" if summary.waiting else "no"
    text = f"Messages-Waiting: {waiting}\r\n{named}Voice-Message: {new}/{old} ({urgent_new}/{urgent_old})\r\n"
    return text.encode("utf-8", "surrogateescape")


def parse(body: bytes) -> Told:
    """Read a body; classes other than voice messages are skipped. Raises ParseError. Spec: RFC 3842 section 5.2."""
    lines = body.decode("utf-8", "surrogateescape").split("\r\n")
    if len(lines) > MAX_LINES:
        raise ParseError(f"a message summary of {len(lines)} lines")
    values: dict[str, str] = {}
    for line in lines:
        if not line:
            # An empty line ends the summary; what follows describes single messages.
            break
        name, colon, value = line.partition(":")
        name = name.strip(BLANK).lower()
        if not colon or name in values:
            raise ParseError("a line of a message summary has no colon, or stands twice")
        values[name] = value.strip(BLANK)
    waiting = values.get("messages-waiting", "").lower()
    if waiting not in ("yes", "no"):
        raise ParseError("a message summary does not say whether messages wait")
    return Told(waiting == "yes", values.get("message-account", ""), _counts(values.get(_VOICE)))


def _counts(value: str | None) -> Summary:
    if value is None:
        return Summary()
    plain, bracket, rest = value.partition("(")
    if not bracket:
        return Summary(*_pair(plain))
    urgent, closing, behind = rest.partition(")")
    if not closing or behind.strip(BLANK):
        raise ParseError("the urgent messages of a summary are not in brackets")
    return Summary(*_pair(plain), *_pair(urgent))


def _pair(text: str) -> tuple[int, int]:
    new, slash, old = text.partition("/")
    if not slash:
        raise ParseError("a message summary counts without a slash")
    return parse_number(new.strip(BLANK), MAX_COUNT), parse_number(old.strip(BLANK), MAX_COUNT)
