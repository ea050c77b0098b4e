"""Products and stock."""

from __future__ import annotations

import polars as pl
from sqlalchemy import BigInteger, select, type_coerce

from store.changes import touch_products
from store.ingest.bulk import among
from store.ingest.loading import Load, filled, only, rows_of
from store.ingest.money import SCALE, in_minor
from store.ingest.upserts import upsert
from store.sql import insert_into
from store.tables import products, stock_levels


def load_products(load: Load) -> None:
    """Store products with their prices."""
    rows = filled(load.keep_last("product"), "name")
    priced = only(rows, "price", "cost")
    if priced:
        rows = load.with_currency(rows)
        rows = rows.with_columns(
            in_minor(rows[name], SCALE, rows["currency"]).alias(f"{name}_minor") for name in priced
        )
    columns = only(rows, "name", "category", "price_minor", "cost_minor", "currency", "attributes")
    for connection, part in load.slices(rows, "products"):
        done = upsert(connection, products, columns, rows_of(part, ["product", *columns]))
        load.count(len(done.new), len(done.changed), part.height)
    load.tally.products = rows.height


def load_stock(load: Load) -> None:
    """Store how many pieces were there at an instant; without one, at the start of the day of the import."""
    if not load.has("at"):
        load.frame = load.frame.with_columns(pl.lit(load.day_ms, dtype=pl.Int64).alias("at"))
    rows = load.keep_last("product", "at")
    rows = rows.with_columns(in_float(rows["on_hand"]))
    for connection, part in load.slices(rows, "stock levels"):
        known = load.linked(connection, part, "product", products)
        table = stock_levels.c
        query = select(table.product_id, type_coerce(table.at, BigInteger), table.on_hand)
        ids = known["product_id"].unique().to_list()
        before = {
            (row[0], row[1]): row[2]
            for row in connection.execute(query.where(among(connection, table.product_id, ids)))
        }
        counted = {(row[0], row[1]): row[2] for row in known.select("product_id", "at", "on_hand").iter_rows()}
        written = [key for key, on_hand in counted.items() if before.get(key) != on_hand]
        if written:
            statement = insert_into(connection, stock_levels)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["product_id", "at"], set_={"on_hand": statement.excluded.on_hand}
                ),
                [{"product_id": key[0], "at": key[1], "on_hand": counted[key]} for key in written],
            )
            touch_products(connection, (key[0] for key in written))
        new = sum(key not in before for key in written)
        load.count(new, len(written) - new, known.height)
    load.tally.products = rows["product"].n_unique()


def in_float(number: pl.Series) -> pl.Series:
    """Return numbers times 10⁹ as floats of their true size."""
    size: pl.Series = number.cast(pl.Float64) / 10**SCALE
    return size.alias(number.name)
