"""The tables of the catalog as SQLAlchemy Core values, and the schema version that this program speaks.

Owns: column names, types and indexes (docs/storage.md shows them; a test compares the two). Refuses to know: queries.

Theory of operation: migrations write their own frozen DDL; a test proves that running all of them gives exactly these
tables. Times are wall clock in milliseconds since 1970 UTC and order nothing; ids are UUIDv7 that the line minted in ascending
order, so they are the order of calls.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

SCHEMA_VERSIONS: Final = ("0001", "0002", "0003", "0004")
"""Every schema version there ever was, oldest first; the last is what this program reads and writes."""

metadata = sa.MetaData()

mailboxes = sa.Table(
    "mailboxes",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True, comment="name in lower case"),
    sa.Column("name", sa.String(64), nullable=False, comment="as first written"),
    sa.Column("rings", sa.Integer, comment="rings before answering; empty takes the setting"),
    sa.Column("greeting_blob", sa.String(200), comment="blob key of the owner's greeting"),
    sa.Column("greeting_sha256", sa.String(64)),
    sa.Column("created_unix_ms", sa.BigInteger, nullable=False),
    sa.Column(
        "numbers", sa.JSON, nullable=False, server_default="[]", comment="list of numbers under which it is called"
    ),
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column(
        "id", sa.Uuid, primary_key=True, comment="UUIDv7 minted when the call was answered; the order of messages"
    ),
    sa.Column("mailbox", sa.String(64), sa.ForeignKey("mailboxes.key"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False, comment="message or hangup"),
    sa.Column("state", sa.String(16), nullable=False, comment="new, heard or deleted"),
    sa.Column("caller_number", sa.Text, nullable=False),
    sa.Column("caller_name", sa.Text, nullable=False),
    sa.Column("started_unix_ms", sa.BigInteger, nullable=False),
    sa.Column("duration_ms", sa.BigInteger, nullable=False),
    sa.Column("audio_ms", sa.BigInteger, nullable=False),
    sa.Column("cut_off", sa.Boolean, nullable=False),
    sa.Column("codec", sa.String(32), nullable=False),
    sa.Column("sample_rate_hz", sa.Integer, nullable=False),
    sa.Column("lost_packets", sa.Integer, nullable=False),
    sa.Column("end_reason", sa.String(32), nullable=False),
    sa.Column("blob", sa.String(200), nullable=False, comment="blob key; empty when there is no audio"),
    sa.Column("blob_sha256", sa.String(64), nullable=False),
    sa.Column("blob_bytes", sa.BigInteger, nullable=False),
    sa.Column("mailbox_reason", sa.Text, nullable=False),
    sa.Column("forwarded", sa.Boolean, nullable=False),
    sa.Column("delivered_unix_ms", sa.BigInteger, nullable=False),
    sa.Column("heard_unix_ms", sa.BigInteger, comment="when first heard; empties when marked new again"),
    sa.Column("notes", sa.JSON, nullable=False, comment="list of strings"),
    sa.Column(
        "clock",
        sa.String(16),
        nullable=False,
        server_default="trusted",
        comment="trusted, or unsure: the start is a guess",
    ),
    sa.Column(
        "details", sa.JSON, nullable=False, server_default="{}", comment="object of small facts, each only if there"
    ),
    sa.Index("messages_mailbox_newest", "mailbox", "id"),
    sa.Index("messages_mailbox_state", "mailbox", "kind", "state", "id"),
)

refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, comment="minted when the call was refused; the order of refusals"),
    sa.Column("at_unix_ms", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Integer, nullable=False, comment="SIP status the caller was given"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("caller_number", sa.Text, nullable=False),
    sa.Column("caller_name", sa.Text, nullable=False),
    sa.Column("request_uri", sa.Text, nullable=False),
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, comment="never used twice"),
    sa.Column("at_unix_ms", sa.BigInteger, nullable=False),
    sa.Column("what", sa.String(16), nullable=False, comment="message, mailbox or refusal"),
    sa.Column("mailbox", sa.String(64), comment="key of the mailbox"),
    sa.Column("message_id", sa.Uuid),
    sqlite_autoincrement=True,
)

facts = sa.Table(
    "facts",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True, comment="password_hash"),
    sa.Column("value", sa.Text, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True, comment="the token itself is never stored"),
    sa.Column("expires_unix_ms", sa.BigInteger, nullable=False),
    sa.Index("sessions_expiry", "expires_unix_ms"),
)

login_links = sa.Table(
    "login_links",
    metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True, comment="removed by its first use"),
    sa.Column("expires_unix_ms", sa.BigInteger, nullable=False),
    sa.Index("login_links_expiry", "expires_unix_ms"),
)
