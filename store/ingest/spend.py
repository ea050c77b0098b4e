"""Marketing and sales cost per channel and period."""

from __future__ import annotations

import polars as pl

from store.ingest.loading import Load, rows_of
from store.ingest.money import SCALE, in_minor
from store.ingest.upserts import upsert
from store.tables import spend


def load_spend(load: Load) -> None:
    """Store what each channel cost in each period; a channel has one amount for each start."""
    rows = load.with_currency(load.keep_last("channel", "starts_at"))
    backwards = rows.filter(pl.col("ends_at") <= pl.col("starts_at"))
    load.rejects.add(backwards["line"], ["ends_at is not after starts_at"] * len(backwards))
    rows = rows.filter(pl.col("ends_at") > pl.col("starts_at"))
    negative = rows.filter(pl.col("amount") < 0)
    reason = "amount is negative: spend is what was paid, refunds taken off"
    load.rejects.add(negative["line"], [reason] * len(negative))
    rows = rows.filter(pl.col("amount") >= 0)
    rows = rows.with_columns(
        in_minor(rows["amount"], SCALE, rows["currency"]).alias("amount_minor"),
        pl.format("{} {}", "channel", "starts_at").alias("key"),
    )
    columns = ["channel", "starts_at", "ends_at", "amount_minor", "currency"]
    for connection, part in load.slices(rows, "spend"):
        done = upsert(connection, spend, columns, rows_of(part, ["key", *columns]))
        load.count(len(done.new), len(done.changed), part.height)
