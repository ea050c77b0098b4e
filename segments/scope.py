"""Where a condition is asked: about whom, as of when, in which currency; and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, FromClause, false, func

from kernel.vocabulary import Subject
from store.tables import accounts, contacts

Place = tuple[str | int, ...]
Whose = Literal["account", "contact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One thing wrong with a condition that only its surroundings show; `place` is relative to the condition."""

    place: Place
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a condition is checked against: whom the segment is about, and all segments' subjects by name."""

    subject: Subject
    segments: Mapping[str, Subject]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A table of subjects that a condition picks from, and the surroundings it is asked in.

    `inline` returns the condition of another segment, asked about a scope's subjects.
    """

    subject: Subject
    table: FromClause
    as_of: datetime
    currency: str
    zone: ZoneInfo
    inline: Callable[[str, Scope], ColumnElement[bool]]
    path: tuple[str, ...] = field(default=())

    @property
    def id(self) -> ColumnElement[int]:
        return self.table.c.id

    def id_of(self, whose: Whose | Subject) -> ColumnElement[Any]:
        """Return the subject's own id, or for a contact that of its account."""
        if whose == self.subject:
            return self.table.c.id
        return self.table.c.account_id

    def about(self, subject: Subject) -> Scope:
        """Return the same surroundings over a fresh table of accounts or contacts."""
        return replace(self, subject=subject, table=subjects(subject))

    def midnight(self, day: date) -> datetime:
        """Return the start of the day in the workspace's zone."""
        return datetime.combine(day, time(), tzinfo=self.zone)

    def after(self, day: date) -> datetime:
        """Return the end of the day in the workspace's zone: the start of the next one."""
        return self.midnight(day + timedelta(days=1))


class Leaf(Protocol):
    """One question about a subject: a pydantic model that finds its own flaws and becomes SQL."""

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return what is wrong with it here."""

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether it is true of the scope's subjects: true or false, never NULL."""

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the actual values it judges by, for people to read."""


def subjects(subject: Subject) -> FromClause:
    """Return a fresh alias of the table of accounts or contacts."""
    return (accounts if subject is Subject.ACCOUNT else contacts).alias()


def sure(condition: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition with NULL read as false, so that `not` turns every answer round."""
    return func.coalesce(condition, false())
