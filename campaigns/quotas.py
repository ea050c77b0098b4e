"""Which quotas and budgets a message counts against, by the workspace's clock; pure functions of settings and time."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import ROUND_FLOOR, Decimal
from zoneinfo import ZoneInfo

from campaigns.schema import CampaignBudget
from campaigns.warmup import warmup_quota
from kernel.fields import rate
from kernel.limits import Budget, Limited
from kernel.settings import Settings
from store.allowances import Allowance


def quota_of(settings: Settings, lane: str, now: datetime) -> Allowance | None:
    """Return how many messages a gateway may send today, all campaigns together; None: no limit."""
    gateway = settings.gateways.get(lane)
    if not isinstance(gateway, Limited):
        return None
    day = now.astimezone(ZoneInfo(settings.timezone)).date()
    quota = rate(gateway.quota)
    limits = {} if quota is None else {f"quota of {quota.count:,} a day is used up": quota.count}
    warm = warmup_quota(gateway.warmup, day) if gateway.warmup else None
    if warm is not None:
        limits[f"warm-up: {warm:,} on {day} are sent" if warm else f"warm-up begins on {gateway.warmup.start}"] = warm  # type: ignore[union-attr]
    if not limits:
        return None
    reason = min(limits, key=lambda words: limits[words])
    return Allowance(
        key=f"quota:{lane}:{day}", limit=limits[reason], reason=reason, renews_at=_midnight_after(day, settings)
    )


def budgets_of(settings: Settings, lane: str, now: datetime) -> list[Allowance]:
    """Return the budgets that hold for every message of a lane: the gateway's and the workspace's."""
    found = []
    own: Budget | None = getattr(settings.gateways.get(lane), "budget", None)
    if own is not None:
        found.append(_budget(settings, own, f"budget:{lane}", f"gateway {lane}", now))
    if settings.budget is not None:
        found.append(_budget(settings, settings.budget, "budget:", "all campaigns", now))
    return found


def budget_of_campaign(
    settings: Settings, budget: CampaignBudget, campaign_id: int, run_id: int, now: datetime
) -> Allowance:
    """Return a campaign's budget: for all time, for a run, or for a day or month."""
    key = f"budget:campaign {campaign_id}"
    if budget.per in ("day", "month"):
        return _budget(settings, Budget(amount=budget.amount, per=budget.per), key, "this campaign", now)
    of_run = budget.per == "run"
    return Allowance(
        key=f"{key}:run {run_id}" if of_run else key,
        limit=_micro(budget.amount),
        reason=f"budget of {settings.currency} {budget.amount}{' for a run' if of_run else ''} is used up",
        renews_at=None,
    )


def _budget(settings: Settings, budget: Budget, key: str, whose: str, now: datetime) -> Allowance:
    day = now.astimezone(ZoneInfo(settings.timezone)).date()
    period = f"{day}" if budget.per == "day" else f"{day:%Y-%m}"
    last = day if budget.per == "day" else (day.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return Allowance(
        key=f"{key}:{period}",
        limit=_micro(budget.amount),
        reason=f"budget of {settings.currency} {budget.amount} a {budget.per} for {whose} is used up",
        renews_at=_midnight_after(last, settings),
    )


def _midnight_after(day: date, settings: Settings) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=ZoneInfo(settings.timezone))


def _micro(amount: str) -> int:
    """Return an amount in millionths of the currency; a fraction of one is not allowed to be spent."""
    return int(Decimal(amount).scaleb(6).to_integral_value(ROUND_FLOOR))
