"""Opens, clicks and conversions by day, on the wall clock of the workspace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, Connection, Select, func, literal_column, select, type_coerce

from kernel.clock import from_ms
from kernel.vocabulary import ACCEPTED_STATES, TouchKind, Verdict
from store.tables import conversions, messages, runs, touches

_QUARTER_MS = 15 * 60 * 1000
"""Every zone's offset is a whole number of quarters of an hour, so a quarter never lies in two days."""
LONGEST_DAYS = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCounts:
    """One day: messages accepted, opened and clicked for the first time, and conversions."""

    day: date
    sent: int
    opened: int
    clicked: int
    converted: int


def daily(connection: Connection, *, campaign_id: int, zone: ZoneInfo) -> list[DayCounts]:
    """Return every day from the first to the last on which something happened, the last 62 at most.

    Each message counts once, on the day a person first opened or clicked it; the sums are those of the funnel.
    """
    of_campaign = runs.c.campaign_id == campaign_id
    ours = messages.join(runs, runs.c.id == messages.c.run_id)
    sent = (
        select(_quarter(messages.c.sent_at))
        .select_from(ours)
        .where(of_campaign, messages.c.state.in_(ACCEPTED_STATES), messages.c.sent_at.is_not(None))
    )
    converted = select(_quarter(conversions.c.at)).where(conversions.c.campaign_id == campaign_id)
    opens = _first_touches(campaign_id, (touches.c.kind == TouchKind.OPEN) & (touches.c.verdict != Verdict.MACHINE))
    clicks = _first_touches(campaign_id, (touches.c.kind == TouchKind.CLICK) & (touches.c.verdict == Verdict.HUMAN))
    by_day = {
        name: _by_day(connection, query, zone)
        for name, query in {"sent": sent, "opened": opens, "clicked": clicks, "converted": converted}.items()
    }
    return [
        DayCounts(day=day, **{name: counts[day] for name, counts in by_day.items()}) for day in _days(by_day.values())
    ]


def _quarter(instant: Any) -> Any:
    return (type_coerce(instant, BigInteger) // literal_column(str(_QUARTER_MS))).label("quarter")


def _first_touches(campaign_id: int, condition: Any) -> Select[Any]:
    first = (
        select(func.min(type_coerce(touches.c.at, BigInteger)).label("at"))
        .join(messages, messages.c.id == touches.c.message_id)
        .join(runs, runs.c.id == messages.c.run_id)
        .where(runs.c.campaign_id == campaign_id, condition)
        .group_by(touches.c.message_id)
        .subquery()
    )
    return select(_quarter(first.c.at))


def _by_day(connection: Connection, query: Select[Any], zone: ZoneInfo) -> Counter[date]:
    quarters = query.subquery()
    counted = select(quarters.c.quarter, func.count().label("n")).group_by(quarters.c.quarter)
    by_day: Counter[date] = Counter()
    for row in connection.execute(counted):
        by_day[from_ms(row.quarter * _QUARTER_MS).astimezone(zone).date()] += row.n
    return by_day


def _days(counters: Iterable[Counter[date]]) -> list[date]:
    seen = sorted({day for counter in counters for day in counter})
    if not seen:
        return []
    first = max(seen[0], seen[-1] - timedelta(days=LONGEST_DAYS - 1))
    return [first + timedelta(days=number) for number in range((seen[-1] - first).days + 1)]
