"""Token buckets in the database, for workers without Redis; and the word that somebody is without.

As long as one worker cannot reach Redis, all take from the database: two sets of buckets would let twice as much
through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import BigInteger, Connection, select, type_coerce, update

from store.sql import insert_into
from store.tables import rate_buckets
from store.types import database_now
from workers.limits.buckets import Ask, Flow, Level, Turn, share_out

_AWAY = "redis is away"
_at = type_coerce(rate_buckets.c.at, BigInteger)
_booked = type_coerce(rate_buckets.c.booked, BigInteger)


def take(connection: Connection, flows: Mapping[str, Flow], asks: Sequence[Ask], *, since_ms: int | None) -> list[Turn]:
    """Take tokens, on the database's clock; atomic over all workers for as long as the transaction lasts.

    Args:
        connection: In a writing transaction; hold it briefly, since others wait for the same buckets.
        flows: The buckets by key; positions in `asks` count them in this order.
        asks: What is wanted.
        since_ms: Since when the database's buckets count and no longer Redis': one that was not used since then
            begins empty, because the other may just have been emptied. None: there is no Redis.
    """
    now_ms: int = connection.execute(select(database_now())).scalar_one()
    known = _locked(connection, flows, now_ms, since_ms)
    turns, after = share_out(list(flows.values()), [known[key] for key in flows], asks, now_ms)
    for key, level in zip(flows, after, strict=True):
        connection.execute(
            update(rate_buckets)
            .where(rate_buckets.c.key == key)
            .values(tokens=level.tokens, at=round(level.at_ms), booked=round(level.booked_ms))
        )
    return turns


def held(connection: Connection, flows: Mapping[str, Flow], *, since_ms: int | None) -> list[float]:
    """Return what the buckets hold now, and take nothing."""
    now_ms: int = connection.execute(select(database_now())).scalar_one()
    found = _levels(connection, flows, since_ms)
    levels = [found.get(key) or _first(flow, now_ms, since_ms) for key, flow in flows.items()]
    _, after = share_out(list(flows.values()), levels, [], now_ms)
    return [level.tokens for level in after]


def _locked(
    connection: Connection, flows: Mapping[str, Flow], now_ms: int, since_ms: int | None
) -> dict[str, Level | None]:
    found = _levels(connection, flows, since_ms, lock=True)
    missing = [key for key in sorted(flows) if key not in found]
    for key in missing:
        first = _first(flows[key], now_ms, since_ms)
        values = {"tokens": first.tokens, "at": round(first.at_ms), "booked": round(first.booked_ms)}
        connection.execute(insert_into(connection, rate_buckets).values(key=key, **values).on_conflict_do_nothing())
    if missing:
        found = _levels(connection, flows, since_ms, lock=True)
    return {key: found[key] for key in flows}


def _levels(
    connection: Connection, flows: Mapping[str, Flow], since_ms: int | None, *, lock: bool = False
) -> dict[str, Level]:
    query = (
        select(rate_buckets.c.key, rate_buckets.c.tokens, _at.label("at"), _booked.label("booked"))
        .where(rate_buckets.c.key.in_(sorted(flows)))
        .order_by(rate_buckets.c.key)
    )
    rows = connection.execute(query.with_for_update() if lock else query)
    levels = {}
    for row in rows:
        fresh = since_ms is None or row.at >= since_ms
        levels[row.key] = (
            Level(tokens=row.tokens, at_ms=row.at, booked_ms=row.booked)
            if fresh
            else Level(tokens=0.0, at_ms=since_ms or 0, booked_ms=since_ms or 0)
        )
    return levels


def _first(flow: Flow, now_ms: int, since_ms: int | None) -> Level:
    if since_ms is None:
        return Level(tokens=flow.burst, at_ms=now_ms, booked_ms=now_ms)
    return Level(tokens=0.0, at_ms=since_ms, booked_ms=since_ms)


def away_since(connection: Connection) -> tuple[int, int] | None:
    """Return since when Redis is away for some worker, and for how long that surely holds, in ms; None: it is not."""
    row = connection.execute(
        select(_at.label("at"), (_booked - database_now()).label("left")).where(rate_buckets.c.key == _AWAY)
    ).one_or_none()
    return (row.at, row.left) if row is not None and row.left > 0 else None


def say_away(connection: Connection, lasting: timedelta) -> int:
    """Say, for so long, that this worker is without Redis; returns since when somebody is, in milliseconds."""
    now_ms: int = connection.execute(select(database_now())).scalar_one()
    until = now_ms + round(lasting.total_seconds() * 1000)
    connection.execute(
        insert_into(connection, rate_buckets)
        .values(key=_AWAY, tokens=0.0, at=now_ms, booked=until)
        .on_conflict_do_nothing()
    )
    standing = connection.execute(
        select(_at.label("at"), _booked.label("until")).where(rate_buckets.c.key == _AWAY).with_for_update()
    ).one()
    since = int(standing.at) if standing.until > now_ms else now_ms
    connection.execute(
        update(rate_buckets).where(rate_buckets.c.key == _AWAY).values(at=since, booked=max(until, standing.until))
    )
    return since
