"""Column types and expressions that read the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Integer
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from kernel.clock import from_ms, to_ms


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored as whole milliseconds since 1970 UTC in a 64-bit integer.

    The same integer on both databases: comparisons, differences and indexes need no dialect's date functions.
    Hot paths read and write the integers themselves by `type_coerce(column, BigInteger)`.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | int | None, dialect: Dialect) -> int | None:
        return to_ms(value) if isinstance(value, datetime) else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_ms(value)


Id = BigInteger().with_variant(Integer, "sqlite")
"""A primary key: 64 bits on both (SQLite's INTEGER PRIMARY KEY is its 64-bit rowid)."""

Document = JSON().with_variant(JSONB, "postgresql")
"""A JSON object."""


class database_now(FunctionElement[int]):  # noqa: N801 - reads as an SQL function
    """The database's own clock, in milliseconds since 1970 UTC: the only clock leases are measured by."""

    type = BigInteger()
    inherit_cache = True
    name = "database_now"


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"


@compiles(database_now, "postgresql")
def _postgresql_now(_element: database_now, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
