"""When: firing times, windows and recipients' wall clocks. Pure: no clock is read, no database asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

from campaigns.crontab import wall_clocks
from campaigns.schema import RECIPIENT, Schedule, parse_at
from kernel.fields import DAYS, WindowSpec, minutes_of

FIRST_ZONE = timezone(timedelta(hours=14))
"""Where every wall clock comes first on earth (Kiritimati): a run for recipients' own zones fires then."""
_MINUTE = timedelta(minutes=1)
_END_OF_TIME = datetime(9999, 12, 30, tzinfo=UTC)
_DAY_MINUTES = 24 * 60
_LONGEST_GAP_MINUTES = 24 * 60 + 1
"""Samoa left out a whole day in 2011; no zone ever left out more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Allowed hours of a day, half-open, in minutes after midnight, on the allowed weekdays (Monday is 0)."""

    opens: int = 0
    closes: int = _DAY_MINUTES
    days: frozenset[int] = frozenset(range(7))

    @classmethod
    def of(cls, spec: WindowSpec) -> Window:
        """Return the window a file speaks of."""
        opens, closes = minutes_of(spec.hours)
        return cls(opens=opens, closes=closes, days=frozenset(DAYS.index(day) for day in spec.days))

    @property
    def always(self) -> bool:
        """Whether it never closes."""
        return self.opens == 0 and self.closes == _DAY_MINUTES and len(self.days) == 7

    def holds(self, wall: datetime) -> bool:
        """Return whether the window is open at a wall clock."""
        minute = wall.hour * 60 + wall.minute
        return wall.weekday() in self.days and self.opens <= minute < self.closes


def on_wall(wall: datetime, zone: ZoneInfo | timezone) -> datetime:
    """Return the instant, aware in `zone`, at which the clocks of the zone show a naive wall clock.

    A wall clock that a clock change leaves out becomes the next valid minute; one that comes twice, its first time.
    """
    for _ in range(_LONGEST_GAP_MINUTES):
        moment = wall.replace(tzinfo=zone, fold=0)
        if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall = wall.replace(second=0, microsecond=0) + _MINUTE
    raise ValueError(f"{zone} has no wall clock near {wall}")


def earliest_send(due_at: datetime, zone: ZoneInfo, window: Window) -> datetime:
    """Return the first instant, not before `due_at`, at which the window is open.

    The window is read on the recipient's wall clock, so a day with a clock change stays right.

    Args:
        due_at: Instant the campaign asks for; timezone-aware, any zone.
        zone: The recipient's zone.
        window: Allowed hours and weekdays of the recipient, half-open.

    Returns:
        An aware datetime in `zone`; equal to `due_at` where the window is already open.

    Raises:
        ValueError: `due_at` is naive, or a clock change swallows the window on every day of a month.

    Source:
        47 CFR 64.1200(c)(1). Other countries differ, which is why the window is an argument.
    """
    if due_at.utcoffset() is None:
        raise ValueError(f"due_at must be timezone-aware, got {due_at!r}")
    local = due_at.astimezone(zone)
    if window.holds(local):
        return local
    for days in range(32):
        for opening in _openings(local.date() + timedelta(days=days), zone, window):
            # Compared in UTC: two datetimes of one zone compare by wall clock, which an hour that comes twice confuses.
            if opening.astimezone(UTC) >= due_at.astimezone(UTC):
                return opening
    raise ValueError(f"the window {window} does not open within a month of {due_at}")


def closes_at(open_at: datetime, zone: ZoneInfo, window: Window) -> datetime | None:
    """Return the instant, in UTC, at which a window open at `open_at` closes next; None where it never does."""
    if window.always:
        return None
    local = open_at.astimezone(zone)
    midnight = datetime.combine(local.date(), datetime.min.time())
    closing = on_wall(midnight + timedelta(minutes=window.closes), zone)
    for candidate in (closing, closing.replace(fold=1)):
        if candidate.astimezone(UTC) > open_at.astimezone(UTC):
            return candidate.astimezone(UTC)
    return open_at.astimezone(UTC) + _MINUTE


def _openings(day: date, zone: ZoneInfo, window: Window) -> Iterator[datetime]:
    if day.weekday() not in window.days:
        return
    wall = datetime.combine(day, datetime.min.time()) + timedelta(minutes=window.opens)
    first = on_wall(wall, zone)
    for opening in (first, first.replace(fold=1)):
        if window.holds(opening.astimezone(UTC).astimezone(zone)):
            yield opening


def fire_times(schedule: Schedule, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """Return the instants in (after, until] at which the schedule fires, in order, aware in UTC.

    Args:
        schedule: When; of `at` there is at most one instant.
        zone: IANA zone of a schedule that names none.
        after: Open end; aware.
        until: Closed end; aware.

    A wall clock left out by a clock change fires at the next valid minute; one that comes twice fires once.
    With the zone "recipient" a run fires when the first zone on earth reaches the wall clock.
    """
    return list(_fire_times(schedule, zone, after, until))


def next_fire_time(schedule: Schedule, zone: str, after: datetime) -> datetime | None:
    """Return the first firing after an instant, in UTC; None where there is none, with `cron` within nine years."""
    until = after + timedelta(days=9 * 366) if schedule.at is None else _END_OF_TIME
    return next(_fire_times(schedule, zone, after, until), None)


def _fire_times(schedule: Schedule, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    clock = clock_of(schedule, zone)
    last = after.astimezone(UTC)
    for wall in _walls(schedule, after.astimezone(clock), until.astimezone(clock)):
        moment = on_wall(wall, clock).astimezone(UTC)
        if moment > until:
            return
        if moment > last:
            yield moment
            last = moment


def clock_of(schedule: Schedule, zone: str) -> ZoneInfo | timezone:
    """Return the zone whose clock decides when runs fire."""
    name = schedule.zone or zone
    return FIRST_ZONE if name == RECIPIENT else ZoneInfo(name)


def _walls(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    if schedule.at is not None:
        yield parse_at(schedule.at)
    if schedule.cron is None:
        return
    # A day more at the end, since in an hour that comes twice the wall clock goes back; the caller cuts exactly.
    first = after.replace(tzinfo=None)
    last = until.replace(tzinfo=None) + timedelta(days=1)
    if schedule.from_:
        first = max(first, datetime.fromisoformat(schedule.from_) - timedelta(microseconds=1))
    if schedule.until:
        last = min(last, datetime.fromisoformat(schedule.until) + timedelta(days=1) - timedelta(microseconds=1))
    yield from wall_clocks(schedule.cron, first, last)


def local_due(schedule: Schedule, scheduled_for: datetime, zone: ZoneInfo) -> datetime:
    """Return when a run is due for recipients of a zone, in UTC.

    For the zone "recipient" that is the run's wall clock in their own zone; else the run's instant itself.
    """
    if schedule.zone != RECIPIENT:
        return scheduled_for.astimezone(UTC)
    return on_wall(scheduled_for.astimezone(FIRST_ZONE).replace(tzinfo=None), zone).astimezone(UTC)


@lru_cache(maxsize=1024)
def zone_named(name: str | None, default: str) -> ZoneInfo:
    """Return the zone of a recipient; the default where the data name none or none that exists."""
    if name:
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    return ZoneInfo(default)
