"""Whether a suppression still holds: the one expression every reader of `suppressions` uses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_

from kernel.vocabulary import SuppressionReason
from store.tables import suppressions

WEIGHTS: dict[SuppressionReason, int] = {
    SuppressionReason.SOFT_BOUNCE: 1,
    SuppressionReason.MAILBOX_FULL: 2,
    SuppressionReason.UNSUBSCRIBE: 3,
    SuppressionReason.STOP: 4,
    SuppressionReason.HARD_BOUNCE: 5,
    SuppressionReason.COMPLAINT: 6,
    SuppressionReason.MANUAL: 7,
}
"""Where an address is suppressed for several reasons, which one is told: the heaviest."""


def standing(now: datetime | ColumnElement[Any]) -> ColumnElement[bool]:
    """Return whether a row of `suppressions` holds at an instant; one that has expired does not."""
    return or_(suppressions.c.expires_at.is_(None), suppressions.c.expires_at > now)
