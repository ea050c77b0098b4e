"""Tests of a value that is text, an instant, or anything JSON holds: shared by attributes and events' properties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool
from sqlalchemy import BigInteger, ColumnElement, and_, false, func, literal, not_, or_, true

from kernel.fields import DurationText, Strict
from kernel.quantities import parse_duration
from segments.comparisons import LARGEST, Text, check_text, compared, is_date
from segments.purchases import DAY_MS
from segments.scope import Scope, sure
from store.json_values import (
    in_byte_order,
    json_boolean,
    json_day,
    json_lists,
    json_number,
    json_present,
    json_text,
    one_of,
)

Kind = Literal["text", "instant", "json", "relation"]
Value = Annotated[StrictBool | int | float | str, AfterValidator(check_text)]
_ORDERINGS = ("gt", "gte", "lt", "lte")
_RELATIVE = ("within", "older_than", "in_next")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A value to be tested: a column, and the keys of the JSON document it holds, where it is of that kind."""

    kind: Kind
    column: ColumnElement[Any]
    keys: tuple[str, ...] = ()


class ValueTests(Strict):
    """What a value must be; several tests must all hold.

    Text compares exactly, capitals included. A missing value satisfies no test but `ne`, `not_in` and
    `exists: false`; empty text counts as missing.
    """

    eq: Value | None = None
    ne: Value | None = None
    in_: list[Value] | None = Field(default=None, alias="in", min_length=1, max_length=10_000)
    not_in: list[Value] | None = Field(default=None, min_length=1, max_length=10_000)
    gt: Value | None = None
    gte: Value | None = None
    lt: Value | None = None
    lte: Value | None = None
    exists: bool | None = None
    contains: Value | None = None
    starts_with: Text | None = Field(default=None, min_length=1)
    ends_with: Text | None = Field(default=None, min_length=1)
    within: DurationText | None = Field(default=None, description='A date at most this long ago, as "30d".')
    older_than: DurationText | None = Field(default=None, description="A date longer ago than this.")
    in_next: DurationText | None = Field(default=None, description="A date from now on, at most this far ahead.")

    def tests(self) -> Iterator[tuple[str, Any]]:
        """Yield key and value of each test given."""
        for field in ValueTests.model_fields:
            value = getattr(self, field)
            if value is not None:
                yield field.rstrip("_"), value

    def misfits(self, kind: Kind) -> Iterator[tuple[str, str]]:
        """Yield key and problem of each test that does not suit the kind of value."""
        for key, value in self.tests():
            problem = _misfit(kind, key, value)
            if problem:
                yield key, problem

    def all_hold(self, cell: Cell, scope: Scope) -> ColumnElement[bool]:
        """Return whether all tests hold; never NULL."""
        return and_(true(), *(_test(cell, scope, key, value) for key, value in self.tests()))

    def clock(self, cell: Cell, scope: Scope) -> tuple[ColumnElement[Any], tuple[timedelta, ...]] | None:
        """Return the instant of the value, and how long after it time alone changes a test; None where it never does.

        A day of JSON begins in the workspace's zone; its instant is given as if it began in UTC, and the zone's
        offsets of the two years around are among the times after it.
        """
        spans = {key: parse_duration(value) for key, value in self.tests() if key in _RELATIVE}
        if not spans:
            return None
        after = {timedelta(0), *(-span if key == "in_next" else span for key, span in spans.items())}
        if cell.kind == "instant":
            return cell.column, tuple(sorted(after))
        begins = json_day(cell.column, cell.keys) * literal(DAY_MS, BigInteger)
        shifts = {one - offset for one in after for offset in _offsets(scope)}
        # A day ends a day after it begins, which ends `within` and `in_next`.
        return begins, tuple(sorted(shifts | {one + timedelta(days=1) for one in shifts}))


def _offsets(scope: Scope) -> set[timedelta]:
    around = (scope.as_of + timedelta(days=30 * months) for months in range(-12, 13))
    return {moment.astimezone(scope.zone).utcoffset() or timedelta(0) for moment in around}


def _misfit(kind: Kind, key: str, value: Any) -> str:
    """Return in words why a test does not suit the kind of value, or ""."""
    if key == "exists":
        return ""
    wrong = _MISFITS[kind]
    return next(filter(None, (wrong(key, one) for one in (value if isinstance(value, list) else [value]))), "")


def _instant_misfit(key: str, value: Any) -> str:
    if key in _RELATIVE:
        return ""
    if key not in _ORDERINGS:
        return "a point in time is compared with gt, gte, lt, lte, within, older_than or in_next"
    return "" if is_date(value) else f'{value!r} is not a date; write it as "2026-01-31"'


def _text_misfit(key: str, value: Any) -> str:
    if key in _ORDERINGS:
        return "text has no order; use eq, in, contains or starts_with"
    if key in _RELATIVE:
        return "this is text, not a date"
    if not isinstance(value, str):
        return f"{value!r} is not text; put it in quotes"
    return "is empty" if key == "contains" and not value else ""


def _json_misfit(key: str, value: Any) -> str:
    if key in _ORDERINGS and (isinstance(value, bool) or (isinstance(value, str) and not is_date(value))):
        return f'{value!r} is neither a number nor a date; write a date as "2026-01-31"'
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        return f"{value!r} is too large a number"
    return "is empty" if key == "contains" and value == "" else ""


_MISFITS: dict[Kind, Callable[[str, Any], str]] = {
    "relation": lambda _key, _value: "only exists can be asked of it",
    "instant": _instant_misfit,
    "text": _text_misfit,
    "json": _json_misfit,
}


def _test(cell: Cell, scope: Scope, key: str, value: Any) -> ColumnElement[bool]:
    if key in ("eq", "in"):
        return _equal(cell, value if key == "in" else [value])
    if key in ("ne", "not_in"):
        return not_(_equal(cell, value if key == "not_in" else [value]))
    if key == "exists":
        return _there(cell) if value else not_(_there(cell))
    if key in _ORDERINGS:
        return sure(_ordered(cell, scope, key, value))
    if key in _RELATIVE:
        return sure(_relative(cell, scope, key, parse_duration(value)))
    return _contains(cell, value) if key == "contains" else _part_of_text(key, _text(cell), value)


def _contains(cell: Cell, value: Any) -> ColumnElement[bool]:
    if cell.kind != "json":
        return _part_of_text("contains", cell.column, value)
    listed = sure(json_lists(cell.column, cell.keys, value))
    return or_(listed, _part_of_text("contains", _text(cell), value)) if isinstance(value, str) else listed


def _text(cell: Cell) -> ColumnElement[Any]:
    return json_text(cell.column, cell.keys) if cell.kind == "json" else cell.column


def _equal(cell: Cell, values: list[Any]) -> ColumnElement[bool]:
    """Return whether the value is one of these. Text, numbers and booleans never equal each other."""
    texts = [value for value in values if isinstance(value, str)]
    if cell.kind != "json":
        return sure(one_of(cell.column, texts))
    flags = [value for value in values if isinstance(value, bool)]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    parts: list[ColumnElement[bool]] = []
    if texts:
        parts.append(one_of(json_text(cell.column, cell.keys), texts))
    if numbers:
        parts.append(one_of(json_number(cell.column, cell.keys), numbers))
    parts.extend(json_boolean(cell.column, cell.keys) == literal(flag) for flag in set(flags))
    return or_(false(), *(sure(part) for part in parts))


def _there(cell: Cell) -> ColumnElement[bool]:
    if cell.kind == "json":
        return sure(json_present(cell.column, cell.keys))
    if cell.kind == "text":
        return sure(cell.column != "")
    return cell.column.is_not(None)


def _ordered(cell: Cell, scope: Scope, key: str, value: Any) -> ColumnElement[bool]:
    if cell.kind == "instant":
        day = date.fromisoformat(value)
        instant = scope.after(day) if key in ("gt", "lte") else scope.midnight(day)
        return compared({"gt": "gte", "lte": "lt"}.get(key, key), cell.column, instant)
    if isinstance(value, str):
        return compared(key, in_byte_order(json_text(cell.column, cell.keys)), value)
    return compared(key, json_number(cell.column, cell.keys), float(value))


def _relative(cell: Cell, scope: Scope, key: str, span: timedelta) -> ColumnElement[bool]:
    """Return whether a date lies so far from now: an instant to the millisecond, a date of JSON by whole days."""
    if cell.kind == "instant":
        if key == "within":
            return and_(cell.column >= scope.as_of - span, cell.column < scope.as_of)
        if key == "older_than":
            return cell.column < scope.as_of - span
        return and_(cell.column >= scope.as_of, cell.column < scope.as_of + span)
    day = json_day(cell.column, cell.keys)
    today, before, ahead = (_day(scope, moment) for moment in (scope.as_of, scope.as_of - span, scope.as_of + span))
    if key == "within":
        return and_(day >= before, day <= today)
    return day < before if key == "older_than" else and_(day >= today, day <= ahead)


def _day(scope: Scope, moment: datetime) -> ColumnElement[int]:
    days = (moment.astimezone(scope.zone).date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days
    return literal(days, BigInteger)


def _part_of_text(key: str, text: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Return a test for a part of the text, by functions that mean the same on both databases."""
    if key == "contains":
        return sure(func.replace(text, value, "") != text)
    if key == "starts_with":
        return sure(func.substr(text, 1, len(value)) == value)
    return sure(func.substr(text, func.length(text) - len(value) + 1) == value)
