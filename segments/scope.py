"""Where a condition is asked, what may be wrong with it, and what a leaf must be able to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar, Literal, Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, FromClause, Select, false, func, select

from kernel.errors import ConfigError
from kernel.vocabulary import RFM_SEGMENTS, Subject
from store.tables import accounts, contacts

Place = tuple[str | int, ...]
Whose = Literal["account", "contact"]
Way = tuple[str, ...]
"""Names of relations, the outermost first: how one gets from a condition's subjects to those a part of it is about."""
EARLIEST_DAY, LATEST_DAY = date(1900, 1, 1), date(2200, 12, 31)
"""No fact lies outside; a day beyond is a slip of the pen, and further on no instant at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One thing wrong with a condition that only its surroundings show; `place` is relative to the condition."""

    place: Place
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a condition is checked against: whom the segment is about, and what there is to refer to by name.

    `segments` are all segments' subjects by name, `rfm_groups` the groups of the workspace's map, `rfm_scores` its
    best score. `depth` counts the conditions above.
    """

    subject: Subject
    segments: Mapping[str, Subject]
    rfm_groups: tuple[str, ...] = RFM_SEGMENTS
    rfm_scores: int = 5
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of another table that speak about subjects.

    Leaves whose `name` is equal have equal source, key and where, so that they are answered in one pass. The source
    is never an alias made for the occasion: it is the same object, or an equal one, each time it is asked for.
    """

    name: str
    source: FromClause
    key: ColumnElement[Any]
    whose: Subject
    where: ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time alone may change the answer of a row's subject when `at` plus one of `after` passes.

    Whoever is asked at t0 and again at t1 need look only at subjects with a row where `at + after` lies in
    (t0, t1], one millisecond to either side. `at` is an instant as stored: milliseconds since 1970 UTC. Clocks may
    name too many subjects, never too few.
    """

    source: FromClause
    key: ColumnElement[Any]
    whose: Subject
    at: ColumnElement[Any]
    where: ColumnElement[bool]
    after: tuple[timedelta, ...]


class Question(Protocol):
    """A whole condition, as a scope finds it under the name of another segment."""

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether it is true of the scope's subjects."""

    def clocks(self, scope: Scope) -> Iterable[tuple[Way, Clock]]:
        """Return all clocks of its leaves, each with the way to the subjects it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Referred:
    """Another segment: whom it is about, the zone its days are read in, and its condition."""

    subject: Subject
    zone: ZoneInfo
    where: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A table of subjects that a condition picks from, and the surroundings it is asked in.

    `find` returns another segment by name, or raises ConfigError; `path` names the segments entered so far.
    `nesting` is how deep in the statement the condition will stand: see `deeper`.
    """

    subject: Subject
    table: FromClause
    as_of: datetime
    currency: str
    zone: ZoneInfo
    find: Callable[[str], Referred]
    path: tuple[str, ...] = field(default=())
    nesting: int = 0

    @property
    def id(self) -> ColumnElement[int]:
        return self.table.c.id

    def id_of(self, whose: Whose | Subject) -> ColumnElement[Any]:
        """Return the subject's own id, or for a contact that of its account."""
        if whose == self.subject:
            return self.table.c.id
        return self.table.c.account_id

    def deeper(self, levels: int) -> Scope:
        """Return the same scope for a condition that stands further inside the statement."""
        return replace(self, nesting=self.nesting + levels)

    def about(self, subject: Subject) -> Scope:
        """Return the same surroundings over a fresh table of accounts or contacts."""
        return replace(self, subject=subject, table=subjects(subject))

    def entering(self, name: str) -> tuple[Question, Scope]:
        """Return the condition of another segment and the scope to ask it in.

        That is this table; but a fresh table of accounts where contacts are asked for a segment of accounts.

        Raises:
            ConfigError: no such segment, a circle, or a segment of contacts asked of accounts.
        """
        if name in self.path:
            raise ConfigError(f"segments refer to each other in a circle: {' → '.join([*self.path, name])}")
        other = self.find(name)
        inside = replace(self, zone=other.zone, path=(*self.path, name))
        if other.subject is self.subject:
            return other.where, inside
        if other.subject is Subject.CONTACT:
            raise ConfigError(f"segment {name!r} is about contacts and cannot pick accounts")
        return other.where, inside.about(Subject.ACCOUNT)

    def midnight(self, day: date) -> datetime:
        """Return the start of the day in the workspace's zone; a day no fact can lie on is the nearest that can."""
        return datetime.combine(_in_range(day), time(), tzinfo=self.zone)

    def after(self, day: date) -> datetime:
        """Return the end of the day in the workspace's zone: the start of the next one."""
        return datetime.combine(_in_range(day) + timedelta(days=1), time(), tzinfo=self.zone)


class Leaf(Protocol):
    """One question about a subject: a pydantic model that finds its own flaws and becomes SQL.

    Made by inheriting `OnColumns` or `OnRows`, which say all that follows from the rest.
    """

    others_matter: ClassVar[bool]
    """Whether facts about other subjects than the one asked about change the answer, as sales of a product do."""

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return what is wrong with it here."""

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether it is true of the scope's subjects, asked one by one: true or false, never NULL."""

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the actual values it judges by, for people to read."""

    def rows(self, scope: Scope) -> Rows | None:
        """Return the rows it is answered from, or None where it asks about the subject's own columns."""

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return the answer over aggregates of one subject's rows, right without any row too; never NULL.

        For a leaf without rows: the same as `holds`.
        """

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return what must be looked at to find whose answer time alone changes."""


class OnColumns:
    """Base of leaves about the subject's own columns: they have no rows."""

    others_matter: ClassVar[bool] = False

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return the answer; every leaf has its own."""
        raise NotImplementedError

    def rows(self, scope: Scope) -> Rows | None:
        """Return None: the subject's own columns are enough."""
        return None

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return the same as `holds`."""
        return self.holds(scope)

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return nothing: time alone changes no answer."""
        return ()


class OnRows:
    """Base of leaves answered from rows: whether one subject is asked or all, `test` over `rows` is the answer."""

    others_matter: ClassVar[bool] = False

    def rows(self, scope: Scope) -> Rows:
        """Return the rows; every leaf has its own."""
        raise NotImplementedError

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return the answer over aggregates; every leaf has its own."""
        raise NotImplementedError

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return the clocks; every leaf has its own."""
        raise NotImplementedError

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return the test over each subject's own rows."""
        return self.asked(scope, self.test(scope))

    def asked(self, scope: Scope, aggregate: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return an aggregate over each subject's own rows."""
        rows = self.rows(scope)
        query: Select[Any] = select(aggregate).select_from(rows.source)
        return query.where(rows.where, rows.key == scope.id_of(rows.whose)).correlate(scope.table).scalar_subquery()


def _in_range(day: date) -> date:
    return min(max(day, EARLIEST_DAY), LATEST_DAY)


def subjects(subject: Subject) -> FromClause:
    """Return a fresh alias of the table of accounts or contacts."""
    return (accounts if subject is Subject.ACCOUNT else contacts).alias()


def sure(condition: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition with NULL read as false, so that `not` turns every answer round."""
    return func.coalesce(condition, false())
