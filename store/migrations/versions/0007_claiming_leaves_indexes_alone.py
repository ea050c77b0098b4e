"""Fewer indexes of messages are written by a claim, and by what became of it.

Revision 0007, after 0006. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    # From here on what is pending is told by `ended_at` too; while the old index is still there to find it.
    op.execute(
        "UPDATE messages SET ended_at = NULL WHERE state IN ('planned', 'claimed', 'sending') AND ended_at IS NOT NULL"
    )
    op.drop_index("ix_messages_pending", table_name="messages")
    op.create_index(
        "ix_messages_pending",
        "messages",
        ["run_id"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_index(op.f("ix_messages_contact_id_channel_sent_at"), table_name="messages")
    op.create_index(op.f("ix_messages_contact_id"), "messages", ["contact_id"], unique=False)
