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
    cast,
    func,
    insert,
    literal,
    select,
    text,
    update,
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
    only: Mapping[str, Any] | None = None,
) -> None:
    """Set columns of many rows as fast as the database can.

    Args:
        connection: In a writing transaction.
        table: Has a column `id`.
        columns: What to set.
        rows: Each its id and then the values, as `insert_rows` takes them.
        only: Values that a row's columns must have for it to be written.
    """
    if not rows:
        return
    only = only or {}
    if connection.dialect.name == "postgresql":
        # One statement over arrays: a round trip for each row is what makes PostgreSQL slow.
        names = ("id", *columns)
        arrays = {f"all_{name}": list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
        connection.execute(_update_from_arrays(table, names, tuple(only.items())), arrays)
        return
    conditions = tuple(only.values())
    statement = _update_one(table, tuple(columns), tuple(only))
    connection.exec_driver_sql(statement, [(*row[1:], row[0], *conditions) for row in rows])


def _update_from_arrays(table: Table, names: Sequence[str], only: Sequence[tuple[str, Any]]) -> Any:
    arrays = [bindparam(f"all_{name}", type_=ARRAY(_array_type(table.c[name]))) for name in names]
    # The cast tells PostgreSQL the kind of an array that holds nothing but NULL.
    given = func.unnest(*(cast(array, array.type) for array in arrays)).table_valued(*(f"new_{name}" for name in names))
    given = given.render_derived("given")
    values = {name: cast(given.c[f"new_{name}"], table.c[name].type) for name in names if name != "id"}
    conditions = [table.c[name] == value for name, value in only]
    return update(table).where(table.c.id == given.c.new_id, *conditions).values(values)


@lru_cache(maxsize=64)
def _update_one(table: Table, columns: tuple[str, ...], only: tuple[str, ...]) -> str:
    """Return SQLite's UPDATE of one row; its parameters are the columns, the id, the conditions."""
    changes = ", ".join(f"{name} = ?" for name in columns)
    conditions = " AND ".join(f"{name} = ?" for name in ("id", *only))
    return f"UPDATE {table.name} SET {changes} WHERE {conditions}"  # noqa: S608 - names of our own tables


def _array_type(column: Column[Any]) -> Any:
    """Return the kind of plain value `insert_rows` takes for the column."""
    for kind in (Boolean, Float, Text):
        if isinstance(column.type, kind):
            return kind()
    return Text() if isinstance(column.type, JSON) else BigInteger()
