"""All that one report says, read from the database in one view."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, case, select

from kernel.errors import CarillonError
from kernel.settings import Workspace
from kernel.vocabulary import GoalKind
from reports.charts import Chart, daily_chart, funnel_chart, segments_chart
from reports.daily import DayCounts, daily
from reports.funnel import Dimension, Funnel, Slice, breakdown, funnel
from reports.terms import Goal, load_terms
from store.tables import (
    accounts,
    campaign_versions,
    campaigns,
    conversions,
    events,
    messages,
    opportunities,
    opportunity_stages,
    orders,
    runs,
    touches,
)

_NOUNS = {GoalKind.ORDER: "Orders", GoalKind.OPPORTUNITY_STAGE: "Opportunities", GoalKind.EVENT: "Events"}
_LISTED = 20_000
"""Conversions listed in the attachment at most; the figures count all of them."""


class UnknownCampaign(CarillonError):
    """No campaign of that name was ever applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One conversion as the attachment lists it; `reference` is the source's own key of what happened."""

    at: datetime
    kind: str
    reference: str
    account: str
    account_key: str
    value_minor: int
    currency: str
    run_at: datetime
    step: int
    channel: str
    touch: str
    touched_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the report e-mail, its attachments and its pages are made of."""

    campaign: str
    description: str
    brand: str
    color: str
    label: str
    currency: str
    now: datetime
    zone: ZoneInfo
    goal: Goal | None
    totals: Funnel
    runs: Sequence[Slice]
    steps: Sequence[Slice]
    variants: Sequence[Slice]
    segments: Sequence[Slice]
    rfm_segments: Sequence[Slice]
    days: Sequence[DayCounts]
    conversions: Sequence[Conversion]

    @property
    def goal_noun(self) -> str:
        """What a conversion of this campaign is called, in the plural."""
        return _NOUNS[self.goal.kind] if self.goal else "Conversions"

    @property
    def shown_segments(self) -> Sequence[Slice]:
        """The breakdown that tells more: RFM groups where the audience has several, else the audience's segments."""
        return self.rfm_segments if sum(bool(part.key) for part in self.rfm_segments) > 1 else self.segments

    def charts(self) -> dict[str, Chart]:
        """Return the charts that have something to show, by name, in order."""
        drawn = {
            "funnel": funnel_chart(self.totals, goal_noun=self.goal_noun),
            "daily": daily_chart(self.days, goal_noun=self.goal_noun),
            "segments": segments_chart(self.shown_segments, self.currency, goal_noun=self.goal_noun),
        }
        return {name: chart for name, chart in drawn.items() if chart is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the figures and their breakdowns under their stable names."""
        return {
            "campaign": self.campaign,
            "as_of": self.now.isoformat(),
            "currency": self.currency,
            "label": self.label,
            **self.totals.to_json(),
            "runs": [part.to_json() for part in self.runs],
            "steps": [part.to_json() for part in self.steps],
            "variants": [part.to_json() for part in self.variants],
            "segments": [part.to_json() for part in self.segments],
            "rfm_segments": [part.to_json() for part in self.rfm_segments],
            "days": [
                {"day": day.day.isoformat(), "sent": day.sent, "opened": day.opened}
                | {"clicked": day.clicked, "converted": day.converted}
                for day in self.days
            ],
        }


def gather(
    connection: Connection, workspace: Workspace, campaign_name: str, *, now: datetime, label: str = ""
) -> Report:
    """Return a campaign's report as of now.

    Raises:
        UnknownCampaign: it was never applied.
    """
    campaign = campaign_named(connection, campaign_name)
    settings = workspace.settings
    zone = ZoneInfo(settings.timezone)
    scope: dict[str, Any] = {"campaign_id": campaign.id, "currency": settings.currency}
    parts = {by: breakdown(connection, by, **scope) for by in Dimension}
    spec = connection.execute(
        select(campaign_versions.c.spec).where(campaign_versions.c.id == campaign.version_id)
    ).scalar_one_or_none()
    terms = load_terms(connection, [campaign.version_id] if campaign.version_id else [])
    return Report(
        campaign=campaign.name,
        description=(spec or {}).get("description") or "",
        brand=settings.brand.name,
        color=settings.brand.color,
        label=label,
        currency=settings.currency,
        now=now,
        zone=zone,
        goal=terms[campaign.version_id].goal if campaign.version_id in terms else None,
        totals=funnel(connection, **scope),
        runs=parts[Dimension.RUN],
        steps=parts[Dimension.STEP],
        variants=parts[Dimension.VARIANT],
        segments=parts[Dimension.SEGMENT],
        rfm_segments=parts[Dimension.RFM_SEGMENT],
        days=daily(connection, campaign_id=campaign.id, zone=zone),
        conversions=_conversions(connection, campaign.id),
    )


def campaign_named(connection: Connection, name: str) -> Any:
    """Return the row of an applied campaign.

    Raises:
        UnknownCampaign: there is none; the message names the nearest.
    """
    row = connection.execute(select(campaigns).where(campaigns.c.name == name)).one_or_none()
    if row is not None:
        return row
    names = connection.execute(select(campaigns.c.name).order_by(campaigns.c.name)).scalars().all()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "apply it first with `carillon apply`"
    raise UnknownCampaign(f"no campaign {name!r} has been applied ({hint})")


def _conversions(connection: Connection, campaign_id: int) -> list[Conversion]:
    """Return the conversions, latest first."""
    source_id, kind = conversions.c.source_id, conversions.c.kind
    reference = case(
        (kind == GoalKind.ORDER, orders.c.external_id),
        (kind == GoalKind.EVENT, events.c.external_id),
        else_=opportunities.c.external_id,
    )
    query = (
        select(
            conversions.c.at,
            kind,
            reference.label("reference"),
            accounts.c.name.label("account"),
            accounts.c.external_id.label("account_key"),
            conversions.c.value_minor,
            conversions.c.currency,
            runs.c.scheduled_for.label("run_at"),
            messages.c.step,
            messages.c.channel,
            touches.c.kind.label("touch"),
            touches.c.at.label("touched_at"),
            messages.c.sent_at,
        )
        .join(runs, runs.c.id == conversions.c.run_id)
        .join(messages, messages.c.id == conversions.c.message_id)
        .join(touches, touches.c.id == conversions.c.touch_id, isouter=True)
        .join(accounts, accounts.c.id == conversions.c.account_id, isouter=True)
        .join(orders, (kind == GoalKind.ORDER) & (orders.c.id == source_id), isouter=True)
        .join(events, (kind == GoalKind.EVENT) & (events.c.id == source_id), isouter=True)
        .join(
            opportunity_stages,
            (kind == GoalKind.OPPORTUNITY_STAGE) & (opportunity_stages.c.id == source_id),
            isouter=True,
        )
        .join(opportunities, opportunities.c.id == opportunity_stages.c.opportunity_id, isouter=True)
        .where(conversions.c.campaign_id == campaign_id)
        .order_by(conversions.c.at.desc(), conversions.c.id.desc())
        .limit(_LISTED)
    )
    return [
        Conversion(
            at=row.at,
            kind=row.kind,
            reference=row.reference or "",
            account=row.account or "",
            account_key=row.account_key or "",
            value_minor=row.value_minor,
            currency=row.currency,
            run_at=row.run_at,
            step=row.step,
            channel=row.channel,
            touch=row.touch or "sent",
            touched_at=row.touched_at or row.sent_at,
        )
        for row in connection.execute(query)
    ]
