"""Answers about segments for people and programs: list, show, preview; and `explain`, from its own module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Connection, FromClause, exists, func, select

from kernel.vocabulary import Subject
from segments.definitions import Definition, definition_to_json, needed, needs
from segments.evaluation import evaluate
from segments.explaining import Answer, condition_text, explain, next_change
from segments.leaves.events import Events
from segments.leaves.opportunities import Opportunities
from segments.leaves.orders import MONEY_MEASURES, Orders
from segments.purchases import Ints
from segments.refresh import Refreshed
from segments.scoring import last_scored_at
from segments.snapshots import present_members
from store.ingest.bulk import among
from store.tables import accounts, contacts, events, opportunities, orders, segments

__all__ = [
    "Answer",
    "Listed",
    "Shown",
    "as_json",
    "condition_text",
    "currency_notes",
    "explain",
    "listed",
    "next_change",
    "preview",
    "score_notes",
    "show",
    "values_in_words",
]

_KINDS = {"rfm": "RFM scores", "clusters": "clusters", "lifetime": "lifetime values"}
_SCORED = frozenset({"rfm", "cluster", "lifetime"})
_OF_EVENTS = ("sum", "average", "min", "max")
"""Measures of events that are money."""
_FEW = 20_000
STALE = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A segment and its last snapshot; size and instant are None where it was never refreshed."""

    name: str
    subject: Subject
    description: str
    size: int | None
    refreshed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A segment's members by external id, in their order, as of an instant; `live` where computed just now."""

    definition: Definition
    as_of: datetime
    live: bool
    size: int
    members: list[str]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the answer under its stable keys."""
        return {
            "name": self.definition.name,
            "subject": self.definition.subject,
            "description": self.definition.description,
            "as_of": self.as_of,
            "live": self.live,
            "size": self.size,
            "members": self.members,
            "notes": self.notes,
        }


def as_json(row: Listed | Answer | Refreshed) -> dict[str, Any]:
    """Return a row of a listing under its stable keys: the names of its fields."""
    return asdict(row)


def listed(connection: Connection, definitions: Mapping[str, Definition]) -> list[Listed]:
    """Return every segment by name, with the size of its last snapshot."""
    query = select(segments.c.name, segments.c.size, segments.c.refreshed_at).where(segments.c.digest != "")
    rows = {row.name: row for row in connection.execute(query)}
    return [
        Listed(
            name=name,
            subject=definition.subject,
            description=definition.description,
            size=rows[name].size if name in rows else None,
            refreshed_at=rows[name].refreshed_at if name in rows else None,
        )
        for name, definition in sorted(definitions.items())
    ]


def show(
    connection: Connection, definitions: Mapping[str, Definition], name: str, *, now: datetime, currency: str
) -> Shown:
    """Return the members of the last snapshot, or those of now where there never was one."""
    definition = definitions[name]
    row = connection.execute(select(segments).where(segments.c.name == name)).one_or_none()
    if row is None or row.digest == "" or row.subject != definition.subject:
        return preview(connection, definitions, name, now=now, currency=currency)
    found = _names(connection, definition.subject, present_members(connection, row.id), limit=None)
    notes = currency_notes(connection, needed(definitions, name), currency=currency)
    if row.definition != definition_to_json(definition):
        notes.insert(0, "its file was edited after this snapshot: refresh it")
    return Shown(definition=definition, as_of=row.refreshed_at, live=False, size=len(found), members=found, notes=notes)


def preview(
    connection: Connection,
    definitions: Mapping[str, Definition],
    name: str,
    *,
    now: datetime,
    currency: str,
    sample: int | None = None,
) -> Shown:
    """Return the members as of now, computed live; at most `sample` of them where it is given. Writes nothing."""
    definition = definitions[name]
    ids = evaluate(connection, definitions, [name], as_of=now, currency=currency)[name]
    found = _names(connection, definition.subject, ids, limit=sample)
    # Whether money of other currencies is left out is told by `show` and `explain`: to look takes a second of its own.
    notes = score_notes(connection, needed(definitions, name), now=now)
    return Shown(definition=definition, as_of=now, live=True, size=len(ids), members=found, notes=notes)


def score_notes(connection: Connection, definitions: Mapping[str, Definition], *, now: datetime) -> list[str]:
    """Return in words where scores that these segments read are missing, older than a day, or later than asked for."""
    notes = []
    for subject, kind in sorted(needs(definitions)):
        words = f"{_KINDS.get(kind, kind)} of {subject}s"
        at = last_scored_at(connection, subject, kind)
        if at is None:
            notes.append(f"{words} were never computed: run `carillon segments refresh`")
        elif now - at > STALE:
            notes.append(f"{words} are as of {at:%Y-%m-%d %H:%M} UTC: run `carillon segments refresh`")
        elif at - now > STALE:
            notes.append(f"{words} are those of {at:%Y-%m-%d %H:%M} UTC: scores are kept of the present only")
    return notes


def currency_notes(connection: Connection, definitions: Mapping[str, Definition], *, currency: str) -> list[str]:
    """Return in words how many orders, events and opportunities these segments leave out of money, by currency."""
    leaves = [leaf for definition in definitions.values() for leaf in definition.where.leaves()]
    asked = {
        "orders": (orders, any(isinstance(leaf, Orders) and leaf.measure in MONEY_MEASURES for leaf in leaves)),
        "events": (events, any(isinstance(leaf, Events) and leaf.measure in _OF_EVENTS for leaf in leaves)),
        "opportunities": (
            opportunities,
            any(isinstance(leaf, Opportunities) and (leaf.measure == "sum" or leaf.value) for leaf in leaves),
        ),
    }
    notes = []
    for noun, (table, reads_money) in asked.items():
        other = table.c.currency != currency
        # Whether there is any comes first: to count them by currency takes longer, and mostly there is none.
        if reads_money and connection.execute(select(exists().where(other))).scalar_one():
            query = select(table.c.currency, func.count()).where(other).group_by(table.c.currency)
            notes += [
                f"{n:,} {noun} in {code} are left out of money measures; convert them at import"
                for code, n in sorted(tuple(row) for row in connection.execute(query))
            ]
    return notes


def values_in_words(answer: Answer) -> str:
    """Return what a condition judges by for people: instants to the second, six decimals, missing scores in words."""
    if answer.key in _SCORED and answer.values and all(value is None for value in answer.values.values()):
        return "no scores"
    return ", ".join(f"{key} = {_in_words(value)}" for key, value in answer.values.items())


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        # The digits beyond come from the processor's arithmetic: another machine has others.
        return str(round(value, 6))
    return str(value.replace(microsecond=0)) if isinstance(value, datetime) else str(value)


def _table(subject: Subject) -> FromClause:
    return accounts if subject is Subject.ACCOUNT else contacts


def _names(connection: Connection, subject: Subject, ids: Ints, *, limit: int | None) -> list[str]:
    """Return the external ids of members in their order, the first few of them where there is a limit."""
    table: Any = _table(subject)
    query = select(table.c.id, table.c.external_id).order_by(table.c.external_id)
    if limit is not None and len(ids) <= _FEW:
        named = query.where(among(connection, table.c.id, ids.tolist()))
        return [row.external_id for row in connection.execute(named.limit(limit))]
    found: list[str] = []
    # In the order of names, until there are enough: a large segment is met with everywhere.
    result = connection.execute(query, execution_options={"stream_results": True})
    while rows := result.fetchmany(_FEW):
        inside = np.isin(np.array([row[0] for row in rows], dtype=np.int64), ids)
        found.extend(row[1] for row, is_in in zip(rows, inside.tolist(), strict=True) if is_in)
        if limit is not None and len(found) >= limit:
            result.close()
            return found[:limit]
    return found
