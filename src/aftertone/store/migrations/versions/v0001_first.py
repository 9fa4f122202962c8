"""The first catalog. Frozen: a released migration is never edited, the next one changes what it made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make every table of version 0001."""
    _make_mailboxes_and_messages()
    _make_refusals_and_changes()
    _make_login()


def _make_mailboxes_and_messages() -> None:
    op.create_table(
        "mailboxes",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("rings", sa.Integer),
        sa.Column("greeting_blob", sa.String(200)),
        sa.Column("greeting_sha256", sa.String(64)),
        sa.Column("created_unix_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("mailbox", sa.String(64), sa.ForeignKey("mailboxes.key"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
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
        sa.Column("blob", sa.String(200), nullable=False),
        sa.Column("blob_sha256", sa.String(64), nullable=False),
        sa.Column("blob_bytes", sa.BigInteger, nullable=False),
        sa.Column("mailbox_reason", sa.Text, nullable=False),
        sa.Column("forwarded", sa.Boolean, nullable=False),
        sa.Column("delivered_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("heard_unix_ms", sa.BigInteger),
        sa.Column("notes", sa.JSON, nullable=False),
    )
    op.create_index("messages_newest", "messages", ["started_unix_ms", "id"])
    op.create_index("messages_mailbox_newest", "messages", ["mailbox", "started_unix_ms", "id"])
    op.create_index("messages_mailbox_state", "messages", ["mailbox", "kind", "state", "started_unix_ms", "id"])


def _make_refusals_and_changes() -> None:
    op.create_table(
        "refusals",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("caller_number", sa.Text, nullable=False),
        sa.Column("caller_name", sa.Text, nullable=False),
        sa.Column("request_uri", sa.Text, nullable=False),
    )
    op.create_index("refusals_newest", "refusals", ["at_unix_ms", "id"])
    op.create_table(
        "changes",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("mailbox", sa.String(64)),
        sa.Column("message_id", sa.Uuid),
        sqlite_autoincrement=True,
    )


def _make_login() -> None:
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    for table in ("sessions", "login_links"):
        op.create_table(
            table,
            sa.Column("token_sha256", sa.String(64), primary_key=True),
            sa.Column("expires_unix_ms", sa.BigInteger, nullable=False),
        )
        op.create_index(f"{table}_expiry", table, ["expires_unix_ms"])
