"""Limits: token buckets, allowances, lanes that are held, canaries.

Revision 0006, after 0005. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Types are written out here, so that a later change in store.types leaves history as it was.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.create_table(
        "allowances",
        sa.Column("key", sa.Text(), nullable=False, comment="quota:<lane>:<day>, budget:<whose>:<period>"),
        sa.Column(
            "used",
            sa.BigInteger(),
            nullable=False,
            comment="messages, or millionths of the currency; reserved ones included",
        ),
        sa.Column("expires_at", INSTANT, nullable=True, comment="when its period is over; null: never"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_allowances")),
        comment="what quotas and budgets have left: never more than the limit, whoever dies",
    )
    op.create_table(
        "rate_buckets",
        sa.Column("key", sa.Text(), nullable=False, comment="lane:<name>, campaign:<id> or domain:<lane>:<domain>"),
        sa.Column("tokens", sa.Float(), nullable=False, comment="what may leave at once, as of `at`"),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("booked", INSTANT, nullable=False, comment="up to when turns are given to messages that wait"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_buckets")),
        comment="token buckets for workers that cannot reach Redis; see docs/operations.md",
    )
    op.create_table(
        "reservations",
        sa.Column("claim_id", ID, nullable=False, comment="of claims: whoever settles the claim settles this"),
        sa.Column("key", sa.Text(), nullable=False, comment="of allowances"),
        sa.Column("units", DOCUMENT, nullable=False, comment="what each message of the chunk has taken, by message id"),
        sa.PrimaryKeyConstraint("claim_id", "key", name=op.f("pk_reservations")),
        comment="what chunks under way have taken of allowances; what was not sent is given back",
    )
    op.drop_table("rate_windows")
    op.add_column(
        "campaigns",
        sa.Column(
            "watched_from",
            INSTANT,
            nullable=True,
            comment="guardrails count what was sent from here; null: all of a run",
        ),
    )
    op.add_column(
        "lanes",
        sa.Column(
            "closed_since", INSTANT, nullable=True, comment="when it closed first without having been open since"
        ),
    )
    op.add_column(
        "lanes",
        sa.Column(
            "held",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="closed by command: only a command opens it",
        ),
    )
    op.add_column(
        "lanes",
        sa.Column(
            "moved",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="messages that left by another lane since it closed",
        ),
    )
    op.add_column(
        "lanes",
        sa.Column(
            "waits_until", INSTANT, nullable=True, comment="when messages over a quota or budget are looked at again"
        ),
    )
    op.add_column(
        "lanes",
        sa.Column(
            "waits_reason", sa.Text(), server_default="", nullable=False, comment="which quota or budget that is"
        ),
    )
    op.add_column(
        "runs",
        sa.Column(
            "canary_wait_ms",
            sa.BigInteger(),
            nullable=True,
            comment="how long after its canary the rest waits; null: no canary, or the rest has been let go",
        ),
    )
