"""Whose mailbox a call is for.

Owns: the order in which the rule of a line, the names in a request and the default are asked. Refuses to know: SIP's headers (they
come as names, in order), who is calling, and what a caller is told.

Theory of operation: the first that is a mailbox of ours wins, and the reason is kept with the message. The operator's rule for an
account or trunk goes before anything a request says. A name in a request chooses only among mailboxes that anybody could have
called by its address, so it needs no trust: a stranger who writes a Diversion gains nothing that the Request-URI would not give.
A rule that names a mailbox which is gone is passed over, since a message in the wrong place is better than none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aftertone.model import Mailbox
from aftertone.voicemail.directory import Directory


@dataclass(frozen=True, slots=True)
class Choice:
    """A mailbox and what chose it."""

    mailbox: Mailbox
    reason: str


def choose(
    directory: Directory,
    named: Iterable[tuple[str, str]],
    *,
    user: str,
    rule: tuple[str, str] = ("", ""),
    ours: bool = False,
) -> Choice | None:
    """Return whose mailbox it is, or None when a caller is to hear that there is none (404).

    ``named``: name or number and where it stood, the most telling first; read only as far as needed. ``user``: user part of the
    Request-URI. ``rule``: the mailbox that the line's settings name, and the line's name. ``ours``: the number that was called is
    certainly ours, so that the default mailbox takes what names none.
    """
    wanted, line = rule
    mailbox = directory.named(wanted) if wanted else None
    if mailbox is not None:
        return Choice(mailbox, line)
    for text, where in named:
        mailbox = directory.named(text)
        if mailbox is not None:
            return Choice(mailbox, where)
    fallback = directory.fallback("" if ours else user)
    return None if fallback is None else Choice(fallback, "default mailbox")
