"""Reading values out of a JSON column, with the same meaning on SQLite and PostgreSQL.

A path is a list of keys, always bound as parameters. A value of another type than the one asked for reads as NULL,
never as an error: customers' attributes hold what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, Double, Text, literal, literal_column
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


class json_day(_JsonRead):  # noqa: N801 - reads as an SQL function
    """The days since 1970-01-01 where the value is text that begins with a date, as in 2026-01-31, else NULL.

    A day its month does not have counts on into the next month.
    """

    type = BigInteger()
    inherit_cache = True


class one_of(FunctionElement[bool]):  # noqa: N801 - reads as an SQL function
    """Whether a text is one of a list, or a double one of a list of numbers; NULL where it is NULL.

    The whole list is one bound parameter: there is a limit to the number of those.
    """

    type = Boolean()
    inherit_cache = True
    name = "one_of"

    def __init__(self, column: ColumnElement[Any], values: Sequence[str] | Sequence[float]) -> None:
        numbers = not isinstance(values[0], str)
        listed = literal(json.dumps(list(values), ensure_ascii=False), Text())
        super().__init__(column, listed, literal_column("1" if numbers else "0"))


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


@compiles(json_day, "sqlite")
def _sqlite_day(element: json_day, compiler: SQLCompiler, **kw: Any) -> str:
    document, path = _sqlite_parts(element, compiler, **kw)
    text = f"json_extract({document}, {path})"
    shape = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
    dated = f"json_type({document}, {path}) = 'text' AND {text} GLOB '{shape}' AND {text} NOT GLOB '0000*'"
    # Midnight is at half past a Julian day. A thirty-first of a short month counts on, other nonsense is NULL.
    return f"CASE WHEN {dated} THEN CAST(julianday(substr({text}, 1, 10)) - 2440587.5 AS INTEGER) END"


@compiles(json_day, "postgresql")
def _postgresql_day(element: json_day, compiler: SQLCompiler, **kw: Any) -> str:
    value = _postgresql_value(element, compiler, **kw)
    text = f"({value} #>> '{{}}')"
    shape = "^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    month = f"CAST(substr({text}, 1, 7) || '-01' AS DATE) - DATE '1970-01-01'"
    days = f"{month} + CAST(substr({text}, 9, 2) AS INTEGER) - 1"
    return f"CASE WHEN jsonb_typeof({value}) = 'string' AND {text} ~ '{shape}' THEN {days} END"


@compiles(one_of, "sqlite")
def _sqlite_one_of(element: one_of, compiler: SQLCompiler, **kw: Any) -> str:
    column, listed, _ = [compiler.process(clause, **kw) for clause in element.clauses]
    return f"({column} IN (SELECT value FROM json_each({listed})))"  # noqa: S608 - placeholders only


@compiles(one_of, "postgresql")
def _postgresql_one_of(element: one_of, compiler: SQLCompiler, **kw: Any) -> str:
    column, listed, numbers = [compiler.process(clause, **kw) for clause in element.clauses]
    value = "CAST(value AS DOUBLE PRECISION)" if numbers == "1" else "value"
    elements = f"jsonb_array_elements_text(CAST({listed} AS JSONB))"
    return f"({column} IN (SELECT {value} FROM {elements}))"  # noqa: S608 - placeholders only
