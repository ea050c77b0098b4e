"""Rates at the moment of sending: an allowance shared by every worker, in the database.

Due times are spread when a run fires, but after downtime everything is due at once; this is what holds then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, Connection, case, delete, select, type_coerce, update

from kernel.clock import from_ms, to_ms
from kernel.quantities import Rate
from store.sql import insert_into
from store.tables import rate_windows

_SLICES = 60
"""A window is opened bit by bit, so that 600/hour is about 10 a minute and not 600 in the first second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """How many may be sent now, and when to ask again if that is fewer than wanted."""

    granted: int
    next_at: datetime


def take(connection: Connection, key: str, rate: Rate, wanted: int, *, now: datetime) -> Grant:
    """Take up to `wanted` from a rate's allowance; atomic over all workers, for as long as the transaction lasts.

    At most `rate.count` are granted in each fixed window of length `rate.per` (windows count from 1970 UTC), and no
    more of them than the share of the window that has begun, in slices of a sixtieth or a second.

    Args:
        connection: In a writing transaction; hold it briefly, since others wait for the same key.
        key: Whose rate, as "campaign:7" or "lane:relay".
        rate: The rate.
        wanted: How many the caller could send.
        now: The present instant, the same clock for every worker.
    """
    starts_ms, per_ms = _window(rate, now)
    _open_window(connection, key, starts_ms, per_ms)
    mine = (rate_windows.c.key == key) & (type_coerce(rate_windows.c.starts_at, BigInteger) == starts_ms)
    used = connection.execute(select(rate_windows.c.used).where(mine).with_for_update()).scalar_one()
    slice_ms = max(per_ms // _SLICES, min(1000, per_ms))
    begun = (to_ms(now) - starts_ms) // slice_ms + 1
    open_now = min(rate.count, max(1, rate.count * min(begun * slice_ms, per_ms) // per_ms))
    granted = max(0, min(wanted, open_now - used))
    if granted:
        connection.execute(update(rate_windows).where(mine).values(used=rate_windows.c.used + granted))
    return Grant(
        granted=granted, next_at=_next(rate, used + granted, starts_ms, per_ms, slice_ms, now, granted == wanted)
    )


def give_back(connection: Connection, key: str, rate: Rate, unused: int, *, now: datetime) -> None:
    """Return what was taken at `now` and not used, as when fewer messages were due; never more than was taken."""
    starts_ms, _ = _window(rate, now)
    left = rate_windows.c.used - unused
    connection.execute(
        update(rate_windows)
        .where(rate_windows.c.key == key, type_coerce(rate_windows.c.starts_at, BigInteger) == starts_ms)
        .values(used=case((left > 0, left), else_=0))
    )


def _window(rate: Rate, now: datetime) -> tuple[int, int]:
    per_ms = round(rate.per.total_seconds() * 1000)
    now_ms = to_ms(now)
    return now_ms - now_ms % per_ms, per_ms


def _open_window(connection: Connection, key: str, starts_ms: int, per_ms: int) -> None:
    opened = connection.execute(
        insert_into(connection, rate_windows).values(key=key, starts_at=starts_ms, used=0).on_conflict_do_nothing()
    )
    if opened.rowcount:
        old = type_coerce(rate_windows.c.starts_at, BigInteger) < starts_ms - per_ms
        connection.execute(delete(rate_windows).where(rate_windows.c.key == key, old))


def _next(
    rate: Rate, used: int, starts_ms: int, per_ms: int, slice_ms: int, now: datetime, satisfied: bool
) -> datetime:
    if satisfied:
        return now.astimezone(UTC)
    if used >= rate.count:
        return from_ms(starts_ms + per_ms)
    # The first slice by whose beginning one more than `used` is open.
    needed = -(-(used + 1) * per_ms // (rate.count * slice_ms))
    at = from_ms(starts_ms) + timedelta(milliseconds=slice_ms * (needed - 1))
    return max(at, now.astimezone(UTC) + timedelta(milliseconds=1))
