"""How far budgets go in a planned run: how many of its texts each pays for, and what happens then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from campaigns.lots import LOTS
from campaigns.quotas import budget_of_campaign, budgets_of
from campaigns.routing import lanes_of
from campaigns.sms_forecast import TextForecast
from campaigns.versions import PinnedCampaign
from kernel.settings import Settings
from store.allowances import Allowance, used_of

_NO_RUN_YET = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Affordable:
    """One budget that SMS of the run count against, with what is left of its period when the run fires.

    `messages` count against it and `pays_for` of them fit in; the others wait for the next period, or the campaign is
    paused where there is none (`pauses`).
    """

    budget: str
    left: Decimal
    messages: int
    pays_for: int
    pauses: bool


def affordable(
    connection: Connection,
    settings: Settings,
    pinned: PinnedCampaign,
    campaign_id: int | None,
    texts: Sequence[TextForecast],
    *,
    at: datetime,
) -> list[Affordable]:
    """Return how far each budget goes, at the mean price of the run's texts.

    Args:
        connection: Reads only.
        settings: The workspace's.
        pinned: The campaign.
        campaign_id: None where it was never applied.
        texts: What its SMS come to; those without a price count against no budget.
        at: When the run fires.
    """
    counted: dict[str, tuple[Allowance, Decimal, Decimal]] = {}
    for count, cost, budget in _counting(settings, pinned, campaign_id or 0, texts, at):
        _, messages, money = counted.get(budget.key, (budget, Decimal(0), Decimal(0)))
        counted[budget.key] = (budget, messages + count, money + cost)
    used = used_of(connection, list(counted))
    found = []
    for key, (budget, messages, money) in counted.items():
        left = Decimal(max(0, budget.limit - used.get(key, 0))).scaleb(-6)
        pays_for = min(int(messages), int(left * messages / money)) if money else int(messages)
        found.append(
            Affordable(
                budget=budget.reason.removesuffix(" is used up"),
                left=left,
                messages=int(messages),
                pays_for=pays_for,
                pauses=budget.renews_at is None,
            )
        )
    return found


def _counting(
    settings: Settings, pinned: PinnedCampaign, campaign_id: int, texts: Sequence[TextForecast], at: datetime
) -> Iterator[tuple[Decimal, Decimal, Allowance]]:
    """Yield how many messages of what cost count against which budget."""
    own = pinned.spec.budget
    for text in texts:
        cost = sum((bill.cost or Decimal(0) for bill in text.countries.values()), Decimal(0))
        for lane, first, until in lanes_of(text.gateway, settings.routes):
            share = Decimal(until - first) / LOTS
            budgets = budgets_of(settings, lane, at)
            if own is not None:
                budgets.append(budget_of_campaign(settings, own, campaign_id, _NO_RUN_YET, at))
            for budget in budgets:
                yield text.messages * share, cost * share, budget


def about_budgets(found: Sequence[Affordable]) -> Iterator[str]:
    """Yield a warning of each budget that does not pay for the whole run."""
    for one in found:
        if one.pays_for < one.messages:
            then = "then the campaign is paused" if one.pauses else "the others wait until it is renewed"
            yield f"the {one.budget} stops the run after about {one.pays_for:,} of {one.messages:,} SMS; {then}"
