"""Which quotas, budgets and rates hold a planned message back, by what is used of them now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from campaigns.limits import budgets_now
from campaigns.quotas import budget_of_campaign, budgets_of, quota_of
from campaigns.schema import CampaignSpec
from kernel.settings import Settings
from kernel.sms_terms import tariff_of
from store.allowances import Allowance, used_of


def holding(connection: Connection, settings: Settings, row: Row[Any], *, now: datetime) -> Iterator[str]:
    """Yield each quota and budget that has too little left for a message, with what it is and when there is more.

    Args:
        connection: Reads only.
        settings: The workspace's: the limits that count are today's.
        row: The message, with `lane`, `campaign_id`, `run_id`, `address` and `phone`.
        now: The present instant.
    """
    price = tariff_of(settings.gateways.get(row.lane)).micro(row.address or row.phone or "") or 0
    # One part at least: what the whole text costs is known once it is rendered.
    needs: list[tuple[Allowance, int]] = []
    quota = quota_of(settings, row.lane, now)
    if quota is not None:
        needs.append((quota, 1))
    if price:
        needs += [(budget, price) for budget in budgets_of(settings, row.lane, now)]
        of_campaign = budgets_now(connection, [row.campaign_id]).get(row.campaign_id)
        if of_campaign is not None:
            own = budget_of_campaign(settings, of_campaign, row.campaign_id, row.run_id, now)
            needs.append((own, price))
    used = used_of(connection, [one.key for one, _ in needs])
    for one, units in needs:
        if one.limit - used.get(one.key, 0) < units:
            more = "" if one.renews_at is None else f"; there is more from {_at(one.renews_at)}"
            yield f"{_whose(one, row.lane)}: {one.reason}{more}"


def rates_of(settings: Settings, spec: CampaignSpec, lane: str, channel: str) -> Iterator[str]:
    """Yield the rates a message's turn follows from: its gateway's, its campaign's, those of recipient domains."""
    gateway = settings.gateways.get(lane)
    if gateway is not None and gateway.rate:
        yield f"the gateway {lane} takes {gateway.rate}"
    if spec.rate:
        yield f"the campaign sends {spec.rate}"
    if channel == "email" and getattr(gateway, "domains", None):
        yield f"{lane} has limits for recipient domains"


def _whose(allowance: Allowance, lane: str) -> str:
    return f"the gateway {lane} waits" if allowance.key.startswith("quota:") else "it waits"


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M %Z}"
