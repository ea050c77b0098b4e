"""Answers about segments for people and programs: list, show, preview, explain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, FromClause, Select, func, select

from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments.compiler import members, scope_of
from segments.conditions import Condition
from segments.definitions import Definition, definition_to_json, needed, subjects_scored
from segments.refresh import Refreshed, last_scored_at
from segments.scope import Scope
from store.tables import accounts, contacts, segment_members, segments

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one condition of a segment says of one subject: `text` as in the file, `values` what it judges by."""

    depth: int
    key: str
    text: str
    holds: bool
    values: dict[str, Any]


def as_json(row: Listed | Answer | Refreshed) -> dict[str, Any]:
    """Return a row of a listing under its stable keys: the names of its fields."""
    return asdict(row)


def listed(connection: Connection, definitions: Mapping[str, Definition]) -> list[Listed]:
    """Return every segment by name, with the size of its last snapshot."""
    query = select(segments.c.name, segments.c.size, segments.c.refreshed_at)
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
    if row is None or row.subject != definition.subject:
        return preview(connection, definitions, name, now=now, currency=currency)
    ids = select(segment_members.c.subject_id.label("id")).where(segment_members.c.segment_id == row.id)
    found = _external_ids(connection, definition.subject, ids, limit=None)
    notes = (
        []
        if row.definition == definition_to_json(definition)
        else ["its file was edited after this snapshot: refresh it"]
    )
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
    query = members(definitions, name, as_of=now, currency=currency)
    found = _external_ids(connection, definition.subject, query, limit=sample)
    size = len(found)
    if sample is not None and size == sample:
        size = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    notes = score_notes(connection, needed(definitions, name), now=now)
    return Shown(definition=definition, as_of=now, live=True, size=size, members=found, notes=notes)


def score_notes(connection: Connection, definitions: Mapping[str, Definition], *, now: datetime) -> list[str]:
    """Return in words where the RFM scores these segments read are missing or older than a day."""
    notes = []
    for subject in sorted(subjects_scored(definitions)):
        at = last_scored_at(connection, subject)
        if at is None:
            notes.append(f"RFM scores of {subject}s were never computed: run `carillon segments refresh`")
        elif now - at > STALE:
            notes.append(f"RFM scores of {subject}s are as of {at:%Y-%m-%d %H:%M} UTC: run `carillon segments refresh`")
    return notes


def explain(
    connection: Connection,
    definitions: Mapping[str, Definition],
    name: str,
    external_id: str,
    *,
    now: datetime,
    currency: str,
) -> list[Answer]:
    """Return condition by condition, the whole first, whether it holds of one account or contact, and why.

    Raises:
        ConfigError: no such account or contact.
    """
    definition = definitions[name]
    scope = scope_of(definitions, name, as_of=now, currency=currency)
    subject_id = _subject_id(connection, definition.subject, external_id)
    return _answers(connection, definition.where, scope, subject_id, depth=0)


def _answers(
    connection: Connection, condition: Condition, scope: Scope, subject_id: int, *, depth: int
) -> list[Answer]:
    shown = condition.shown(scope)
    columns = [condition.holds(scope).label("holds"), *(value.label(f"v{i}") for i, value in enumerate(shown.values()))]
    row = connection.execute(select(*columns).select_from(scope.table).where(scope.id == subject_id)).one()
    mine = Answer(
        depth=depth,
        key=condition.key,
        text=condition_text(condition),
        holds=bool(row[0]),
        values={key: _plain(value) for key, value in zip(shown, row[1:], strict=True)},
    )
    if condition.any_contact is not None:
        return [mine]
    below = [_answers(connection, part, scope, subject_id, depth=depth + 1) for _, part in condition.parts()]
    return [mine, *(answer for answers in below for answer in answers)]


def condition_text(condition: Condition) -> str:
    """Return a leaf in one line as it could stand in a file; of a branch only its key."""
    if condition.parts() and condition.any_contact is None:
        return condition.key
    data = condition.model_dump(mode="json", by_alias=True, exclude_none=True)[condition.key]
    return f"{condition.key}: {json.dumps(data, ensure_ascii=False)}"


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _table(subject: Subject) -> FromClause:
    return accounts if subject is Subject.ACCOUNT else contacts


def _external_ids(connection: Connection, subject: Subject, ids: Select[int], *, limit: int | None) -> list[str]:
    table = _table(subject)
    query = select(table.c.external_id).where(table.c.id.in_(ids)).order_by(table.c.external_id).limit(limit)
    return list(connection.execute(query).scalars())


def _subject_id(connection: Connection, subject: Subject, external_id: str) -> int:
    table = _table(subject)
    found = connection.execute(select(table.c.id).where(table.c.external_id == external_id)).scalar_one_or_none()
    if found is None:
        raise ConfigError(f"there is no {subject} with the external id {external_id!r}")
    return int(found)
