"""The numbered list of what changed, which the event stream and the snapshot publisher follow.

Owns: the statements on ``changes``. Refuses to know: who follows.

Theory of operation: a change row is written in the transaction that made the change, so a follower that reads numbers
in order misses nothing. The list is bounded: a follower that was away for longer than it reaches reads everything anew.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import sqlalchemy as sa

from aftertone.errors import UsageError
from aftertone.store.rows import Change
from aftertone.store.schema import changes

CHANGES_KEPT: Final = 100_000
"""Newest changes kept; years for a household, hours for a busy fleet."""

LONGEST_LIST: Final = 5_000

_PRUNE_EVERY: Final = 1_000


def append(
    connection: sa.Connection,
    what: str,
    now_unix_ms: int,
    *,
    mailbox: str | None = None,
    message_id: UUID | None = None,
) -> None:
    """Write one change, dropping the oldest beyond the limit now and then."""
    row = {"at_unix_ms": now_unix_ms, "what": what, "mailbox": mailbox, "message_id": message_id}
    sequence = connection.execute(changes.insert().values(row).returning(changes.c.sequence)).scalar_one()
    if sequence % _PRUNE_EVERY == 0:
        connection.execute(changes.delete().where(changes.c.sequence <= sequence - CHANGES_KEPT))


def after(connection: sa.Connection, sequence: int, limit: int) -> list[Change]:
    """Return what came after ``sequence``, oldest first. Raises UsageError for a limit out of range."""
    if not 1 <= limit <= LONGEST_LIST:
        raise UsageError(f"a list has 1 to {LONGEST_LIST} changes, not {limit}")
    query = changes.select().where(changes.c.sequence > sequence).order_by(changes.c.sequence).limit(limit)
    return [Change(r.sequence, r.at_unix_ms, r.what, r.mailbox, r.message_id) for r in connection.execute(query)]


def last(connection: sa.Connection) -> int:
    """Return the newest number, 0 when nothing ever changed."""
    return int(connection.execute(sa.select(sa.func.max(changes.c.sequence))).scalar() or 0)
