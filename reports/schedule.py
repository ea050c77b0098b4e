"""Which reports are due: so long after each run, or at the slots of a cron expression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, select

from campaigns.calendar import fire_times, next_fire_time
from campaigns.schema import Schedule
from kernel.vocabulary import CampaignState, RunState
from reports.terms import Terms, load_terms
from store.engine import reading, writing
from store.sql import insert_into
from store.tables import campaigns, reports, runs

_LOOK_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=8), timedelta(days=32), timedelta(days=367))
"""The latest slot lies in the first of these that has one, so that a frequent expression lists few."""


class ReportState(StrEnum):
    """States of a row of `reports`."""

    PLANNED = "planned"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


def plan_reports(engine: Engine, *, now: datetime) -> int:
    """Insert a row for every report that is called for and has none yet; return how many were new.

    Any number of schedulers may call it as often as they like: a report is unique by campaign and due time. A report
    `after` a run stands there as soon as the run has fired; of the slots of `every` only the latest that has come is
    planned, so that downtime brings one report and not many.
    """
    with reading(engine) as connection:
        wanted = _wanted(connection, now)
        if not wanted:
            return 0
        known = select(reports.c.campaign_id, reports.c.due_at)
        known = known.where(reports.c.campaign_id.in_({row["campaign_id"] for row in wanted}))
        planned = {(row.campaign_id, row.due_at) for row in connection.execute(known)}
    missing = [row for row in wanted if (row["campaign_id"], row["due_at"]) not in planned]
    if not missing:
        return 0
    with writing(engine) as connection:
        statement = insert_into(connection, reports).values(missing).on_conflict_do_nothing()
        return len(connection.execute(statement.returning(reports.c.id)).all())


def _wanted(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    fired: defaultdict[int, list[Any]] = defaultdict(list)
    query = (
        select(
            runs.c.campaign_id,
            runs.c.version_id,
            runs.c.scheduled_for,
            runs.c.state,
            campaigns.c.state.label("campaign_state"),
        )
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(runs.c.state != RunState.MISSED)
        .order_by(runs.c.scheduled_for)
    )
    for run in connection.execute(query):
        fired[run.campaign_id].append(run)
    terms = load_terms(connection, (run.version_id for of_campaign in fired.values() for run in of_campaign))
    found: dict[tuple[int, datetime], dict[str, Any]] = {}
    for campaign_id, of_campaign in fired.items():
        for due_at, recipients in _dues(of_campaign, terms, now):
            row = {"campaign_id": campaign_id, "due_at": due_at, "recipients": list(recipients)}
            found[campaign_id, due_at] = {**row, "state": ReportState.PLANNED}
    return list(found.values())


def _dues(
    of_campaign: Sequence[Any], terms: dict[int, Terms], now: datetime
) -> Iterator[tuple[datetime, Iterable[str]]]:
    for run in of_campaign:
        plan = terms[run.version_id].report
        if plan and plan.after is not None:
            yield run.scheduled_for + plan.after, plan.recipients
    latest = of_campaign[-1]
    plan = terms[latest.version_id].report
    if plan and plan.every and latest.campaign_state != CampaignState.CANCELLED:
        slot = _slot_to_report(of_campaign, terms[latest.version_id], plan.every, plan.zone, now)
        if slot is not None:
            yield slot, plan.recipients


def _slot_to_report(of_campaign: Sequence[Any], terms: Terms, every: str, zone: str, now: datetime) -> datetime | None:
    """Return the latest slot that has come; None before the first run.

    The last report of a campaign is the first slot after its last run's goal window: then every figure is final.
    """
    schedule = Schedule(cron=every, zone=zone)
    latest = _latest_slot(schedule, zone, now)
    if latest is None or latest < of_campaign[0].scheduled_for:
        return None
    if any(run.state == RunState.OPEN for run in of_campaign):
        return latest
    window = terms.goal.within if terms.goal else timedelta()
    settled = of_campaign[-1].scheduled_for + terms.waits + window
    final = next_fire_time(schedule, zone, settled - timedelta(milliseconds=1))
    return latest if final is None else min(latest, final)


def _latest_slot(schedule: Schedule, zone: str, now: datetime) -> datetime | None:
    for length in _LOOK_BACK:
        slots = fire_times(schedule, zone, now - length, now)
        if slots:
            return slots[-1]
    return None
