"""Orders with one row each."""

from __future__ import annotations

import polars as pl
from sqlalchemy import Connection, select

from kernel.vocabulary import OrderKind
from store.ingest.bulk import among
from store.ingest.fields import OrderStatus
from store.ingest.loading import Load, only, rows_of
from store.ingest.money import SCALE, in_minor
from store.ingest.upserts import upsert
from store.tables import accounts, contacts, orders


def load_orders(load: Load) -> None:
    """Store orders; rows without a customer are kept and counted."""
    rows = _priced(load, load.with_currency(load.keep_last("order")))
    for connection, part in load.slices(rows, "orders"):
        known = load.linked(connection, load.linked(connection, part, "account", accounts), "contact", contacts)
        known = with_account_of_contact(connection, known)
        columns = [
            *only(known, "account_id", "contact_id"),
            *("ordered_at", "kind", "net_minor", "gross_minor", "currency"),
            *only(known, "cancelled_at"),
        ]
        done = upsert(
            connection, orders, columns, rows_of(known, ["order", *columns]), stamp={"imported_at": load.now_ms}
        )
        load.count(len(done.new), len(done.changed), known.height)
        _count(load, known)
    load.tally.accounts = rows["account"].drop_nulls().n_unique() if "account" in rows.columns else 0


def _priced(load: Load, rows: pl.DataFrame) -> pl.DataFrame:
    currency = rows["currency"]
    net = in_minor(rows["amount"], SCALE, currency)
    told = rows["kind"] if "kind" in rows.columns else pl.Series("kind", [None] * rows.height, dtype=pl.String)
    by_sign = pl.select(
        pl.when(net < 0).then(pl.lit(str(OrderKind.RETURN))).otherwise(pl.lit(str(OrderKind.ORDER)))
    ).to_series()
    kind = load.kinds(rows["order"], pl.select(pl.coalesce(told, by_sign)).to_series())
    counted = (kind == str(OrderKind.ORDER)) & (net > 0)
    gross = pl.select(pl.when(counted).then(net).otherwise(0)).to_series()
    if "gross" in rows.columns:
        given = in_minor(rows["gross"], SCALE, currency)
        gross = pl.select(
            pl.when(kind == str(OrderKind.ORDER)).then(pl.coalesce(given, gross)).otherwise(0)
        ).to_series()
    rows = rows.with_columns(kind.alias("kind"), net.alias("net_minor"), gross.alias("gross_minor"))
    return (
        rows.with_columns(_cancelled_at(rows).alias("cancelled_at")) if only(rows, "status", "cancelled_at") else rows
    )


def _cancelled_at(rows: pl.DataFrame) -> pl.Series:
    """Return from when each order counts as nothing; without a time of its own, from its beginning."""
    given = rows["cancelled_at"] if "cancelled_at" in rows.columns else pl.Series([None] * rows.height, dtype=pl.Int64)
    if "status" not in rows.columns:
        return given
    cancelled = (rows["status"] == str(OrderStatus.CANCELLED)).fill_null(value=False)
    return pl.select(pl.when(cancelled).then(pl.coalesce(given, rows["ordered_at"]))).to_series()


def with_account_of_contact(connection: Connection, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with the account of their contact where they name none themselves."""
    if "contact_id" not in rows.columns:
        return rows
    own = rows["account_id"] if "account_id" in rows.columns else pl.Series([None] * rows.height, dtype=pl.Int64)
    people = rows["contact_id"].filter(own.is_null()).drop_nulls().unique().to_list()
    if not people:
        return rows.with_columns(own.alias("account_id"))
    query = select(contacts.c.id, contacts.c.account_id).where(among(connection, contacts.c.id, people))
    account_of = {row[0]: row[1] for row in connection.execute(query)}
    theirs = pl.Series([account_of.get(contact) for contact in rows["contact_id"].to_list()], dtype=pl.Int64)
    return rows.with_columns(pl.select(pl.coalesce(own, theirs)).to_series().alias("account_id"))


def _count(load: Load, known: pl.DataFrame) -> None:
    load.tally.orders += known.height
    load.tally.net_minor += int(known["net_minor"].sum() or 0)
    load.tally.without_customer += known["account_id"].null_count() if "account_id" in known.columns else known.height
    load.count_kinds(known["kind"])
    load.count_money(known["amount"], SCALE, known["currency"])
