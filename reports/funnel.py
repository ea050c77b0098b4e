"""The funnel: from the audience to the money, of a campaign or one of its runs, whole or broken down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, select

from kernel.quantities import minor_exponent
from kernel.vocabulary import ACCEPTED_STATES, PENDING_STATES, MessageState
from reports.tally import Dimension, Scope, Tally, tally
from reports.terms import load_terms
from store.tables import campaigns, runs

__all__ = ["Dimension", "Funnel", "Slice", "breakdown", "funnel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """What became of the messages in scope; docs/reports.md defines every figure.

    Counts are of messages unless the name says otherwise. `revenue` maps currencies to minor units. `cost_minor` is
    in `currency`, the workspace's; both are None where the caller named no currency. `places` is enrollments × steps,
    what the audience must come to; None where it does not apply.
    """

    audience: int
    people: int
    places: int | None
    skipped: Mapping[str, int]
    held_out: int
    pending: int
    in_doubt: int
    failed: int
    failures: Mapping[str, int]
    sent: int
    delivered: int
    delivered_email: int
    opened: int
    clicked: int
    opened_raw: int
    clicked_raw: int
    machine_opens: int
    machine_clicks: int
    converted: int
    revenue: Mapping[str, int]
    cost_minor: int | None
    currency: str | None
    has_goal: bool
    unsubscribed: int
    bounced: int
    complained: int
    replied: int

    @property
    def skipped_total(self) -> int:
        """Messages not sent, for any reason."""
        return sum(self.skipped.values())

    @property
    def balanced(self) -> bool:
        """Tell whether nobody is lost: every place of the audience has one end, and every enrollment all its places."""
        ends = self.sent + self.failed + self.skipped_total + self.held_out + self.pending + self.in_doubt
        return self.audience == ends and self.places in (None, self.audience)

    @property
    def roi(self) -> float | None:
        """Return (revenue - cost) / cost, on revenue and not on margin.

        None without a goal, without cost, or where revenue came in another currency than the cost.
        """
        ratio = self.roas
        return None if ratio is None else ratio - 1

    @property
    def roas(self) -> float | None:
        """Return revenue / cost; None as for `roi`."""
        if not self.cost_minor or not self.has_goal or set(self.revenue) - {self.currency}:
            return None
        return self.revenue.get(self.currency or "", 0) / self.cost_minor

    def to_json(self) -> dict[str, Any]:
        """Return the figures under their stable names."""
        return {
            "audience": self.audience,
            "people": self.people,
            "sent": self.sent,
            "failed": self.failed,
            "failures": dict(self.failures),
            "skipped": dict(self.skipped),
            "held_out": self.held_out,
            "pending": self.pending,
            "in_doubt": self.in_doubt,
            "delivered": self.delivered,
            "delivered_email": self.delivered_email,
            "opened": self.opened,
            "clicked": self.clicked,
            "opened_raw": self.opened_raw,
            "clicked_raw": self.clicked_raw,
            "machine_opens": self.machine_opens,
            "machine_clicks": self.machine_clicks,
            "converted": self.converted,
            "revenue": dict(self.revenue),
            "cost": {} if self.cost_minor is None or self.currency is None else {self.currency: self.cost_minor},
            "roi": None if self.roi is None else round(self.roi, 4),
            "roas": None if self.roas is None else round(self.roas, 4),
            "unsubscribed": self.unsubscribed,
            "bounced": self.bounced,
            "complained": self.complained,
            "replied": self.replied,
            "balanced": self.balanced,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One row of a breakdown: the value's key, the words shown for it, and its figures."""

    key: str
    label: str
    funnel: Funnel

    def to_json(self) -> dict[str, Any]:
        """Return key, label and the figures in one object."""
        return {"key": self.key, "label": self.label, **self.funnel.to_json()}


def funnel(
    connection: Connection,
    *,
    campaign_id: int | None = None,
    run_id: int | None = None,
    currency: str | None = None,
) -> Funnel:
    """Return the figures of a campaign, or of one run.

    Args:
        connection: A connection in a transaction.
        campaign_id: Count this campaign's messages.
        run_id: Count this run's messages.
        currency: The workspace's; None leaves cost and ROI out.

    Raises:
        ValueError: neither a campaign nor a run is named.
    """
    total = Tally()
    for part in tally(connection, _scope(campaign_id, run_id), Dimension.RUN).values():
        total.add(part)
    return _finished(total, currency, with_places=True)


def breakdown(
    connection: Connection,
    by: Dimension,
    *,
    campaign_id: int | None = None,
    run_id: int | None = None,
    currency: str | None = None,
) -> list[Slice]:
    """Return the figures of each value of a dimension, in the dimension's order; empty where nothing was planned.

    Costs of a slice are those of its messages; the fixed cost of a firing stands with its run only.
    """
    scope = _scope(campaign_id, run_id)
    counted = tally(connection, scope, by)
    labels = _labels(connection, scope, by)
    return [
        Slice(
            key="" if key is None else str(key),
            label=labels.get(key) or (str(key) if key not in (None, "") else "none"),
            funnel=_finished(counted[key], currency, with_places=by is Dimension.RUN),
        )
        for key in sorted(counted, key=_place)
    ]


def _place(key: Any) -> tuple[bool, int, str]:
    return key is None, key if isinstance(key, int) else 0, str(key)


def campaign_id_of(connection: Connection, name: str) -> int | None:
    """Return the id of an applied campaign, or None."""
    return connection.execute(select(campaigns.c.id).where(campaigns.c.name == name)).scalar_one_or_none()


def _scope(campaign_id: int | None, run_id: int | None) -> Scope:
    if campaign_id is None and run_id is None:
        raise ValueError("name a campaign or a run")
    return Scope(campaign_id=campaign_id, run_id=run_id)


def _labels(connection: Connection, scope: Scope, by: Dimension) -> dict[Any, str]:
    if by is Dimension.RUN:
        query = select(runs.c.id, runs.c.scheduled_for).where(*scope.conditions())
        return {row.id: f"{row.scheduled_for.astimezone(UTC):%Y-%m-%d %H:%M}" for row in connection.execute(query)}
    if by is Dimension.STEP:
        version_id = connection.execute(
            select(runs.c.version_id).where(*scope.conditions()).order_by(runs.c.scheduled_for.desc()).limit(1)
        ).scalar_one_or_none()
        if version_id is not None:
            steps = load_terms(connection, [version_id])[version_id].steps
            return {number: f"{number}. {name}" for number, name in enumerate(steps, 1)}
    return {}


def _finished(counted: Tally, currency: str | None, *, with_places: bool) -> Funnel:
    states, counts = counted.states, counted.counts
    sent = sum(states[state] for state in ACCEPTED_STATES)
    bounced = states[MessageState.BOUNCED]
    cost_minor = None
    if currency is not None:
        charged = Decimal(counted.charged_micro).scaleb(-6)
        cost_minor = round((charged + counted.cost).scaleb(minor_exponent(currency)))
    return Funnel(
        audience=states.total(),
        people=counts["people"],
        places=counts["places"] if with_places else None,
        skipped=dict(sorted(counted.skipped.items())),
        held_out=states[MessageState.HELD_OUT],
        pending=sum(states[state] for state in PENDING_STATES),
        in_doubt=states[MessageState.IN_DOUBT],
        failed=states[MessageState.FAILED],
        failures=dict(sorted(counted.failures.items())),
        sent=sent,
        delivered=sent - bounced,
        delivered_email=counts["delivered_email"],
        opened=counts["opened"],
        clicked=counts["clicked"],
        opened_raw=counts["opened_raw"],
        clicked_raw=counts["clicked_raw"],
        machine_opens=counts["machine_opens"],
        machine_clicks=counts["machine_clicks"],
        converted=counts["converted"],
        revenue=dict(sorted(counted.revenue_minor.items())),
        cost_minor=cost_minor,
        currency=currency,
        has_goal=counted.has_goal,
        unsubscribed=counts["unsubscribed"],
        bounced=bounced,
        complained=states[MessageState.COMPLAINED],
        replied=counts["replied"],
    )
