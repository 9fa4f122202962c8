"""Order by id instead of by the wall clock, and whether the wall clock was to be believed. Frozen, like every released migration.

The ids of version 0001 hold the time at which their messages started, so their order stays what it was; but for messages whose
beginning the journal had lost, which had made-up ids without a time and stand where those put them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the clock's word to messages; index them by id alone."""
    op.add_column("messages", sa.Column("clock", sa.String(16), nullable=False, server_default="trusted"))
    op.drop_index("messages_newest", "messages")
    op.drop_index("messages_mailbox_newest", "messages")
    op.drop_index("messages_mailbox_state", "messages")
    op.create_index("messages_mailbox_newest", "messages", ["mailbox", "id"])
    op.create_index("messages_mailbox_state", "messages", ["mailbox", "kind", "state", "id"])
    op.drop_index("refusals_newest", "refusals")
