"""Rows of mailboxes.

Owns: the statements on ``mailboxes``. Refuses to know: transactions, greeting audio.

Theory of operation: the key is the name in lower case, so two spellings are one mailbox; the first spelling is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from aftertone.errors import NotFoundError, UsageError
from aftertone.numbers import normal_number
from aftertone.store.rows import MailboxRow, mailbox_key
from aftertone.store.schema import mailboxes

MOST_NUMBERS: Final = 100
"""Numbers of one mailbox: every call that names none is compared with all of them."""


def add(connection: sa.Connection, name: str, rings: int | None, now_unix_ms: int) -> str:
    """Add a mailbox and return its key. Raises UsageError when the name is taken or cannot be one."""
    key = mailbox_key(name)
    if not ensure(connection, name, now_unix_ms):
        raise UsageError(f"there is a mailbox {name!r} already")
    connection.execute(mailboxes.update().where(mailboxes.c.key == key).values(rings=rings))
    return key


def ensure(connection: sa.Connection, name: str, now_unix_ms: int) -> bool:
    """Add the mailbox when it is missing; return whether it was. Raises UsageError when the name cannot be one."""
    key = mailbox_key(name)
    if connection.execute(sa.select(mailboxes.c.key).where(mailboxes.c.key == key)).first() is not None:
        return False
    connection.execute(mailboxes.insert().values(key=key, name=name, created_unix_ms=now_unix_ms))
    return True


def fetch(connection: sa.Connection, name: str) -> MailboxRow:
    """Return one mailbox by any spelling. Raises NotFoundError, UsageError."""
    row = connection.execute(mailboxes.select().where(mailboxes.c.key == mailbox_key(name))).first()
    if row is None:
        raise NotFoundError(f"there is no mailbox {name!r}")
    return _row(row)


def every(connection: sa.Connection) -> list[MailboxRow]:
    """Return all mailboxes in order of their names."""
    return [_row(row) for row in connection.execute(mailboxes.select().order_by(mailboxes.c.key))]


def set_greeting(connection: sa.Connection, name: str, blob: str | None, sha256: str | None) -> bool:
    """Set or clear the greeting; return whether that changed anything. Raises NotFoundError, UsageError."""
    before = fetch(connection, name)
    if (before.greeting_blob, before.greeting_sha256) == (blob, sha256):
        return False
    where = mailboxes.c.key == mailbox_key(name)
    connection.execute(mailboxes.update().where(where).values(greeting_blob=blob, greeting_sha256=sha256))
    return True


def set_rings(connection: sa.Connection, name: str, rings: int | None) -> bool:
    """Set the rings before answering; return whether that changed anything. Raises NotFoundError, UsageError."""
    if fetch(connection, name).rings == rings:
        return False
    connection.execute(mailboxes.update().where(mailboxes.c.key == mailbox_key(name)).values(rings=rings))
    return True


def set_numbers(connection: sa.Connection, name: str, numbers: Sequence[str]) -> bool:
    """Set the numbers under which the mailbox is called; return whether that changed anything.

    Each number belongs to one mailbox. Raises NotFoundError, and UsageError for what is no number, is another mailbox's, or is one
    too many.
    """
    wanted: dict[str, str] = {}
    for number in numbers:
        normal = normal_number(number)
        if not normal:
            raise UsageError(f"{number[:80]!r} is no telephone number; use digits, perhaps with + in front")
        wanted.setdefault(normal, number.strip())
    if len(wanted) > MOST_NUMBERS:
        raise UsageError(f"a mailbox has at most {MOST_NUMBERS} numbers")
    before = fetch(connection, name)
    for row in every(connection):
        if row.name == before.name:
            continue
        # Its name too, if it is a number: a call would find the mailbox by that first.
        for theirs in map(normal_number, (row.name, *row.numbers)):
            if theirs in wanted:
                raise UsageError(f"{wanted[theirs]} is a number of the mailbox {row.name!r} already")
    if before.numbers == tuple(wanted.values()):
        return False
    where = mailboxes.c.key == mailbox_key(name)
    connection.execute(mailboxes.update().where(where).values(numbers=list(wanted.values())))
    return True


def _row(row: sa.Row[Any]) -> MailboxRow:
    return MailboxRow(
        row.name,
        row.rings,
        row.greeting_blob,
        row.greeting_sha256,
        row.created_unix_ms,
        tuple(str(number) for number in row.numbers),
    )
