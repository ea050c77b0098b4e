"""Aggregates that pick the value of the first or last row of a group, the same on SQLite and PostgreSQL.

SQLite has no ordered aggregates; there instant, id and value are written side by side at fixed width, so that the
largest text is that of the last row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

_SHIFT = 1 << 62
"""Added to instants, so that those before 1970 keep their order as text."""


class _Picked(FunctionElement[Any]):
    """Clauses: the value, the instant, the id, and which rows count."""

    inherit_cache = True

    def __init__(
        self, value: ColumnElement[Any], at: ColumnElement[Any], row_id: ColumnElement[Any], where: ColumnElement[bool]
    ) -> None:
        super().__init__(value, at, row_id, where)


class last_number(_Picked):  # noqa: N801 - reads as an SQL function
    """The whole number, never NULL itself, of the latest row that counts, the largest id among equals; else NULL."""

    type: TypeEngine[Any] = BigInteger()
    inherit_cache = True


class first_number(_Picked):  # noqa: N801 - reads as an SQL function
    """The whole number of the earliest row that counts, the smallest id among equals; NULL where there is none."""

    type: TypeEngine[Any] = BigInteger()
    inherit_cache = True


class last_text(_Picked):  # noqa: N801 - reads as an SQL function
    """The text, never NULL itself, of the latest row that counts, the largest id among equals; else NULL."""

    type: TypeEngine[Any] = Text()
    inherit_cache = True


def _parts(element: _Picked, compiler: SQLCompiler, **kw: Any) -> list[str]:
    return [compiler.process(clause, **kw) for clause in element.clauses]


def _packed(element: _Picked, compiler: SQLCompiler, pick: str, form: str, **kw: Any) -> str:
    value, at, row_id, where = _parts(element, compiler, **kw)
    text = f"printf('%020d%020d{form}', {at} + {_SHIFT}, {row_id}, {value})"
    return f"substr({pick}(CASE WHEN {where} THEN {text} END), 41)"


def _ordered(element: _Picked, compiler: SQLCompiler, direction: str, **kw: Any) -> str:
    value, at, row_id, where = _parts(element, compiler, **kw)
    order = f"{at} {direction}, {row_id} {direction}"
    return f"(array_agg({value} ORDER BY {order}) FILTER (WHERE {where}))[1]"


@compiles(last_number, "sqlite")
def _sqlite_last_number(element: last_number, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({_packed(element, compiler, 'max', '%d', **kw)} AS INTEGER)"


@compiles(first_number, "sqlite")
def _sqlite_first_number(element: first_number, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({_packed(element, compiler, 'min', '%d', **kw)} AS INTEGER)"


@compiles(last_text, "sqlite")
def _sqlite_last_text(element: last_text, compiler: SQLCompiler, **kw: Any) -> str:
    return _packed(element, compiler, "max", "%s", **kw)


@compiles(last_number, "postgresql")
@compiles(last_text, "postgresql")
def _postgresql_last(element: _Picked, compiler: SQLCompiler, **kw: Any) -> str:
    return _ordered(element, compiler, "DESC", **kw)


@compiles(first_number, "postgresql")
def _postgresql_first(element: first_number, compiler: SQLCompiler, **kw: Any) -> str:
    return _ordered(element, compiler, "ASC", **kw)
