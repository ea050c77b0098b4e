"""Many rows in and out at once, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Table,
    Text,
    any_,
    bindparam,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.sql import column as named_column

_INGEST_LOCK = 0x0CA7_1110
"""Key of the advisory lock all writers of facts share on PostgreSQL."""


def lock_facts(connection: Connection) -> None:
    """Wait until no other transaction writes facts, and keep others from it until this one ends.

    An import reads which rows exist before it writes; two at once would both insert the same one. SQLite's
    write transactions exclude each other anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _INGEST_LOCK})


def by_index(connection: Connection) -> None:
    """Let PostgreSQL find rows by their keys until this transaction ends, whatever its statistics say.

    For rows just read, which are in memory: after a few changes a small table looks as if reading all of it were less.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_BY_INDEX)


_BY_INDEX = "SELECT set_config('enable_seqscan', 'off', true), set_config('random_page_cost', '1.1', true)"


def among(connection: Connection, column: Column[Any], values: Sequence[str] | Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that the column has one of any number of values, with one bound parameter."""
    if connection.dialect.name == "postgresql":
        kind = Text() if isinstance(column.type, Text) else BigInteger()
        return column == any_(bindparam(None, list(values), type_=ARRAY(kind)))
    given = func.json_each(literal(json.dumps(list(values)))).table_valued(named_column("value"))
    return column.in_(select(given.c.value))


def ids_of(connection: Connection, table: Table, external_ids: Iterable[str]) -> dict[str, int]:
    """Return the ids of those external ids the table knows."""
    wanted = list(dict.fromkeys(external_ids))
    if not wanted:
        return {}
    found = select(table.c.external_id, table.c.id).where(among(connection, table.c.external_id, wanted))
    return {row[0]: row[1] for row in connection.execute(found)}


def insert_rows(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows of plain values (instants in milliseconds, documents as JSON text) as fast as the driver can."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        preparer = connection.dialect.identifier_preparer
        names = ", ".join(preparer.quote(name) for name in columns)
        cursor = connection.connection.cursor()
        with cursor.copy(f"COPY {preparer.format_table(table)} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.close()
        return
    statement = insert(table).values({name: bindparam(name) for name in columns})
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(columns))
    order = [list(columns).index(name) for name in compiled.positiontup or ()]
    ordered = rows if order == list(range(len(columns))) else [tuple(row[at] for at in order) for row in rows]
    connection.exec_driver_sql(str(compiled), [tuple(row) for row in ordered])


def update_rows(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    same: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
) -> None:
    """Set columns of many rows as fast as the database can.

    Args:
        connection: In a writing transaction.
        table: Has a column `id`.
        columns: What to set; name no column that stays as it is, for its indexes would be written anew.
        rows: Each its id and then the values, as `insert_rows` takes them.
        same: What to set to the same value in every row.
        only: Values that a row's columns must have for it to be written.
    """
    if not rows:
        return
    same, only = same or {}, only or {}
    if connection.dialect.name == "postgresql":
        # One statement over arrays: a round trip for each row is what makes PostgreSQL slow.
        arrays = map(list, zip(*rows, strict=True))
        statement = _update_from_arrays(table, tuple(columns), tuple(same), tuple(only))
        connection.exec_driver_sql(statement, (*same.values(), *arrays, *only.values()))
        return
    constants = (*same.values(), *only.values())
    statement = _update_one(table, tuple(columns), tuple(same), tuple(only))
    connection.exec_driver_sql(statement, [(*row[1:], row[0], *constants) for row in rows])


@lru_cache(maxsize=64)
def _update_from_arrays(table: Table, columns: tuple[str, ...], same: tuple[str, ...], only: tuple[str, ...]) -> str:
    """Return PostgreSQL's UPDATE; its parameters are what is the same, arrays of id and columns, the conditions."""
    names = ("id", *columns)
    arrays = ", ".join(f"%s::{_array_type(table.c[name])}[]" for name in names)
    given = ", ".join(f"new_{name}" for name in names)
    changes = [f"{name} = new_{name}{_cast(table.c[name])}" for name in columns]
    changes += [f"{name} = %s" for name in same]
    conditions = "".join(f" AND {table.name}.{name} = %s" for name in only)
    return (
        f"UPDATE {table.name} SET {', '.join(changes)} FROM unnest({arrays}) AS given({given}) "  # noqa: S608 - our names
        f"WHERE {table.name}.id = new_id{conditions}"
    )


@lru_cache(maxsize=64)
def _update_one(table: Table, columns: tuple[str, ...], same: tuple[str, ...], only: tuple[str, ...]) -> str:
    """Return SQLite's UPDATE of one row; its parameters are the columns, the id, what is the same, the conditions."""
    changes = [f"{name} = ?{at}" for at, name in enumerate(columns, start=1)]
    changes += [f"{name} = ?{at}" for at, name in enumerate(same, start=len(columns) + 2)]
    conditions = [f"{name} = ?{at}" for at, name in enumerate(only, start=len(columns) + len(same) + 2)]
    where = " AND ".join([f"id = ?{len(columns) + 1}", *conditions])
    return f"UPDATE {table.name} SET {', '.join(changes)} WHERE {where}"  # noqa: S608 - names of our own tables


def _array_type(column: Column[Any]) -> str:
    """Return the kind of plain value `insert_rows` takes for the column."""
    kinds = ((Boolean, "boolean"), (Float, "float8"), (Text, "text"), (JSON, "text"))
    return next((name for kind, name in kinds if isinstance(column.type, kind)), "bigint")


def _cast(column: Column[Any]) -> str:
    return "::jsonb" if isinstance(column.type, JSON) else ""
