"""Opportunities with the history of their stages, and events."""

from __future__ import annotations

from typing import Any

import polars as pl
from sqlalchemy import BigInteger, Connection, select, type_coerce

from store.changes import owners, touch_owners
from store.ingest.bulk import among, insert_rows
from store.ingest.loading import Load, filled, only, rows_of
from store.ingest.money import SCALE, in_minor
from store.ingest.orders import with_account_of_contact
from store.ingest.upserts import upsert
from store.tables import accounts, contacts, events, opportunities, opportunity_stages


def load_opportunities(load: Load) -> None:
    """Store each stage an opportunity entered; its latest row says what it is now."""
    rows = _valued(load, filled(load.keep_last("opportunity", "stage", "at"), "name"))
    # Whole opportunities lie together, oldest stage first, so that a slice's last word is its latest.
    rows = rows.sort("opportunity", "at", maintain_order=True)
    for connection, part in load.slices(rows, "opportunities"):
        known = load.linked(connection, load.linked(connection, part, "account", accounts), "contact", contacts)
        known = with_account_of_contact(connection, known)
        last = known.unique(subset=["opportunity"], keep="last", maintain_order=True)
        current = _not_overtaken(connection, last)
        columns = [*only(current, "account_id", "contact_id", "name", "value_minor", "currency"), "stage", "stage_at"]
        done = upsert(connection, opportunities, columns, rows_of(current, ["opportunity", *columns]))
        entered = _enter_stages(connection, known)
        moved = known.filter(entered)["opportunity"]
        load.count(int(entered.sum()), len(done.changed - set(moved)), known.height)


def _valued(load: Load, rows: pl.DataFrame) -> pl.DataFrame:
    if "value" not in rows.columns:
        return rows
    rows = load.with_currency(rows)
    return rows.with_columns(in_minor(rows["value"], SCALE, rows["currency"]).alias("value_minor"))


def _not_overtaken(connection: Connection, last: pl.DataFrame) -> pl.DataFrame:
    """Return those rows that are no older than what the database holds, with `stage_at`."""
    table = opportunities.c
    query = select(table.external_id, type_coerce(table.stage_at, BigInteger))
    keys = last["opportunity"].to_list()
    before = {row[0]: row[1] for row in connection.execute(query.where(among(connection, table.external_id, keys)))}
    current = pl.Series(
        [before.get(key, at) <= at for key, at in last.select("opportunity", "at").iter_rows()], dtype=pl.Boolean
    )
    return last.filter(current).with_columns(pl.col("at").alias("stage_at"))


def _enter_stages(connection: Connection, known: pl.DataFrame) -> pl.Series:
    """Store the stages not yet known; say for each row whether it was one of them."""
    table = opportunities.c
    keys = known["opportunity"].unique().to_list()
    query = select(table.external_id, table.id).where(among(connection, table.external_id, keys))
    ids = {row[0]: row[1] for row in connection.execute(query)}
    stages = opportunity_stages.c
    history = select(stages.opportunity_id, stages.stage, type_coerce(stages.entered_at, BigInteger))
    before = set(
        map(tuple, connection.execute(history.where(among(connection, stages.opportunity_id, list(ids.values())))))
    )
    words = [(ids[key], stage, at) for key, stage, at in known.select("opportunity", "stage", "at").iter_rows()]
    insert_rows(
        connection,
        opportunity_stages,
        ["opportunity_id", "stage", "entered_at"],
        [word for word in words if word not in before],
    )
    touch_owners(connection, owners(connection, opportunities, {word[0] for word in words if word not in before}))
    return pl.Series([word not in before for word in words], dtype=pl.Boolean)


def load_events(load: Load) -> None:
    """Store events; attributes become their properties."""
    rows = _valued(load, load.keep_last("event"))
    for connection, part in load.slices(rows, "events"):
        known = load.linked(connection, load.linked(connection, part, "account", accounts), "contact", contacts)
        known = with_account_of_contact(connection, known)
        columns = only(known, "account_id", "contact_id", "name", "at", "value_minor", "currency", "attributes")
        names = ["properties" if name == "attributes" else name for name in columns]
        events_rows: list[list[Any]] = rows_of(known, ["event", *columns])
        done = upsert(connection, events, names, events_rows)
        load.count(len(done.new), len(done.changed), known.height)
        if "account_id" in known.columns:
            load.tally.without_customer += known["account_id"].null_count()
