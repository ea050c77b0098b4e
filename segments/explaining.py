"""Why somebody is in a segment or not, leaf by leaf; and when time alone will change that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import numpy as np
from sqlalchemy import BigInteger, Connection, FromClause, select, type_coerce

from kernel.clock import from_ms, to_ms
from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments.compiler import scope_of
from segments.conditions import Condition, Related
from segments.definitions import Definition
from segments.foreseeing import foresight
from segments.kinship import Kinship
from segments.purchases import Ints
from segments.relations import ACCOUNT
from segments.scope import Clock, Scope, Way
from store.ingest.bulk import among
from store.tables import accounts, contacts

MOST_RELATIVES = 5
"""Of how many contacts or accounts a relation is explained; those of whom it is true come first."""
MOST_INSTANTS = 1_000
"""How many instants are tried for the next change."""
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one condition of a segment says of one subject.

    `about` is the subject's external id: that of the one asked for, or below a relation one of its relatives. `text`
    is the condition as in the file, `values` what it judges by; below a relation how many relatives there are and of
    how many it is true.
    """

    depth: int
    about: str
    key: str
    text: str
    holds: bool
    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NextChange:
    """When a subject will enter or leave by time alone, if no new facts come in; None: never.

    Not `exact` where too many instants lie ahead to try each: then nothing changes before `at`. `note` says what is
    not foreseen: that scores are those of the last refresh; "" where no scores are read.
    """

    at: datetime | None
    enters: bool
    exact: bool
    note: str = ""


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

    Other segments that are referred to, and relatives that are asked, are explained in place, one step deeper.

    Raises:
        ConfigError: no such account or contact.
    """
    definition = definitions[name]
    scope = scope_of(definitions, name, as_of=now, currency=currency)
    subject_id = _subject_id(connection, definition.subject, external_id)
    return list(_answers(connection, definition.where, scope, subject_id, external_id, depth=0))


def next_change(
    connection: Connection,
    definitions: Mapping[str, Definition],
    name: str,
    external_id: str,
    *,
    now: datetime,
    currency: str,
) -> NextChange:
    """Return when time alone will change whether a subject is in a segment.

    Every instant after now at which a clock of its leaves passes is tried, the earliest first. Scores are those of
    the last refresh: that time will lower them is not foreseen but told, with when the score R is next due to fall.

    Raises:
        ConfigError: no such account or contact.
    """
    definition = definitions[name]
    subject_id = _subject_id(connection, definition.subject, external_id)
    scope = scope_of(definitions, name, as_of=now, currency=currency)

    def inside(instant: datetime) -> bool:
        asked = scope_of(definitions, name, as_of=instant, currency=currency)
        return _holds(connection, definition.where, asked, subject_id)

    note = foresight(connection, definitions, name, scope, subject_id, now=now)
    present = inside(now)
    instants = _instants(connection, definition.where, scope, subject_id)
    for instant in instants[:MOST_INSTANTS]:
        for moment in (instant, instant + _MILLISECOND):
            if moment > now and inside(moment) != present:
                return NextChange(at=moment, enters=not present, exact=True, note=note)
    if len(instants) > MOST_INSTANTS:
        return NextChange(at=instants[MOST_INSTANTS], enters=not present, exact=False, note=note)
    return NextChange(at=None, enters=not present, exact=True, note=note)


def condition_text(condition: Condition) -> str:
    """Return a leaf in one line as it could stand in a file, defaults left out; of a branch only its key."""
    if condition.parts():
        return condition.key if condition.at_least is None else f"at_least {condition.at_least.n}"
    data = condition.model_dump(mode="json", by_alias=True, exclude_defaults=True)[condition.key]
    return f"{condition.key}: {json.dumps(data, ensure_ascii=False)}"


def _answers(
    connection: Connection, condition: Condition, scope: Scope, subject_id: int, about: str, *, depth: int
) -> Iterator[Answer]:
    related = condition.related(scope)
    shown = condition.shown(scope) if related is None else {}
    columns = [condition.holds(scope).label("holds"), *(value.label(f"v{i}") for i, value in enumerate(shown.values()))]
    row = connection.execute(select(*columns).select_from(scope.table).where(scope.id == subject_id)).one()
    values = {key: _plain(value) for key, value in zip(shown, row[1:], strict=True)}
    mine = Answer(
        depth=depth,
        about=about,
        key=condition.key,
        text=condition_text(condition),
        holds=bool(row[0]),
        values=values,
    )
    if related is None:
        yield mine
        for _, part in condition.parts():
            yield from _answers(connection, part, scope, subject_id, about, depth=depth + 1)
        return
    yield from _of_relatives(connection, mine, related, scope, subject_id)


def _of_relatives(
    connection: Connection, mine: Answer, related: Related, scope: Scope, subject_id: int
) -> Iterator[Answer]:
    inner = cast("Condition", related.condition)
    if related.relation == "":
        yield mine
        yield from _answers(connection, inner, related.scope, subject_id, mine.about, depth=mine.depth + 1)
        return
    table: Any = related.scope.table
    holds = inner.holds(related.scope).label("holds")
    query = (
        select(table.c.id, table.c.external_id, holds)
        .select_from(scope.table.join(table, related.link))
        .where(scope.id == subject_id)
        .order_by(holds.desc(), table.c.external_id)
    )
    relatives = connection.execute(query).all()
    if related.relation == ACCOUNT:
        yield mine
    else:
        counts = {"asked": len(relatives), "true_of": sum(bool(row.holds) for row in relatives)}
        yield Answer(depth=mine.depth, about=mine.about, key=mine.key, text=mine.text, holds=mine.holds, values=counts)
    for row in relatives[:MOST_RELATIVES]:
        yield from _answers(connection, inner, related.scope, row.id, row.external_id, depth=mine.depth + 1)


def _holds(connection: Connection, condition: Condition, scope: Scope, subject_id: int) -> bool:
    query = select(condition.holds(scope)).select_from(scope.table).where(scope.id == subject_id)
    return bool(connection.execute(query).scalar_one())


def _instants(connection: Connection, condition: Condition, scope: Scope, subject_id: int) -> list[datetime]:
    """Return all instants after now at which a clock of the condition passes, ascending."""
    kinship = Kinship(connection)
    now_ms = to_ms(scope.as_of)
    found: set[int] = set()
    for way, clock in condition.clocks(scope):
        keys = _keys(kinship, scope.subject, subject_id, way, clock.whose)
        for ms in _passing(connection, clock, keys, now_ms):
            found.update((ms - 1, ms))
    return [from_ms(ms) for ms in sorted(found) if ms >= now_ms]


def _keys(kinship: Kinship, subject: Subject, subject_id: int, way: Way, whose: Subject) -> Ints:
    """Return the ids a clock is kept under, that is those at the end of a way."""
    ids: Ints = np.array([subject_id], dtype=np.int64)
    for relation in way:
        firms = kinship.whose(subject, ids, Subject.ACCOUNT)
        ids = kinship.relatives(relation, firms)
        subject = Subject.CONTACT if relation in ("any_contact", "any_colleague") else Subject.ACCOUNT
    return kinship.whose(subject, ids, Subject(whose))


def _passing(connection: Connection, clock: Clock, keys: Ints, now_ms: int) -> Iterator[int]:
    at = type_coerce(clock.at, BigInteger)
    key: Any = clock.key
    for after in clock.after:
        after_ms = round(after / _MILLISECOND)
        query = (
            select(at)
            .select_from(clock.source)
            .where(clock.where, among(connection, key, keys.tolist()), at >= now_ms - after_ms)
            .distinct()
        )
        for (ms,) in connection.execute(query):
            yield round(ms) + after_ms


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _table(subject: Subject) -> FromClause:
    return accounts if subject is Subject.ACCOUNT else contacts


def _subject_id(connection: Connection, subject: Subject, external_id: str) -> int:
    table = _table(subject)
    found = connection.execute(select(table.c.id).where(table.c.external_id == external_id)).scalar_one_or_none()
    if found is None:
        raise ConfigError(f"there is no {subject} with the external id {external_id!r}")
    return int(found)
