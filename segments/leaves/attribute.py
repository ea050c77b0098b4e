"""Attributes: what is known of an account or a contact, in columns and in the JSON `attributes`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Any

from pydantic import Field, StrictBool
from sqlalchemy import ColumnElement, and_, false, func, literal, not_, or_, true

from kernel.settings import Strict
from segments.attributes import Kind, Source, find_source, unknown_attribute
from segments.comparisons import LARGEST, compared, is_date
from segments.scope import Flaw, Scope, Surroundings, sure
from store.json_values import in_byte_order, json_boolean, json_lists, json_number, json_present, json_raw, json_text

Value = StrictBool | int | float | str
Text = str
_ORDERINGS = ("gt", "gte", "lt", "lte")


class Attribute(Strict):
    """A named attribute and what it must be; several tests must all hold.

    Text compares exactly, capitals included. A missing value satisfies no test but `ne`, `not_in` and
    `exists: false`; empty text counts as missing.
    """

    name: str
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

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return an unknown name, no test at all, and values that do not fit the attribute's type."""
        source = find_source(self.name, surroundings.subject)
        if source is None:
            message, hint = unknown_attribute(self.name, surroundings.subject)
            yield Flaw(place=("name",), message=message, hint=hint)
            return
        if not any(self._tests()):
            yield Flaw(place=(), message=f"attribute {self.name} has no test", hint="add eq, in, gte, exists, …")
        for key, value in self._tests():
            problem = _misfit(source, key, value)
            if problem:
                yield Flaw(place=(key,), message=f"{key}: {problem}")

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether all tests hold."""
        source = find_source(self.name, scope.subject)
        if source is None:
            return false()
        return and_(true(), *(_test(source, scope, key, value) for key, value in self._tests()))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the attribute's value."""
        source = find_source(self.name, scope.subject)
        if source is None:
            return {}
        column = source.column(scope)
        return {self.name: json_raw(column, source.keys) if source.kind == "json" else column}

    def _tests(self) -> Iterator[tuple[str, Any]]:
        for field in type(self).model_fields:
            value = getattr(self, field)
            if field != "name" and value is not None:
                yield field.rstrip("_"), value


def _misfit(source: Source, key: str, value: Any) -> str:
    """Return in words why a test does not suit the kind of attribute, or ""."""
    if key == "exists":
        return ""
    wrong = _MISFITS[source.kind]
    return next(filter(None, (wrong(key, one) for one in (value if isinstance(value, list) else [value]))), "")


def _instant_misfit(key: str, value: Any) -> str:
    if key not in _ORDERINGS:
        return "a point in time is compared with gt, gte, lt or lte"
    return "" if is_date(value) else f'{value!r} is not a date; write it as "2026-01-31"'


def _text_misfit(key: str, value: Any) -> str:
    if key in _ORDERINGS:
        return "text has no order; use eq, in, contains or starts_with"
    if not isinstance(value, str):
        return f"{value!r} is not text; put it in quotes"
    return "is empty" if key == "contains" and not value else ""


def _json_misfit(key: str, value: Any) -> str:
    if key in _ORDERINGS and (isinstance(value, bool) or (isinstance(value, str) and not is_date(value))):
        return f'{value!r} is neither a number nor a date; write a date as "2026-01-31"'
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{value!r} is too large a number"
    return "is empty" if key == "contains" and value == "" else ""


_MISFITS: dict[Kind, Callable[[str, Any], str]] = {
    "relation": lambda _key, _value: "only exists can be asked of it",
    "instant": _instant_misfit,
    "text": _text_misfit,
    "json": _json_misfit,
}


def _test(source: Source, scope: Scope, key: str, value: Any) -> ColumnElement[bool]:
    column = source.column(scope)
    if key in ("eq", "in"):
        return _equal(source, column, value if key == "in" else [value])
    if key in ("ne", "not_in"):
        return not_(_equal(source, column, value if key == "not_in" else [value]))
    if key == "exists":
        return _there(source, column) if value else not_(_there(source, column))
    if key in _ORDERINGS:
        return sure(_ordered(source, scope, column, key, value))
    if key == "contains" and source.kind == "json":
        listed = sure(json_lists(column, source.keys, value))
        return or_(listed, _text_test(key, _text(source, column), value)) if isinstance(value, str) else listed
    return _text_test(key, _text(source, column), value)


def _text(source: Source, column: ColumnElement[Any]) -> ColumnElement[Any]:
    return json_text(column, source.keys) if source.kind == "json" else column


def _equal(source: Source, column: ColumnElement[Any], values: list[Any]) -> ColumnElement[bool]:
    """Return whether the value is one of these. Text, numbers and booleans never equal each other."""
    texts = [value for value in values if isinstance(value, str)]
    if source.kind != "json":
        return sure(column.in_(texts))
    flags = [value for value in values if isinstance(value, bool)]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    parts: list[ColumnElement[bool]] = []
    if texts:
        parts.append(json_text(column, source.keys).in_(texts))
    if numbers:
        parts.append(json_number(column, source.keys).in_(numbers))
    parts.extend(json_boolean(column, source.keys) == literal(flag) for flag in set(flags))
    return or_(false(), *(sure(part) for part in parts))


def _there(source: Source, column: ColumnElement[Any]) -> ColumnElement[bool]:
    if source.kind == "json":
        return sure(json_present(column, source.keys))
    if source.kind == "text":
        return sure(column != "")
    return column.is_not(None)


def _ordered(source: Source, scope: Scope, column: ColumnElement[Any], key: str, value: Any) -> ColumnElement[bool]:
    if source.kind == "instant":
        day = date.fromisoformat(value)
        instant = scope.after(day) if key in ("gt", "lte") else scope.midnight(day)
        return compared({"gt": "gte", "lte": "lt"}.get(key, key), column, instant)
    if isinstance(value, str):
        return compared(key, in_byte_order(json_text(column, source.keys)), value)
    return compared(key, json_number(column, source.keys), float(value))


def _text_test(key: str, text: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Return a test for a part of the text, by functions that mean the same on both databases."""
    if key == "contains":
        return sure(func.replace(text, value, "") != text)
    if key == "starts_with":
        return sure(func.substr(text, 1, len(value)) == value)
    return sure(func.substr(text, func.length(text) - len(value) + 1) == value)
