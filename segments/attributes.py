"""Names of attributes: which there are, of what kind, and the column behind each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, select

from kernel.documents import did_you_mean
from kernel.vocabulary import Subject
from segments.scope import Scope
from segments.value_tests import Cell, Kind
from store.tables import accounts

_COLUMNS: dict[Subject, dict[str, Kind]] = {
    Subject.ACCOUNT: {
        "external_id": "text",
        "name": "text",
        "country": "text",
        "timezone": "text",
        "language": "text",
        "created_at": "instant",
    },
    Subject.CONTACT: {
        "external_id": "text",
        "email": "text",
        "phone": "text",
        "first_name": "text",
        "last_name": "text",
        "role": "text",
        "timezone": "text",
        "language": "text",
        "created_at": "instant",
    },
}
_RELATIONS: dict[Subject, tuple[str, str]] = {
    Subject.ACCOUNT: ("parent", "parent_id"),
    Subject.CONTACT: ("account", "account_id"),
}
"""The one step from a subject to another: its word, and the column that leads to an account."""
_KEY = re.compile(r"\w[\w -]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an attribute's value stands: after `steps` from the subject, in `name`, and there under `keys` of JSON."""

    kind: Kind
    steps: tuple[str, ...]
    name: str
    keys: tuple[str, ...] = ()

    def column(self, scope: Scope) -> ColumnElement[Any]:
        """Return the column, looked up along the steps for each of the scope's subjects."""
        if not self.steps:
            column: ColumnElement[Any] = scope.table.c[self.name]
            return column
        table: FromClause = accounts.alias()
        reached = table.c.id == scope.table.c[self.steps[0]]
        joined: Any = table
        for step in self.steps[1:]:
            following = accounts.alias()
            joined = joined.join(following, following.c.id == table.c[step])
            table = following
        return select(table.c[self.name]).select_from(joined).where(reached).correlate(scope.table).scalar_subquery()

    def cell(self, scope: Scope) -> Cell:
        """Return the value to be tested, for each of the scope's subjects."""
        return Cell(kind=self.kind, column=self.column(scope), keys=self.keys)


def find_source(name: str, subject: Subject) -> Source | None:
    """Return where the attribute of this name stands, or None where there is none.

    Names are columns, `attributes.key` (further keys by dots), `parent.…` of an account and `account.…` of a contact.
    """
    steps: list[str] = []
    words = name.split(".")
    while words and words[0] == _RELATIONS[subject][0]:
        column = _RELATIONS[subject][1]
        if len(words) == 1:
            return Source(kind="relation", steps=tuple(steps), name=column)
        steps.append(column)
        subject = Subject.ACCOUNT
        words = words[1:]
    if words[0] == "attributes" and len(words) > 1 and is_path(".".join(words[1:])):
        return Source(kind="json", steps=tuple(steps), name="attributes", keys=tuple(words[1:]))
    kind = _COLUMNS[subject].get(words[0]) if len(words) == 1 else None
    return Source(kind=kind, steps=tuple(steps), name=words[0]) if kind else None


def is_path(name: str) -> bool:
    """Return whether a name is keys of JSON with dots between them."""
    return all(_KEY.fullmatch(word) for word in name.split("."))


def unknown_attribute(name: str, subject: Subject) -> tuple[str, str]:
    """Return the problem and hint for a name that is none."""
    relation = _RELATIONS[subject][0]
    known = [*_COLUMNS[subject], relation, *(f"{relation}.{word}" for word in _COLUMNS[Subject.ACCOUNT])]
    if name.startswith("attributes."):
        return f"{name!r} is not a path into attributes", "use letters, digits, _, - and spaces, with dots between keys"
    if name in _COLUMNS[Subject.ACCOUNT] and subject is Subject.CONTACT:
        return f"contacts have no attribute {name!r}", f"accounts have: write account.{name}"
    hint = did_you_mean(name, known)
    own = f"attributes.{name}" if _KEY.fullmatch(name) else "attributes.…"
    return f"{subject}s have no attribute {name!r}", f"{hint} your own attributes are written {own}"
