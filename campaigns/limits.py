"""What a campaign may cost, as applied now, and the pause when that is used up."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, select, update

from campaigns.schema import CampaignBudget
from campaigns.versions import spec_from_json
from kernel.vocabulary import CampaignState
from store.tables import campaign_versions, campaigns


def budgets_now(connection: Connection, campaign_ids: Collection[int]) -> dict[int, CampaignBudget]:
    """Return the budgets of campaigns as they are applied now, so that raising one reaches a run under way.

    Campaigns that have none any more are left out.
    """
    if not campaign_ids:
        return {}
    rows = connection.execute(
        select(campaigns.c.id, campaign_versions.c.spec)
        .join(campaign_versions, campaign_versions.c.id == campaigns.c.version_id)
        .where(campaigns.c.id.in_(sorted(campaign_ids)))
    )
    found = {row.id: spec_from_json(row.spec).budget for row in rows}
    return {campaign_id: budget for campaign_id, budget in found.items() if budget is not None}


def pause_for_budget(connection: Connection, campaign_id: int, reason: str, *, now: datetime) -> None:
    """Pause a campaign whose budget is used up for good; `resume` after raising it goes on where it stopped."""
    connection.execute(
        update(campaigns)
        .where(campaigns.c.id == campaign_id, campaigns.c.state == CampaignState.ACTIVE)
        .values(state=CampaignState.PAUSED, state_reason=f"{reason}; raise it, apply, and resume", updated_at=now)
    )
