"""Related accounts and contacts: the words for them, whom they lead to, and the link between the two tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, select

from kernel.vocabulary import Subject
from segments.scope import Scope
from store.tables import accounts

ACCOUNT = "account"
"""The way from a contact to its account, as a segment of contacts goes that names a segment of accounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How one gets from a scope's subjects to others.

    `link(scope, table)` tells whether a row of the other table is related to the scope's subject; it is never needed
    the other way round, since it can be read from either side: NULL reads as not related.
    """

    leads_to: Subject
    link: Callable[[Scope, FromClause], ColumnElement[Any]]


def _colleague(scope: Scope, table: FromClause) -> ColumnElement[Any]:
    return and_(table.c.account_id == scope.id_of(Subject.ACCOUNT), table.c.id != scope.id)


def _sibling(scope: Scope, table: FromClause) -> ColumnElement[Any]:
    return and_(table.c.parent_id == _parent_id(scope), table.c.id != scope.id_of(Subject.ACCOUNT))


def _parent_id(scope: Scope) -> ColumnElement[Any]:
    """Return the parent of the account, or of the contact's account."""
    if scope.subject is Subject.ACCOUNT:
        column: ColumnElement[Any] = scope.table.c.parent_id
        return column
    own = accounts.alias()
    found = select(own.c.parent_id).where(own.c.id == scope.table.c.account_id)
    return found.correlate(scope.table).scalar_subquery()


RELATIONS: dict[str, Relation] = {
    "any_contact": Relation(
        leads_to=Subject.CONTACT, link=lambda scope, table: table.c.account_id == scope.id_of(Subject.ACCOUNT)
    ),
    "any_colleague": Relation(leads_to=Subject.CONTACT, link=_colleague),
    "parent": Relation(leads_to=Subject.ACCOUNT, link=lambda scope, table: table.c.id == _parent_id(scope)),
    "any_child": Relation(
        leads_to=Subject.ACCOUNT, link=lambda scope, table: table.c.parent_id == scope.id_of(Subject.ACCOUNT)
    ),
    "any_sibling": Relation(leads_to=Subject.ACCOUNT, link=_sibling),
    ACCOUNT: Relation(leads_to=Subject.ACCOUNT, link=lambda scope, table: table.c.id == scope.id_of(Subject.ACCOUNT)),
}
"""Every relation by its word in the language; `account` is the one that segments of accounts are reached by."""
