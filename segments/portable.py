"""Expressions whose SQL differs between engines, although the result must not: one place for each difference."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Numeric, Text, and_, case, cast, func, literal_column, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from kernel.errors import ConfigError
from segments.purchases import DAY_MS

_NOTHING: ColumnElement[int] = literal_column("0", BigInteger)
_ONE: ColumnElement[int] = literal_column("1", BigInteger)
_DECIMALS = 9
"""Decimals kept of an amount, as imports keep them."""
LONG_AGO_DAYS = 1_000_000
"""Moves every instant a calendar knows past 1970, where engines agree on how to divide."""


class whole_quotient(FunctionElement[int]):  # noqa: N801 - reads as an SQL function
    """A whole number, never negative, divided by a positive one and rounded down."""

    type = BigInteger()
    inherit_cache = True


@compiles(whole_quotient)
def _by_slash(element: whole_quotient, compiler: SQLCompiler, **kw: Any) -> str:
    """SQLite, PostgreSQL and Trino: `/` between whole numbers gives a whole number."""
    return _divided(element, compiler, "{} / {}", **kw)


@compiles(whole_quotient, "duckdb")
def _by_two_slashes(element: whole_quotient, compiler: SQLCompiler, **kw: Any) -> str:
    """DuckDB: `/` gives a float."""
    return _divided(element, compiler, "{} // {}", **kw)


@compiles(whole_quotient, "clickhouse")
@compiles(whole_quotient, "clickhousedb")
def _by_function(element: whole_quotient, compiler: SQLCompiler, **kw: Any) -> str:
    return _divided(element, compiler, "intDiv({}, {})", **kw)


@compiles(whole_quotient, "bigquery")
@compiles(whole_quotient, "databricks")
@compiles(whole_quotient, "hive")
@compiles(whole_quotient, "mysql")
def _by_word(element: whole_quotient, compiler: SQLCompiler, **kw: Any) -> str:
    form = "DIV({}, {})" if compiler.dialect.name == "bigquery" else "{} DIV {}"
    return _divided(element, compiler, form, **kw)


def _divided(element: whole_quotient, compiler: SQLCompiler, form: str, **kw: Any) -> str:
    number, divisor = (compiler.process(clause, **kw) for clause in element.clauses)
    return "(" + form.format(f"({number})", f"({divisor})") + ")"


def day_of(at_ms: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the UTC day of an instant, counted from `LONG_AGO_DAYS` before 1970: no engine divides below zero."""
    # Written out, because PostgreSQL does not see that two expressions with parameters are one to group by.
    moved = at_ms + literal_column(str(LONG_AGO_DAYS * DAY_MS), BigInteger)
    return whole_quotient(moved, literal_column(str(DAY_MS), BigInteger))


class utc_ms(FunctionElement[int]):  # noqa: N801 - reads as an SQL function
    """A timestamp as milliseconds since 1970 UTC, rounded down. Clauses: the timestamp, the name of a zone.

    A timestamp with a zone of its own is an instant already; one without is a wall clock of the named zone.
    """

    type = BigInteger()
    inherit_cache = True


@compiles(utc_ms)
def _no_timestamps(_element: utc_ms, compiler: SQLCompiler, **_kw: Any) -> str:
    raise ConfigError(
        f"warehouse: timestamps of {compiler.dialect.name} are not read; give a `query` that returns whole "
        "milliseconds since 1970 UTC, and name its column as ordered_ms (and cancelled_ms)"
    )


@compiles(utc_ms, "duckdb")
def _duckdb_ms(element: utc_ms, compiler: SQLCompiler, **kw: Any) -> str:
    at, zone = (compiler.process(clause, **kw) for clause in element.clauses)
    # By way of microseconds, the engine's own unit: epoch_ms() rounds instants before 1970 up.
    zoned = f"typeof({at}) = 'TIMESTAMP WITH TIME ZONE'"
    utc = f"CASE WHEN {zoned} THEN {at}::TIMESTAMPTZ ELSE timezone({zone}, {at}::TIMESTAMP) END"
    return f"(epoch_us({utc}) // 1000 - CASE WHEN epoch_us({utc}) % 1000 < 0 THEN 1 ELSE 0 END)"


@compiles(utc_ms, "postgresql")
def _postgresql_ms(element: utc_ms, compiler: SQLCompiler, **kw: Any) -> str:
    at, zone = (compiler.process(clause, **kw) for clause in element.clauses)
    zoned = f"pg_typeof({at}) = 'timestamptz'::regtype"
    utc = f"CASE WHEN {zoned} THEN ({at})::timestamptz ELSE ({at})::timestamp AT TIME ZONE {zone} END"
    return f"CAST(floor(extract(epoch FROM {utc}) * 1000) AS BIGINT)"


def in_minor(amount: ColumnElement[Any], factor: ColumnElement[Any]) -> ColumnElement[int]:
    """Return an amount in major units as a whole number of minor units, halves to even, as imports round.

    In decimals throughout; a float, or a decimal with more digits, is first rounded to nine decimals.

    Args:
        amount: A decimal, a float or a text of a decimal.
        factor: Minor units in a major unit: a power of ten.
    """
    exact = cast(cast(amount, Numeric(28, _DECIMALS)) * factor, Numeric(38, _DECIMALS))
    below = func.floor(exact)
    whole = cast(below, BigInteger)
    twice = (exact - below) * 2
    up = or_(twice > 1, and_(twice == 1, whole % 2 != 0))
    return whole + case((up, _ONE), else_=_NOTHING)


def as_text(key: ColumnElement[Any]) -> ColumnElement[str]:
    """Return a key as text: a whole number as its decimals."""
    return cast(key, Text)
