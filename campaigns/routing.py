"""Routes: which gateway a contact's messages leave by, and who stands in when it is closed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    case,
    literal,
    or_,
    select,
    type_coerce,
    update,
)

from campaigns.lots import LOTS, lot
from campaigns.versions import load_specs
from kernel.clock import to_ms
from kernel.fields import duration
from kernel.limits import Route
from kernel.settings import Settings
from kernel.vocabulary import MessageEventKind, RunState
from store.engine import reading, writing
from store.lanes import PROBE
from store.sql import insert_into
from store.states import is_planned
from store.tables import lanes, message_events, messages, runs

log = structlog.get_logger(__name__)

PURPOSE = "route"
"""The lot is the contact's alone: a person's mail comes by one gateway in every campaign, as long as weights stay."""
_SLICE = 20_000
"""Messages moved in one transaction, so that workers are not kept waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Messages that leave by other gateways of their route, because theirs has been closed for too long."""

    route: str
    lane: str
    to: tuple[str, ...]
    messages: int


def shares(weights: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Return for each gateway the lots that are its own, from (closed) and until (open); without any: left out.

    Where all weights are 0 the gateways share alike: those that stand by are all there is.
    """
    total = sum(weights.values())
    even = dict.fromkeys(weights, 1) if not total else dict(weights)
    total = total or len(even)
    found = []
    upto = 0
    for name, weight in even.items():
        begin, upto = upto, upto + weight
        first, until = begin * LOTS // total, upto * LOTS // total
        if until > first:
            found.append((name, first, until))
    return found


def lanes_of(gateway: str, routes: Mapping[str, Route]) -> list[tuple[str, int, int]]:
    """Return the lanes of what a step names, a gateway or a route, each with the lots that are its own."""
    route = routes.get(gateway)
    return [(gateway, 0, LOTS)] if route is None else shares(route.gateways)


def fail_over(engine: Engine, settings: Settings, *, now: datetime) -> list[Moved]:
    """Move what is planned for gateways closed longer than their routes allow to the routes' open ones.

    Only `planned` messages move: no gateway has them. What may be out stays where it is, and so does what is resent
    out of doubt. A closed gateway whose wait is over and that has nothing left to be tried with borrows a few
    messages that are due.
    """
    moved: list[Moved] = []
    if not settings.routes:
        return moved
    with reading(engine) as connection:
        closed = _closed(connection)
        steps = {name: _steps_by(connection, name) for name in settings.routes} if closed else {}
    for name, route in settings.routes.items():
        stand_ins = {one: weight for one, weight in route.gateways.items() if one not in closed}
        for lane in route.gateways:
            if lane not in closed or not stand_ins or not steps[name]:
                continue
            until, since = closed[lane]
            if until is None or until <= now:
                _lend(engine, lane, stand_ins, steps[name], now)
            elif since is not None and now - since >= duration(route.failover):
                count = _move(engine, name, lane, stand_ins, steps[name], now)
                if count:
                    found = Moved(route=name, lane=lane, to=tuple(stand_ins), messages=count)
                    log.warning("lane_failed_over", lane=lane, route=name, to=list(stand_ins), messages=count)
                    moved.append(found)
    return moved


def _closed(connection: Connection) -> dict[str, tuple[datetime | None, datetime | None]]:
    """Return until and since when lanes are closed; one that is half open is in it."""
    query = select(lanes.c.name, lanes.c.closed_until, lanes.c.closed_since)
    rows = connection.execute(query.where(or_(lanes.c.failures > 0, lanes.c.held)))
    return {row.name: (row.closed_until, row.closed_since) for row in rows}


def _steps_by(connection: Connection, route: str) -> list[tuple[int, int]]:
    """Return the steps of unfinished runs that name a route: run and step."""
    rows = connection.execute(select(runs.c.id, runs.c.version_id).where(runs.c.state == RunState.OPEN)).all()
    specs = load_specs(connection, {row.version_id for row in rows})
    return [
        (row.id, number)
        for row in rows
        for number, step in enumerate(specs[row.version_id].steps, start=1)
        if step.gateway == route
    ]


def _mine(steps: Collection[tuple[int, int]]) -> ColumnElement[bool]:
    by_step: dict[int, list[int]] = {}
    for run_id, step in steps:
        by_step.setdefault(step, []).append(run_id)
    found = [and_(messages.c.step == step, messages.c.run_id.in_(ids)) for step, ids in sorted(by_step.items())]
    return and_(is_planned(), messages.c.resends == 0, or_(*found))


def _move(
    engine: Engine,
    route: str,
    lane: str,
    stand_ins: Mapping[str, int],
    steps: list[tuple[int, int]],
    now: datetime,
) -> int:
    drawn = lot(messages.c.contact_id, PURPOSE)
    parts = shares(stand_ins)
    to: ColumnElement[Any] = case(*[(drawn < until, literal(name)) for name, _, until in parts], else_=parts[-1][0])
    total = 0
    while True:
        soonest = (
            select(messages.c.id)
            .where(messages.c.lane == lane, _mine(steps))
            .order_by(messages.c.due_at, messages.c.id)
            .limit(_SLICE)
            .with_for_update(skip_locked=True)
        )
        with writing(engine) as connection:
            count = _give(connection, soonest, to, f"from {lane}, which stayed closed; both are ways of {route}", now)
            connection.execute(update(lanes).where(lanes.c.name == lane).values(moved=lanes.c.moved + count))
        total += count
        if count < _SLICE:
            return total


def _give(
    connection: Connection, chosen: Select[tuple[int]], lane: ColumnElement[Any], because: str, now: datetime
) -> int:
    """Give planned messages to a lane, note that with each, and return how many.

    A common table expression, because PostgreSQL may run a limited subquery of an UPDATE more than once.
    """
    these = chosen.cte("these")
    mine = messages.c.id.in_(select(these.c.id))
    given = update(messages).where(mine).values(lane=lane).returning(messages.c.id, messages.c.lane)
    moved = [
        {
            "key": f"moved:{row.id}:{to_ms(now)}",
            "message_id": row.id,
            "kind": MessageEventKind.MOVED,
            "at": now,
            "detail": f"to {row.lane}, {because}",
        }
        for row in connection.execute(given)
    ]
    if moved:
        connection.execute(insert_into(connection, message_events).on_conflict_do_nothing(), moved)
    return len(moved)


def _lend(engine: Engine, lane: str, stand_ins: Mapping[str, int], steps: list[tuple[int, int]], now: datetime) -> None:
    """Give a half-open lane a few due messages of its stand-ins, where it has none itself to be tried with."""
    due = and_(_mine(steps), type_coerce(messages.c.due_at, BigInteger) <= to_ms(now))
    own = select(messages.c.id).where(messages.c.lane == lane, due).limit(1)
    with reading(engine) as connection:
        if connection.execute(own).first() is not None:
            return
    some = (
        select(messages.c.id)
        .where(messages.c.lane.in_(sorted(stand_ins)), due)
        .order_by(messages.c.due_at, messages.c.id)
        .limit(PROBE)
        .with_for_update(skip_locked=True)
    )
    with writing(engine) as connection:
        lent = _give(connection, some, literal(lane), "to try whether it takes messages again", now)
    if lent:
        log.info("lane_is_tried", lane=lane, messages=lent)
