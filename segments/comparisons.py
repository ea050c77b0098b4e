"""Comparisons and periods as they stand in segment files, shared by several leaves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, model_validator
from sqlalchemy import BigInteger, ColumnElement, Numeric, and_, cast, literal, true

from kernel.fields import DurationText, Strict
from kernel.quantities import parse_duration, to_minor
from segments.scope import EARLIEST_DAY, LATEST_DAY, Flaw, Scope

OPERATORS = ("eq", "gt", "gte", "lt", "lte")
Number = int | float | str
Value = TypeVar("Value")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_DAYS = 100_000
"""No fact is older; a border beyond it is passed by nothing."""
LARGEST = 10**15
"""Beyond this a number is a slip of the pen, and further on no 64-bit integer."""


def _is_money(value: Number) -> bool:
    try:
        return abs(to_minor(value, "EUR")) <= LARGEST
    except ValueError:
        return False


def _check_date(value: str) -> str:
    if not is_date(value):
        raise ValueError(f'{value!r} is not a date; write it as "2026-01-31"')
    return value


def is_date(value: object) -> bool:
    """Return whether the value is the text of a calendar day, as in 2026-01-31."""
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def far_date(value: object) -> tuple[str, str] | None:
    """Return in words that a day lies where no fact can, and the remedy; None for any other value."""
    if not is_date(value) or EARLIEST_DAY <= date.fromisoformat(str(value)) <= LATEST_DAY:
        return None
    message = f"{value!r} lies outside the years {EARLIEST_DAY.year} to {LATEST_DAY.year}"
    return message, "name a day in them, or leave this border out"


def check_text(value: Value) -> Value:
    """Return the value; raises ValueError where it is text that no database can keep."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character, which no database keeps; take it out")
    return value


Text = Annotated[str, AfterValidator(check_text)]
DateText = Annotated[str, AfterValidator(_check_date)]


def compared(operator: str, left: ColumnElement[Any], right: Any) -> ColumnElement[bool]:
    """Return `left operator right`; the right side is always a bound parameter."""
    sides: dict[str, ColumnElement[bool]] = {
        "eq": left == right,
        "gt": left > right,
        "gte": left >= right,
        "lt": left < right,
        "lte": left <= right,
    }
    return sides[operator]


class Comparison(Strict):
    """Borders for a number; several must all hold."""

    eq: Number | None = None
    gt: Number | None = None
    gte: Number | None = None
    lt: Number | None = None
    lte: Number | None = None

    def borders(self) -> Iterator[tuple[str, Number]]:
        """Yield operator and value of each border given."""
        for operator in OPERATORS:
            value = getattr(self, operator)
            if value is not None:
                yield operator, value

    def whole_number_flaws(self, what: str, *, place: tuple[str, ...] = ()) -> Iterator[Flaw]:
        """Yield a flaw for each border that is not a whole number, or for having none."""
        yield from self.missing_flaws(place=place)
        for operator, value in self.borders():
            if not isinstance(value, int) or abs(value) > LARGEST:
                yield Flaw(place=(*place, operator), message=f"{operator}: {what} is a whole number, got {value!r}")

    def money_flaws(self, *, place: tuple[str, ...] = ()) -> Iterator[Flaw]:
        """Yield a flaw for each border that is not an amount of money, or for having none."""
        yield from self.missing_flaws(place=place)
        for operator, value in self.borders():
            if not _is_money(value):
                message = f"{operator}: {value!r} is not an amount of money"
                hint = 'write it as 100 or "99.50", without the currency'
                yield Flaw(place=(*place, operator), message=message, hint=hint)

    def missing_flaws(self, *, place: tuple[str, ...] = ()) -> Iterator[Flaw]:
        """Yield a flaw where no border is given."""
        if not any(self.borders()):
            yield Flaw(place=place, message="nothing to compare with", hint=f"add one of {', '.join(OPERATORS)}")

    def holds_for(self, value: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return whether a number lies within all borders; NULL lies within none."""
        return and_(true(), *(compared(operator, value, border) for operator, border in self.borders()))

    def holds_for_money(self, minor: ColumnElement[Any], currency: str) -> ColumnElement[bool]:
        """Return whether an amount in minor units lies within all borders, which are given in major units."""
        return and_(
            true(), *(compared(operator, minor, to_minor(border, currency)) for operator, border in self.borders())
        )

    def holds_for_average(
        self, total_minor: ColumnElement[Any], count: ColumnElement[Any], currency: str
    ) -> ColumnElement[bool]:
        """Return whether an average amount lies within all borders, in whole numbers: exact on both databases."""
        total, number = cast(total_minor, Numeric), cast(count, Numeric)
        borders = ((op, literal(to_minor(border, currency), BigInteger)) for op, border in self.borders())
        return and_(count > 0, *(compared(op, total, cast(border, Numeric) * number) for op, border in borders))

    def days_after(self) -> tuple[timedelta, ...]:
        """Return how long after an instant its age in whole days may pass a border."""
        days = {int(value) + more for _, value in self.borders() for more in (0, 1)}
        return tuple(timedelta(days=one) for one in sorted(days) if 0 < one <= _MOST_DAYS)


class Period(Strict):
    """Which stretch of time counts: the last days before now, whole days between two dates, or everything."""

    within: DurationText | None = Field(default=None, description='Only the time just before now, as "365d".')
    between: list[DateText] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="First and last day, both included, in the workspace's zone.",
    )

    @model_validator(mode="after")
    def _one_period(self) -> Period:
        if self.within is not None and self.between is not None:
            raise ValueError("give either within or between, not both")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError(f"between must begin before it ends, got {self.between[0]} and {self.between[1]}")
        return self

    def lies_in(self, scope: Scope, instant: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return whether an instant, one before the scope's `as_of`, lies in the period.

        That it is before `as_of` is for the rows to say: it is asked once there, and not for every leaf of every row.
        """
        if self.within is not None:
            return instant >= scope.as_of - parse_duration(self.within)
        if self.between is not None:
            first, last = (date.fromisoformat(day) for day in self.between)
            return and_(instant >= scope.midnight(first), instant < scope.after(last))
        return true()

    def after(self) -> tuple[timedelta, ...]:
        """Return how long after an instant time alone may change whether it lies in the period."""
        return (timedelta(0), *([parse_duration(self.within)] if self.within else []))


class Ago(Strict):
    """How long ago an instant lies: within a stretch of time just before now, or before it, or both."""

    within: DurationText | None = Field(default=None, description='At most this long ago, as "30d".')
    older_than: DurationText | None = Field(default=None, description='Longer ago than this, as "90d".')

    @model_validator(mode="after")
    def _some(self) -> Ago:
        if self.within is None and self.older_than is None:
            raise ValueError("nothing to compare with; add within or older_than")
        return self

    def lies_in(self, scope: Scope, instant: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return whether an instant lies so long before the scope's `as_of`; NULL does not."""
        parts = [instant <= scope.as_of]
        if self.within is not None:
            parts.append(instant >= scope.as_of - parse_duration(self.within))
        if self.older_than is not None:
            parts.append(instant < scope.as_of - parse_duration(self.older_than))
        return and_(*parts)

    def after(self) -> tuple[timedelta, ...]:
        """Return how long after the instant time alone changes the answer."""
        return (timedelta(0), *(parse_duration(text) for text in (self.within, self.older_than) if text))
