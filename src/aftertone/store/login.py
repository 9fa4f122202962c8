"""What logging in needs: one password hash, sessions, links that work once.

Owns: the statements on ``facts``, ``sessions`` and ``login_links``. Refuses to know: tokens (only their SHA-256 comes
here), hashing, cookies.

Theory of operation: whoever reads a stolen catalog finds nothing to log in with. Both lists are bounded by dropping what
expires first.
"""

from __future__ import annotations

import re
from typing import Final

import sqlalchemy as sa

from aftertone.errors import UsageError
from aftertone.store.rows import Session
from aftertone.store.schema import facts, login_links, sessions

SESSIONS_KEPT: Final = 1_000
"""Browsers logged in at once; the session that expires first gives way."""

LINKS_KEPT: Final = 100
"""Login links open at once; the one that expires first gives way."""

_PASSWORD: Final = "password_hash"  # noqa: S105 - the name of a row
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def password_hash(connection: sa.Connection) -> str | None:
    """Return the stored hash, None before a password was ever set."""
    return connection.execute(sa.select(facts.c.value).where(facts.c.name == _PASSWORD)).scalar()


def set_password_hash(connection: sa.Connection, value: str) -> None:
    """Store a new hash and end every session and link: a changed password logs everybody out."""
    connection.execute(facts.delete().where(facts.c.name == _PASSWORD))
    connection.execute(facts.insert().values(name=_PASSWORD, value=value))
    connection.execute(sessions.delete())
    connection.execute(login_links.delete())


def add(connection: sa.Connection, table: sa.Table, token_sha256: str, expires_unix_ms: int, kept: int) -> None:
    """Store one token hash in ``table``, at most ``kept`` of them. Raises UsageError unless it is SHA-256 in hex."""
    if _SHA256.fullmatch(token_sha256) is None:
        raise UsageError("a token is stored as its SHA-256 in lower case hex, nothing else")
    connection.execute(table.delete().where(table.c.token_sha256 == token_sha256))
    surplus = sa.select(table.c.token_sha256).order_by(table.c.expires_unix_ms.desc()).limit(-1).offset(kept - 1)
    connection.execute(table.delete().where(table.c.token_sha256.in_(surplus)))
    connection.execute(table.insert().values(token_sha256=token_sha256, expires_unix_ms=expires_unix_ms))


def session(connection: sa.Connection, token_sha256: str) -> Session | None:
    """Return the session of a token, expired or not, None when there is none."""
    query = sa.select(sessions.c.expires_unix_ms).where(sessions.c.token_sha256 == token_sha256)
    expires = connection.execute(query).scalar()
    return None if expires is None else Session(token_sha256, int(expires))


def drop_session(connection: sa.Connection, token_sha256: str) -> None:
    """Forget a session; one that is not there is forgotten already."""
    connection.execute(sessions.delete().where(sessions.c.token_sha256 == token_sha256))


def use_link(connection: sa.Connection, token_sha256: str, now_unix_ms: int) -> bool:
    """Use up a login link; True once, and only before it expires.

    An expired link stays until newer ones push it out: a clock that is wrong today must not take anything away.
    """
    is_it = (login_links.c.token_sha256 == token_sha256) & (login_links.c.expires_unix_ms > now_unix_ms)
    return connection.execute(login_links.delete().where(is_it)).rowcount == 1
