"""Events: how often something happened and what it was worth, by the name and the properties the shop gave it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import BigInteger, ColumnElement, and_, cast, func, literal, type_coerce

from kernel.clock import to_ms
from kernel.ids import digest
from kernel.vocabulary import Subject
from segments.attributes import is_path
from segments.buyers import DAY_MS
from segments.comparisons import Comparison, Period, Text
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings, Whose, sure
from segments.value_tests import Cell, ValueTests
from store.tables import events

Measure = Literal["count", "sum", "average", "min", "max", "days_since_first", "days_since_last"]
_MONEY = ("sum", "average", "min", "max")


class PropertyTests(ValueTests):
    """A property of an event, and what it must be."""

    property_: Text = Field(alias="property")

    def flaws(self) -> Iterable[Flaw]:
        """Return a name that is no path, no test at all, and values that fit no property."""
        if not is_path(self.property_):
            hint = "use letters, digits, _, - and spaces, with dots between keys"
            yield Flaw(place=("property",), message=f"{self.property_!r} is not a path into properties", hint=hint)
        if not any(self.tests()):
            message = f"property {self.property_} has no test"
            yield Flaw(place=(), message=message, hint="add eq, in, gte, exists, …")
        for key, problem in self.misfits("json"):
            yield Flaw(place=(key,), message=f"{key}: {problem}")

    @property
    def cell(self) -> Cell:
        """Where the value stands."""
        return Cell(kind="json", column=events.c.properties, keys=tuple(self.property_.split(".")))


class Events(OnRows, Comparison, Period):
    """A measure over events of a name; without a border, there is at least one.

    Without any such event `count` and `sum` are 0, and the others satisfy no border.
    """

    name: Text = Field(min_length=1)
    measure: Measure = "count"
    where: Annotated[list[PropertyTests], Field(min_length=1, max_length=50)] | None = Field(
        default=None, description="Only events with these properties."
    )
    of: Whose | None = Field(default=None, description="Whose events; default: the subject's own.")

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return borders that do not fit the measure, wrong properties, or a contact's events asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {events: …}")
        if self.measure in _MONEY:
            yield from self.money_flaws()
        elif self.measure != "count":
            yield from self.whole_number_flaws(self.measure)
        elif any(self.borders()):
            yield from self.whole_number_flaws("a count")
        for index, one in enumerate(self.where or ()):
            for flaw in one.flaws():
                yield Flaw(place=("where", index, *flaw.place), message=flaw.message, hint=flaw.hint)

    def rows(self, scope: Scope) -> Rows:
        """Return the events of this name."""
        whose = self._whose(scope)
        where = and_(self._mine(scope), events.c.at < scope.as_of)
        name = f"events/{whose}/{digest(self.name)}"
        return Rows(name=name, source=events, key=_key(whose), whose=whose, where=where)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the measure lies within the borders."""
        value = self._value(scope)
        if self.measure == "average":
            counts = self._counts(scope)
            total, number = func.sum(events.c.value_minor).filter(counts), func.count().filter(counts)
            return sure(self.holds_for_average(total, number, scope.currency))
        if self.measure in _MONEY:
            return sure(self.holds_for_money(value, scope.currency))
        return sure(self.holds_for(value)) if any(self.borders()) else value >= 1

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the measure; money in minor units."""
        unit = "_minor" if self.measure in _MONEY else ""
        return {f"{self.measure}{unit}": self.asked(scope, self._value(scope))}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when events leave the window, reach an age, or cease to be in the future."""
        whose = self._whose(scope)
        ages = self.days_after() if self.measure.startswith("days_since") else ()
        after = tuple(sorted({*self.after(), *ages}))
        key, where = _key(whose), self._mine(scope)
        yield Clock(source=events, key=key, whose=whose, at=events.c.at, where=where, after=after)
        for one in self.where or ():
            timed = one.clock(one.cell, scope)
            if timed:
                at, after = timed
                yield Clock(source=events, key=key, whose=whose, at=at, where=and_(where, at.is_not(None)), after=after)

    def _whose(self, scope: Scope) -> Subject:
        return Subject(self.of or scope.subject)

    def _mine(self, scope: Scope) -> ColumnElement[bool]:
        return and_(_key(self._whose(scope)).is_not(None), events.c.name == self.name)

    def _counts(self, scope: Scope) -> ColumnElement[bool]:
        parts = [self.lies_in(scope, events.c.at)]
        parts.extend(one.all_hold(one.cell, scope) for one in self.where or ())
        if self.measure in _MONEY:
            parts.extend((events.c.value_minor.is_not(None), events.c.currency == scope.currency))
        return and_(*parts)

    def _value(self, scope: Scope) -> ColumnElement[Any]:
        counts = self._counts(scope)
        at = type_coerce(events.c.at, BigInteger)
        now_ms = literal(to_ms(scope.as_of), BigInteger)
        value = events.c.value_minor
        aggregates: dict[Measure, ColumnElement[Any]] = {
            "count": func.count().filter(counts),
            "sum": cast(func.coalesce(func.sum(value).filter(counts), 0), BigInteger),
            "average": func.avg(value).filter(counts),
            "min": func.min(value).filter(counts),
            "max": func.max(value).filter(counts),
            "days_since_first": (now_ms - func.min(at).filter(counts)) // DAY_MS,
            "days_since_last": (now_ms - func.max(at).filter(counts)) // DAY_MS,
        }
        return aggregates[self.measure]


def _key(whose: Subject) -> ColumnElement[Any]:
    return events.c.account_id if whose is Subject.ACCOUNT else events.c.contact_id
