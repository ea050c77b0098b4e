"""Insert what is new, update what differs, leave the rest alone: by external id, a slice at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, Connection, Table, select, type_coerce

from store.changes import owners, touch_owners
from store.ingest.bulk import among, ids_of, insert_rows, update_rows
from store.types import Instant

_DOCUMENTS = frozenset({"attributes", "properties"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """The ids of the slice's rows, and which of them were new or changed."""

    ids: dict[str, int]
    new: frozenset[str] = field(default_factory=frozenset)
    changed: frozenset[str] = field(default_factory=frozenset)


def upsert(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    stamp: dict[str, Any] | None = None,
) -> Upserted:
    """Bring rows into a table that has `external_id`.

    Args:
        connection: A write transaction.
        table: Where to.
        columns: What each row says after its external id; columns left out keep their values.
        rows: External id, then plain values (instants in milliseconds, documents as dicts). No id twice.
        stamp: Written with new and changed rows, never compared.
    """
    known = _known(connection, table, columns, [row[0] for row in rows])
    documents = [at for at, name in enumerate(columns) if name in _DOCUMENTS]
    fresh: list[tuple[Any, ...]] = []
    altered: list[tuple[Any, ...]] = []
    changed: set[str] = set()
    extra = tuple((stamp or {}).values())
    for key, *values in rows:
        old = known.get(key)
        for at in documents:
            values[at] = _merged(old[1][at] if old else {}, values[at])
        if old is None:
            fresh.append((key, *map(_as_text, values), *extra))
        elif tuple(values) != old[1]:
            changed.add(key)
            altered.append((old[0], *map(_as_text, values), *extra))
    written = [*columns, *(stamp or {})]
    before = owners(connection, table, (row[0] for row in altered))
    insert_rows(connection, table, ["external_id", *written], fresh)
    update_rows(connection, table, written, altered)
    ids = {key: old[0] for key, old in known.items()} | ids_of(connection, table, [row[0] for row in fresh])
    touched = [*(row[0] for row in altered), *(ids[row[0]] for row in fresh)]
    touch_owners(connection, before, owners(connection, table, touched))
    return Upserted(ids=ids, new=frozenset(row[0] for row in fresh), changed=frozenset(changed))


def create_missing(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> tuple[dict[str, int], int]:
    """Insert those rows whose external id is unknown; return the ids of all, and how many were made."""
    by_key = {row[0]: row for row in rows}
    known = ids_of(connection, table, by_key)
    missing = [row for key, row in by_key.items() if key not in known]
    insert_rows(connection, table, ["external_id", *columns], missing)
    made = ids_of(connection, table, [row[0] for row in missing])
    touch_owners(connection, owners(connection, table, made.values()))
    return known | made, len(missing)


def _known(
    connection: Connection, table: Table, columns: Sequence[str], keys: Sequence[str]
) -> dict[str, tuple[int, tuple[Any, ...]]]:
    wanted = [_comparable(table, name) for name in columns]
    query = select(table.c.external_id, table.c.id, *wanted).where(among(connection, table.c.external_id, keys))
    return {row[0]: (row[1], tuple(row[2:])) for row in connection.execute(query)}


def _comparable(table: Table, name: str) -> Any:
    column = table.c[name]
    return type_coerce(column, BigInteger).label(name) if isinstance(column.type, Instant) else column


def _merged(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any]:
    """Return the document with the source's own keys replaced; an empty cell takes its key away."""
    return {key: value for key, value in ((old or {}) | (new or {})).items() if value is not None}


def _as_text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
