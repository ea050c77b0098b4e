"""Many rows in and out at once, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Table,
    Text,
    any_,
    bindparam,
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


def update_rows(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Set the columns of rows; each row is its id and then the values, as `insert_rows` takes them."""
    if not rows:
        return
    # Prefixed, because SQLAlchemy keeps the bare column names for itself in an UPDATE.
    values = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in columns}
    statement = update(table).where(table.c.id == bindparam("row_id")).values(values)
    names = ["row_id", *(f"new_{name}" for name in columns)]
    connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
