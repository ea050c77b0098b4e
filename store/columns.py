"""Whole columns of numbers out of the database, on as many cores as there are, and back into it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    MetaData,
    Select,
    Table,
    bindparam,
    cast,
    func,
    select,
    text,
    type_coerce,
)

from store.engine import writing
from store.packing import NULL_INT, NumberList, copied, is_float, joined_lists, number_list, packed_rows, unpacked
from store.sql import insert_into

__all__ = [
    "NULL_INT",
    "append_columns",
    "insert_columns",
    "merge_columns",
    "number_list",
    "read_columns",
    "read_grouped",
    "reading_widely",
]

Values = NDArray[Any] | Sequence[Any]
Columns = dict[str, NDArray[Any]]

_HELPERS = "carillon_helpers"
_KEYS_PER_BLOCK = 25_000
_MOST_BLOCKS = 400
_ROWS_PER_COMMIT = 50_000
_TRIES = 20


@contextmanager
def reading_widely(engine: Engine, *, readers: int = 2) -> Iterator[Connection]:
    """Yield a connection in a transaction that only reads, with others beside it that see the very same.

    `read_grouped` reads by way of all of them at once. Where the others cannot be had (a database in memory, or one
    that is written to without a pause) the connection stands alone: slower, and right as well.
    """
    with ExitStack() as stack:
        if engine.dialect.name == "sqlite":
            connections = _same_sqlite(stack, engine, readers)
        elif engine.dialect.name == "postgresql":
            connections = _same_postgresql(stack, engine, readers)
        else:
            connections = [_begun(stack, engine)]
        yield connections[0].execution_options(**{_HELPERS: tuple(connections[1:])})


def _begun(stack: ExitStack, engine: Engine, **options: Any) -> Connection:
    connection = stack.enter_context(engine.connect()).execution_options(**options)
    stack.enter_context(connection.begin())
    return connection


def _same_sqlite(stack: ExitStack, engine: Engine, readers: int) -> list[Connection]:
    """Begin transactions until nothing was committed from the first one's beginning to the last one's."""
    if not engine.url.database or engine.url.database == ":memory:":
        return [_begun(stack, engine)]
    watcher = engine.raw_connection()  # Outside any transaction, so that it sees each commit.
    stack.callback(watcher.close)

    def version() -> Any:
        return watcher.cursor().execute("PRAGMA data_version").fetchone()

    for left in reversed(range(_TRIES)):
        attempt = ExitStack()
        before = version()
        # A transaction of SQLite's sees the database as it is at its first read, not at BEGIN.
        begun = [_begun(attempt, engine) for _ in range(readers if left else 1)]
        for connection in begun:
            connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one()
        if len(begun) == 1 or version() == before:
            stack.push(attempt)
            return begun
        attempt.close()
    raise AssertionError("the last try takes one connection")


def _same_postgresql(stack: ExitStack, engine: Engine, readers: int) -> list[Connection]:
    first = _begun(stack, engine, isolation_level="REPEATABLE READ")
    if readers == 1:
        return [first]
    snapshot = first.execute(text("SELECT pg_export_snapshot()")).scalar_one()
    others = [_begun(stack, engine, isolation_level="REPEATABLE READ") for _ in range(readers - 1)]
    for other in others:
        other.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
    return [first, *others]


# --- out --------------------------------------------------------------------------------------------------------------


def read_columns(connection: Connection, query: Select[Any]) -> Columns:
    """Return the columns of a query by name, the rows of all columns in one, not promised, order.

    A column is float64 where its SQL type is a float, NULL as NaN; else int64, NULL as NULL_INT.
    """
    if connection.dialect.name == "duckdb":
        return _from_duckdb(connection, query)
    inner = query.subquery()
    if connection.dialect.name == "postgresql":
        value = connection.execute(select(packed_rows(*inner.c))).scalar_one()
        return _named(unpacked(value).reshape(-1, len(inner.c)), list(inner.c))
    plain = [
        column if is_float(column) else func.coalesce(type_coerce(column, BigInteger), NULL_INT) for column in inner.c
    ]
    # The driver's own rows: SQLAlchemy would make a second object of each. It must not have taken the first ones.
    rows: Any = connection.execute(select(*plain), execution_options={"stream_results": False}).cursor
    if not any(map(is_float, inner.c)):
        return _named(np.fromiter(chain.from_iterable(rows), dtype=np.int64).reshape(-1, len(plain)), list(inner.c))
    columns = list(zip(*rows, strict=True)) or [()] * len(plain)
    return {
        str(column.key): np.array(values, dtype=np.float64 if is_float(column) else np.int64)
        for column, values in zip(inner.c, columns, strict=True)
    }


def _named(table: NDArray[np.int64], columns: Sequence[ColumnElement[Any]]) -> Columns:
    """Return the columns of a table of numbers, floats among them as their bits."""
    return {
        str(column.key): np.ascontiguousarray(table[:, at]).view(np.float64 if is_float(column) else np.int64)
        for at, column in enumerate(columns)
    }


def _from_duckdb(connection: Connection, query: Select[Any]) -> Columns:
    inner = query.subquery()
    # Sums of whole numbers are of 128 bits there, which numpy knows only as floats.
    exact = [cast(column, Float(53) if is_float(column) else BigInteger).label(column.key) for column in inner.c]
    cursor: Any = connection.execute(select(*exact)).cursor
    found: Mapping[str, Any] = cursor.fetchnumpy()
    columns = {}
    for column in inner.c:
        values = found[str(column.key)]
        empty = np.nan if is_float(column) else NULL_INT
        columns[str(column.key)] = np.asarray(values.filled(empty) if np.ma.isMaskedArray(values) else values)
    return columns


def read_grouped(
    connection: Connection, query: Select[Any], key: ColumnElement[Any], *, whole: bool = False
) -> Columns:
    """Return the columns of a query that groups by a key, as `read_columns` does, but ascending by the key.

    The keys are read in blocks, by all connections of `reading_widely`, where an index leads from a key to its rows.
    A column may be a `number_list` if the query counts its numbers in a column named `<its name>_count`; all lists
    come as one array, one after the other.

    Args:
        connection: An open connection.
        query: Its first column is the key; a condition leaves out rows without one. No ORDER BY, no LIMIT.
        key: The column it groups by.
        whole: Ask one question, not one for each block: for a query about few keys.
    """
    if connection.dialect.name not in ("sqlite", "postgresql"):
        return _ascending(read_columns(connection, query))
    blocks: list[_Block | None] = [None] if whole else _blocks(connection, key)
    readers: tuple[Connection, ...] = (connection, *connection.get_execution_options().get(_HELPERS, ()))
    waiting = iter(enumerate(blocks))
    taking = threading.Lock()
    found: list[Columns] = [{} for _ in blocks]

    def work(reader: Connection) -> None:
        while True:
            with taking:
                at, block = next(waiting, (-1, None))
            if at < 0:
                return
            part = query if block is None else query.where(key >= block[0], key < block[1])
            found[at] = _packed(reader, part)

    if len(blocks) == 1 or len(readers) == 1:
        work(connection)
    else:
        with ThreadPoolExecutor(len(readers)) as pool:
            list(pool.map(work, readers))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


_Block = tuple[int, int]


def _blocks(connection: Connection, key: ColumnElement[Any]) -> list[_Block | None]:
    """Return half-open ranges of the key that together hold all keys; one without bounds where no index leads to it."""
    if not _has_index(key):
        return [None]
    # Two questions: SQLite answers each by one step down the index, but both together by a walk along it.
    low = connection.execute(select(func.min(key))).scalar_one()
    high = connection.execute(select(func.max(key))).scalar_one()
    if low is None or high - low < _KEYS_PER_BLOCK:
        return [None]
    step = max(_KEYS_PER_BLOCK, (high - low) // _MOST_BLOCKS + 1)
    return [(start, start + step) for start in range(low, high + 1, step)]


def _has_index(key: ColumnElement[Any]) -> bool:
    """Return whether an index begins with the column, be it of a table or of an alias of one."""
    for column in key.base_columns:
        if isinstance(column, Column) and isinstance(column.table, Table):
            first = [next(iter(index.columns), None) for index in column.table.indexes]
            return any(one is column for one in [*first, next(iter(column.table.primary_key.columns), None)])
    return False


def _packed(connection: Connection, query: Select[Any]) -> Columns:
    inner = query.subquery()
    numbers = [column for column in inner.c if not _is_list(column)]
    lists = [column for column in inner.c if _is_list(column)]
    if connection.dialect.name == "sqlite" and any(map(is_float, numbers)):
        # SQLite writes a float into a text with 15 digits: not all of it.
        return _ascending(read_columns(connection, query))
    values = connection.execute(select(packed_rows(*numbers), *(joined_lists(column) for column in lists))).one()
    columns = _named(unpacked(values[0]).reshape(-1, len(numbers)), numbers)
    joined = {str(column.key): unpacked(value) for column, value in zip(lists, values[1:], strict=True)}
    return _ascending(columns, joined)


def _is_list(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, NumberList)


def _ascending(columns: Columns, lists: Columns | None = None) -> Columns:
    """Return the rows by their first column, and the lists that belong to them in the same order."""
    keys = next(iter(columns.values()))
    lists = lists or {}
    if np.all(keys[1:] >= keys[:-1]):
        return columns | lists
    order = np.argsort(keys, kind="stable")
    moved = {name: values[order] for name, values in columns.items()}
    for name, values in lists.items():
        lengths = columns[f"{name}_count"]
        starts = np.cumsum(lengths) - lengths
        new = lengths[order]
        within = np.arange(len(values)) - np.repeat(np.cumsum(new) - new, new)
        moved[name] = values[np.repeat(starts[order], new) + within]
    return moved


# --- in ---------------------------------------------------------------------------------------------------------------


def insert_columns(
    engine: Engine, table: Table, columns: Mapping[str, Values], *, rows_per_commit: int = _ROWS_PER_COMMIT
) -> None:
    """Append rows given as whole columns, in transactions of at most `rows_per_commit` rows.

    A column is an array of numbers, NULL_INT and NaN for NULL, or a list of numbers, texts and None.
    """
    _write(engine, table, columns, rows_per_commit, keys=None)


def append_columns(connection: Connection, table: Table, columns: Mapping[str, Values]) -> None:
    """Append rows given as whole columns within a transaction; otherwise as `insert_columns`."""
    write = _copy if connection.dialect.name == "postgresql" else _execute_many
    write(connection, table, columns, None)


def merge_columns(
    engine: Engine,
    table: Table,
    keys: Sequence[str],
    columns: Mapping[str, Values],
    *,
    rows_per_commit: int = _ROWS_PER_COMMIT,
) -> None:
    """Insert rows given as whole columns, and set the columns of those whose keys are there already.

    Args:
        engine: The database.
        table: Columns of it that are not given keep what they hold; in new rows they have their default.
        keys: The columns of its primary key or of a unique constraint; no two rows have equal ones.
        columns: As `insert_columns` takes them.
        rows_per_commit: The largest number of rows in a transaction, so that nobody waits long to write.
    """
    _write(engine, table, columns, rows_per_commit, keys=keys)


def _write(
    engine: Engine, table: Table, columns: Mapping[str, Values], rows_per_commit: int, *, keys: Sequence[str] | None
) -> None:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"the columns differ in length: {sorted(lengths)}")
    write = _copy if engine.dialect.name == "postgresql" else _execute_many
    for start in range(0, next(iter(lengths), 0), rows_per_commit):
        part = {name: values[start : start + rows_per_commit] for name, values in columns.items()}
        with writing(engine) as connection:
            write(connection, table, part, keys)


def _execute_many(
    connection: Connection, table: Table, columns: Mapping[str, Values], keys: Sequence[str] | None
) -> None:
    statement = insert_into(connection, table).values({name: bindparam(name) for name in columns})
    if keys is not None:
        statement = _resolved(statement, list(columns), keys)
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(columns))
    # Past SQLAlchemy, which would make a dictionary of each row; instants are plain milliseconds here.
    rows = zip(*(_plain(columns[name]) for name in compiled.positiontup or ()), strict=True)
    cursor: Any = connection.connection.cursor()
    cursor.executemany(str(compiled), rows)


def _plain(values: Values) -> Sequence[Any]:
    if not isinstance(values, np.ndarray):
        return values
    missing = np.isnan(values) if values.dtype.kind == "f" else values == NULL_INT
    if not missing.any():
        plain: list[Any] = values.tolist()
        return plain
    objects = values.astype(object)
    objects[missing] = None
    return list(objects)


def _copy(connection: Connection, table: Table, columns: Mapping[str, Values], keys: Sequence[str] | None) -> None:
    target = table
    if keys is not None:
        fresh = (Column(name, table.c[name].type) for name in columns)
        target = Table(f"new_{table.name}", MetaData(), *fresh, prefixes=["TEMPORARY"], postgresql_on_commit="DROP")
        target.create(connection, checkfirst=False)
    types = [connection.dialect.type_compiler_instance.process(table.c[name].type) for name in columns]
    preparer = connection.dialect.identifier_preparer
    names = ", ".join(preparer.quote(name) for name in columns)
    cursor: Any = connection.connection.cursor()
    with cursor.copy(f"COPY {preparer.format_table(target)} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(copied(list(columns.values()), types))
    if keys is not None:
        statement = insert_into(connection, table).from_select(list(columns), select(target))
        connection.execute(_resolved(statement, list(columns), keys))


def _resolved(statement: Any, columns: Sequence[str], keys: Sequence[str]) -> Any:
    """Return the INSERT with what it does where the keys are there already."""
    fresh = {name: statement.excluded[name] for name in columns if name not in keys}
    if not fresh:
        return statement.on_conflict_do_nothing(index_elements=list(keys))
    return statement.on_conflict_do_update(index_elements=list(keys), set_=fresh)
