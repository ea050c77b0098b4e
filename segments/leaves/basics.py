"""Leaves that need no details: everyone, who never bought, and other segments by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, RootModel
from sqlalchemy import ColumnElement, exists, not_, true

from kernel.documents import did_you_mean
from kernel.settings import Name
from kernel.vocabulary import OrderKind, Subject
from segments.buyers import counted
from segments.comparisons import own_rows
from segments.scope import Flaw, Scope, Surroundings
from store.tables import orders


def _only_true(value: bool) -> bool:
    if not value:
        raise ValueError("can only be true; for the opposite write not: {…: true}")
    return value


True_ = Annotated[bool, AfterValidator(_only_true), Field(json_schema_extra={"const": True})]


class Everyone(RootModel[True_]):
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


class NeverBought(RootModel[True_]):
    """Who has no order that stood before now: no row among the RFM scores, a state of its own."""

    model_config = ConfigDict(strict=True, frozen=True)

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return nothing: it suits every segment."""
        return ()

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the subject itself has no order of kind `order`."""
        table = orders.alias()
        own = own_rows(table, scope, scope.subject)
        bought = exists().where(own, table.c.kind == OrderKind.ORDER, counted(table, scope.as_of))
        return not_(bought.correlate(scope.table))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return nothing: the answer says it all."""
        return {}


class Reference(RootModel[Name]):
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
        """Return the other segment's condition, in place."""
        return scope.inline(self.root, scope)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return nothing: `explain` of the other segment shows its leaves."""
        return {}
