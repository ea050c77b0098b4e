"""Many rows in and out at once, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Table,
    Text,
    bindparam,
    insert,
    select,
    text,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

_MANY = 2_000
"""More values than that PostgreSQL is to hash: it would compare each row with one after the other."""
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
    """Let PostgreSQL find rows by their keys, and in an index's order, until this transaction ends.

    For a chunk's rows, whatever the statistics say: those of a table that was just filled are missing or old, and then
    it looks as if reading all of a table, or sorting all that is pending to take the first thousand, were less.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_BY_INDEX)


_BY_INDEX = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)"
    # What is switched off counts as very dear where there is no other way: nothing is to be compiled for it.
    for name, value in {"enable_seqscan": "off", "enable_sort": "off", "jit": "off", "random_page_cost": "1.1"}.items()
)


def uncompiled(connection: Connection) -> None:
    """Let PostgreSQL interpret expressions until this transaction ends.

    A statement over a whole audience is dear enough for it to compile some eighty functions, which takes longer than
    they save.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT set_config('jit', 'off', true)")


def among(_connection: Connection, column: Column[Any], values: Sequence[str] | Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that the column has one of any number of values, with one bound parameter."""
    condition = given_many if len(values) > _MANY else given
    return condition(column, bindparam(None, values, type_=Given(is_text=isinstance(column.type, Text))))


def among_given(column: Column[Any], name: str) -> ColumnElement[bool]:
    """Return the same for a statement that is made once: the values are its parameter of that name."""
    return given(column, bindparam(name, type_=Given(is_text=isinstance(column.type, Text))))


class Given(TypeDecorator[Sequence[Any]]):
    """Any number of whole numbers or texts as one text: a JSON list on SQLite, an array's literal on PostgreSQL.

    Drivers make an array of a list one value after the other, which takes longer than all the rest of such a statement.
    """

    impl = Text
    cache_ok = True

    def __init__(self, *, is_text: bool) -> None:
        super().__init__()
        self.is_text = is_text

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if dialect.name == "postgresql":
            return array_literal(value, is_text=self.is_text)
        return json.dumps(list(value)) if self.is_text else f"[{','.join(map(str, value))}]"


class given(FunctionElement[bool]):  # noqa: N801 - reads as an SQL function
    """Whether a column has one of the values that a `Given` holds."""

    type: TypeEngine[Any] = (
        NullType()
    )  # A Boolean would be compared with 1 on SQLite, and then no index is looked into.
    inherit_cache = True
    name = "given"


class given_many(given):  # noqa: N801 - as given
    """The same for so many values that no index would be asked for each."""

    inherit_cache = True
    name = "given_many"


@compiles(given_many, "postgresql")
def _postgresql_given_many(element: given_many, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = (compiler.process(part, **kw) for part in element.clauses)
    return f"({column} IN (SELECT unnest(CAST({values} AS {_kind_of(element)}[]))))"


@compiles(given, "sqlite")
@compiles(given_many, "sqlite")
def _sqlite_given(element: given, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = (compiler.process(part, **kw) for part in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({values})))"  # noqa: S608 - what the compiler wrote


@compiles(given, "postgresql")
def _postgresql_given(element: given, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = (compiler.process(part, **kw) for part in element.clauses)
    return f"({column} = ANY (CAST({values} AS {_kind_of(element)}[])))"


def _kind_of(element: given) -> str:
    of_values = list(element.clauses)[1].type
    return "TEXT" if isinstance(of_values, Given) and of_values.is_text else "BIGINT"


def array_literal(values: Sequence[Any], *, is_text: bool) -> str:
    """Return PostgreSQL's literal of an array of texts or whole numbers, some of them None.

    Source:
        PostgreSQL's documentation, 8.15.6: elements in double quotes, in which quotes and backslashes have a backslash.
    """
    if not (values and is_text) or None in values:
        quoted = _quoted if is_text else str
        return f"{{{','.join('NULL' if value is None else quoted(value) for value in values)}}}"
    # All at once: no text in the database has a NUL, so it may stand for the borders.
    whole = "\0".join(values)
    if whole.count("\0") != len(values) - 1:
        raise ValueError("a text holds a NUL, which PostgreSQL has no place for")
    return '{"' + whole.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","') + '"}'


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


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
        kinds = [_array_type(table.c[name]) for name in ("id", *columns)]
        arrays = [_array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
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


def _array(values: Sequence[Any], kind: str) -> Any:
    """Return an array as a parameter: its literal where that is quicker made than by the driver."""
    return array_literal(values, is_text=kind == "text") if kind in ("bigint", "text") else list(values)


def _array_type(column: Column[Any]) -> str:
    """Return the kind of plain value `insert_rows` takes for the column."""
    kinds = ((Boolean, "boolean"), (Float, "float8"), (Text, "text"), (JSON, "text"))
    return next((name for kind, name in kinds if isinstance(column.type, kind)), "bigint")


def _cast(column: Column[Any]) -> str:
    return "::jsonb" if isinstance(column.type, JSON) else ""
