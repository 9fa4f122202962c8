"""Rows of mailboxes.

Owns: the statements on ``mailboxes``. Refuses to know: transactions, greeting audio.

Theory of operation: the key is the name in lower case, so two spellings are one mailbox; the first spelling is shown.
"""

from __future__ import annotations

import sqlalchemy as sa

from aftertone.errors import NotFoundError, UsageError
from aftertone.store.rows import MailboxRow, mailbox_key
from aftertone.store.schema import mailboxes


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
    return MailboxRow(row.name, row.rings, row.greeting_blob, row.greeting_sha256, row.created_unix_ms)


def every(connection: sa.Connection) -> list[MailboxRow]:
    """Return all mailboxes in order of their names."""
    return [
        MailboxRow(row.name, row.rings, row.greeting_blob, row.greeting_sha256, row.created_unix_ms)
        for row in connection.execute(mailboxes.select().order_by(mailboxes.c.key))
    ]


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
