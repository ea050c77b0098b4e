"""What leaves about the models' figures share: one row per buyer, as of the last refresh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field
from sqlalchemy import ColumnElement, func, type_coerce

from kernel.fields import Strict
from kernel.vocabulary import Subject
from segments.comparisons import Ago, Comparison
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings, Whose
from store.tables import profiles

Model = Literal["rfm", "clusters", "lifetime"]


class ProfileLeaf(OnRows, Strict):
    """Buyers by what a model says of them. Who never bought has no such row and satisfies no such condition."""

    model: ClassVar[Model]
    """The model whose figures are read."""
    of: Whose | None = Field(default=None, description="Whose figures; default: the account's.")

    @property
    def whose(self) -> Whose:
        """Whose figures it reads."""
        return self.of or "account"

    def flaws(self, surroundings: Surroundings) -> Iterator[Flaw]:
        """Yield a contact's figures asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {…: {of: contact}}")

    def rows(self, scope: Scope) -> Rows:
        """Return the figures of every buyer: at most one row each."""
        where = profiles.c.subject == self.whose
        name = f"profiles/{self.whose}"
        return Rows(name=name, source=profiles, key=profiles.c.subject_id, whose=Subject(self.whose), where=where)

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return nothing: only a refresh of the models changes the figures."""
        return ()

    def clock(self, scope: Scope, at: ColumnElement[Any], spans: Ago | None) -> Iterator[Clock]:
        """Yield when an instant of the row reaches the age that is asked for."""
        if spans is not None:
            rows = self.rows(scope)
            where = rows.where & at.is_not(None)
            yield Clock(source=profiles, key=rows.key, whose=rows.whose, at=at, where=where, after=spans.after())

    def value(self, scope: Scope, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column of the row, for people to read."""
        return self.asked(scope, type_coerce(func.max(column), column.type))


def found(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether there is a row that satisfies the condition."""
    return func.count().filter(condition) > 0


def placed(borders: dict[str, Comparison | None]) -> Iterator[tuple[str, Comparison]]:
    """Yield key and borders of those that are given."""
    for key, one in borders.items():
        if one is not None:
            yield key, one
