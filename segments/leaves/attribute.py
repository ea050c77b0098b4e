"""Attributes: what is known of an account or a contact, in columns and in the JSON `attributes`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, RootModel
from sqlalchemy import ColumnElement, false

from kernel.quantities import parse_duration
from kernel.vocabulary import Subject
from segments.attributes import find_source, unknown_attribute
from segments.comparisons import Text, far_date
from segments.scope import Clock, Flaw, OnColumns, Scope, Surroundings, sure
from segments.value_tests import ValueTests
from store.json_values import json_raw, one_of


class Attribute(OnColumns, ValueTests):
    """A named attribute and what it must be; several tests must all hold.

    Text compares exactly, capitals included. A missing value satisfies no test but `ne`, `not_in` and
    `exists: false`; empty text counts as missing.
    """

    name: Text

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return an unknown name, no test at all, and values that do not fit the attribute's type."""
        source = find_source(self.name, surroundings.subject)
        if source is None:
            message, hint = unknown_attribute(self.name, surroundings.subject)
            yield Flaw(place=("name",), message=message, hint=hint)
            return
        if not any(self.tests()):
            yield Flaw(place=(), message=f"attribute {self.name} has no test", hint="add eq, in, gte, exists, …")
        for key, problem in self.misfits(source.kind):
            yield Flaw(place=(key,), message=f"{key}: {problem}")
        if source.kind == "instant":
            yield from self._no_instants()

    def _no_instants(self) -> Iterable[Flaw]:
        """Yield days no instant lies on, and stretches of no time; dates of JSON are text, and read by whole days."""
        for key, value in self.tests():
            said = far_date(value) if key in ("gt", "gte", "lt", "lte") else None
            if said:
                yield Flaw(place=(key,), message=f"{key}: {said[0]}", hint=said[1])
            if key in ("within", "in_next") and not parse_duration(value):
                message = f"{key}: {value} is no time at all, so nothing lies in it"
                yield Flaw(place=(key,), message=message, hint='write a longer time, as "1d"')

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether all tests hold."""
        source = find_source(self.name, scope.subject)
        return false() if source is None else self.all_hold(source.cell(scope), scope)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the attribute's value."""
        source = find_source(self.name, scope.subject)
        if source is None:
            return {}
        column = source.column(scope)
        return {self.name: json_raw(column, source.keys) if source.kind == "json" else column}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when a relative date passes its border."""
        source = find_source(self.name, scope.subject)
        inner = scope.about(scope.subject)
        timed = source and self.clock(source.cell(inner), inner)
        if timed:
            at, after = timed
            found = sure(at.is_not(None))
            yield Clock(source=inner.table, key=inner.id, whose=scope.subject, at=at, where=found, after=after)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Role(OnColumns, RootModel[Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1, max_length=1000)]]):
    """Contacts whose role is one of these words, exactly: short for an attribute test of `role`."""

    model_config = ConfigDict(strict=True, frozen=True)

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return that only people have roles, where the segment is about accounts."""
        if surroundings.subject is Subject.ACCOUNT:
            hint = "in a segment of accounts write any_contact: {role: …}"
            yield Flaw(place=(), message="contacts have roles, accounts have none", hint=hint)

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the role is one of the list."""
        return sure(one_of(scope.table.c.role, self.root))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the role."""
        return {"role": scope.table.c.role}
