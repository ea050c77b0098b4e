"""Questions nobody can ever satisfy, found in whatever model they stand: borders that exclude each other, no time."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import BaseModel

from kernel.quantities import parse_duration
from segments.comparisons import far_date
from segments.scope import Flaw, Place
from segments.value_tests import ValueTests

_LOWER, _UPPER = ("eq", "gte", "gt"), ("eq", "lte", "lt")
_STRETCHES = ("within", "bought_within", "entered_within", "left_within", "restocked_within", "in_next")
"""Keys of stretches of time in which something lies; in none at all nothing does."""
_DAYS = ("on", "between")
_OTHERWISE = "correct one of them; for the one or the other write two conditions under any:"


def impossible(model: BaseModel, place: Place = ()) -> Iterator[Flaw]:
    """Yield what nothing can satisfy in a leaf and all that stands inside it; `place` is the leaf's own."""
    yield from _borders(model, place)
    yield from _times(model, place)
    for key, value in _given(model):
        if isinstance(value, BaseModel):
            yield from impossible(value, (*place, key))
        for index, one in enumerate(value if isinstance(value, list) else ()):
            if isinstance(one, BaseModel):
                yield from impossible(one, (*place, key, index))


def _given(model: BaseModel) -> Iterator[tuple[str, Any]]:
    """Yield each key as the file has it, and its value, of those that are given."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value is not None:
            yield field.alias or name, value


def _borders(model: BaseModel, place: Place) -> Iterator[Flaw]:
    found = dict(_given(model))
    for low in _LOWER:
        for high in _UPPER:
            if low != high and _exclude(low, found.get(low), high, found.get(high)):
                message = f"{low}: {found[low]} and {high}: {found[high]} exclude each other"
                yield Flaw(place=(*place, high), message=message, hint=_OTHERWISE)


def _exclude(low: str, lower: Any, high: str, upper: Any) -> bool:
    """Return whether no value lies from the lower border to the upper one; values of two kinds are not compared."""
    if _is_text(lower) and _is_text(upper):
        # Days, which order as they are written; amounts are told apart by having no dashes inside.
        first, last = (lower, upper) if "-" in lower[1:] and "-" in upper[1:] else (_number(lower), _number(upper))
    else:
        first, last = _number(lower), _number(upper)
    if first is None or last is None:
        return False
    return bool(first > last or (first == last and (low == "gt" or high == "lt")))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _times(model: BaseModel, place: Place) -> Iterator[Flaw]:
    found = dict(_given(model))
    # A date of JSON is read by whole days, so that within 0d is today.
    stretches = () if isinstance(model, ValueTests) else [key for key in _STRETCHES if key in found]
    for key in stretches:
        if not parse_duration(found[key]):
            message = f"{key}: {found[key]} is no time at all, so nothing lies in it"
            yield Flaw(place=(*place, key), message=message, hint='write a longer time, as "1d"')
    if isinstance(found.get("within"), str) and isinstance(found.get("older_than"), str):
        within, older_than = found["within"], found["older_than"]
        if parse_duration(within) <= parse_duration(older_than):
            message = f"within: {within} and older_than: {older_than} exclude each other"
            yield Flaw(place=(*place, "older_than"), message=message, hint=_OTHERWISE)
    for key in (key for key in _DAYS if key in found):
        days = found[key] if isinstance(found[key], list) else [found[key]]
        for index, day in enumerate(days):
            said = far_date(day)
            if said:
                inside = (key, index) if isinstance(found[key], list) else (key,)
                yield Flaw(place=(*place, *inside), message=f"{key}: {said[0]}", hint=said[1])
