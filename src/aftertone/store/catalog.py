"""The catalog: what was delivered, whose it is, what became of it.

Owns: the operations that the rest of the house calls, each one transaction. Refuses to know: audio, HTTP, the journal.

Theory of operation: every write commits with a synced log before it returns, together with its row in the list of
changes. Several processes open the same file at once (delivery writes, the desk reads and writes); threads may share one
``Catalog``. Every method may raise StorageError (try again) or DamagedError (the file is left alone); beyond these, each
names its own. The layout on disk is in docs/storage.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from aftertone.files import OS_FILES, Files
from aftertone.model import Action, Caller, Kind, Message, State
from aftertone.store import changes, login, mailboxes, messages
from aftertone.store.engine import Database
from aftertone.store.rows import Change, Counts, MailboxRow, Refusal, Session, mailbox_key
from aftertone.store.schema import login_links, sessions
from aftertone.store.upgrade import ensure_current

_PAGE_ROWS: Final = 500


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class Catalog:
    """The catalog of one installation; see ``open``."""

    def __init__(self, database: Database, unix_ms: Callable[[], int] = _unix_ms) -> None:
        self._database = database
        self._unix_ms = unix_ms

    @classmethod
    def open(cls, path: Path, *, unix_ms: Callable[[], int] = _unix_ms, files: Files = OS_FILES) -> Self:
        """Open the catalog at ``path``, making or upgrading it when needed, durably.

        ``unix_ms`` is the wall clock, milliseconds, for the times of changes. Raises NewerSchemaError when a newer
        program wrote the file, DamagedError, StorageError.
        """
        database = Database(path)
        try:
            ensure_current(database, files=files)
        except BaseException:
            database.close()
            raise
        return cls(database, unix_ms)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def check(self) -> list[str]:
        """Return what is wrong with the file, nothing when it is sound. Reads all of it."""
        return self._database.check()

    # Messages

    def record_delivery(self, message: Message) -> bool:
        """Add a delivered recording; False, and nothing changed, when its id is there already. Durable on return.

        A mailbox that is missing is made: a message without one would be shown to nobody. Raises UsageError when the
        mailbox's name cannot be one.
        """
        with self._database.write() as connection:
            key = mailbox_key(message.mailbox)
            if messages.exists(connection, message.id):
                return False
            if mailboxes.ensure(connection, message.mailbox, message.delivered_unix_ms):
                changes.append(connection, "mailbox", message.delivered_unix_ms, mailbox=key)
            messages.insert(connection, message, key)
            changes.append(connection, "message", message.delivered_unix_ms, mailbox=key, message_id=message.id)
            return True

    def has_message(self, message_id: UUID) -> bool:
        """Tell whether that recording was delivered."""
        with self._database.read() as connection:
            return messages.exists(connection, message_id)

    def message_ids(self) -> set[UUID]:
        """Return the ids of everything that was ever delivered, deleted ones too; about 100 bytes of memory each."""
        with self._database.read() as connection:
            return messages.ids(connection)

    def message(self, message_id: UUID) -> Message:
        """Return one message. Raises NotFoundError."""
        with self._database.read() as connection:
            return messages.fetch(connection, message_id)

    def every_message(self) -> Iterator[Message]:
        """Give every message in order of the ids, deleted ones too, without holding a transaction open between pages."""
        last: UUID | None = None
        while True:
            with self._database.read() as connection:
                page = messages.after(connection, last, _PAGE_ROWS)
            yield from page
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1].id

    def messages(
        self,
        *,
        mailbox: str | None = None,
        kind: Kind | None = None,
        states: Collection[State] | None = None,
        limit: int = 100,
        before: UUID | None = None,
    ) -> list[Message]:
        """Return up to ``limit`` (1 to 1000) messages, newest first by id; None takes every value.

        ``before`` is the last id of the page before. Raises NotFoundError when it is unknown, UsageError.
        """
        key = None if mailbox is None else mailbox_key(mailbox)
        with self._database.read() as connection:
            return messages.newest(connection, key=key, kind=kind, states=states, limit=limit, before=before)

    def act(self, message_id: UUID, action: Action, now_unix_ms: int) -> Message:
        """Do ``action`` and return the message as it is then; durable on return.

        Asking for what already holds changes nothing and writes no change. Raises NotFoundError, StateError.
        """
        with self._database.write() as connection:
            message, changed = messages.act(connection, message_id, action, now_unix_ms)
            if changed:
                key = mailbox_key(message.mailbox)
                changes.append(connection, "message", now_unix_ms, mailbox=key, message_id=message_id)
            return message

    def counts(self, mailbox: str | None = None) -> Counts:
        """Count what is new, heard, a hang-up, deleted; of one mailbox, or of all. Raises UsageError."""
        key = None if mailbox is None else mailbox_key(mailbox)
        with self._database.read() as connection:
            return messages.count(connection, key)

    def waiting(self) -> dict[str, tuple[int, int]]:
        """Return how many new and how many heard messages each mailbox has, by its key; what a lamp shows."""
        with self._database.read() as connection:
            return messages.count_waiting(connection)

    # Refused calls

    def record_refusal(
        self, refusal_id: UUID, at_unix_ms: int, status: int, reason: str, caller: Caller, request_uri: str
    ) -> bool:
        """Add a refused call; False when its id is there already. Durable on return. The newest 10,000 are kept."""
        with self._database.write() as connection:
            refusal = Refusal(refusal_id, at_unix_ms, status, reason, caller, request_uri)
            added = messages.insert_refusal(connection, refusal)
            if added:
                changes.append(connection, "refusal", at_unix_ms)
            return added

    def has_refusal(self, refusal_id: UUID) -> bool:
        """Tell whether that refusal is recorded."""
        with self._database.read() as connection:
            return messages.refusal_exists(connection, refusal_id)

    def refusals(self, limit: int = 100) -> list[Refusal]:
        """Return up to ``limit`` (1 to 1000) refused calls, newest first. Raises UsageError."""
        with self._database.read() as connection:
            return messages.newest_refusals(connection, limit)

    def count_refusals(self) -> int:
        """Count the refused calls kept."""
        with self._database.read() as connection:
            return messages.count_refusals(connection)

    # Mailboxes

    def add_mailbox(self, name: str, rings: int | None = None, numbers: Sequence[str] = ()) -> MailboxRow:
        """Make a mailbox; durable on return. Raises UsageError when the name or a number is taken or cannot be one."""
        with self._database.write() as connection:
            now_unix_ms = self._unix_ms()
            key = mailboxes.add(connection, name, rings, now_unix_ms)
            mailboxes.set_numbers(connection, name, numbers)
            changes.append(connection, "mailbox", now_unix_ms, mailbox=key)
            return mailboxes.fetch(connection, name)

    def mailboxes(self) -> list[MailboxRow]:
        """Return all mailboxes in order of their names."""
        with self._database.read() as connection:
            return mailboxes.every(connection)

    def mailbox(self, name: str) -> MailboxRow:
        """Return one mailbox by any spelling. Raises NotFoundError, UsageError."""
        with self._database.read() as connection:
            return mailboxes.fetch(connection, name)

    def set_rings(self, name: str, rings: int | None) -> None:
        """Set after how many rings the mailbox answers; None takes the setting. Raises NotFoundError, UsageError."""
        with self._database.write() as connection:
            if mailboxes.set_rings(connection, name, rings):
                changes.append(connection, "mailbox", self._unix_ms(), mailbox=mailbox_key(name))

    def set_numbers(self, name: str, numbers: Sequence[str]) -> None:
        """Set the numbers under which the mailbox is called; durable on return.

        Raises NotFoundError, and UsageError for what is no number or belongs to another mailbox.
        """
        with self._database.write() as connection:
            if mailboxes.set_numbers(connection, name, numbers):
                changes.append(connection, "mailbox", self._unix_ms(), mailbox=mailbox_key(name))

    def set_greeting(self, name: str, blob: str, sha256: str) -> None:
        """Point the mailbox at a greeting whose blob is durable already. Raises NotFoundError, UsageError."""
        self._change_greeting(name, blob, sha256)

    def clear_greeting(self, name: str) -> None:
        """Go back to the default greeting; the blob stays. Raises NotFoundError, UsageError."""
        self._change_greeting(name, None, None)

    def _change_greeting(self, name: str, blob: str | None, sha256: str | None) -> None:
        with self._database.write() as connection:
            if mailboxes.set_greeting(connection, name, blob, sha256):
                changes.append(connection, "mailbox", self._unix_ms(), mailbox=mailbox_key(name))

    # Following along

    def changes(self, after_sequence: int, limit: int = 500) -> list[Change]:
        """Return up to ``limit`` (1 to 5000) changes after ``after_sequence``, oldest first.

        The newest 100,000 are kept. A follower whose number is above ``last_change`` or more than that behind reads
        everything anew. Raises UsageError.
        """
        with self._database.read() as connection:
            return changes.after(connection, after_sequence, limit)

    def last_change(self) -> int:
        """Return the number of the newest change, 0 when there is none."""
        with self._database.read() as connection:
            return changes.last(connection)

    def data_version(self) -> int:
        """Return a number that is another one after any commit by any process; only for comparing. Microseconds."""
        return self._database.data_version()

    # Login

    def password_hash(self) -> str | None:
        """Return the owner's password hash, None before one was set."""
        with self._database.read() as connection:
            return login.password_hash(connection)

    def set_password_hash(self, value: str) -> None:
        """Store a password hash and end every session and login link. Durable on return."""
        with self._database.write() as connection:
            login.set_password_hash(connection, value)

    def add_session(self, token_sha256: str, expires_unix_ms: int) -> None:
        """Remember a logged-in browser; at most 1,000. Raises UsageError unless given SHA-256 in hex."""
        with self._database.write() as connection:
            login.add(connection, sessions, token_sha256, expires_unix_ms, login.SESSIONS_KEPT)

    def session(self, token_sha256: str) -> Session | None:
        """Return the session of a token, None when there is none; the caller compares its expiry with the clock."""
        with self._database.read() as connection:
            return login.session(connection, token_sha256)

    def drop_session(self, token_sha256: str) -> None:
        """Log that browser out. Durable on return."""
        with self._database.write() as connection:
            login.drop_session(connection, token_sha256)

    def add_login_link(self, token_sha256: str, expires_unix_ms: int) -> None:
        """Remember a link that logs in once; at most 100. Raises UsageError unless given SHA-256 in hex."""
        with self._database.write() as connection:
            login.add(connection, login_links, token_sha256, expires_unix_ms, login.LINKS_KEPT)

    def use_login_link(self, token_sha256: str, now_unix_ms: int) -> bool:
        """Use up a login link; True for the first use before it expires, never again. Durable on return."""
        with self._database.write() as connection:
            return login.use_link(connection, token_sha256, now_unix_ms)
