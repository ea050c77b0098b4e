"""Crontab expressions, read as cron(8) reads them, on top of APScheduler's fields.

APScheduler counts weekdays from Monday and wants both day fields to match; cron counts from Sunday and lets
either match where both are given. The conversion is here, so that "0 9 * * 1" is Monday.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from apscheduler.triggers.cron import CronTrigger

_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = ("minute", "hour", "day of month", "month", "weekday")


@lru_cache(maxsize=512)
def parse_cron(expression: str) -> tuple[CronTrigger, ...]:
    """Return the triggers that together are the expression, on a wall clock without zone (UTC stands for it).

    Raises:
        ValueError: not five fields, a field cron does not know, or a date that never comes.
    """
    fields = expression.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f'{expression!r} is not a cron expression; write minute, hour, day, month, weekday, as in "0 9 * * mon"'
        )
    minute, hour, day, month, weekday = fields
    weekday = _weekdays(weekday)
    pairs = [(day, "*"), ("*", weekday)] if day != "*" and weekday != "*" else [(day, weekday)]
    triggers = []
    for day_field, weekday_field in pairs:
        try:
            trigger = CronTrigger(
                minute=minute, hour=hour, day=day_field, month=month, day_of_week=weekday_field, timezone=UTC
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{expression!r} is not a cron expression: {error}") from None
        triggers.append(trigger)
    if next(_walk(tuple(triggers), datetime(2023, 12, 31, tzinfo=UTC), datetime(2032, 1, 1, tzinfo=UTC)), None) is None:
        raise ValueError(f"{expression!r} never comes: there is no such day")
    return tuple(triggers)


def wall_clocks(expression: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the naive wall clocks of the expression in (after, until], in order; both naive."""
    for moment in _walk(parse_cron(expression), after.replace(tzinfo=UTC), until.replace(tzinfo=UTC)):
        yield moment.replace(tzinfo=None)


def _walk(triggers: tuple[CronTrigger, ...], after: datetime, until: datetime) -> Iterator[datetime]:
    moment = after + timedelta(microseconds=1)
    while True:
        found = [
            next_time
            for trigger in triggers
            if (next_time := trigger.get_next_fire_time(None, moment)) is not None and next_time <= until
        ]
        if not found:
            return
        yield min(found)
        moment = min(found) + timedelta(microseconds=1)


def _weekdays(field: str) -> str:
    """Return a weekday field with names only, as APScheduler understands it. 0 and 7 are Sunday, as in cron."""
    if field == "*":
        return field
    days: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if step and not (step.isdecimal() and int(step) > 0):
            raise ValueError(f"weekday {part!r} has a step that is no number above 0")
        if span == "*":
            first, last = 0, 6
        else:
            start, dash, end = span.partition("-")
            first = _weekday(start)
            last = _weekday(end) if dash else (6 if step else first)
            if last < first:
                last += 7
        days.update(number % 7 for number in range(first, last + 1, int(step) if step else 1))
    return ",".join(_DAY_NAMES[number] for number in sorted(days))


def _weekday(text: str) -> int:
    if text in _DAY_NAMES:
        return _DAY_NAMES.index(text)
    if text.isdecimal() and 0 <= int(text) <= 7:
        return int(text)
    raise ValueError(f"weekday {text!r} is not one of 0 to 7 or sun, mon, tue, wed, thu, fri, sat")
