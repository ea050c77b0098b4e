"""Claims say from when on their messages may be out.

Revision 0003, after 0002. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Types are written out here, so that a later change in store.types leaves history as it was.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.add_column(
        "claims",
        sa.Column(
            "sending_at",
            INSTANT,
            nullable=True,
            comment="from here on its messages may be out; null: nothing has left yet",
        ),
    )
