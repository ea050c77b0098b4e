"""What fields of files written by people are made of: names, durations, rates, zones, windows."""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from kernel.quantities import Rate, parse_duration, parse_rate

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name; use small letters, digits, - and _, starting with a letter")
    return value


def form(pattern: str, words: str) -> AfterValidator:
    """Return a check that a text is wholly of a form; `words` end the sentence of one that is not.

    As `form("[A-Z]{2}", "is not a country code; write two capitals, as CN")`. Pydantic's own patterns say theirs.
    """
    wanted = re.compile(pattern)

    def check(value: str) -> str:
        if not wanted.fullmatch(value):
            raise ValueError(f"{value!r} {words}")
        return value

    return AfterValidator(check)


def _check_duration(value: str) -> str:
    parse_duration(value)
    return value


def _check_span(value: str) -> str:
    if not parse_duration(value):
        raise ValueError(f"{value!r} is no time at all; write one above zero, as in 30s, 15min, 8h or 7d")
    return value


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or any(letter.isspace() for letter in value):
        # Its host alone: what follows may be a secret.
        host = re.match(r"/*([\w-]+(?:\.[\w-]+)+)", value.strip())
        meant = f"https://{host[1] if host else 'www.acme.example'}"
        raise ValueError(f"{value!r} is not a URL; write it with its scheme, as {meant}")
    return value


def _check_rate(value: str) -> str:
    parse_rate(value)
    return value


def _check_date(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError(f'{value!r} is not a date; write it as "2026-12-01"') from None
    return value


def _check_money(value: str) -> str:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError(f'{value!r} is not an amount; write it as "100.00"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{value!r} is not an amount of zero or more")
    return value


def _check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone; write one like Europe/Berlin or UTC") from None
    return value


Name = Annotated[str, AfterValidator(_check_name)]
DurationText = Annotated[str, AfterValidator(_check_duration)]
SpanText = Annotated[str, AfterValidator(_check_span)]
"""A duration of more than nothing."""
UrlText = Annotated[str, AfterValidator(_check_url)]
RateText = Annotated[str, AfterValidator(_check_rate)]
DateText = Annotated[str, AfterValidator(_check_date)]
Money = Annotated[str, AfterValidator(_check_money)]
ZoneName = Annotated[str, AfterValidator(_check_zone)]
CurrencyCode = Annotated[str, form(r"[A-Z]{3}", "is not a currency code; write three capitals, as EUR")]
CountryCode = Annotated[str, form(r"[A-Z]{2}", "is not a country code; write two capitals, as CN")]


class Strict(BaseModel):
    """Base of everything read from YAML: unknown keys refused, no silent conversion, frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class WindowSpec(Strict):
    """Hours and weekdays in which messages may leave, on the recipient's wall clock."""

    hours: str = Field(default="00:00-24:00", description='Allowed hours, half-open, as "08:00-18:00".')
    days: list[Day] = Field(default=list(DAYS), min_length=1, description="Allowed weekdays.")

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        found = _HOURS.fullmatch(value)
        if not found or not minutes_of(value)[0] < minutes_of(value)[1] <= 24 * 60:
            raise ValueError(f'{value!r} is not a window; write it as "08:00-18:00", opening before closing')
        return value


def minutes_of(hours: str) -> tuple[int, int]:
    """Return opening and closing of "08:00-18:00" in minutes after midnight."""
    found = _HOURS.fullmatch(hours)
    if not found:
        raise ValueError(f"{hours!r} is not a window")
    return int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])


def duration(text: str) -> timedelta:
    """Return a duration that a model has already checked."""
    return parse_duration(text)


def rate(text: str | None) -> Rate | None:
    """Return a rate that a model has already checked; None means unlimited."""
    return parse_rate(text) if text else None
