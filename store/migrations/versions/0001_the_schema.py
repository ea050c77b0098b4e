"""The schema.

Revision 0001, after nothing. Going back is restoring a backup: there is no downgrade.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Types are written out here, so that a later change in store.types leaves history as it was.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    op.create_table(
        "accounts",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the source's own key; imports upsert on it"),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("parent_id", ID, nullable=True, comment="the account this one belongs to"),
        sa.Column("country", sa.Text(), nullable=True, comment="ISO 3166-1 alpha-2"),
        sa.Column("timezone", sa.Text(), nullable=True, comment="IANA zone; contacts inherit it"),
        sa.Column("language", sa.Text(), nullable=True, comment="BCP 47; contacts inherit it"),
        sa.Column("attributes", DOCUMENT, server_default="{}", nullable=False),
        sa.Column("created_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["parent_id"], ["accounts.id"], name=op.f("fk_accounts_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("external_id", name=op.f("uq_accounts_external_id")),
    )
    op.create_index(op.f("ix_accounts_parent_id"), "accounts", ["parent_id"], unique=False)
    op.create_table(
        "campaigns",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("version_id", ID, nullable=True, comment="the applied version new runs are pinned to"),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
        sa.UniqueConstraint("name", name=op.f("uq_campaigns_name")),
    )
    op.create_table(
        "claims",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column(
            "boot",
            sa.Text(),
            nullable=False,
            comment="changes when the host restarts: its flight recorders are then void",
        ),
        sa.Column("recorder", sa.Text(), nullable=False, comment="path of the flight recorder on that host"),
        sa.Column("claimed_at", INSTANT, nullable=False),
        sa.Column("lease_until", INSTANT, nullable=False, comment="on the database's clock"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claims")),
        comment="chunks in workers' hands; the id is the fencing token, so it is never reused",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "imports",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("counts", DOCUMENT, server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.create_table(
        "inbox",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="digest of source and content: duplicates fall away"),
        sa.Column("source", sa.Text(), nullable=False, comment="bounce, or gateway:<name>"),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("meta", DOCUMENT, server_default="{}", nullable=False, comment="envelope, headers, query"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="new, done, unclassified or rejected"),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("processed_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox")),
        sa.UniqueConstraint("key", name=op.f("uq_inbox_key")),
        comment="what came in, kept raw before anyone reads it",
    )
    op.create_index(
        "ix_inbox_new",
        "inbox",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'new'"),
        postgresql_where=sa.text("state = 'new'"),
    )
    op.create_table(
        "lanes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "closed_until",
            INSTANT,
            nullable=True,
            comment="no claims before this instant: the gateway refused as a whole",
        ),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False, comment="refusals in a row"),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lanes")),
        comment="circuit breaker of each gateway; costs no message an attempt",
    )
    op.create_table(
        "links",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_links")),
        sa.UniqueConstraint("digest", name=op.f("uq_links_digest")),
        comment="registered targets: a click leads to one of these and nowhere else",
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "products",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the source's own key; imports upsert on it"),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("price_minor", sa.BigInteger(), nullable=True),
        sa.Column("cost_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("attributes", DOCUMENT, server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
        sa.UniqueConstraint("external_id", name=op.f("uq_products_external_id")),
    )
    op.create_table(
        "rate_windows",
        sa.Column("key", sa.Text(), nullable=False, comment="campaign:<id> or lane:<name>"),
        sa.Column("starts_at", INSTANT, nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", "starts_at", name=op.f("pk_rate_windows")),
    )
    op.create_table(
        "rfm_runs",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("computed_at", INSTANT, nullable=False),
        sa.Column("options", DOCUMENT, nullable=False),
        sa.Column("cutoffs", DOCUMENT, nullable=False),
        sa.Column("warnings", DOCUMENT, nullable=False),
        sa.Column("scored", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rfm_runs")),
        comment="each scoring, with its frozen cut-offs",
    )
    op.create_table(
        "segments",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("definition", DOCUMENT, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("refreshed_at", INSTANT, nullable=True),
        sa.Column("size", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
        sa.UniqueConstraint("name", name=op.f("uq_segments_name")),
    )
    op.create_table(
        "suppressions",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False, comment="e-mail in lower case, or E.164"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("message_id", ID, nullable=True, comment="the message that led to it, if any"),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("channel", "address", name=op.f("pk_suppressions")),
    )
    op.create_table(
        "campaign_versions",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="counts from 1"),
        sa.Column("digest", sa.Text(), nullable=False, comment="over the spec and every file it uses"),
        sa.Column("spec", DOCUMENT, nullable=False, comment="the campaign file, validated"),
        sa.Column("files", DOCUMENT, nullable=False, comment="templates by path, as text"),
        sa.Column("segments", DOCUMENT, nullable=False, comment="definitions of every segment it uses, by name"),
        sa.Column("applied_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_campaign_versions_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign_versions")),
        sa.UniqueConstraint("campaign_id", "number", name=op.f("uq_campaign_versions_campaign_id_number")),
    )
    op.create_table(
        "contacts",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the source's own key; imports upsert on it"),
        sa.Column("account_id", ID, nullable=True),
        sa.Column("email", sa.Text(), nullable=True, comment="as sent to: domain in lower-case A-labels"),
        sa.Column("phone", sa.Text(), nullable=True, comment="E.164"),
        sa.Column("first_name", sa.Text(), server_default="", nullable=False),
        sa.Column("last_name", sa.Text(), server_default="", nullable=False),
        sa.Column("role", sa.Text(), nullable=True, comment="buyer, finance, owner, … in the shop's own words"),
        sa.Column("timezone", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("attributes", DOCUMENT, server_default="{}", nullable=False),
        sa.Column("created_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_contacts_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contacts")),
        sa.UniqueConstraint("external_id", name=op.f("uq_contacts_external_id")),
    )
    op.create_index(op.f("ix_contacts_account_id"), "contacts", ["account_id"], unique=False)
    op.create_index("ix_contacts_email_lower", "contacts", [sa.text("lower(email)")], unique=False)
    op.create_index(op.f("ix_contacts_phone"), "contacts", ["phone"], unique=False)
    op.create_table(
        "holdouts",
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_holdouts_account_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_holdouts_campaign_id")),
        sa.PrimaryKeyConstraint("campaign_id", "account_id", name=op.f("pk_holdouts")),
        comment="accounts not sent to, so that lift can be measured; drawn by a lasting hash",
    )
    op.create_table(
        "reports",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("recipients", DOCUMENT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="planned, sending, sent, failed or in_doubt"),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("sent_at", INSTANT, nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_reports_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
        sa.UniqueConstraint("campaign_id", "due_at", name=op.f("uq_reports_campaign_id_due_at")),
    )
    op.create_table(
        "rfm_scores",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("r", sa.Integer(), nullable=False),
        sa.Column("f", sa.Integer(), nullable=False),
        sa.Column("m", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("recency_days", sa.Integer(), nullable=False),
        sa.Column("frequency", sa.Integer(), nullable=False),
        sa.Column("monetary_minor", sa.BigInteger(), nullable=False),
        sa.Column("previous_segment", sa.Text(), nullable=True),
        sa.Column("since", INSTANT, nullable=False, comment="when the present segment was entered"),
        sa.ForeignKeyConstraint(["run_id"], ["rfm_runs.id"], name=op.f("fk_rfm_scores_run_id")),
        sa.PrimaryKeyConstraint("subject", "subject_id", name=op.f("pk_rfm_scores")),
        comment="the current scores; who never bought has no row",
    )
    op.create_index(op.f("ix_rfm_scores_subject_segment"), "rfm_scores", ["subject", "segment"], unique=False)
    op.create_table(
        "segment_members",
        sa.Column("segment_id", ID, nullable=False),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_segment_members_segment_id")),
        sa.PrimaryKeyConstraint("segment_id", "subject_id", name=op.f("pk_segment_members")),
    )
    op.create_table(
        "stock_levels",
        sa.Column("product_id", ID, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("on_hand", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], name=op.f("fk_stock_levels_product_id")),
        sa.PrimaryKeyConstraint("product_id", "at", name=op.f("pk_stock_levels")),
    )
    op.create_table(
        "consent_events",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("contact_id", ID, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("source", sa.Text(), server_default="", nullable=False),
        sa.Column("wording", sa.Text(), server_default="", nullable=False, comment="what the person agreed to"),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_consent_events_contact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent_events")),
        sa.UniqueConstraint(
            "contact_id", "channel", "at", "status", name=op.f("uq_consent_events_contact_id_channel_at_status")
        ),
        comment="every word ever given, as evidence",
    )
    op.create_table(
        "consents",
        sa.Column("contact_id", ID, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False, comment="granted or withdrawn: the latest word"),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("source", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_consents_contact_id")),
        sa.PrimaryKeyConstraint("contact_id", "channel", name=op.f("pk_consents")),
    )
    op.create_table(
        "events",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the source's own key; imports upsert on it"),
        sa.Column("account_id", ID, nullable=True),
        sa.Column("contact_id", ID, nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("value_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("properties", DOCUMENT, server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_events_account_id")),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_events_contact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("external_id", name=op.f("uq_events_external_id")),
    )
    op.create_index(op.f("ix_events_account_id_name_at"), "events", ["account_id", "name", "at"], unique=False)
    op.create_index(op.f("ix_events_contact_id_name_at"), "events", ["contact_id", "name", "at"], unique=False)
    op.create_table(
        "opportunities",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the source's own key; imports upsert on it"),
        sa.Column("account_id", ID, nullable=True),
        sa.Column("contact_id", ID, nullable=True),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("stage", sa.Text(), nullable=False, comment="the latest stage"),
        sa.Column("stage_at", INSTANT, nullable=False),
        sa.Column("value_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_opportunities_account_id")),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_opportunities_contact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_opportunities")),
        sa.UniqueConstraint("external_id", name=op.f("uq_opportunities_external_id")),
    )
    op.create_index(op.f("ix_opportunities_account_id"), "opportunities", ["account_id"], unique=False)
    op.create_table(
        "orders",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the source's own key; imports upsert on it"),
        sa.Column("account_id", ID, nullable=True, comment="null: the source named no customer"),
        sa.Column("contact_id", ID, nullable=True),
        sa.Column("ordered_at", INSTANT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="order, return, cancellation or adjustment"),
        sa.Column("net_minor", sa.BigInteger(), nullable=False, comment="negative on returns and cancellations"),
        sa.Column("gross_minor", sa.BigInteger(), nullable=False, comment="sum of the lines with positive quantity"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("cancelled_at", INSTANT, nullable=True, comment="from this instant on the order counts as nothing"),
        sa.Column("imported_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_orders_account_id")),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_orders_contact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("external_id", name=op.f("uq_orders_external_id")),
    )
    op.create_index(op.f("ix_orders_contact_id"), "orders", ["contact_id"], unique=False)
    op.create_index(op.f("ix_orders_ordered_at"), "orders", ["ordered_at"], unique=False)
    op.create_index(
        "ix_orders_rfm",
        "orders",
        ["account_id", "ordered_at", "kind", "net_minor", "gross_minor", "cancelled_at", "currency"],
        unique=False,
    )
    op.create_table(
        "runs",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("version_id", ID, nullable=False),
        sa.Column("scheduled_for", INSTANT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("fired_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_runs_campaign_id")),
        sa.ForeignKeyConstraint(["version_id"], ["campaign_versions.id"], name=op.f("fk_runs_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("campaign_id", "scheduled_for", name=op.f("uq_runs_campaign_id_scheduled_for")),
        comment="one firing of a campaign; the unique key is what makes any number of schedulers safe",
    )
    op.create_table(
        "enrollments",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("contact_id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=True),
        sa.Column("segment", sa.Text(), nullable=False, comment="the audience segment the contact came in by"),
        sa.Column("rfm_segment", sa.Text(), nullable=True, comment="the account's RFM group when the run fired"),
        sa.Column("variant", sa.Text(), nullable=True),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("skip_reason", sa.Text(), nullable=True, comment="why no step of this run is for this contact"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_enrollments_account_id")),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_enrollments_contact_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_enrollments_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrollments")),
        sa.UniqueConstraint("run_id", "contact_id", name=op.f("uq_enrollments_run_id_contact_id")),
    )
    op.create_index(op.f("ix_enrollments_account_id"), "enrollments", ["account_id"], unique=False)
    op.create_index(op.f("ix_enrollments_contact_id"), "enrollments", ["contact_id"], unique=False)
    op.create_table(
        "opportunity_stages",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("opportunity_id", ID, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("entered_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["opportunity_id"], ["opportunities.id"], name=op.f("fk_opportunity_stages_opportunity_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_opportunity_stages")),
        sa.UniqueConstraint(
            "opportunity_id", "stage", "entered_at", name=op.f("uq_opportunity_stages_opportunity_id_stage_entered_at")
        ),
    )
    op.create_index(op.f("ix_opportunity_stages_entered_at"), "opportunity_stages", ["entered_at"], unique=False)
    op.create_table(
        "order_lines",
        sa.Column("order_id", ID, nullable=False),
        sa.Column("line", sa.Integer(), nullable=False, comment="counts from 1 in the order of the source"),
        sa.Column("product_id", ID, nullable=True),
        sa.Column("quantity", sa.Float(), nullable=False),
        sa.Column("net_minor", sa.BigInteger(), nullable=False),
        sa.Column("cost_minor", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_lines_order_id")),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], name=op.f("fk_order_lines_product_id")),
        sa.PrimaryKeyConstraint("order_id", "line", name=op.f("pk_order_lines")),
    )
    op.create_index(op.f("ix_order_lines_product_id"), "order_lines", ["product_id"], unique=False)
    op.create_table(
        "messages",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False, comment="position in the campaign's steps, from 1"),
        sa.Column("enrollment_id", ID, nullable=False),
        sa.Column("contact_id", ID, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False, comment="name of the gateway it is to leave by"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="why it was skipped or failed"),
        sa.Column("planned_for", INSTANT, nullable=False, comment="when it was first due: its age counts from here"),
        sa.Column("due_at", INSTANT, nullable=False, comment="when it is due next; waits and retries move it"),
        sa.Column(
            "attempts",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="tries that reached the gateway and were put off",
        ),
        sa.Column("claim_id", ID, nullable=True, comment="fencing token: only its holder may write"),
        sa.Column("address", sa.Text(), nullable=True, comment="where it was sent"),
        sa.Column("parts", sa.Integer(), nullable=True, comment="SMS parts"),
        sa.Column(
            "cost_micro",
            sa.BigInteger(),
            nullable=True,
            comment="what the gateway charges, in millionths of the workspace's currency; null: no price",
        ),
        sa.Column("gateway_id", sa.Text(), nullable=True, comment="the gateway's own id"),
        sa.Column("reply", sa.Text(), nullable=True, comment="the gateway's last word"),
        sa.Column("sent_at", INSTANT, nullable=True, comment="when the gateway took it over"),
        sa.Column("ended_at", INSTANT, nullable=True, comment="when it reached its present end"),
        sa.CheckConstraint(
            "(state IN ('claimed', 'sending')) = (claim_id IS NOT NULL)", name=op.f("ck_messages_claimed_has_token")
        ),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_messages_contact_id")),
        sa.ForeignKeyConstraint(["enrollment_id"], ["enrollments.id"], name=op.f("fk_messages_enrollment_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_messages_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("run_id", "step", "contact_id", name=op.f("uq_messages_run_id_step_contact_id")),
        comment="the ledger: one row per planned message; rows never vanish",
    )
    op.create_index(
        "ix_messages_claim_id",
        "messages",
        ["claim_id"],
        unique=False,
        sqlite_where=sa.text("claim_id IS NOT NULL"),
        postgresql_where=sa.text("claim_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_messages_contact_id_channel_sent_at"), "messages", ["contact_id", "channel", "sent_at"], unique=False
    )
    op.create_index(
        "ix_messages_due",
        "messages",
        ["lane", "due_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'planned'"),
        postgresql_where=sa.text("state = 'planned'"),
    )
    op.create_index(
        "ix_messages_gateway_id",
        "messages",
        ["lane", "gateway_id"],
        unique=False,
        sqlite_where=sa.text("gateway_id IS NOT NULL"),
        postgresql_where=sa.text("gateway_id IS NOT NULL"),
    )
    op.create_index(
        "ix_messages_pending",
        "messages",
        ["run_id"],
        unique=False,
        sqlite_where=sa.text("state IN ('planned', 'claimed', 'sending')"),
        postgresql_where=sa.text("state IN ('planned', 'claimed', 'sending')"),
    )
    op.create_table(
        "message_events",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="makes replays harmless"),
        sa.Column("message_id", ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_message_events_message_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_events")),
        sa.UniqueConstraint("key", name=op.f("uq_message_events_key")),
    )
    op.create_index(op.f("ix_message_events_message_id_kind"), "message_events", ["message_id", "kind"], unique=False)
    op.create_table(
        "touches",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("message_id", ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("link_id", ID, nullable=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reasons", sa.Text(), server_default="", nullable=False, comment="rules that spoke, comma-separated"),
        sa.ForeignKeyConstraint(["link_id"], ["links.id"], name=op.f("fk_touches_link_id")),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_touches_message_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_touches")),
        comment="every hit, raw; the verdict may be revised",
    )
    op.create_index(op.f("ix_touches_ip_at"), "touches", ["ip", "at"], unique=False)
    op.create_index(op.f("ix_touches_message_id_kind"), "touches", ["message_id", "kind"], unique=False)
    op.create_table(
        "conversions",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source_id", ID, nullable=False, comment="id of the order, stage row or event"),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("account_id", ID, nullable=True),
        sa.Column("value_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("campaign_id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("message_id", ID, nullable=False),
        sa.Column("touch_id", ID, nullable=True, comment="null where being sent the message was the touch"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_conversions_account_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_conversions_campaign_id")),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_conversions_message_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_conversions_run_id")),
        sa.ForeignKeyConstraint(["touch_id"], ["touches.id"], name=op.f("fk_conversions_touch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversions")),
        sa.UniqueConstraint("kind", "source_id", name=op.f("uq_conversions_kind_source_id")),
        comment="each order, stage or event credited once, to the last touch",
    )
    op.create_index(op.f("ix_conversions_campaign_id"), "conversions", ["campaign_id"], unique=False)
    op.create_index(op.f("ix_conversions_run_id"), "conversions", ["run_id"], unique=False)
