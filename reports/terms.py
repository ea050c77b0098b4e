"""What a campaign's applied version says about its figures: goal, cost, report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import Connection, select

from campaigns.schema import RECIPIENT, CampaignSpec
from campaigns.schema import Goal as GoalSpec
from kernel.quantities import parse_duration
from kernel.vocabulary import GoalKind
from store.sql import in_slices
from store.tables import campaign_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What counts as a conversion.

    `subject` is the stage or the event's name ("" for orders); `min_value` is in major units of the order's own
    currency; `touches` are the kinds that may earn the credit.
    """

    kind: GoalKind
    within: timedelta
    touches: frozenset[str]
    subject: str = ""
    min_value: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Amounts in major units of the workspace's currency: per firing, e-mail, and part of an SMS without a price."""

    fixed: Decimal = Decimal(0)
    per_email: Decimal = Decimal(0)
    per_sms: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPlan:
    """To whom the report goes, and when: so long after each run, or on a cron expression read in `zone`."""

    recipients: tuple[str, ...]
    after: timedelta | None = None
    every: str | None = None
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One version's words; `steps` are the names of its steps in order, `waits` the sum of their waits."""

    goal: Goal | None
    cost: Cost
    report: ReportPlan | None
    steps: tuple[str, ...]
    waits: timedelta


def read_terms(spec: CampaignSpec) -> Terms:
    """Return the terms of a version's spec."""
    return Terms(
        goal=_goal(spec.goal) if spec.goal else None,
        cost=Cost(
            fixed=Decimal(spec.cost.fixed), per_email=Decimal(spec.cost.per_email), per_sms=Decimal(spec.cost.per_sms)
        ),
        report=_report(spec) if spec.report else None,
        steps=tuple(f"{step.channel} {step.template}" for step in spec.steps),
        waits=sum((parse_duration(step.wait) for step in spec.steps), timedelta()),
    )


def load_terms(connection: Connection, version_ids: Iterable[int]) -> dict[int, Terms]:
    """Return the terms of the versions, by id."""
    found: dict[int, Terms] = {}
    for wanted in in_slices(sorted(set(version_ids)), 1000):
        query = select(campaign_versions.c.id, campaign_versions.c.spec).where(campaign_versions.c.id.in_(wanted))
        found.update((row.id, read_terms(CampaignSpec.model_validate(row.spec))) for row in connection.execute(query))
    return found


def _goal(goal: GoalSpec) -> Goal:
    return Goal(
        kind=goal.kind,
        subject=goal.opportunity_stage or goal.event or "",
        min_value=Decimal((goal.order and goal.order.min_value) or "0"),
        within=parse_duration(goal.within),
        touches=frozenset(goal.touch),
    )


def _report(spec: CampaignSpec) -> ReportPlan | None:
    if spec.report is None:
        return None
    zone = spec.schedule.zone
    return ReportPlan(
        recipients=tuple(spec.report.to),
        after=parse_duration(spec.report.after) if spec.report.after else None,
        every=spec.report.every,
        zone=(spec.schedule.default_zone if zone in (None, RECIPIENT) else zone) or "UTC",
    )
