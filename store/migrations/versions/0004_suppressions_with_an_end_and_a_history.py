"""Suppressions with an end and a history.

Revision 0004, after 0003. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Types are written out here, so that a later change in store.types leaves history as it was.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.create_table(
        "suppression_words",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="makes replays harmless"),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False, comment="added or lifted"),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True, comment="of one added for a time"),
        sa.Column("said_by", sa.Text(), server_default="", nullable=False, comment="who or what said so"),
        sa.Column("message_id", ID, nullable=True, comment="the message that led to it, if any"),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppression_words")),
        sa.UniqueConstraint("key", name=op.f("uq_suppression_words_key")),
        comment="every word that added or lifted a suppression, as evidence",
    )
    op.create_index(
        op.f("ix_suppression_words_channel_address"), "suppression_words", ["channel", "address"], unique=False
    )
    # Each reason has a row of its own; the reason that hid the lighter ones is all that is known of the old ones.
    op.execute("CREATE TEMPORARY TABLE old_suppressions AS SELECT * FROM suppressions")
    op.drop_table("suppressions")
    op.create_table(
        "suppressions",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False, comment="e-mail in lower case, or E.164"),
        sa.Column("reason", sa.Text(), nullable=False, comment="each reason stands and is lifted by itself"),
        sa.Column("at", INSTANT, nullable=False, comment="since when; of a hard bounce the latest"),
        sa.Column("expires_at", INSTANT, nullable=True, comment="no longer holds from then on; null: for ever"),
        sa.Column(
            "counted_from",
            INSTANT,
            nullable=True,
            comment="the first of the soft bounces that led to it; a sign of life later lifts it",
        ),
        sa.Column("message_id", ID, nullable=True, comment="the message that led to it, if any"),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("channel", "address", "reason", name=op.f("pk_suppressions")),
        comment="what stands now; readers ask store.standing whether it still holds",
    )
    op.execute(
        "INSERT INTO suppressions (channel, address, reason, at, message_id, detail) "
        "SELECT channel, address, reason, at, message_id, detail FROM old_suppressions"
    )
    # What stands follows from the words: those of old are told anew, with the keys store.suppressions gives.
    op.execute(
        "INSERT INTO suppression_words (key, channel, address, reason, action, at, said_by, message_id, detail) "
        "SELECT 'added:' || reason || ':' || channel || ':' || at || ':' || coalesce(CAST(message_id AS TEXT), '')"
        " || ':' || address, channel, address, reason, 'added', at, 'before revision 0004', message_id, detail "
        "FROM old_suppressions"
    )
    op.execute("DROP TABLE old_suppressions")
