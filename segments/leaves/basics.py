"""Leaves that need no details: everyone, who never bought, and other segments by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, RootModel
from sqlalchemy import ColumnElement, exists, true

from kernel.documents import did_you_mean
from kernel.fields import Name
from kernel.vocabulary import Subject
from segments.leaves.orders import Orders
from segments.relations import ACCOUNT, RELATIONS
from segments.scope import Clock, Flaw, OnColumns, OnRows, Rows, Scope, Surroundings


def _only_true(value: bool) -> bool:
    if not value:
        raise ValueError("can only be true; for the opposite write not: {…: true}")
    return value


True_ = Annotated[bool, AfterValidator(_only_true), Field(json_schema_extra={"const": True})]


class Everyone(OnColumns, RootModel[True_]):
    """Every account, or every contact."""

    model_config = ConfigDict(strict=True, frozen=True)

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return nothing: it suits every segment."""
        return ()

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return true."""
        return true()

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return nothing: there is nothing to judge by."""
        return {}


class NeverBought(OnRows, RootModel[True_]):
    """Who has no order that stood before now: no row among the models' figures, a state of its own."""

    model_config = ConfigDict(strict=True, frozen=True)

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return nothing: it suits every segment."""
        return ()

    def rows(self, scope: Scope) -> Rows:
        """Return the subject's own orders."""
        return _ORDER_COUNT.rows(scope)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether there is no order of kind `order`."""
        return _ORDER_COUNT.test(scope)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return nothing: the answer says it all."""
        return {}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when orders cease to be in the future, or are cancelled."""
        return _ORDER_COUNT.clocks(scope)


_ORDER_COUNT = Orders(measure="count", eq=0)


class Reference(OnColumns, RootModel[Name]):
    """Who is in another segment, as its file says now. A contact is in an account segment through its account."""

    model_config = ConfigDict(strict=True, frozen=True)

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return that the segment is unknown, or about contacts where this one is about accounts."""
        subject = surroundings.segments.get(self.root)
        if subject is None:
            hint = did_you_mean(self.root, surroundings.segments)
            yield Flaw(place=(), message=f"unknown segment {self.root!r}", hint=hint)
        elif subject is Subject.CONTACT and surroundings.subject is Subject.ACCOUNT:
            message = f"segment {self.root!r} is about contacts, this one about accounts"
            yield Flaw(place=(), message=message, hint=f"write any_contact: {{segment: {self.root}}}")

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return the other segment's condition, asked about the same subjects or their accounts.

        `Condition.related` leads there one step at a time.
        """
        question, inner = scope.entering(self.root)
        if inner.table is scope.table:
            return question.holds(inner)
        link = RELATIONS[ACCOUNT].link(scope, inner.table)
        found = exists().select_from(inner.table).where(link, question.holds(inner))
        return found.correlate(scope.table)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return nothing: the leaves of the other segment show theirs."""
        return {}
