"""Every table, with a comment per column that needs one. Migrations must give the same database (a test)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from kernel.vocabulary import MessageState
from store.references import guard_from_parents
from store.types import Document, Id, Instant

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", Id, primary_key=True, autoincrement=True)


def _external_id() -> Column[str]:
    return Column(
        "external_id", Text, nullable=False, unique=True, comment="the source's own key; imports upsert on it"
    )


# --- facts -------------------------------------------------------------------------------------------------

accounts = Table(
    "accounts",
    metadata,
    _id(),
    _external_id(),
    Column("name", Text, nullable=False, server_default=""),
    Column("parent_id", Id, ForeignKey("accounts.id"), comment="the account this one belongs to"),
    Column("country", Text, comment="ISO 3166-1 alpha-2"),
    Column("timezone", Text, comment="IANA zone; contacts inherit it"),
    Column("language", Text, comment="BCP 47; contacts inherit it"),
    Column("attributes", Document, nullable=False, server_default="{}"),
    Column("created_at", Instant),
    Index(None, "parent_id"),
)

contacts = Table(
    "contacts",
    metadata,
    _id(),
    _external_id(),
    Column("account_id", Id, ForeignKey("accounts.id")),
    Column("email", Text, comment="as sent to: domain in lower-case A-labels"),
    Column("phone", Text, comment="E.164"),
    Column("first_name", Text, nullable=False, server_default=""),
    Column("last_name", Text, nullable=False, server_default=""),
    Column("role", Text, comment="buyer, finance, owner, … in the shop's own words"),
    Column("timezone", Text),
    Column("language", Text),
    Column("attributes", Document, nullable=False, server_default="{}"),
    Column("created_at", Instant),
    Index(None, "account_id"),
    # Addresses are compared in lower case: two spellings of one mailbox get one message.
    Index("ix_contacts_email_lower", text("lower(email)")),
    Index(None, "phone"),
)

consents = Table(
    "consents",
    metadata,
    Column("contact_id", Id, ForeignKey("contacts.id"), primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("status", Text, nullable=False, comment="granted or withdrawn: the latest word"),
    Column("at", Instant, nullable=False),
    Column("source", Text, nullable=False, server_default=""),
)

consent_events = Table(
    "consent_events",
    metadata,
    _id(),
    Column("contact_id", Id, ForeignKey("contacts.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("source", Text, nullable=False, server_default=""),
    Column("wording", Text, nullable=False, server_default="", comment="what the person agreed to"),
    UniqueConstraint("contact_id", "channel", "at", "status"),
    comment="every word ever given, as evidence",
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("address", Text, primary_key=True, comment="e-mail in lower case, or E.164"),
    Column("reason", Text, primary_key=True, comment="each reason stands and is lifted by itself"),
    Column("at", Instant, nullable=False, comment="since when; of a hard bounce the latest"),
    Column("expires_at", Instant, comment="no longer holds from then on; null: for ever"),
    Column(
        "counted_from", Instant, comment="the first of the soft bounces that led to it; a sign of life later lifts it"
    ),
    Column("message_id", Id, comment="the message that led to it, if any"),
    Column("detail", Text, nullable=False, server_default=""),
    comment="what stands now; readers ask store.standing whether it still holds",
)

suppression_words = Table(
    "suppression_words",
    metadata,
    _id(),
    Column("key", Text, nullable=False, unique=True, comment="makes replays harmless"),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("action", Text, nullable=False, comment="added or lifted"),
    Column("at", Instant, nullable=False),
    Column("expires_at", Instant, comment="of one added for a time"),
    Column("said_by", Text, nullable=False, server_default="", comment="who or what said so"),
    Column("message_id", Id, comment="the message that led to it, if any"),
    Column("detail", Text, nullable=False, server_default=""),
    Index(None, "channel", "address"),
    comment="every word that added or lifted a suppression, as evidence",
)

products = Table(
    "products",
    metadata,
    _id(),
    _external_id(),
    Column("name", Text, nullable=False, server_default=""),
    Column("category", Text),
    Column("price_minor", BigInteger),
    Column("cost_minor", BigInteger),
    Column("currency", Text),
    Column("attributes", Document, nullable=False, server_default="{}"),
)

stock_levels = Table(
    "stock_levels",
    metadata,
    Column("product_id", Id, ForeignKey("products.id"), primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("on_hand", Float, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    _id(),
    _external_id(),
    Column("account_id", Id, ForeignKey("accounts.id"), comment="null: the source named no customer"),
    Column("contact_id", Id, ForeignKey("contacts.id")),
    Column("ordered_at", Instant, nullable=False),
    Column("kind", Text, nullable=False, comment="order, return, cancellation or adjustment"),
    Column("net_minor", BigInteger, nullable=False, comment="negative on returns and cancellations"),
    Column("gross_minor", BigInteger, nullable=False, comment="sum of the lines with positive quantity"),
    Column("currency", Text, nullable=False),
    Column("cancelled_at", Instant, comment="from this instant on the order counts as nothing"),
    Column("imported_at", Instant),
    Index("ix_orders_rfm", "account_id", "ordered_at", "kind", "net_minor", "gross_minor", "cancelled_at", "currency"),
    Index(None, "ordered_at"),
    Index(None, "contact_id"),
    Index(
        "ix_orders_cancelled_at",
        "cancelled_at",
        sqlite_where=text("cancelled_at IS NOT NULL"),
        postgresql_where=text("cancelled_at IS NOT NULL"),
    ),
)

order_lines = Table(
    "order_lines",
    metadata,
    Column("order_id", Id, ForeignKey("orders.id"), primary_key=True),
    Column("line", Integer, primary_key=True, comment="counts from 1 in the order of the source"),
    Column("product_id", Id, ForeignKey("products.id")),
    Column("quantity", Float, nullable=False),
    Column("net_minor", BigInteger, nullable=False),
    Column("cost_minor", BigInteger),
    Index(None, "product_id"),
)

opportunities = Table(
    "opportunities",
    metadata,
    _id(),
    _external_id(),
    Column("account_id", Id, ForeignKey("accounts.id")),
    Column("contact_id", Id, ForeignKey("contacts.id")),
    Column("name", Text, nullable=False, server_default=""),
    Column("stage", Text, nullable=False, comment="the latest stage"),
    Column("stage_at", Instant, nullable=False),
    Column("value_minor", BigInteger),
    Column("currency", Text),
    Index(None, "account_id"),
)

opportunity_stages = Table(
    "opportunity_stages",
    metadata,
    _id(),
    Column("opportunity_id", Id, ForeignKey("opportunities.id"), nullable=False),
    Column("stage", Text, nullable=False),
    Column("entered_at", Instant, nullable=False),
    UniqueConstraint("opportunity_id", "stage", "entered_at"),
    Index(None, "entered_at"),
)

events = Table(
    "events",
    metadata,
    _id(),
    _external_id(),
    Column("account_id", Id, ForeignKey("accounts.id")),
    Column("contact_id", Id, ForeignKey("contacts.id")),
    Column("name", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("value_minor", BigInteger),
    Column("currency", Text),
    Column("properties", Document, nullable=False, server_default="{}"),
    Index(None, "account_id", "name", "at"),
    Index(None, "contact_id", "name", "at"),
    Index(None, "at"),
)

imports = Table(
    "imports",
    metadata,
    _id(),
    Column("source", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("counts", Document, nullable=False, server_default="{}"),
)

# --- segments ----------------------------------------------------------------------------------------------

models = Table(
    "models",
    metadata,
    _id(),
    Column("kind", Text, nullable=False, comment="rfm, clusters or lifetime"),
    Column("subject", Text, nullable=False),
    Column("version", Integer, nullable=False, comment="counts from 1 per kind and subject"),
    Column("as_of", Instant, nullable=False, comment="what happened before it was fitted on"),
    Column("fitted_at", Instant, nullable=False),
    Column("fitted_on", Integer, nullable=False, comment="how many subjects"),
    Column("options", Document, nullable=False, comment="the settings it was fitted with"),
    Column("parameters", Document, nullable=False, comment="cut-offs, centroids or distribution, frozen"),
    Column("report", Document, nullable=False, server_default="{}", comment="how good it is; warnings"),
    Column("state", Text, nullable=False, comment="active, held (waits for approval), retired or refused"),
    Column("note", Text, nullable=False, server_default="", comment="why it is held or refused; who approved it"),
    UniqueConstraint("kind", "subject", "version"),
    comment="each fit of a model: scores and labels name the one they come from",
)

profiles = Table(
    "profiles",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("subject_id", Id, primary_key=True),
    Column("scored_as", Id, nullable=False, comment="whose figures these are: the account itself, or its parent"),
    Column("scored_at", Instant, nullable=False, comment="as of when"),
    Column("first_order_at", Instant, nullable=False),
    Column("last_order_at", Instant, nullable=False),
    Column("orders", Integer, nullable=False),
    Column("days", Integer, nullable=False, comment="distinct UTC days with an order"),
    Column("net_minor", BigInteger, nullable=False, comment="net of returns: historic lifetime value"),
    Column("returned_minor", BigInteger, nullable=False, comment="never negative"),
    Column("median_gap_days", Float, comment="between days with an order; null below three of them"),
    Column("products", Integer, comment="distinct products bought; null where no lines are known"),
    Column(
        "rfm_model_id", Id, comment="of models; no foreign key: checking a million rows costs more than writing them"
    ),
    Column("r", Integer),
    Column("f", Integer),
    Column("m", Integer),
    Column("frequency", Integer, comment="orders that count for F: within the window, where there is one"),
    Column("monetary_minor", BigInteger, comment="what M is scored by"),
    Column("rfm_segment", Text, comment="the RFM group; null: bought, but not within the window"),
    Column("previous_rfm_segment", Text, comment="the latest different one"),
    Column("rfm_since", Instant, comment="when the present group was entered"),
    Column("rfm_moved_by", Text, comment="own_action, time, cutoff or new"),
    Column("cluster_model_id", Id),
    Column("cluster", Text, comment="the cluster's lasting key"),
    Column("previous_cluster", Text),
    Column("cluster_since", Instant),
    Column("lifetime_model_id", Id),
    Column("p_alive", Float, comment="probability that the subject still buys"),
    Column("expected_orders", Float, comment="within the horizon"),
    Column("order_value_minor", BigInteger, comment="expected net value of an order"),
    Column("clv_minor", BigInteger, comment="discounted contribution within the horizon"),
    Column("next_order_at", Instant, comment="expected"),
    comment="what the models say of each buyer now; who never bought has no row",
    sqlite_with_rowid=False,
)

segments = Table(
    "segments",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("subject", Text, nullable=False),
    Column("definition", Document, nullable=False),
    Column("digest", Text, nullable=False),
    Column("refreshed_at", Instant),
    Column("size", Integer),
)

segment_members = Table(
    "segment_members",
    metadata,
    Column("segment_id", Id, primary_key=True, comment="of segments; without a foreign key, as in profiles"),
    Column("subject_id", Id, primary_key=True),
    Column("valid_from", Instant, primary_key=True, comment="when the subject entered"),
    Column("valid_to", Instant, comment="when it left; null: it is a member"),
    comment="every stay in a segment: entering and leaving are rows",
    sqlite_with_rowid=False,
)

changes = Table(
    "changes",
    metadata,
    _id(),
    Column("subject", Text, nullable=False),
    Column("subject_ids", LargeBinary, nullable=False, comment="64-bit little-endian integers"),
    comment="whom new facts touched since segments were last evaluated; a refresh takes the rows away",
)

exported_addresses = Table(
    "exported_addresses",
    metadata,
    Column("segment", Text, primary_key=True),
    Column("layout", Text, primary_key=True),
    Column("digest", Text, primary_key=True, comment="SHA-256 of the normalised address or phone"),
    Column("kind", Text, nullable=False, comment="email or phone"),
    Column("exported_at", Instant, nullable=False),
    comment="what an advertising platform holds of a segment, so that the next export can name whom to remove",
)

spend = Table(
    "spend",
    metadata,
    _id(),
    _external_id(),
    Column("channel", Text, nullable=False, comment="where the money went, as ads or fair"),
    Column("starts_at", Instant, nullable=False),
    Column("ends_at", Instant, nullable=False, comment="exclusive"),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    comment="marketing and sales cost, for what a new customer costs",
)

# --- campaigns ---------------------------------------------------------------------------------------------

campaigns = Table(
    "campaigns",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("state_reason", Text, nullable=False, server_default=""),
    Column("version_id", Id, comment="the applied version new runs are pinned to"),
    Column("watched_from", Instant, comment="guardrails count what was sent from here; null: all of a run"),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
)

campaign_versions = Table(
    "campaign_versions",
    metadata,
    _id(),
    Column("campaign_id", Id, ForeignKey("campaigns.id"), nullable=False),
    Column("number", Integer, nullable=False, comment="counts from 1"),
    Column("digest", Text, nullable=False, comment="over the spec and every file it uses"),
    Column("spec", Document, nullable=False, comment="the campaign file, validated"),
    Column("files", Document, nullable=False, comment="templates by path, as text"),
    Column("segments", Document, nullable=False, comment="definitions of every segment it uses, by name"),
    Column("applied_at", Instant, nullable=False),
    UniqueConstraint("campaign_id", "number"),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    Column("campaign_id", Id, ForeignKey("campaigns.id"), nullable=False),
    Column("version_id", Id, ForeignKey("campaign_versions.id"), nullable=False),
    Column("scheduled_for", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("fired_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column(
        "canary_wait_ms",
        BigInteger,
        comment="how long after its canary the rest waits; null: no canary, or the rest has been let go",
    ),
    UniqueConstraint("campaign_id", "scheduled_for"),
    Index(
        "ix_runs_unfinished",
        "campaign_id",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    comment="one firing of a campaign; the unique key is what makes any number of schedulers safe",
)

enrollments = Table(
    "enrollments",
    metadata,
    _id(),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("contact_id", Id, ForeignKey("contacts.id"), nullable=False),
    Column("account_id", Id, ForeignKey("accounts.id")),
    Column("segment", Text, nullable=False, comment="the audience segment the contact came in by"),
    Column("rfm_segment", Text, comment="the account's RFM group when the run fired"),
    Column("variant", Text),
    Column("held_out", Boolean, nullable=False),
    Column("skip_reason", Text, comment="why no step of this run is for this contact"),
    UniqueConstraint("run_id", "contact_id"),
    Index(None, "contact_id"),
    Index(None, "account_id"),
)

# --- the ledger --------------------------------------------------------------------------------------------

_PENDING = "ended_at IS NULL"
"""Not by its state, which a claim changes: docs/decisions/0017 tells what an index costs whose condition names it."""

messages = Table(
    "messages",
    metadata,
    _id(),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("step", Integer, nullable=False, comment="position in the campaign's steps, from 1"),
    Column("enrollment_id", Id, ForeignKey("enrollments.id"), nullable=False),
    Column("contact_id", Id, ForeignKey("contacts.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("lane", Text, nullable=False, comment="name of the gateway it is to leave by"),
    Column("state", Text, nullable=False),
    Column("reason", Text, comment="why it was skipped or failed"),
    Column("planned_for", Instant, nullable=False, comment="when it was first due: its age counts from here"),
    Column("due_at", Instant, nullable=False, comment="when it is due next; waits and retries move it"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default="0",
        comment="tries that reached the gateway and were put off",
    ),
    Column(
        "resends",
        Integer,
        nullable=False,
        server_default="0",
        comment="times it was sent again while in doubt: so many copies more may have been accepted",
    ),
    Column("claim_id", Id, comment="fencing token: only its holder may write"),
    Column("address", Text, comment="where it was sent"),
    Column("parts", Integer, comment="SMS parts"),
    Column(
        "cost_micro",
        BigInteger,
        comment="what the gateway charges, in millionths of the workspace's currency; null: no price",
    ),
    Column("gateway_id", Text, comment="the gateway's own id"),
    Column("reply", Text, comment="the gateway's last word"),
    Column("sent_at", Instant, comment="when the gateway took it over"),
    Column("ended_at", Instant, comment="when it reached its present end"),
    UniqueConstraint("run_id", "step", "contact_id"),
    Index(
        "ix_messages_due",
        "lane",
        "run_id",
        "due_at",
        "id",
        sqlite_where=text(f"state = '{MessageState.PLANNED}'"),
        postgresql_where=text(_PENDING),
    ),
    Index(None, "contact_id"),
    Index(
        "ix_messages_pending",
        "run_id",
        sqlite_where=text(_PENDING),
        postgresql_where=text(_PENDING),
    ),
    Index(
        "ix_messages_gateway_id",
        "lane",
        "gateway_id",
        sqlite_where=text("gateway_id IS NOT NULL"),
        postgresql_where=text("gateway_id IS NOT NULL"),
    ),
    CheckConstraint("(state IN ('claimed', 'sending')) = (claim_id IS NOT NULL)", name="claimed_has_token"),
    comment="the ledger: one row per planned message; rows never vanish",
    postgresql_with={"fillfactor": 50},  # A claimed row has its place beside the planned one, then no index is written.
)

message_attempts = Table(
    "message_attempts",
    metadata,
    Column("message_id", Id, ForeignKey("messages.id"), primary_key=True),
    Column("number", Integer, primary_key=True, comment="counts from 1 per message"),
    Column("at", Instant, nullable=False, comment="when the gateway answered, or was last heard of"),
    Column("lane", Text, nullable=False),
    Column("claim_id", Id, comment="the claim it was made under; null: made before attempts were kept"),
    Column("ending", Text, nullable=False, comment="accepted, refused, deferred or in_doubt"),
    Column("code", Integer, nullable=False, comment="SMTP or HTTP code; 0: none came"),
    Column("enhanced", Text, nullable=False, comment='RFC 3463 code, as 4.2.2; "" where the gateway gave none'),
    Column("reply", Text, nullable=False, comment="the gateway's words"),
    Column("retry_at", Instant, comment="when a deferred one was to be tried again"),
    Column("recovered", Boolean, nullable=False, comment="told by the flight recorder: its worker was gone"),
    Index(
        "ix_message_attempts_in_doubt",
        "at",
        sqlite_where=text("ending = 'in_doubt'"),
        postgresql_where=text("ending = 'in_doubt'"),
    ),
    comment="every try but a plain acceptance, of which the message's own row tells all",
    sqlite_with_rowid=False,
)

claims = Table(
    "claims",
    metadata,
    _id(),
    Column("lane", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False, comment="changes when the host restarts: its flight recorders are then void"),
    Column("recorder", Text, nullable=False, comment="path of the flight recorder on that host"),
    Column("claimed_at", Instant, nullable=False),
    Column("lease_until", Instant, nullable=False, comment="on the database's clock"),
    Column("sending_at", Instant, comment="from here on its messages may be out; null: nothing has left yet"),
    Column(
        "message_ids",
        LargeBinary,
        comment="64-bit little-endian integers: what it was made for; null: made by an earlier version",
    ),
    comment="chunks in workers' hands; the id is the fencing token, so it is never reused",
    sqlite_autoincrement=True,
)

lanes = Table(
    "lanes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("closed_until", Instant, comment="no claims before this instant: the gateway refused as a whole"),
    Column("closed_since", Instant, comment="when it closed first without having been open since"),
    Column("failures", Integer, nullable=False, server_default="0", comment="refusals in a row"),
    Column(
        "held", Boolean, nullable=False, server_default=false(), comment="closed by command: only a command opens it"
    ),
    Column("reason", Text, nullable=False, server_default=""),
    Column(
        "moved",
        Integer,
        nullable=False,
        server_default="0",
        comment="messages that left by another lane since it closed",
    ),
    Column("waits_until", Instant, comment="when messages over a quota or budget are looked at again"),
    Column("waits_reason", Text, nullable=False, server_default="", comment="which quota or budget that is"),
    comment="circuit breaker of each gateway; costs no message an attempt",
)

rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("key", Text, primary_key=True, comment="lane:<name>, campaign:<id> or domain:<lane>:<domain>"),
    Column("tokens", Float, nullable=False, comment="what may leave at once, as of `at`"),
    Column("at", Instant, nullable=False),
    Column("booked", Instant, nullable=False, comment="up to when turns are given to messages that wait"),
    comment="token buckets for workers that cannot reach Redis; see docs/operations.md",
)

allowances = Table(
    "allowances",
    metadata,
    Column("key", Text, primary_key=True, comment="quota:<lane>:<day>, budget:<whose>:<period>"),
    Column(
        "used", BigInteger, nullable=False, comment="messages, or millionths of the currency; reserved ones included"
    ),
    Column("expires_at", Instant, comment="when its period is over; null: never"),
    comment="what quotas and budgets have left: never more than the limit, whoever dies",
)

reservations = Table(
    "reservations",
    metadata,
    Column("claim_id", Id, primary_key=True, comment="of claims: whoever settles the claim settles this"),
    Column("key", Text, primary_key=True, comment="of allowances"),
    Column("units", Document, nullable=False, comment="what each message of the chunk has taken, by message id"),
    comment="what chunks under way have taken of allowances; what was not sent is given back",
)

links = Table(
    "links",
    metadata,
    _id(),
    Column("digest", Text, nullable=False, unique=True),
    Column("url", Text, nullable=False),
    comment="registered targets: a click leads to one of these and nowhere else",
)

# --- what comes back ---------------------------------------------------------------------------------------

touches = Table(
    "touches",
    metadata,
    _id(),
    Column("message_id", Id, ForeignKey("messages.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("link_id", Id, ForeignKey("links.id")),
    Column("at", Instant, nullable=False),
    Column("method", Text, nullable=False),
    Column("ip", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reasons", Text, nullable=False, server_default="", comment="rules that spoke, comma-separated"),
    Index(None, "message_id", "kind"),
    Index(None, "ip", "at"),
    Index(None, "at"),
    comment="every hit, raw; the verdict may be revised",
)

message_events = Table(
    "message_events",
    metadata,
    _id(),
    Column("key", Text, nullable=False, unique=True, comment="makes replays harmless"),
    Column("message_id", Id, ForeignKey("messages.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    Index(None, "message_id", "kind"),
    Index(None, "at"),
)

inbox = Table(
    "inbox",
    metadata,
    _id(),
    Column("key", Text, nullable=False, unique=True, comment="digest of source and content: duplicates fall away"),
    Column("source", Text, nullable=False, comment="bounce, or gateway:<name>"),
    Column("received_at", Instant, nullable=False),
    Column("meta", Document, nullable=False, server_default="{}", comment="envelope, headers, query"),
    Column("body", LargeBinary, nullable=False),
    Column("state", Text, nullable=False, comment="new, done, unclassified or rejected"),
    Column("note", Text, nullable=False, server_default=""),
    Column("processed_at", Instant),
    Index("ix_inbox_new", "id", sqlite_where=text("state = 'new'"), postgresql_where=text("state = 'new'")),
    comment="what came in, kept raw before anyone reads it",
)

conversions = Table(
    "conversions",
    metadata,
    _id(),
    Column("kind", Text, nullable=False),
    Column("source_id", Id, nullable=False, comment="id of the order, stage row or event"),
    Column("at", Instant, nullable=False),
    Column("account_id", Id, ForeignKey("accounts.id")),
    Column("value_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("campaign_id", Id, ForeignKey("campaigns.id"), nullable=False),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("message_id", Id, ForeignKey("messages.id"), nullable=False),
    Column("touch_id", Id, ForeignKey("touches.id"), comment="null where being sent the message was the touch"),
    UniqueConstraint("kind", "source_id"),
    Index(None, "run_id"),
    Index(None, "campaign_id"),
    comment="each order, stage or event credited once, to the last touch",
)

reports = Table(
    "reports",
    metadata,
    _id(),
    Column("campaign_id", Id, ForeignKey("campaigns.id"), nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("recipients", Document, nullable=False),
    Column("state", Text, nullable=False, comment="planned, sending, sent, failed or in_doubt"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_until", Instant),
    Column("sent_at", Instant),
    Column("note", Text, nullable=False, server_default=""),
    UniqueConstraint("campaign_id", "due_at"),
)

holdouts = Table(
    "holdouts",
    metadata,
    Column("campaign_id", Id, ForeignKey("campaigns.id"), primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), primary_key=True),
    comment="accounts not sent to, so that lift can be measured; drawn by a lasting hash",
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

guard_from_parents(
    metadata,
    enrollments.c.run_id,
    enrollments.c.contact_id,
    enrollments.c.account_id,
    messages.c.enrollment_id,
    # Those of the message's enrollment.
    implied=(messages.c.run_id, messages.c.contact_id),
)
