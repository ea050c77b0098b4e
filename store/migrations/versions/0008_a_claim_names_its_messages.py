"""A claim names its messages, and no index of messages names the claim.

Revision 0008, after 0007. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.add_column(
        "claims",
        sa.Column(
            "message_ids",
            sa.LargeBinary(),
            nullable=True,
            comment="64-bit little-endian integers: what it was made for; null: made by an earlier version",
        ),
    )
    op.drop_index("ix_messages_claim_id", table_name="messages")
    if op.get_bind().dialect.name == "postgresql":
        # SQLite's stays as it is: there a claim takes its entries out, so that others need not pass them over.
        op.drop_index("ix_messages_due", table_name="messages")
        op.create_index(
            "ix_messages_due",
            "messages",
            ["lane", "due_at", "id"],
            unique=False,
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        # For pages written from now on; nothing is moved.
        op.execute("ALTER TABLE messages SET (fillfactor = 50)")
