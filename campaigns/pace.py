"""How long the sending of a run takes by gateways with a rate, a quota or a warm-up: played through hour by hour."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from campaigns.calendar import Window, earliest_send
from campaigns.lots import LOTS
from campaigns.quotas import quota_of
from campaigns.rehearsal import Rehearsed
from campaigns.routing import lanes_of
from campaigns.versions import PinnedCampaign
from kernel.fields import duration, minutes_of, rate
from kernel.settings import Limits, Settings
from store.allowances import used_of

_HOUR = timedelta(hours=1)
_LONGEST = timedelta(days=366)

Arrivals = Mapping[tuple[int, datetime], int]
"""How many messages of a step are due in the hour that begins then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What one gateway makes of its share of a run, if nobody else sends by it meanwhile.

    `limits` names what it may do, `due_until` is when the last message is due by the campaign's own schedule, `ends_at`
    when it leaves; None: not within a year. `too_late` messages would be older than `limits.max_age` by their turn, and
    are skipped.
    """

    gateway: str
    messages: int
    limits: tuple[str, ...]
    starts_at: datetime
    due_until: datetime
    ends_at: datetime | None
    too_late: int


def paces(connection: Connection, settings: Settings, pinned: PinnedCampaign, rehearsed: Rehearsed) -> list[Pace]:
    """Return the pace of each gateway the run leaves by that has a limit, in the order of the names."""
    found = []
    for lane, arrivals in sorted(_by_lane(settings, pinned, rehearsed).items()):
        limits = tuple(_limits(settings, lane))
        if limits and arrivals:
            found.append(_Road(connection, settings, pinned, lane).pace(arrivals, limits))
    return found


def _by_lane(
    settings: Settings, pinned: PinnedCampaign, rehearsed: Rehearsed
) -> dict[str, Counter[tuple[int, datetime]]]:
    """Return what leaves by each gateway; a route's messages by its weights."""
    found: dict[str, Counter[tuple[int, datetime]]] = {}
    for (step, hour), count in sorted(rehearsed.leaving.items()):
        for lane, first, until in lanes_of(pinned.spec.steps[step - 1].gateway or "", settings.routes):
            share = count * until // LOTS - count * first // LOTS
            if share:
                found.setdefault(lane, Counter())[step, hour.astimezone(UTC)] += share
    return found


def _limits(settings: Settings, lane: str) -> Iterator[str]:
    gateway = settings.gateways.get(lane)
    if gateway is None:
        return
    if gateway.rate:
        yield f"rate {gateway.rate}"
    if gateway.quota:
        yield f"quota {gateway.quota}"
    if gateway.warmup:
        yield f"warm-up since {gateway.warmup.start}"


class _Road:
    """One gateway, and what of its days is used already."""

    def __init__(self, connection: Connection, settings: Settings, pinned: PinnedCampaign, lane: str) -> None:
        self._connection = connection
        self._settings = settings
        self._lane = lane
        self._zone = ZoneInfo(settings.timezone)
        self._clock = ZoneInfo(pinned.spec.schedule.default_zone or settings.timezone)
        self._windows = {
            number: Window.of(pinned.spec.window_of(number)) for number in range(1, len(pinned.spec.steps) + 1)
        }
        self._max_age = duration((pinned.spec.limits or Limits()).max_age)
        limit = rate(settings.gateways[lane].rate)
        self._per_hour = math.inf if limit is None else limit.count * (_HOUR / limit.per)
        self._rooms: dict[object, float] = {}

    def pace(self, arrivals: Arrivals, limits: tuple[str, ...]) -> Pace:
        """Return what becomes of the arrivals: once as if they could wait for ever, once with their greatest age."""
        starts_at, ends_at, _ = self._played(arrivals, None)
        _, _, too_late = self._played(arrivals, self._max_age)
        return Pace(
            gateway=self._lane,
            messages=sum(arrivals.values()),
            limits=limits,
            starts_at=starts_at,
            due_until=max(hour for _, hour in arrivals),
            ends_at=ends_at,
            too_late=too_late,
        )

    def _played(self, arrivals: Arrivals, max_age: timedelta | None) -> tuple[datetime, datetime | None, int]:
        coming = deque(sorted((hour, step, count) for (step, hour), count in arrivals.items()))
        waiting: dict[int, deque[tuple[datetime, int]]] = {}
        first, last, late = None, None, 0
        hour = coming[0][0]
        begin, credit, rooms = hour, 0.0, dict(self._rooms)
        while (coming or waiting) and hour - begin <= _LONGEST:
            while coming and coming[0][0] <= hour:
                at, step, count = coming.popleft()
                waiting.setdefault(step, deque()).append((at, count))
            if max_age is not None:
                late += _drop_old(waiting, hour - max_age)
            # What an hour leaves over is lost, but for the fraction that makes the next message.
            credit = self._per_hour if credit >= 1 else credit + self._per_hour
            most = min(credit, self._room(hour, rooms))
            sent = self._send(waiting, hour, math.floor(most) if most < math.inf else None)
            if sent:
                first = first or hour
                last = hour + (_HOUR * min(1.0, sent / self._per_hour) if self._per_hour < math.inf else timedelta())
                credit -= sent
                day = hour.astimezone(self._zone).date()
                rooms[day] = rooms[day] - sent
            hour = hour + _HOUR if waiting or not coming else max(hour + _HOUR, coming[0][0])
        return first or begin, None if waiting or coming else last, late

    def _room(self, hour: datetime, rooms: dict[object, float]) -> float:
        """Return how many messages are left of the quota of the hour's day."""
        day = hour.astimezone(self._zone).date()
        if day not in rooms:
            quota = quota_of(self._settings, self._lane, hour)
            used = 0 if quota is None else used_of(self._connection, [quota.key]).get(quota.key, 0)
            self._rooms[day] = rooms[day] = math.inf if quota is None else max(0, quota.limit - used)
        return rooms[day]

    def _send(self, waiting: dict[int, deque[tuple[datetime, int]]], hour: datetime, most: int | None) -> int:
        sent = 0
        for step in sorted(waiting):
            entries = waiting[step]
            while entries and (most is None or sent < most) and self._may_leave(step, entries[0][0], hour):
                at, count = entries.popleft()
                now = count if most is None else min(count, most - sent)
                sent += now
                if now < count:
                    entries.appendleft((at, count - now))
            if not entries:
                del waiting[step]
        return sent

    def _may_leave(self, step: int, due: datetime, hour: datetime) -> bool:
        """Return whether the window is open: in its due hour it is, on the recipient's own clock."""
        if hour == due:
            return True
        window = self._windows[step]
        return window.always or earliest_send(hour, self._clock, window) < hour + _HOUR


def _drop_old(waiting: dict[int, deque[tuple[datetime, int]]], before: datetime) -> int:
    dropped = 0
    for step in list(waiting):
        while waiting[step] and waiting[step][0][0] < before:
            dropped += waiting[step].popleft()[1]
        if not waiting[step]:
            del waiting[step]
    return dropped


def _about_own_rate(pinned: PinnedCampaign, leaving: Mapping[tuple[int, datetime], int]) -> Iterator[str]:
    """Yield a warning of each step with more messages than the campaign's own rate lets leave in one day's window."""
    limit = rate(pinned.spec.rate)
    if limit is None:
        return
    for number in range(1, len(pinned.spec.steps) + 1):
        window = pinned.spec.window_of(number)
        opens, closes = minutes_of(window.hours)
        a_day = int(limit.count * (timedelta(minutes=closes - opens) / limit.per))
        count = sum(messages for (step, _), messages in leaving.items() if step == number)
        if count > a_day > 0:
            fit = f"{a_day:,} of {count:,} messages fit into the window {window.hours} of one day"
            yield f"step {number}: at {limit} {fit}; they take {math.ceil(count / a_day)} days"


def about_paces(
    settings: Settings, pinned: PinnedCampaign, found: list[Pace], leaving: Mapping[tuple[int, datetime], int]
) -> Iterator[str]:
    """Yield warnings: what takes more than its window, and what would be too old by its turn."""
    yield from _about_own_rate(pinned, leaving)
    clock = ZoneInfo(pinned.spec.schedule.default_zone or settings.timezone)
    windows = {pinned.spec.window_of(number).hours for number in range(1, len(pinned.spec.steps) + 1)}
    for one in found:
        limits = " and ".join(one.limits)
        days = (
            0
            if one.ends_at is None
            else (one.ends_at.astimezone(clock).date() - one.due_until.astimezone(clock).date()).days
        )
        if one.ends_at is None:
            yield f"by {one.gateway} ({limits}) the sending takes more than a year"
        elif days > 0:
            window = (
                f"the window {' or '.join(sorted(windows))} of one day" if windows != {"00:00-24:00"} else "one day"
            )
            after = f"{days} day{'s' if days > 1 else ''}"
            ends = f"it ends {after} later than scheduled"
            yield f"by {one.gateway} ({limits}) the run does not fit into {window}: {ends}"
        if one.too_late:
            max_age = (pinned.spec.limits or Limits()).max_age
            some = f"{one.too_late:,} of {one.messages:,} messages by {one.gateway} ({limits})"
            yield (
                f"{some} would be skipped (too_late): their turn comes later than limits.max_age ({max_age}); "
                "send to fewer, or raise the limit or max_age"
            )
