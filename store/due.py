"""What is due in a lane: the runs that have something there, and of each its messages, the oldest first.

Run by run, so that the backlog of a paused campaign, which may be a million messages, is never walked through. A run
with a pending message has no `finished_at`: whoever closes runs and whoever plans a message again lock the run first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, bindparam, func, select, type_coerce
from sqlalchemy.sql.elements import ColumnElement

from kernel.vocabulary import CampaignState
from store.ingest.bulk import by_index
from store.states import is_planned
from store.tables import campaigns, messages, runs


class WaitingRun(NamedTuple):
    """A run with something due in a lane."""

    id: int
    campaign_id: int
    version_id: int


def lock_due(connection: Connection, lane: str, *, most: int, now_ms: int) -> list[Sequence[Any]]:
    """Lock and return up to `most` due messages of a lane: run by run, by their oldest message, and each run's by age.

    Those in another's hands, and those of campaigns that are not active, are passed over.

    Returns:
        Rows of store.ledger.ClaimedMessage.
    """
    found: list[Sequence[Any]] = []
    for run in waiting_runs(connection, lane, now_ms=now_ms):
        asked = {"lane": lane, "now_ms": now_ms, "most": most - len(found)}
        found += connection.execute(_DUE, {**asked, **run._asdict()}).all()
        if len(found) >= most:
            break
    return found


def count_due(connection: Connection, lane: str, *, most: int, now_ms: int) -> int:
    """Return how many messages of active campaigns are due in a lane, counting no further than `most`."""
    found = 0
    for run in waiting_runs(connection, lane, now_ms=now_ms):
        asked = {"lane": lane, "now_ms": now_ms, "most": most - found, "id": run.id}
        found += connection.execute(_COUNT, asked).scalar_one()
        if found >= most:
            break
    return found


def waiting_runs(connection: Connection, lane: str, *, now_ms: int) -> list[WaitingRun]:
    """Return the runs of active campaigns that have something due in a lane, by their oldest message."""
    by_index(connection)
    query = _RUNS_POSTGRESQL if connection.dialect.name == "postgresql" else _RUNS_SQLITE
    found = connection.execute(query, {"lane": lane}).all()
    waiting = sorted((row.oldest, *row[:3]) for row in found if row.oldest is not None and row.oldest <= now_ms)
    return [WaitingRun(*row[1:]) for row in waiting]


_due_ms: ColumnElement[int] = type_coerce(messages.c.due_at, BigInteger)


def _runs_query(in_index: ColumnElement[bool]) -> Select[Any]:
    """Return the query for runs and their oldest message; `in_index` is what `ix_messages_due` holds."""
    here = (messages.c.lane == bindparam("lane")) & in_index
    oldest = select(func.min(_due_ms)).where(here, messages.c.run_id == runs.c.id).scalar_subquery()
    return (
        select(runs.c.id, runs.c.campaign_id, runs.c.version_id, oldest.label("oldest"))
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(runs.c.finished_at.is_(None), campaigns.c.state == CampaignState.ACTIVE)
    )


_RUNS_SQLITE = _runs_query(is_planned())
_RUNS_POSTGRESQL = _runs_query(messages.c.ended_at.is_(None))


def _due_query(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns)
        .where(
            messages.c.lane == bindparam("lane"),
            messages.c.run_id == bindparam("id"),
            is_planned(),
            _due_ms <= bindparam("now_ms"),
        )
        .limit(bindparam("most"))
    )


_DUE = (
    _due_query(
        messages.c.id,
        messages.c.run_id,
        bindparam("campaign_id", type_=BigInteger),
        bindparam("version_id", type_=BigInteger),
        messages.c.step,
        messages.c.contact_id,
        messages.c.channel,
        messages.c.attempts,
        type_coerce(messages.c.planned_for, BigInteger),
    )
    .order_by(messages.c.due_at, messages.c.id)
    .with_for_update(of=messages, skip_locked=True)
)
_COUNT = select(func.count()).select_from(_due_query(messages.c.id).subquery())
