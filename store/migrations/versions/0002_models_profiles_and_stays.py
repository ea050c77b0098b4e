"""Models, profiles and stays in segments.

Revision 0002, after 0001. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Types are written out here, so that a later change in store.types leaves history as it was.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.create_table(
        "changes",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("subject_ids", sa.LargeBinary(), nullable=False, comment="64-bit little-endian integers"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        comment="whom new facts touched since segments were last evaluated; a refresh takes the rows away",
    )
    op.create_table(
        "exported_addresses",
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the normalised address or phone"),
        sa.Column("kind", sa.Text(), nullable=False, comment="email or phone"),
        sa.Column("exported_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("segment", "layout", "digest", name=op.f("pk_exported_addresses")),
        comment="what an advertising platform holds of a segment, so that the next export can name whom to remove",
    )
    op.create_table(
        "models",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="rfm, clusters or lifetime"),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="counts from 1 per kind and subject"),
        sa.Column("as_of", INSTANT, nullable=False, comment="what happened before it was fitted on"),
        sa.Column("fitted_at", INSTANT, nullable=False),
        sa.Column("fitted_on", sa.Integer(), nullable=False, comment="how many subjects"),
        sa.Column("options", DOCUMENT, nullable=False, comment="the settings it was fitted with"),
        sa.Column("parameters", DOCUMENT, nullable=False, comment="cut-offs, centroids or distribution, frozen"),
        sa.Column("report", DOCUMENT, server_default="{}", nullable=False, comment="how good it is; warnings"),
        sa.Column("state", sa.Text(), nullable=False, comment="active, held (waits for approval), retired or refused"),
        sa.Column(
            "note", sa.Text(), server_default="", nullable=False, comment="why it is held or refused; who approved it"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("kind", "subject", "version", name=op.f("uq_models_kind_subject_version")),
        comment="each fit of a model: scores and labels name the one they come from",
    )
    op.create_table(
        "spend",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the source's own key; imports upsert on it"),
        sa.Column("channel", sa.Text(), nullable=False, comment="where the money went, as ads or fair"),
        sa.Column("starts_at", INSTANT, nullable=False),
        sa.Column("ends_at", INSTANT, nullable=False, comment="exclusive"),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spend")),
        sa.UniqueConstraint("external_id", name=op.f("uq_spend_external_id")),
        comment="marketing and sales cost, for what a new customer costs",
    )
    op.create_table(
        "profiles",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column(
            "scored_as", ID, nullable=False, comment="whose figures these are: the account itself, or its parent"
        ),
        sa.Column("scored_at", INSTANT, nullable=False, comment="as of when"),
        sa.Column("first_order_at", INSTANT, nullable=False),
        sa.Column("last_order_at", INSTANT, nullable=False),
        sa.Column("orders", sa.Integer(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False, comment="distinct UTC days with an order"),
        sa.Column("net_minor", sa.BigInteger(), nullable=False, comment="net of returns: historic lifetime value"),
        sa.Column("returned_minor", sa.BigInteger(), nullable=False, comment="never negative"),
        sa.Column(
            "median_gap_days", sa.Float(), nullable=True, comment="between days with an order; null below three of them"
        ),
        sa.Column(
            "products", sa.Integer(), nullable=True, comment="distinct products bought; null where no lines are known"
        ),
        sa.Column(
            "rfm_model_id",
            ID,
            nullable=True,
            comment="of models; no foreign key: checking a million rows costs more than writing them",
        ),
        sa.Column("r", sa.Integer(), nullable=True),
        sa.Column("f", sa.Integer(), nullable=True),
        sa.Column("m", sa.Integer(), nullable=True),
        sa.Column(
            "frequency",
            sa.Integer(),
            nullable=True,
            comment="orders that count for F: within the window, where there is one",
        ),
        sa.Column("monetary_minor", sa.BigInteger(), nullable=True, comment="what M is scored by"),
        sa.Column(
            "rfm_segment", sa.Text(), nullable=True, comment="the RFM group; null: bought, but not within the window"
        ),
        sa.Column("previous_rfm_segment", sa.Text(), nullable=True, comment="the latest different one"),
        sa.Column("rfm_since", INSTANT, nullable=True, comment="when the present group was entered"),
        sa.Column("rfm_moved_by", sa.Text(), nullable=True, comment="own_action, time, cutoff or new"),
        sa.Column("cluster_model_id", ID, nullable=True),
        sa.Column("cluster", sa.Text(), nullable=True, comment="the cluster's lasting key"),
        sa.Column("previous_cluster", sa.Text(), nullable=True),
        sa.Column("cluster_since", INSTANT, nullable=True),
        sa.Column("lifetime_model_id", ID, nullable=True),
        sa.Column("p_alive", sa.Float(), nullable=True, comment="probability that the subject still buys"),
        sa.Column("expected_orders", sa.Float(), nullable=True, comment="within the horizon"),
        sa.Column("order_value_minor", sa.BigInteger(), nullable=True, comment="expected net value of an order"),
        sa.Column("clv_minor", sa.BigInteger(), nullable=True, comment="discounted contribution within the horizon"),
        sa.Column("next_order_at", INSTANT, nullable=True, comment="expected"),
        sa.PrimaryKeyConstraint("subject", "subject_id", name=op.f("pk_profiles")),
        comment="what the models say of each buyer now; who never bought has no row",
        sqlite_with_rowid=False,
    )
    # The next refresh scores everybody anew; groups were never anything but derived.
    op.drop_index(op.f("ix_rfm_scores_subject_segment"), table_name="rfm_scores")
    op.drop_table("rfm_scores")
    op.drop_table("rfm_runs")
    op.create_index(op.f("ix_events_at"), "events", ["at"], unique=False)
    op.create_index(op.f("ix_message_events_at"), "message_events", ["at"], unique=False)
    op.create_index(
        "ix_orders_cancelled_at",
        "orders",
        ["cancelled_at"],
        unique=False,
        sqlite_where=sa.text("cancelled_at IS NOT NULL"),
        postgresql_where=sa.text("cancelled_at IS NOT NULL"),
    )
    # Members keep the instant of joining.
    op.execute("CREATE TEMPORARY TABLE old_segment_members AS SELECT * FROM segment_members")
    op.drop_table("segment_members")
    op.create_table(
        "segment_members",
        sa.Column("segment_id", ID, nullable=False, comment="of segments; without a foreign key, as in profiles"),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False, comment="when the subject entered"),
        sa.Column("valid_to", INSTANT, nullable=True, comment="when it left; null: it is a member"),
        sa.PrimaryKeyConstraint("segment_id", "subject_id", "valid_from", name=op.f("pk_segment_members")),
        comment="every stay in a segment: entering and leaving are rows",
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO segment_members (segment_id, subject_id, valid_from) "
        "SELECT segment_id, subject_id, since FROM old_segment_members"
    )
    op.execute("DROP TABLE old_segment_members")
    op.create_index(op.f("ix_touches_at"), "touches", ["at"], unique=False)
