"""Numbers of mailboxes. Frozen, like every released migration."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the list to mailboxes, empty for those that are there."""
    op.add_column("mailboxes", sa.Column("numbers", sa.JSON, nullable=False, server_default="[]"))
