"""Flat invoice lines: orders with their lines, and the accounts and products they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl
from sqlalchemy import Connection, Table, delete, select

from kernel.vocabulary import OrderKind
from store.changes import owners, touch_owners
from store.ingest.bulk import among, ids_of, insert_rows
from store.ingest.catalogue import in_float
from store.ingest.loading import Load, looked_up, only, rows_of
from store.ingest.money import MAX_PRODUCT, PRODUCT_SCALE, SCALE, in_minor
from store.ingest.result import Progress
from store.ingest.upserts import create_missing, upsert
from store.tables import accounts, order_lines, orders, products

_SLICE_LINES = 20_000
_SAME = ["order_id", "product_id", "quantity", "net_minor", "cost_minor"]


def load_order_lines(load: Load) -> None:
    """Store lines, order by order; an order's lines are replaced as a whole where they differ.

    Lines are the same in whatever order they come; two equal lines of one order are two lines. Where the source
    tells when an order was made, orders are made from their lines; else they must be there already.
    """
    makes_orders = load.has("ordered_at")
    rows = _priced(load, load.with_currency(load.frame))
    if makes_orders:
        rows = _agreeing(load, rows)
        rows = _referenced(load, rows, "account", accounts, {"name": "account_name", "country": "country"})
    rows = _referenced(load, rows, "product", products, {"name": "product_name"})
    heads = _heads(load, rows)
    done = 0
    for part, lines in _whole_orders(rows, heads):
        with load.writing() as connection:
            if makes_orders:
                _store_orders(connection, load, part, lines)
            else:
                _store_lines_of_known(connection, load, lines)
        done += lines.height
        load.report(Progress(stage="order lines", done=done, total=rows.height))
    load.tally.products = rows["product"].n_unique()
    if makes_orders:
        load.tally.accounts = rows["account"].drop_nulls().n_unique() if "account" in rows.columns else 0


def _priced(load: Load, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with their exact amount (times 10¹⁸), and net and cost in minor units."""
    factor = pl.lit(10 ** (PRODUCT_SCALE - SCALE), dtype=pl.Int128)
    priced = "unit_price" in rows.columns
    exact = pl.col("quantity") * pl.col("unit_price") if priced else pl.col("amount") * factor
    rows = rows.with_columns(exact.alias("exact"))
    if "unit_cost" in rows.columns:
        rows = rows.with_columns((pl.col("quantity") * pl.col("unit_cost")).alias("cost"))
    sums = pl.max_horizontal(pl.col(name).abs() for name in only(rows, "exact", "cost"))
    too_large = rows.select(sums > MAX_PRODUCT * 10**PRODUCT_SCALE).to_series().fill_null(value=False)
    load.rejects.add(rows.filter(too_large)["line"], "quantity times price is too large")
    rows = rows.filter(~too_large)
    cost = rows["cost"] if "cost" in rows.columns else pl.Series("cost", [None] * rows.height, dtype=pl.Int128)
    return rows.with_columns(
        in_minor(rows["exact"], PRODUCT_SCALE, rows["currency"]).alias("net_minor"),
        in_minor(cost, PRODUCT_SCALE, rows["currency"]).alias("cost_minor"),
        in_float(rows["quantity"]),
    )


def _agreeing(load: Load, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the lines that agree with their order's first on account and currency; the others are rejected."""
    for column in only(rows, "account", "currency"):
        first = pl.col(column).drop_nulls().first().over("order")
        odd = rows.select((pl.col(column) != first).fill_null(value=False)).to_series()
        load.rejects.add(rows.filter(odd)["line"], f"{column} differs from that of the order's other lines")
        rows = rows.filter(~odd) if odd.any() else rows
    return rows


def _referenced(load: Load, rows: pl.DataFrame, column: str, table: Table, named: Mapping[str, str]) -> pl.DataFrame:
    """Return the lines with `<column>_id`; what they name is made, or lines that name what is unknown rejected.

    Args:
        load: The import.
        rows: The lines.
        column: Which field refers.
        table: To what.
        named: Columns of the table → the fields that fill them in what is made; the last that is not empty does.
    """
    if column not in rows.columns:
        return rows
    filling = {name: field for name, field in named.items() if field in rows.columns}
    distinct = (
        rows.filter(pl.col(column).is_not_null())
        .group_by(column, maintain_order=True)
        .agg(pl.col(field).drop_nulls().last().alias(f"new_{name}") for name, field in filling.items())
    )
    distinct = distinct.with_columns(pl.col(name).fill_null("") for name in only(distinct, "new_name"))
    ids: dict[str, int] = {}
    for connection, part in load.slices(distinct, table.name):
        if table.name in load.source.create:
            found, made = create_missing(connection, table, list(filling), part.rows())
            load.count_created(table, made)
        else:
            found = ids_of(connection, table, part[column].to_list())
        ids |= found
    rows = rows.with_columns(looked_up(rows[column], ids).alias(f"{column}_id"))
    unknown = rows.select(pl.col(column).is_not_null() & pl.col(f"{column}_id").is_null()).to_series()
    load.rejects.add(
        rows.filter(unknown)["line"], [f"unknown {column} {key!r}" for key in rows.filter(unknown)[column]]
    )
    return rows.filter(~unknown) if unknown.any() else rows


def _heads(load: Load, rows: pl.DataFrame) -> pl.DataFrame:
    """Return one row per order, in the order of the file, with how many lines it has."""
    positive = pl.col("quantity") > 0
    negative = (pl.col("quantity") < 0) | (pl.col("net_minor") < 0)
    known = {"account_id": pl.col("account_id").drop_nulls().first(), "ordered_at": pl.col("ordered_at").min()}
    heads = rows.group_by("order", maintain_order=True).agg(
        *(value.alias(name) for name, value in known.items() if name in rows.columns),
        pl.col("currency").first(),
        pl.col("net_minor").sum(),
        pl.col("net_minor").filter(positive).sum().alias("gross_minor"),
        negative.all().alias("negative"),
        pl.len().alias("lines"),
    )
    by_sign = pl.select(
        pl.when(heads["negative"]).then(pl.lit(str(OrderKind.RETURN))).otherwise(pl.lit(str(OrderKind.ORDER)))
    ).to_series()
    kind = load.kinds(heads["order"], by_sign)
    gross = pl.when(kind == str(OrderKind.ORDER)).then(pl.col("gross_minor")).otherwise(0)
    return heads.with_columns(kind.alias("kind"), gross.alias("gross_minor"))


def _whole_orders(rows: pl.DataFrame, heads: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield slices of orders with all their lines, each line with its number within its order, from 1."""
    place = heads.select("order", pl.int_range(pl.len()).alias("place"))
    rows = rows.join(place, on="order", how="left", maintain_order="left").sort("place", maintain_order=True)
    rows = rows.with_columns((pl.int_range(pl.len()).over("place") + 1).alias("number"))
    ends = heads["lines"].cast(pl.Int64).cum_sum()
    start, line = 0, 0
    while start < heads.height:
        end = max(start + 1, int((ends <= line + _SLICE_LINES).sum()))
        yield heads.slice(start, end - start), rows.slice(line, int(ends[end - 1]) - line)
        start, line = end, int(ends[end - 1])


def _store_orders(connection: Connection, load: Load, heads: pl.DataFrame, lines: pl.DataFrame) -> None:
    columns = [*only(heads, "account_id"), "ordered_at", "kind", "net_minor", "gross_minor", "currency"]
    done = upsert(connection, orders, columns, rows_of(heads, ["order", *columns]), stamp={"imported_at": load.now_ms})
    lines = lines.with_columns(looked_up(lines["order"], done.ids).alias("order_id"))
    new = {done.ids[key] for key in done.new}
    differing, _ = _replace_lines(connection, lines, new)
    changed = {done.ids[key] for key in done.changed} | (differing - new)
    _count(load, lines, new, changed)
    load.tally.orders += heads.height
    load.count_kinds(heads["kind"])
    load.tally.without_customer += lines["account"].null_count() if "account" in lines.columns else lines.height


def _store_lines_of_known(connection: Connection, load: Load, lines: pl.DataFrame) -> None:
    ids = ids_of(connection, orders, lines["order"].to_list())
    lines = lines.with_columns(looked_up(lines["order"], ids).alias("order_id"))
    lost = lines.filter(pl.col("order_id").is_null())
    load.rejects.add(lost["line"], [f"unknown order {key!r}" for key in lost["order"]])
    lines = lines.filter(pl.col("order_id").is_not_null())
    differing, bare = _replace_lines(connection, lines, set())
    _count(load, lines, bare, differing - bare)
    load.tally.orders += lines["order"].n_unique()


def _count(load: Load, lines: pl.DataFrame, new: set[int], changed: set[int]) -> None:
    by_order = dict(lines["order_id"].value_counts().iter_rows())
    load.count(sum(by_order[key] for key in new), sum(by_order[key] for key in changed), lines.height)
    load.tally.net_minor += int(lines["net_minor"].sum() or 0)
    load.count_money(lines["exact"], PRODUCT_SCALE, lines["currency"])


def _replace_lines(connection: Connection, lines: pl.DataFrame, new: set[int]) -> tuple[set[int], set[int]]:
    """Store the lines of those orders whose lines differ; return these, and those that had none before."""
    given = lines.select(_SAME)
    every = set(given["order_id"].unique().to_list())
    stored = _stored_lines(connection, sorted(every - new))
    counted = [frame.group_by(_SAME).len() for frame in (given, stored)]
    differing = set(new)
    for one, other in (counted, counted[::-1]):
        differing.update(one.join(other, on=[*_SAME, "len"], how="anti", nulls_equal=True)["order_id"].to_list())
    had_lines = set(stored["order_id"].unique().to_list())
    replaced = sorted(differing & had_lines)
    if replaced:
        connection.execute(delete(order_lines).where(among(connection, order_lines.c.order_id, replaced)))
    written = lines.filter(pl.col("order_id").is_in(sorted(differing))) if differing != every else lines
    columns = ["order_id", "line", "product_id", "quantity", "net_minor", "cost_minor"]
    insert_rows(connection, order_lines, columns, written.select("order_id", "number", *columns[2:]).rows())
    touch_owners(connection, owners(connection, orders, differing - new))  # New orders are noted as such.
    return differing, every - had_lines


def _stored_lines(connection: Connection, ids: list[int]) -> pl.DataFrame:
    schema = {name: pl.Float64 if name == "quantity" else pl.Int64 for name in _SAME}
    if not ids:
        return pl.DataFrame(schema=schema)
    query = select(*(order_lines.c[name] for name in _SAME)).where(among(connection, order_lines.c.order_id, ids))
    return pl.DataFrame([tuple(row) for row in connection.execute(query)], schema=schema, orient="row")
