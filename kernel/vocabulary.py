"""Closed sets of words used in code, tables, CLI and docs (see docs/glossary.md)."""

from __future__ import annotations

from enum import StrEnum


class Channel(StrEnum):
    EMAIL = "email"
    SMS = "sms"


class Subject(StrEnum):
    """What a segment or a score is about."""

    ACCOUNT = "account"
    CONTACT = "contact"


class MessageState(StrEnum):
    """States of the ledger; see docs/architecture.md for the transitions."""

    PLANNED = "planned"
    CLAIMED = "claimed"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    SKIPPED = "skipped"
    HELD_OUT = "held_out"


ACCEPTED_STATES = (MessageState.SENT, MessageState.DELIVERED, MessageState.BOUNCED, MessageState.COMPLAINED)
"""States of a message that a gateway took over: what reports call `sent`."""

PENDING_STATES = (MessageState.PLANNED, MessageState.CLAIMED, MessageState.SENDING)


class SkipReason(StrEnum):
    """Why a person of the audience gets no message."""

    EXCLUDED = "excluded"
    ACCOUNT_LIMIT = "account_limit"
    NO_ADDRESS = "no_address"
    INVALID_ADDRESS = "invalid_address"
    DUPLICATE_ADDRESS = "duplicate_address"
    NO_CONSENT = "no_consent"
    SUPPRESSED = "suppressed"
    FREQUENCY_CAP = "frequency_cap"
    CONVERTED = "converted"
    STEP_CONDITION = "step_condition"
    TOO_LATE = "too_late"
    CANCELLED = "cancelled"
    CONTACT_DELETED = "contact_deleted"


class FailReason(StrEnum):
    """Why a message that was to be sent never will be."""

    TEMPLATE_ERROR = "template_error"
    REFUSED = "refused"
    RETRIES_EXHAUSTED = "retries_exhausted"


class CampaignState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class RunState(StrEnum):
    """`open` until every message has ended; `missed` where catch_up left the slot out."""

    OPEN = "open"
    DONE = "done"
    CANCELLED = "cancelled"
    MISSED = "missed"


class TouchKind(StrEnum):
    """`page`: somebody or something looked at the unsubscribe or preference page; it counts as neither other."""

    OPEN = "open"
    CLICK = "click"
    PAGE = "page"


class Verdict(StrEnum):
    """Who made a touch."""

    HUMAN = "human"
    MACHINE = "machine"
    UNKNOWN = "unknown"


class MessageEventKind(StrEnum):
    """What came back about one message, beside touches; the last three we say ourselves."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    BOUNCED = "bounced"
    SOFT_BOUNCED = "soft_bounced"
    MAILBOX_FULL = "mailbox_full"
    BLOCKED = "blocked"
    DELAYED = "delayed"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    REPLIED = "replied"
    UNCLASSIFIED = "unclassified"
    SETTLED = "settled"
    """A doubt ended by somebody's word or by a gateway's log; the detail says how and by whom."""
    RESENT = "resent"
    """Planned again while in doubt: the person may get it twice."""
    MOVED = "moved"
    """Planned for another gateway of its route, because its own stayed closed, or to try one that was."""


class SuppressionReason(StrEnum):
    """Why an address is not sent to; the last two end by themselves."""

    UNSUBSCRIBE = "unsubscribe"
    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    STOP = "stop"
    MANUAL = "manual"
    SOFT_BOUNCE = "soft_bounce"
    MAILBOX_FULL = "mailbox_full"


class SuppressionAction(StrEnum):
    """What a word about a suppression does."""

    ADDED = "added"
    LIFTED = "lifted"


class ConsentStatus(StrEnum):
    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


class OrderKind(StrEnum):
    """Only `order` counts towards frequency and recency; all are netted for money."""

    ORDER = "order"
    RETURN = "return"
    CANCELLATION = "cancellation"
    ADJUSTMENT = "adjustment"


class GoalKind(StrEnum):
    ORDER = "order"
    OPPORTUNITY_STAGE = "opportunity_stage"
    EVENT = "event"


RFM_SEGMENTS = (
    "champions",
    "loyal_customers",
    "potential_loyalists",
    "new_customers",
    "promising",
    "need_attention",
    "about_to_sleep",
    "at_risk",
    "cant_lose",
    "hibernating",
)
"""The ten groups of the R×F grid, best first."""
