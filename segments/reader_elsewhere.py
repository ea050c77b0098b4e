"""Asking a source of orders that lives elsewhere. Imported only where there is one: frames take their memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import Connection, Select, String, select

from kernel.vocabulary import Subject
from segments.order_readers import Question
from segments.purchases import Ints
from segments.warehouse import LineRows
from store.columns import NULL_INT, Columns
from store.tables import accounts, contacts

_SLICE_ELSEWHERE = 2_000
"""Keys named in one query: elsewhere each is a parameter of its own."""
_BATCH = 100_000
_STREAMED = {"stream_results": True}


class ReaderElsewhere:
    """Asks an engine elsewhere, which knows subjects by external ids, as texts."""

    def __init__(self, there: Connection, lines: LineRows, connection: Connection, subject: Subject) -> None:
        """Take a connection to that engine, the orders there, and a connection to our own database."""
        self._there = there
        self._lines = lines
        self._known = _external_ids(connection, accounts if subject is Subject.ACCOUNT else contacts)
        self.unknown = 0
        self.unknown_example = ""

    def ask(self, question: Question, *, only: Ints | None = None) -> Columns:
        """Return the answer, about everybody or only about some, with external ids made ours."""
        query = question(self._lines)
        if only is None:
            return self._ours(list(self._batches(query)), query)
        wanted = self._known.filter(pl.col("id").is_in(pl.Series(only).implode())).get_column("key")
        parts = []
        for start in range(0, len(wanted), _SLICE_ELSEWHERE):
            some = self._lines.rows.key.in_(wanted.slice(start, _SLICE_ELSEWHERE).to_list())
            parts += list(self._batches(question(self._lines.within(some))))
        return self._ours(parts, query)

    def _batches(self, query: Select[Any]) -> Iterator[pl.DataFrame]:
        """Yield the rows in frames."""
        if self._there.dialect.name == "duckdb":
            yield from _from_duckdb(self._there, query)
            return
        schema = {
            str(one.key): pl.String if isinstance(one.type, String) else pl.Int64 for one in query.selected_columns
        }
        result = self._there.execute(query, execution_options=_STREAMED)
        while rows := result.fetchmany(_BATCH):
            yield pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")

    def _ours(self, parts: list[pl.DataFrame], query: Select[Any]) -> Columns:
        names = [str(one.key) for one in query.selected_columns]
        if not parts:
            return {name: np.zeros(0, np.int64) for name in names}
        rows = pl.concat(parts)
        parts.clear()
        rows = rows.rename({"id": "key"}).join(self._known, on="key", how="left")
        lost = rows.filter(pl.col("id").is_null()).get_column("key").unique()
        if len(lost) > self.unknown:
            self.unknown, self.unknown_example = len(lost), str(lost.min())
        rows = rows.drop("key").filter(pl.col("id").is_not_null()).sort("id")
        columns = {}
        for name in names:
            values = rows.get_column(name)
            if values.dtype == pl.String:
                values = values.rank("dense").cast(pl.Int64)
            columns[name] = values.fill_null(NULL_INT).to_numpy()
        return columns


def _from_duckdb(there: Connection, query: Select[Any]) -> Iterator[pl.DataFrame]:
    """Yield frames by way of a temporary table, which the engine may keep on disk.

    Fetched at once, the columns of ten million subjects would take as much memory here as adding up took there.
    """
    compiled = query.compile(dialect=there.dialect, compile_kwargs={"render_postcompile": True})
    there.exec_driver_sql(f"CREATE OR REPLACE TEMPORARY TABLE carillon_sums AS {compiled}", _parameters(compiled))
    there.commit()  # Only then rows are numbered from 0.
    try:
        rows = there.exec_driver_sql("SELECT count(*) FROM carillon_sums").scalar_one()
        for start in range(0, rows, _BATCH):
            part = f"SELECT * FROM carillon_sums WHERE rowid >= {start} AND rowid < {start + _BATCH}"  # noqa: S608
            cursor: Any = there.exec_driver_sql(part).cursor
            columns = {
                name: np.ma.filled(values, NULL_INT) if values.dtype.kind == "i" else values
                for name, values in cursor.fetchnumpy().items()
            }
            yield pl.DataFrame(
                {
                    name: pl.Series(name, values.tolist(), dtype=pl.String)
                    if values.dtype.kind == "O"
                    else pl.Series(name, values).cast(pl.Int64)
                    for name, values in columns.items()
                }
            )
    finally:
        there.exec_driver_sql("DROP TABLE IF EXISTS carillon_sums")


def _parameters(compiled: Any) -> Any:
    """Return the bound values in the form the driver takes."""
    values = compiled.construct_params()
    return tuple(values[name] for name in compiled.positiontup) if compiled.positional else values


def _external_ids(connection: Connection, table: Any) -> pl.DataFrame:
    """Return our ids by external id: columns key and id."""
    schema = {"key": pl.String, "id": pl.Int64}
    parts = [pl.DataFrame(schema=schema)]
    streamed = connection.dialect.name != "sqlite"
    result = connection.execute(select(table.c.external_id, table.c.id), execution_options={"stream_results": streamed})
    # SQLite's own cursor streams as it is, and spares an object for each row.
    source: Any = result if streamed else result.cursor
    while rows := source.fetchmany(_BATCH):
        names, ids = zip(*rows, strict=True)
        parts.append(pl.DataFrame({"key": names, "id": ids}, schema=schema))
    return pl.concat(parts)
