"""Events: how often something happened, by the name the shop gave it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field
from sqlalchemy import ColumnElement, func, select

from kernel.vocabulary import Subject
from segments.comparisons import Comparison, Period, own_rows
from segments.scope import Flaw, Scope, Surroundings, Whose
from store.tables import events


class Events(Comparison, Period):
    """How many events of a name there are; without a border, at least one."""

    name: str = Field(min_length=1)
    of: Whose | None = Field(default=None, description="Whose events; default: the subject's own.")

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return borders that are no counts, or a contact's events asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {events: …}")
        if any(self.borders()):
            yield from self.whole_number_flaws("a count")

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the count lies within the borders."""
        count = self._count(scope)
        return self.holds_for(count) if any(self.borders()) else count >= 1

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the count."""
        return {"count": self._count(scope)}

    def _count(self, scope: Scope) -> ColumnElement[int]:
        table = events.alias()
        return (
            select(func.count())
            .select_from(table)
            .where(own_rows(table, scope, self.of or scope.subject), table.c.name == self.name)
            .where(self.lies_in(scope, table.c.at))
            .correlate(scope.table)
            .scalar_subquery()
        )
