"""Time as an argument: the one place that reads the machine's clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from kernel.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Clock = Callable[[], datetime]
"""Returns the present instant as an aware UTC datetime."""


def system_clock() -> datetime:
    """Return the present instant, aware, in UTC."""
    return datetime.now(UTC)


def to_ms(instant: datetime) -> int:
    """Return whole milliseconds since 1970-01-01 UTC, rounded down; the unit of every stored instant.

    Raises:
        ValueError: `instant` is naive.
    """
    if instant.utcoffset() is None:
        raise ValueError(f"an instant must be timezone-aware, got {instant!r}")
    return (instant - _EPOCH) // _MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    """Return the aware UTC datetime of a stored instant."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def parse_as_of(text: str, zone: str) -> datetime:
    """Return the instant a person wrote: a date is its midnight in the zone, a time without an offset is in the zone.

    Raises:
        ConfigError: neither a date nor a time.
    """
    here = ZoneInfo(zone)
    try:
        if len(text) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(text), time(), tzinfo=here)
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a date; write it as 2026-01-31 or 2026-01-31T09:00") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=here)
