"""RFM: the group and scores of the last refresh."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from sqlalchemy import ColumnElement, exists, select

from kernel.settings import Strict
from kernel.vocabulary import Subject
from segments.comparisons import Comparison
from segments.scope import Flaw, Scope, Surroundings, Whose
from store.tables import rfm_scores

RfmWord = Literal[
    "champions",
    "loyal_customers",
    "potential_loyalists",
    "new_customers",
    "promising",
    "need_attention",
    "about_to_sleep",
    "at_risk",
    "cant_lose",
    "hibernating",
]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Rfm(Strict):
    """Buyers by RFM group and by the scores r, f and m, from 1 to 5, 5 the best.

    Contacts are judged by their account's scores unless `of: contact` asks for their own. Who never bought has
    no score and satisfies no such condition.
    """

    segment: Annotated[list[RfmWord] | None, BeforeValidator(_listed), Field(min_length=1)] = None
    r: Comparison | None = None
    f: Comparison | None = None
    m: Comparison | None = None
    of: Whose | None = None

    @property
    def whose(self) -> Whose:
        """Whose scores it reads."""
        return self.of or "account"

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return an empty condition, borders that are no scores, or a contact's scores asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: a segment of accounts has no contact's scores")
        if self.segment is None and not any((self.r, self.f, self.m)):
            yield Flaw(place=(), message="rfm asks nothing", hint="add segment, r, f or m")
        for axis, borders in (("r", self.r), ("f", self.f), ("m", self.m)):
            if borders:
                yield from borders.whole_number_flaws(f"the score {axis}", place=(axis,))
                for operator, value in borders.borders():
                    if isinstance(value, int) and not 1 <= value <= 5:
                        yield Flaw(place=(axis, operator), message=f"{operator}: scores go from 1 to 5, got {value}")

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether there is a score and it is as asked."""
        table = rfm_scores.alias()
        found = exists().where(table.c.subject == self.whose, table.c.subject_id == scope.id_of(self.whose))
        if self.segment is not None:
            found = found.where(table.c.segment.in_(self.segment))
        for axis, borders in (("r", self.r), ("f", self.f), ("m", self.m)):
            if borders:
                found = found.where(borders.holds_for(table.c[axis]))
        return found.correlate(scope.table)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return group and scores; NULL where there are none."""
        return {name: self._value(scope, name) for name in ("segment", "r", "f", "m")}

    def _value(self, scope: Scope, name: str) -> ColumnElement[Any]:
        table = rfm_scores.alias()
        return (
            select(table.c[name])
            .where(table.c.subject == self.whose, table.c.subject_id == scope.id_of(self.whose))
            .correlate(scope.table)
            .scalar_subquery()
        )
