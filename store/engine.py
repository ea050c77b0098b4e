"""Opening the database, and the two kinds of transaction: reading and writing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from kernel.errors import ConfigError

_WRITES = "carillon_writes"
_LOCK_PATIENCE_S = 60
_PATIENT = f"PRAGMA busy_timeout={_LOCK_PATIENCE_S * 1000}"
_LOOK_AGAIN_S = 0.0005


def open_database(url: str, *, cache_mb: int = 64) -> Engine:
    """Return an engine for SQLite or PostgreSQL 14+. Open it after a fork, never before.

    Args:
        url: A SQLAlchemy URL.
        cache_mb: What each connection to SQLite may keep of the file in memory; processes that write row after row,
            and are many, need little: the operating system keeps the file as well.

    Raises:
        ConfigError: the URL is malformed or names another database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"CARILLON_DATABASE_URL is not a database URL: {error}") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": float(_LOCK_PATIENCE_S)})
        event.listen(engine, "connect", partial(_prepare_sqlite, cache_mb))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    raise ConfigError(f"Carillon keeps its facts in SQLite or PostgreSQL, not in {backend}")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that only reads: one consistent view on SQLite."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that may write; commits at the end, rolls back on any error.

    On SQLite it takes the write lock at once (BEGIN IMMEDIATE): a lock taken later can fail half-way.
    """
    with engine.connect() as connection:
        writer = connection.execution_options(**{_WRITES: True})
        with writer.begin():
            yield writer


def _prepare_sqlite(cache_mb: int, raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # SQLAlchemy's begin event below starts transactions, not the driver.
    # While a new file turns to WAL, others are told at once that it is locked, however patient they are.
    _patiently(lambda: raw.execute("PRAGMA journal_mode=WAL"))
    # FULL: a commit that a power cut could undo would let a message leave twice.
    for pragma in ("synchronous=FULL", "foreign_keys=ON", f"cache_size=-{cache_mb * 1000}"):
        raw.execute(f"PRAGMA {pragma}")
    raw.execute(_PATIENT)


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get(_WRITES):
        _take_write_lock(connection)
    else:
        connection.exec_driver_sql("BEGIN")


def _take_write_lock(connection: Connection) -> None:
    """Begin a transaction that writes, as soon as nobody else does.

    SQLite itself looks again after 1, 2, 5, 10, then up to 100 ms: between two workers that write for a few
    milliseconds each, that loses more time than the writing takes.
    """
    raw: Any = connection.connection.driver_connection
    raw.execute("PRAGMA busy_timeout=0")
    try:
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"))
    except sqlite3.OperationalError:
        # Once more, by way of SQLAlchemy, whose errors callers know.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        raw.execute(_PATIENT)


def _patiently(attempt: Callable[[], object]) -> None:
    """Do something as soon as nobody's lock is in the way. Raises OperationalError where it stays in the way."""
    gives_up_at = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            attempt()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= gives_up_at:
                raise
            time.sleep(_LOOK_AGAIN_S)
        else:
            return
