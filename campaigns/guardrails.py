"""Guardrails: shares of bounces, complaints and unsubscribes over which a campaign is paused; and its canary.

Counted anew from the ledger each time. After a resume only what was sent since counts, so that a breach somebody has
looked at does not pause the campaign again, and a new one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, and_, case, func, or_, select, type_coerce, update

from campaigns.schema import Guardrails
from campaigns.versions import load_specs
from kernel.clock import to_ms
from kernel.quantities import parse_share
from kernel.vocabulary import (
    ACCEPTED_STATES,
    CampaignState,
    FailReason,
    MessageEventKind,
    MessageState,
    RunState,
)
from store.engine import reading, writing
from store.states import is_pending
from store.tables import campaigns, message_events, messages, runs

log = structlog.get_logger(__name__)

GUARDRAIL = "guardrail:"
"""What the reason of a campaign paused by one begins with."""
NOT_YET = datetime(9999, 12, 31, tzinfo=UTC)
"""When the rest of a run is due as long as its canary has not been looked at."""
_WATCHED = timedelta(days=14)
"""How long after it fired a run is counted: what comes back later says little of what is sent now."""
_SLICE = 20_000
_at = type_coerce(messages.c.sent_at, BigInteger)
_ended = type_coerce(messages.c.ended_at, BigInteger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of a run so far. `sent` counts what gateways accepted, and what they refused for good."""

    sent: int
    bounces: int
    complaints: int
    unsubscribes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A campaign that was paused, and why."""

    campaign: str
    run_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    id: int
    campaign_id: int
    campaign: str
    guardrails: Guardrails | None
    canary_wait_ms: int | None
    watched_from: datetime | None
    fired_at: datetime


def judge(guardrails: Guardrails, tally: Tally, *, after: int) -> str | None:
    """Return which guardrail is broken, in words; None where none is, or fewer than `after` were sent."""
    if tally.sent < after:
        return None
    for word in ("complaints", "bounces", "unsubscribes"):
        limit, count = getattr(guardrails, word), getattr(tally, word)
        if limit is not None and count > parse_share(limit) * tally.sent:
            return f"{word} {count / tally.sent:.2%} of {tally.sent:,} sent, over {limit}"
    return None


def watch(engine: Engine, *, now: datetime) -> list[Breach]:
    """Pause campaigns that broke a guardrail; let the rest of runs go whose canary has been looked at."""
    with reading(engine) as connection:
        found = _watched(connection, now)
    breaches: list[Breach] = []
    for run in found:
        canary_over = run.canary_wait_ms is not None and _canary_is_over(engine, run, now)
        if run.guardrails is not None:
            with reading(engine) as connection:
                counted = tally(connection, run.id, since=run.watched_from)
            words = judge(run.guardrails, counted, after=1 if canary_over else run.guardrails.after)
            if words is not None:
                breach = Breach(campaign=run.campaign, run_id=run.id, reason=f"{GUARDRAIL} {words} in run {run.id}")
                if _pause(engine, run, breach.reason, now):
                    log.error("campaign_paused", campaign=run.campaign, run=run.id, reason=breach.reason)
                    breaches.append(breach)
                continue
        if canary_over:
            let_go = _let_go(engine, run.id, now)
            log.info("canary_passed", campaign=run.campaign, run=run.id, messages=let_go)
    return breaches


def tally(connection: Connection, run_id: int, *, since: datetime | None) -> Tally:
    """Return what became of a run's messages; of those sent from `since` on, where it is given."""
    accepted: ColumnElement[bool] = messages.c.state.in_(ACCEPTED_STATES)
    refused = and_(messages.c.state == MessageState.FAILED, messages.c.reason == FailReason.REFUSED)
    if since is not None:
        accepted = and_(accepted, _at >= to_ms(since))
        refused = and_(refused, _ended >= to_ms(since))
    row = connection.execute(
        select(
            _count(or_(accepted, refused)).label("sent"),
            _count(or_(and_(accepted, messages.c.state == MessageState.BOUNCED), refused)).label("bounces"),
        ).where(messages.c.run_id == run_id)
    ).one()
    kinds = (MessageEventKind.COMPLAINED, MessageEventKind.UNSUBSCRIBED)
    heard = (
        select(message_events.c.kind, func.count(message_events.c.message_id.distinct()).label("people"))
        .join(messages, messages.c.id == message_events.c.message_id)
        .where(messages.c.run_id == run_id, accepted, message_events.c.kind.in_(kinds))
        .group_by(message_events.c.kind)
    )
    people = {found.kind: found.people for found in connection.execute(heard)}
    return Tally(
        sent=row.sent or 0,
        bounces=row.bounces or 0,
        complaints=people.get(MessageEventKind.COMPLAINED, 0),
        unsubscribes=people.get(MessageEventKind.UNSUBSCRIBED, 0),
    )


def _count(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, 1), else_=0))


def _watched(connection: Connection, now: datetime) -> list[_Run]:
    """Return runs of active campaigns that have guardrails, or a rest that waits for its canary."""
    rows = connection.execute(
        select(runs, campaigns.c.name, campaigns.c.watched_from)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(
            campaigns.c.state == CampaignState.ACTIVE,
            runs.c.state.in_((RunState.OPEN, RunState.DONE)),
            or_(type_coerce(runs.c.fired_at, BigInteger) > to_ms(now - _WATCHED), runs.c.canary_wait_ms.is_not(None)),
        )
        .order_by(runs.c.id)
    ).all()
    specs = load_specs(connection, {row.version_id for row in rows})
    found = [
        _Run(
            id=row.id,
            campaign_id=row.campaign_id,
            campaign=row.name,
            guardrails=specs[row.version_id].guardrails,
            canary_wait_ms=row.canary_wait_ms,
            watched_from=row.watched_from,
            fired_at=row.fired_at,
        )
        for row in rows
    ]
    return [run for run in found if run.guardrails is not None or run.canary_wait_ms is not None]


def _pause(engine: Engine, run: _Run, reason: str, now: datetime) -> bool:
    """Pause a campaign, unless somebody has paused or resumed it since it was counted."""
    watched = campaigns.c.watched_from
    unchanged = watched.is_(None) if run.watched_from is None else watched == run.watched_from
    with writing(engine) as connection:
        paused = connection.execute(
            update(campaigns)
            .where(campaigns.c.id == run.campaign_id, campaigns.c.state == CampaignState.ACTIVE, unchanged)
            .values(state=CampaignState.PAUSED, state_reason=reason, updated_at=now)
        )
    return paused.rowcount > 0


# --- the canary --------------------------------------------------------------------------------------------


def _canary_is_over(engine: Engine, run: _Run, now: datetime) -> bool:
    """Tell whether every message of the canary has been tried, and the wait after the last of them is over."""
    under_way = select(messages.c.id).where(
        messages.c.run_id == run.id,
        is_pending(),
        # One that was put off by a gateway has been tried; its retries may take days.
        messages.c.attempts == 0,
        type_coerce(messages.c.due_at, BigInteger) < to_ms(NOT_YET),
    )
    last = select(func.max(_at)).where(messages.c.run_id == run.id)
    with reading(engine) as connection:
        if connection.execute(under_way.limit(1)).first() is not None:
            return False
        last_ms: int | None = connection.execute(last).scalar_one()
    begun_ms = to_ms(run.fired_at) if last_ms is None else last_ms
    return begun_ms + (run.canary_wait_ms or 0) <= to_ms(now)


def _let_go(engine: Engine, run_id: int, now: datetime) -> int:
    """Make the rest of a run due, as far apart as planned; returns how many messages. May be called again half-way."""
    rest = and_(
        messages.c.run_id == run_id,
        messages.c.state == MessageState.PLANNED,
        is_pending(),  # Names the index.
        type_coerce(messages.c.due_at, BigInteger) == to_ms(NOT_YET),
    )
    planned = type_coerce(messages.c.planned_for, BigInteger)
    with reading(engine) as connection:
        first_ms: int | None = connection.execute(select(func.min(planned)).where(rest)).scalar_one()
    later_ms = 0 if first_ms is None else max(0, to_ms(now) - first_ms)
    total = last_id = 0
    while first_ms is not None:
        some = select(messages.c.id).where(rest, messages.c.id > last_id).order_by(messages.c.id).limit(_SLICE)
        with writing(engine) as connection:
            ids = connection.execute(some).scalars().all()
            if not ids:
                break
            last_id = ids[-1]
            connection.execute(
                update(messages)
                .where(rest, messages.c.id >= ids[0], messages.c.id <= last_id)
                .values(planned_for=planned + later_ms, due_at=planned + later_ms)
            )
        total += len(ids)
    with writing(engine) as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(canary_wait_ms=None))
    return total
