"""What is due in a lane is found run by run: a paused campaign's backlog is not walked through.

Revision 0010, after 0009. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.drop_index("ix_messages_due", table_name="messages")
    op.create_index(
        "ix_messages_due",
        "messages",
        ["lane", "run_id", "due_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'planned'"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "ix_runs_unfinished",
        "runs",
        ["campaign_id"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    # Nothing is claimed of a run that has an end; before, a message settled just then could be left in one.
    op.execute(
        "UPDATE runs SET finished_at = NULL, state = CASE state WHEN 'done' THEN 'open' ELSE state END "
        "WHERE finished_at IS NOT NULL AND EXISTS "
        "(SELECT 1 FROM messages WHERE messages.run_id = runs.id AND messages.ended_at IS NULL)"
    )
