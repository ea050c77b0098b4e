"""The canary of a run: who goes ahead, drawn anew for each run by a lasting hash."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, false

from campaigns.lots import LOTS, lot
from campaigns.schema import CampaignSpec
from campaigns.versions import PinnedCampaign
from kernel.clock import to_ms
from kernel.quantities import parse_duration, parse_share


def canary_wait(spec: CampaignSpec) -> timedelta:
    """Return how long the rest of a run waits; nothing where there is no canary."""
    return parse_duration(spec.canary.wait) if spec.canary else timedelta(0)


def waits_for_canary(
    pinned: PinnedCampaign, contact_id: ColumnElement[Any], scheduled_for: datetime
) -> ColumnElement[bool]:
    """Return whether a contact belongs to the rest of a run; false for all where there is no canary."""
    canary = pinned.spec.canary
    if canary is None:
        return false()
    drawn = lot(contact_id, f"canary|{pinned.name}|{to_ms(scheduled_for)}")
    return drawn >= round(parse_share(canary.share) * LOTS)
