"""Rows of delivered recordings and of refused calls.

Owns: the statements on ``messages`` and ``refusals``. Refuses to know: transactions; each function runs inside its
caller's.

Theory of operation: a row is inserted once per id and only its state moves afterwards, by ``model.next_state``. Ids ascend
in the order of calls, so lists are paged by id, newest first, which an index holds in order; the wall clock orders nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from aftertone.errors import NotFoundError, UsageError
from aftertone.model import Action, Caller, Clock, EndReason, Kind, Message, State, next_state
from aftertone.store.details import pack_details, unpack_details
from aftertone.store.rows import Counts, Refusal
from aftertone.store.schema import mailboxes, messages, refusals

LONGEST_LIST: Final = 1_000
"""Rows in one answer at most; ``before`` gives the next page."""

REFUSALS_KEPT: Final = 10_000
"""Newest refusals kept: a flood of them must not fill the disk."""

_PRUNE_EVERY: Final = 100

_SELECT: Final = sa.select(messages, mailboxes.c.name.label("mailbox_name")).join_from(messages, mailboxes)


def insert(connection: sa.Connection, message: Message, key: str) -> None:
    """Add the row of ``message``, whose id is not there yet, to the mailbox ``key``."""
    connection.execute(
        messages.insert().values(
            id=message.id,
            mailbox=key,
            kind=message.kind.value,
            state=message.state.value,
            caller_number=message.caller.number,
            caller_name=message.caller.name,
            started_unix_ms=message.started_unix_ms,
            duration_ms=message.duration_ms,
            audio_ms=message.audio_ms,
            cut_off=message.cut_off,
            codec=message.codec,
            sample_rate_hz=message.sample_rate_hz,
            lost_packets=message.lost_packets,
            end_reason=message.end_reason.value,
            blob=message.blob,
            blob_sha256=message.blob_sha256,
            blob_bytes=message.blob_bytes,
            mailbox_reason=message.mailbox_reason,
            forwarded=message.forwarded,
            delivered_unix_ms=message.delivered_unix_ms,
            heard_unix_ms=message.heard_unix_ms,
            notes=list(message.notes),
            clock=message.clock.value,
            details=pack_details(message),
        )
    )


def exists(connection: sa.Connection, message_id: UUID) -> bool:
    """Tell whether there is a row with that id."""
    return connection.execute(sa.select(messages.c.id).where(messages.c.id == message_id)).first() is not None


def ids(connection: sa.Connection) -> set[UUID]:
    """Return every id."""
    return set(connection.execute(sa.select(messages.c.id)).scalars())


def fetch(connection: sa.Connection, message_id: UUID) -> Message:
    """Return one message. Raises NotFoundError."""
    row = connection.execute(_SELECT.where(messages.c.id == message_id)).mappings().first()
    if row is None:
        raise NotFoundError(f"there is no message {message_id}")
    return _message(row)


def newest(
    connection: sa.Connection,
    *,
    key: str | None,
    kind: Kind | None,
    states: Collection[State] | None,
    limit: int,
    before: UUID | None,
) -> list[Message]:
    """Return a page of messages, newest first. Raises NotFoundError for an unknown ``before``, UsageError."""
    query = newest_query(key=key, kind=kind, states=states, limit=limit)
    if before is not None:
        if not exists(connection, before):
            raise NotFoundError(f"there is no message {before} to go on from")
        query = query.where(messages.c.id < before)
    return [_message(row) for row in connection.execute(query).mappings()]


def newest_query(*, key: str | None, kind: Kind | None, states: Collection[State] | None, limit: int) -> sa.Select[Any]:
    """Return the statement behind ``newest`` without its page mark. Raises UsageError for a limit out of range."""
    if not 1 <= limit <= LONGEST_LIST:
        raise UsageError(f"a list has 1 to {LONGEST_LIST} messages, not {limit}")
    query = _SELECT.order_by(messages.c.id.desc()).limit(limit)
    if key is not None:
        query = query.where(messages.c.mailbox == key)
    if kind is not None:
        query = query.where(messages.c.kind == kind.value)
    if states is not None:
        query = query.where(messages.c.state.in_(sorted(state.value for state in states)))
    return query


def after(connection: sa.Connection, last: UUID | None, limit: int) -> list[Message]:
    """Return the messages with ids above ``last``, in order of their ids."""
    query = _SELECT.order_by(messages.c.id).limit(limit)
    if last is not None:
        query = query.where(messages.c.id > last)
    return [_message(row) for row in connection.execute(query).mappings()]


def act(connection: sa.Connection, message_id: UUID, action: Action, now_unix_ms: int) -> tuple[Message, bool]:
    """Move one message on; return it and whether anything changed. Raises NotFoundError, StateError."""
    message = fetch(connection, message_id)
    state = next_state(message.state, action, heard_before=message.heard_unix_ms is not None)
    if state is message.state:
        return message, False
    values: dict[str, object] = {"state": state.value}
    if action is Action.HEAR:
        values["heard_unix_ms"] = now_unix_ms
    elif action is Action.UNHEAR:
        values["heard_unix_ms"] = None
    connection.execute(messages.update().where(messages.c.id == message_id).values(values))
    return fetch(connection, message_id), True


def count(connection: sa.Connection, key: str | None) -> Counts:
    """Count by kind and state; an index answers this without touching the rows."""
    query = sa.select(messages.c.kind, messages.c.state, sa.func.count()).group_by(messages.c.kind, messages.c.state)
    if key is not None:
        query = query.where(messages.c.mailbox == key)
    found: dict[str, int] = {}
    for kind, state, number in connection.execute(query):
        word = state if kind == Kind.MESSAGE or state == State.DELETED else "hangups"
        found[word] = found.get(word, 0) + number
    return Counts(found.get("new", 0), found.get("heard", 0), found.get("hangups", 0), found.get("deleted", 0))


def count_waiting(connection: sa.Connection) -> dict[str, tuple[int, int]]:
    """Count new and heard messages of each mailbox that has any, by key; an index answers this too."""
    query = (
        sa.select(messages.c.mailbox, messages.c.state, sa.func.count())
        .where(messages.c.kind == Kind.MESSAGE.value, messages.c.state.in_((State.NEW.value, State.HEARD.value)))
        .group_by(messages.c.mailbox, messages.c.state)
    )
    found: dict[str, tuple[int, int]] = {}
    for key, state, number in connection.execute(query):
        new, heard = found.get(key, (0, 0))
        found[key] = (number, heard) if state == State.NEW else (new, number)
    return found


def insert_refusal(connection: sa.Connection, refusal: Refusal) -> bool:
    """Add a refusal, dropping the oldest beyond the limit; False when the id is there already."""
    if refusal_exists(connection, refusal.id):
        return False
    connection.execute(
        refusals.insert().values(
            id=refusal.id,
            at_unix_ms=refusal.at_unix_ms,
            status=refusal.status,
            reason=refusal.reason,
            caller_number=refusal.caller.number,
            caller_name=refusal.caller.name,
            request_uri=refusal.request_uri,
        )
    )
    if refusal.id.int % _PRUNE_EVERY == 0:
        surplus = sa.select(refusals.c.id).order_by(refusals.c.id.desc()).limit(-1).offset(REFUSALS_KEPT)
        connection.execute(refusals.delete().where(refusals.c.id.in_(surplus)))
    return True


def refusal_exists(connection: sa.Connection, refusal_id: UUID) -> bool:
    """Tell whether there is a refusal with that id."""
    return connection.execute(sa.select(refusals.c.id).where(refusals.c.id == refusal_id)).first() is not None


def newest_refusals(connection: sa.Connection, limit: int) -> list[Refusal]:
    """Return refusals, newest first. Raises UsageError for a limit out of range."""
    if not 1 <= limit <= LONGEST_LIST:
        raise UsageError(f"a list has 1 to {LONGEST_LIST} refusals, not {limit}")
    query = refusals.select().order_by(refusals.c.id.desc()).limit(limit)
    return [
        Refusal(
            row.id, row.at_unix_ms, row.status, row.reason, Caller(row.caller_number, row.caller_name), row.request_uri
        )
        for row in connection.execute(query)
    ]


def count_refusals(connection: sa.Connection) -> int:
    """Count the refusals kept."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(refusals)).scalar_one())


def _message(row: sa.RowMapping) -> Message:
    notes: Sequence[object] = row["notes"]
    return Message(
        id=row["id"],
        mailbox=row["mailbox_name"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        caller=Caller(row["caller_number"], row["caller_name"]),
        started_unix_ms=row["started_unix_ms"],
        duration_ms=row["duration_ms"],
        audio_ms=row["audio_ms"],
        cut_off=row["cut_off"],
        codec=row["codec"],
        sample_rate_hz=row["sample_rate_hz"],
        lost_packets=row["lost_packets"],
        end_reason=EndReason(row["end_reason"]),
        blob=row["blob"],
        blob_sha256=row["blob_sha256"],
        blob_bytes=row["blob_bytes"],
        mailbox_reason=row["mailbox_reason"],
        forwarded=row["forwarded"],
        delivered_unix_ms=row["delivered_unix_ms"],
        heard_unix_ms=row["heard_unix_ms"],
        notes=tuple(str(note) for note in notes),
        clock=Clock.read(row["clock"]),
        **unpack_details(row["details"]),
    )
