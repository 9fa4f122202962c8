"""Room for the small facts of a call: when it was held, what its end said. Frozen, like every released migration.

One object instead of a column each: nobody searches by them, and the next fact needs no migration.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the object to messages, empty for those that are there."""
    op.add_column("messages", sa.Column("details", sa.JSON, nullable=False, server_default="{}"))
