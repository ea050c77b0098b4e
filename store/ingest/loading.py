"""What every kind's loader shares: slices, references to other rows, duplicates, money."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import polars as pl
from sqlalchemy import Connection, Engine, Table

from kernel.vocabulary import OrderKind
from store.engine import writing
from store.ingest.bulk import ids_of, lock_facts
from store.ingest.money import exact_sum
from store.ingest.rejects import Rejects
from store.ingest.result import Progress, Report, Tally
from store.ingest.sources import Source
from store.ingest.upserts import create_missing

SLICE_ROWS = 5_000
"""Rows a transaction writes: small enough that others wait for less than a second."""


@dataclass(slots=True, kw_only=True)
class Load:
    """One file on its way into the database: the rows that could be read, and what has become of them so far."""

    engine: Engine
    source: Source
    frame: pl.DataFrame
    currency: str
    day_ms: int
    now_ms: int
    rejects: Rejects
    report: Report
    tally: Tally = field(default_factory=Tally)
    amount: Decimal = Decimal(0)
    currencies: set[str] = field(default_factory=set)
    orders_by_kind: dict[str, int] = field(default_factory=dict)

    def has(self, column: str) -> bool:
        """Say whether the source gives this field."""
        return column in self.frame.columns

    def keep_last(self, *keys: str) -> pl.DataFrame:
        """Return the rows, only the last of each key; counts the others as superseded."""
        out = self.frame.unique(subset=list(keys), keep="last", maintain_order=True)
        self.tally.superseded += self.frame.height - out.height
        return out

    def slices(self, rows: pl.DataFrame, stage: str) -> Iterator[tuple[Connection, pl.DataFrame]]:
        """Yield the rows in slices, each with a write transaction of its own, and tell how far it is."""
        done = 0
        for part in rows.iter_slices(SLICE_ROWS):
            with self.writing() as connection:
                yield connection, part
            done += part.height
            self.report(Progress(stage=stage, done=done, total=rows.height))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a write transaction that excludes other writers of facts."""
        with writing(self.engine) as connection:
            lock_facts(connection)
            yield connection

    def count(self, new: int, changed: int, total: int) -> None:
        """Count rows that are now stored."""
        self.tally.new += new
        self.tally.changed += changed
        self.tally.unchanged += total - new - changed

    def count_money(self, amount: pl.Series, scale: int, currency: pl.Series) -> None:
        """Add to the exact sum of the source."""
        self.amount += exact_sum(amount, scale)
        self.currencies.update(currency.drop_nulls().unique().to_list())

    def count_kinds(self, kinds: pl.Series) -> None:
        """Count orders by kind."""
        for kind, count in kinds.value_counts().iter_rows():
            self.orders_by_kind[kind] = self.orders_by_kind.get(kind, 0) + count

    def linked(self, connection: Connection, rows: pl.DataFrame, column: str, table: Table) -> pl.DataFrame:
        """Return the rows with `<column>_id`; rows that name an unknown one are rejected, or it is created."""
        if column not in rows.columns:
            return rows
        keys = rows[column].drop_nulls().unique(maintain_order=True).to_list()
        if table.name in self.source.create:
            ids, made = create_missing(connection, table, (), [(key,) for key in keys])
            self.count_created(table, made)
        else:
            ids = ids_of(connection, table, keys)
        rows = rows.with_columns(looked_up(rows[column], ids).alias(f"{column}_id"))
        unknown = rows.filter(pl.col(column).is_not_null() & pl.col(f"{column}_id").is_null())
        self.rejects.add(unknown["line"], [f"unknown {column} {key!r}" for key in unknown[column]])
        return rows.filter(pl.col(column).is_null() | pl.col(f"{column}_id").is_not_null()) if len(unknown) else rows

    def count_created(self, table: Table, made: int) -> None:
        """Count rows made because others named them."""
        if table.name == "accounts":
            self.tally.created_accounts += made
        else:
            self.tally.created_products += made

    def with_currency(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows with a currency each: their own, else the source's."""
        own = pl.col("currency") if "currency" in rows.columns else pl.lit(None, dtype=pl.String)
        return rows.with_columns(own.fill_null(self.currency).alias("currency"))

    def kinds(self, order: pl.Series, otherwise: pl.Series) -> pl.Series:
        """Return the kind of each order: by the source's rules, else as given."""
        out = otherwise
        for kind, prefixes in self.source.order_kind.by_kind().items():
            for prefix in prefixes:
                out = out.set(order.str.starts_with(prefix), str(kind))
        return out.fill_null(str(OrderKind.ORDER))


def looked_up(keys: pl.Series, ids: dict[str, int]) -> pl.Series:
    """Return the id of each key; null where there is none."""
    if not ids:
        return pl.Series(keys.name, [None] * len(keys), dtype=pl.Int64)
    return keys.replace_strict(list(ids), list(ids.values()), default=None, return_dtype=pl.Int64)


def rows_of(frame: pl.DataFrame, columns: Sequence[str]) -> list[list[Any]]:
    """Return the columns as rows of plain values; JSON documents as dicts."""
    rows = [list(row) for row in frame.select(columns).iter_rows()]
    if "attributes" in columns:
        at = list(columns).index("attributes")
        for row in rows:
            row[at] = json.loads(row[at]) if row[at] else {}
    return rows


def filled(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Return the frame with empty text instead of null in those of the columns it has."""
    return frame.with_columns(pl.col(name).fill_null("") for name in columns if name in frame.columns)


def only(frame: pl.DataFrame, *columns: str) -> list[str]:
    """Return those of the columns the frame has."""
    return [name for name in columns if name in frame.columns]
