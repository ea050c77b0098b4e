"""Lanes: the circuit breaker of each gateway, and what a lane waits for. Costs no message an attempt.

A gateway that refuses as a whole closes its lane; each refusal in a row doubles the wait. When it is over the lane is
half open: one worker at a time tries a few messages, and the first success opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, case, false, func, or_, select, true, type_coerce, update
from sqlalchemy.sql.elements import ColumnElement

from kernel.clock import to_ms
from store.sql import insert_into
from store.states import is_planned
from store.tables import lanes, messages
from store.types import database_now

PROBE = 5
"""How many messages a half-open lane is tried with."""
_PROBE_LEASE_MS = 15_000
"""How long one worker has a half-open lane to itself; should it die, another tries then."""
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)

_closed_until = type_coerce(lanes.c.closed_until, BigInteger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How far a lane is open: for so many messages. `probe_of` is when a half-open lane's wait ended, in ms."""

    room: int
    is_probe: bool = False
    probe_of: int | None = None


def opening(connection: Connection, lane: str, limit: int, now_ms: int) -> Opening:
    """Return how many messages of a lane may be claimed, at most `limit`; 0 where it is closed."""
    row = connection.execute(_STANDING, {"lane": lane}).one_or_none()
    if row is None or not (row.failures or row.held):
        return Opening(room=limit)
    if row.held or (row.closed_until or 0) > now_ms:
        return Opening(room=0)
    return Opening(room=min(limit, PROBE), is_probe=True, probe_of=row.closed_until)


_STANDING = select(_closed_until.label("closed_until"), lanes.c.failures, lanes.c.held).where(
    lanes.c.name == bindparam("lane")
)


def take_probe(connection: Connection, lane: str, probe: Opening, now_ms: int) -> bool:
    """Take a half-open lane for a few messages; False where another worker was first."""
    standing = _closed_until.is_(None) if probe.probe_of is None else _closed_until == probe.probe_of
    taken = connection.execute(
        update(lanes)
        .where(lanes.c.name == lane, standing, lanes.c.held == false())
        .values(closed_until=now_ms + _PROBE_LEASE_MS)
    )
    return taken.rowcount > 0


def close_lane(
    connection: Connection,
    lane: str,
    *,
    reason: str,
    first_wait: timedelta,
    longest: timedelta,
    spread: float = 1.0,
) -> timedelta:
    """Close a lane after its gateway refused as a whole; each refusal in a row doubles the wait. Returns the wait.

    Args:
        connection: In a writing transaction.
        lane: The gateway's name.
        reason: Its words.
        first_wait: The wait after the first refusal.
        longest: No wait is longer.
        spread: A number in [0, 1] that says where in the second half of the wait it ends, so that the lanes of many
            installations do not come back to one relay in one instant.
    """
    insert = insert_into(connection, lanes).values(
        name=lane, failures=1, reason=reason[:500], closed_since=database_now()
    )
    failures: int = connection.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "failures": lanes.c.failures + 1,
                # Why somebody closed it by hand outweighs what the gateway says.
                "reason": _kept_if_held(lanes.c.reason, reason[:500]),
                "closed_since": func.coalesce(type_coerce(lanes.c.closed_since, BigInteger), database_now()),
            },
        ).returning(lanes.c.failures)
    ).scalar_one()
    wait: timedelta = min(first_wait * 2 ** min(failures - 1, 16), longest) * ((1 + spread) / 2)
    connection.execute(
        update(lanes)
        .where(lanes.c.name == lane, lanes.c.held == false())
        .values(closed_until=database_now() + round(wait.total_seconds() * 1000))
    )
    return wait


def _kept_if_held(standing: ColumnElement[str], new: str) -> ColumnElement[str]:
    return case((lanes.c.held == true(), standing), else_=new)


def hold_lane(connection: Connection, lane: str, *, reason: str) -> None:
    """Close a lane until a command opens it."""
    insert = insert_into(connection, lanes).values(
        name=lane, held=True, reason=reason[:500], closed_since=database_now(), closed_until=_NEVER
    )
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "held": True,
                "reason": reason[:500],
                "closed_until": to_ms(_NEVER),
                "closed_since": func.coalesce(type_coerce(lanes.c.closed_since, BigInteger), database_now()),
            },
        )
    )


def open_lane(connection: Connection, lane: str, *, by_command: bool = False) -> bool:
    """Open a lane again, after a success or by command; returns whether it had been closed.

    A success of a chunk under way does not open what somebody closed by hand.
    """
    return connection.execute(_OPEN_ANY if by_command else _OPEN, {"lane": lane}).rowcount > 0


_OPENED = (
    update(lanes)
    .where(lanes.c.name == bindparam("lane"))
    .values(closed_until=None, closed_since=None, failures=0, held=False, reason="", moved=0)
)
_OPEN = _OPENED.where(lanes.c.failures > 0, lanes.c.held == false())
_OPEN_ANY = _OPENED.where(or_(lanes.c.failures > 0, lanes.c.held == true()))


def note_wait(connection: Connection, lane: str, *, until: datetime, reason: str) -> None:
    """Keep, for people to read, that messages of a lane wait for a quota or a budget."""
    insert = insert_into(connection, lanes).values(name=lane, waits_until=until, waits_reason=reason[:500])
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["name"], set_={"waits_until": to_ms(until), "waits_reason": reason[:500]}
        )
    )


def wake(connection: Connection, lane: str) -> int:
    """Make due at once what waits for a quota or a budget, as after it was raised; returns how many messages.

    What still has no room is put off again.
    """
    until: int | None = connection.execute(
        select(type_coerce(lanes.c.waits_until, BigInteger)).where(lanes.c.name == lane)
    ).scalar_one_or_none()
    if until is None:
        return 0
    waiting = (messages.c.lane == lane) & is_planned()
    woken = connection.execute(
        update(messages)
        .where(waiting, type_coerce(messages.c.due_at, BigInteger) == until)
        .values(due_at=database_now())
    )
    connection.execute(update(lanes).where(lanes.c.name == lane).values(waits_until=None, waits_reason=""))
    return woken.rowcount


def lanes_now(connection: Connection, *, now: datetime) -> list[dict[str, Any]]:
    """Return every lane that is closed, refused lately, or waits for a quota or budget; by name."""
    waits = type_coerce(lanes.c.waits_until, BigInteger) > to_ms(now)
    rows = connection.execute(
        select(lanes).where(or_(lanes.c.failures > 0, lanes.c.held == true(), waits)).order_by(lanes.c.name)
    )
    found = []
    for row in rows:
        waiting = row.waits_until is not None and row.waits_until > now
        found.append(
            {
                "name": row.name,
                "closed_until": None if row.held else row.closed_until,
                "closed_since": row.closed_since,
                "held": row.held,
                "failures": row.failures,
                "reason": row.reason,
                "moved": row.moved,
                "waits_until": row.waits_until if waiting else None,
                "waits_for": row.waits_reason if waiting else "",
            }
        )
    return found
