"""Every attempt that was not a plain acceptance, and how often a message in doubt was sent again.

Revision 0005, after 0004. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Types are written out here, so that a later change in store.types leaves history as it was.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.create_table(
        "message_attempts",
        sa.Column("message_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="counts from 1 per message"),
        sa.Column("at", INSTANT, nullable=False, comment="when the gateway answered, or was last heard of"),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column(
            "claim_id", ID, nullable=True, comment="the claim it was made under; null: made before attempts were kept"
        ),
        sa.Column("ending", sa.Text(), nullable=False, comment="accepted, refused, deferred or in_doubt"),
        sa.Column("code", sa.Integer(), nullable=False, comment="SMTP or HTTP code; 0: none came"),
        sa.Column(
            "enhanced", sa.Text(), nullable=False, comment='RFC 3463 code, as 4.2.2; "" where the gateway gave none'
        ),
        sa.Column("reply", sa.Text(), nullable=False, comment="the gateway's words"),
        sa.Column("retry_at", INSTANT, nullable=True, comment="when a deferred one was to be tried again"),
        sa.Column(
            "recovered", sa.Boolean(), nullable=False, comment="told by the flight recorder: its worker was gone"
        ),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_message_attempts_message_id")),
        sa.PrimaryKeyConstraint("message_id", "number", name=op.f("pk_message_attempts")),
        comment="every try but a plain acceptance, of which the message's own row tells all",
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_message_attempts_in_doubt",
        "message_attempts",
        ["at"],
        unique=False,
        sqlite_where=sa.text("ending = 'in_doubt'"),
        postgresql_where=sa.text("ending = 'in_doubt'"),
    )
    op.add_column(
        "messages",
        sa.Column(
            "resends",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="times it was sent again while in doubt: so many copies more may have been accepted",
        ),
    )
    # Of what is in doubt already the last words are all that is known.
    op.execute(
        "INSERT INTO message_attempts (message_id, number, at, lane, ending, code, enhanced, reply, recovered) "
        "SELECT id, 1, coalesce(sent_at, ended_at, due_at), lane, 'in_doubt', 0, '', coalesce(reply, ''), false "
        "FROM messages WHERE state = 'in_doubt'"
    )
