"""Reading values out of a JSON column, with the same meaning on SQLite and PostgreSQL.

A path is a list of keys, always bound as parameters. A value of another type than the one asked for reads as NULL,
never as an error: customers' attributes hold what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Double, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _JsonRead(FunctionElement[Any]):
    """Clauses: the document, the path as SQLite writes it, then either nothing or one value; then the keys."""

    inherit_cache = True

    def __init__(self, document: ColumnElement[Any], path: Sequence[str], *values: ColumnElement[Any]) -> None:
        sqlite_path = "$" + "".join(f'."{key}"' for key in path)
        super().__init__(document, literal(sqlite_path, Text()), *values, *(literal(key, Text()) for key in path))


class json_text(_JsonRead):  # noqa: N801 - reads as an SQL function
    """The value where it is text, else NULL."""

    type = Text()
    inherit_cache = True


class json_number(_JsonRead):  # noqa: N801 - reads as an SQL function
    """The value as a double where it is a number, else NULL."""

    type = Double()
    inherit_cache = True


class json_boolean(_JsonRead):  # noqa: N801 - reads as an SQL function
    """The value where it is true or false, else NULL."""

    type = Boolean()
    inherit_cache = True


class json_present(_JsonRead):  # noqa: N801 - reads as an SQL function
    """Whether there is a value there that is neither null nor empty text."""

    type = Boolean()
    inherit_cache = True


class json_raw(_JsonRead):  # noqa: N801 - reads as an SQL function
    """The value as text of any type, for people to read; NULL where there is none."""

    type = Text()
    inherit_cache = True


class json_lists(_JsonRead):  # noqa: N801 - reads as an SQL function
    """Whether the value is a list that holds the given text, number or boolean."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, document: ColumnElement[Any], path: Sequence[str], value: str | float | bool) -> None:
        super().__init__(document, path, literal(json.dumps([value], ensure_ascii=False), Text()))


class in_byte_order(FunctionElement[str]):  # noqa: N801 - reads as an SQL function
    """Text that compares by code point whatever the database's collation."""

    type = Text()
    inherit_cache = True


def _sqlite_parts(element: _JsonRead, compiler: SQLCompiler, **kw: Any) -> tuple[str, str]:
    document, path = [compiler.process(clause, **kw) for clause in list(element.clauses)[:2]]
    return document, path


def _postgresql_value(element: _JsonRead, compiler: SQLCompiler, first_key: int = 2, **kw: Any) -> str:
    document, *rest = list(element.clauses)
    keys = [compiler.process(clause, **kw) for clause in rest[first_key - 1 :]]
    return f"jsonb_extract_path({', '.join([compiler.process(document, **kw), *keys])})"


@compiles(json_text, "sqlite")
def _sqlite_text(element: json_text, compiler: SQLCompiler, **kw: Any) -> str:
    document, path = _sqlite_parts(element, compiler, **kw)
    return f"CASE json_type({document}, {path}) WHEN 'text' THEN json_extract({document}, {path}) END"


@compiles(json_text, "postgresql")
def _postgresql_text(element: json_text, compiler: SQLCompiler, **kw: Any) -> str:
    value = _postgresql_value(element, compiler, **kw)
    return f"CASE jsonb_typeof({value}) WHEN 'string' THEN {value} #>> '{{}}' END"


@compiles(json_number, "sqlite")
def _sqlite_number(element: json_number, compiler: SQLCompiler, **kw: Any) -> str:
    document, path = _sqlite_parts(element, compiler, **kw)
    return (
        f"CASE WHEN json_type({document}, {path}) IN ('integer', 'real') "
        f"THEN CAST(json_extract({document}, {path}) AS REAL) END"
    )


@compiles(json_number, "postgresql")
def _postgresql_number(element: json_number, compiler: SQLCompiler, **kw: Any) -> str:
    value = _postgresql_value(element, compiler, **kw)
    return f"CASE jsonb_typeof({value}) WHEN 'number' THEN CAST({value} #>> '{{}}' AS DOUBLE PRECISION) END"


@compiles(json_boolean, "sqlite")
def _sqlite_boolean(element: json_boolean, compiler: SQLCompiler, **kw: Any) -> str:
    document, path = _sqlite_parts(element, compiler, **kw)
    return f"CASE json_type({document}, {path}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 END"


@compiles(json_boolean, "postgresql")
def _postgresql_boolean(element: json_boolean, compiler: SQLCompiler, **kw: Any) -> str:
    value = _postgresql_value(element, compiler, **kw)
    return f"CASE jsonb_typeof({value}) WHEN 'boolean' THEN CAST({value} #>> '{{}}' AS BOOLEAN) END"


@compiles(json_present, "sqlite")
def _sqlite_present(element: json_present, compiler: SQLCompiler, **kw: Any) -> str:
    document, path = _sqlite_parts(element, compiler, **kw)
    return (
        f"(coalesce(json_type({document}, {path}), 'null') <> 'null' "
        f"AND coalesce(json_extract({document}, {path}), '') <> '')"
    )


@compiles(json_present, "postgresql")
def _postgresql_present(element: json_present, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(coalesce({_postgresql_value(element, compiler, **kw)} #>> '{{}}', '') <> '')"


@compiles(json_raw, "sqlite")
def _sqlite_raw(element: json_raw, compiler: SQLCompiler, **kw: Any) -> str:
    document, path = _sqlite_parts(element, compiler, **kw)
    return (
        f"CASE json_type({document}, {path}) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
        f"ELSE CAST(json_extract({document}, {path}) AS TEXT) END"
    )


@compiles(json_raw, "postgresql")
def _postgresql_raw(element: json_raw, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({_postgresql_value(element, compiler, **kw)} #>> '{{}}')"


@compiles(json_lists, "sqlite")
def _sqlite_lists(element: json_lists, compiler: SQLCompiler, **kw: Any) -> str:
    document, path = _sqlite_parts(element, compiler, **kw)
    wanted = compiler.process(list(element.clauses)[2], **kw)
    return (
        f"(json_type({document}, {path}) = 'array' AND EXISTS (SELECT 1 "  # noqa: S608 - placeholders only
        f"FROM json_each({document}, {path}) AS held, json_each({wanted}) AS wanted "
        "WHERE held.atom = wanted.atom AND (held.type = wanted.type "
        "OR (held.type IN ('integer', 'real') AND wanted.type IN ('integer', 'real')))))"
    )


@compiles(json_lists, "postgresql")
def _postgresql_lists(element: json_lists, compiler: SQLCompiler, **kw: Any) -> str:
    value = _postgresql_value(element, compiler, first_key=3, **kw)
    wanted = compiler.process(list(element.clauses)[2], **kw)
    return f"(jsonb_typeof({value}) = 'array' AND {value} @> CAST({wanted} AS JSONB))"


@compiles(in_byte_order, "sqlite")
def _sqlite_bytes(element: in_byte_order, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(in_byte_order, "postgresql")
def _postgresql_bytes(element: in_byte_order, compiler: SQLCompiler, **kw: Any) -> str:
    return f'({compiler.process(element.clauses, **kw)} COLLATE "C")'
