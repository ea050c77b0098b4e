"""The state of affairs in one look: the ledger, the lanes, the inbox, and whether the books balance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Table, func, select, type_coerce

from campaigns.books import Books, books
from campaigns.firing import CANNOT_FIRE
from kernel.clock import from_ms, to_ms
from kernel.vocabulary import CampaignState, MessageState, RunState
from store.states import is_planned
from store.tables import campaigns, claims, inbox, lanes, messages, runs
from workers.hints import Symptoms, hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A gateway with work or a reason to stand still. `closed_until` is None where it is open.

    `held`: closed by command. `waits_for` names the quota or budget that its messages wait for until `waits_until`.
    """

    name: str
    due: int
    closed_until: datetime | None
    failures: int
    reason: str
    held: bool = False
    waits_until: datetime | None = None
    waits_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `carillon status` shows. `oldest_due_at` is None where nothing is due.

    `stuck` tells which campaigns cannot fire, `paused` which are paused, both with the reason.
    `hints` say what to do about what is amiss.
    """

    messages: dict[str, int]
    due_now: int
    oldest_due_at: datetime | None
    lanes: tuple[Lane, ...]
    runs_open: int
    campaigns: dict[str, int]
    inbox_waiting: int
    books: Books
    stuck: tuple[str, ...]
    paused: tuple[str, ...]
    hints: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        return self.books.balanced


def status(connection: Connection, gateways: Collection[str], *, rated: Collection[str] = (), now: datetime) -> Status:
    """Return the state of affairs, read in the connection's one transaction.

    Args:
        connection: Reads only.
        gateways: The names carillon.yaml has.
        rated: Those that have a rate: what is due there waits its turn.
        now: The present instant.
    """
    due = _due(connection, now)
    oldest = min((at for _, at in due.values()), default=None)
    states = {state.value: 0 for state in MessageState} | _counts(connection, messages)
    found_lanes = _lanes(connection, {name: count for name, (count, _) in due.items()}, now)
    found_books = books(connection)
    return Status(
        messages=states,
        due_now=sum(count for count, _ in due.values()),
        oldest_due_at=None if oldest is None else from_ms(oldest),
        lanes=found_lanes,
        runs_open=_counts(connection, runs).get(RunState.OPEN, 0),
        campaigns=_counts(connection, campaigns),
        inbox_waiting=_counts(connection, inbox).get("new", 0),
        books=found_books,
        stuck=stuck_campaigns(connection),
        paused=_paused(connection),
        hints=hints(
            Symptoms(
                states=states,
                sendable_since=_sendable_since(connection, found_lanes, rated, now),
                claims=connection.execute(select(func.count()).select_from(claims)).scalar_one(),
                closed=tuple(lane.name for lane in found_lanes if lane.closed_until is not None or lane.held),
                unknown_gateways=homeless(connection, gateways),
                paused_due=_paused_due(connection, now),
                balanced=found_books.balanced,
            ),
            now=now,
        ),
    )


def _sendable_since(
    connection: Connection, found: tuple[Lane, ...], rated: Collection[str], now: datetime
) -> datetime | None:
    """Return since when a message of an active campaign is due whose gateway is open and waits for nothing."""
    waiting = [*rated, *(lane.name for lane in found if lane.closed_until is not None or lane.held or lane.waits_for)]
    at = type_coerce(messages.c.due_at, BigInteger)
    oldest = connection.execute(
        select(func.min(at))
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(
            is_planned(),
            at <= to_ms(now),
            messages.c.lane.not_in(waiting),
            campaigns.c.state == CampaignState.ACTIVE,
        )
    ).scalar_one()
    return None if oldest is None else from_ms(oldest)


def homeless(connection: Connection, gateways: Collection[str]) -> dict[str, int]:
    """Return how many planned messages wait for each gateway that carillon.yaml does not have."""
    query = select(messages.c.lane, func.count().label("waiting")).where(
        is_planned(), messages.c.lane.not_in(list(gateways))
    )
    rows = connection.execute(query.group_by(messages.c.lane).order_by(messages.c.lane))
    return {row.lane: row.waiting for row in rows}


def _paused_due(connection: Connection, now: datetime) -> int:
    at = type_coerce(messages.c.due_at, BigInteger)
    return connection.execute(
        select(func.count())
        .select_from(messages)
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(
            is_planned(),
            at <= to_ms(now),
            campaigns.c.state == CampaignState.PAUSED,
        )
    ).scalar_one()


def stuck_campaigns(connection: Connection) -> tuple[str, ...]:
    """Return what keeps active campaigns from firing, as "name: reason"."""
    rows = connection.execute(
        select(campaigns.c.name, campaigns.c.state_reason)
        .where(campaigns.c.state == CampaignState.ACTIVE, campaigns.c.state_reason.startswith(CANNOT_FIRE))
        .order_by(campaigns.c.name)
    )
    return tuple(f"{row.name}: {row.state_reason}" for row in rows)


def _paused(connection: Connection) -> tuple[str, ...]:
    """Return paused campaigns, as "name: reason"; a guardrail or a budget may have done it."""
    rows = connection.execute(
        select(campaigns.c.name, campaigns.c.state_reason)
        .where(campaigns.c.state == CampaignState.PAUSED)
        .order_by(campaigns.c.name)
    )
    return tuple(f"{row.name}: {row.state_reason or 'by command'}" for row in rows)


def _counts(connection: Connection, table: Table) -> dict[str, int]:
    rows = connection.execute(select(table.c.state, func.count().label("rows")).group_by(table.c.state))
    return {row.state: row.rows for row in rows}


def _due(connection: Connection, now: datetime) -> dict[str, tuple[int, int]]:
    """Return, for each lane, how many planned messages are due and since when, in milliseconds."""
    at = type_coerce(messages.c.due_at, BigInteger)
    rows = connection.execute(
        select(messages.c.lane, func.count(), func.min(at))
        .where(is_planned(), at <= to_ms(now))
        .group_by(messages.c.lane)
    )
    return {lane: (count, oldest) for lane, count, oldest in rows}


def _lanes(connection: Connection, due: dict[str, int], now: datetime) -> tuple[Lane, ...]:
    known: dict[str, Any] = {row.name: row for row in connection.execute(select(lanes))}
    return tuple(_lane(name, due.get(name, 0), known.get(name), now) for name in sorted(due.keys() | known.keys()))


def _lane(name: str, due: int, row: Any, now: datetime) -> Lane:
    if row is None:
        return Lane(name=name, due=due, closed_until=None, failures=0, reason="")
    closed = row.closed_until is not None and row.closed_until > now
    waits = row.waits_until is not None and row.waits_until > now
    return Lane(
        name=name,
        due=due,
        closed_until=row.closed_until if closed else None,
        failures=row.failures,
        reason=row.reason if closed or row.failures else "",
        held=row.held,
        waits_until=row.waits_until if waits else None,
        waits_for=row.waits_reason if waits else "",
    )
