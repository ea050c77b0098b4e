"""Accounts with their parents, contacts, and consents with their evidence."""

from __future__ import annotations

import polars as pl
from sqlalchemy import BigInteger, Connection, select, type_coerce

from kernel.vocabulary import ConsentStatus, Subject
from store.changes import touch
from store.ingest.bulk import among, ids_of, insert_rows, update_rows
from store.ingest.loading import Load, filled, only, rows_of
from store.ingest.upserts import create_missing, upsert
from store.sql import insert_into
from store.tables import accounts, consent_events, consents, contacts


def load_accounts(load: Load) -> None:
    """Store accounts, then their parents, which may stand anywhere in the file."""
    rows = filled(load.keep_last("account"), "name")
    if "parent" in rows.columns:
        rows = _with_sound_parents(load, rows)
    columns = only(rows, "name", "country", "timezone", "language", "created_at", "attributes")
    new: set[str] = set()
    changed: set[str] = set()
    for connection, part in load.slices(rows, "accounts"):
        done = upsert(connection, accounts, columns, rows_of(part, ["account", *columns]))
        new |= done.new
        changed |= done.changed
    if "parent" in rows.columns:
        for connection, part in load.slices(rows, "parents"):
            changed |= _set_parents(connection, part)
    load.count(len(new), len(changed - new), rows.height)
    load.tally.accounts = rows.height


def _with_sound_parents(load: Load, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose chain of parents is known and ends; the others are rejected."""
    with load.writing() as connection:
        parent_of = _parents(connection)
        if "accounts" in load.source.create:
            named = set(rows["parent"].drop_nulls()) - set(rows["account"])
            load.count_created(accounts, create_missing(connection, accounts, (), [(key,) for key in named])[1])
            parent_of = dict.fromkeys(named) | parent_of
    stored = set(parent_of)
    given = dict(zip(rows["account"].to_list(), rows["parent"].to_list(), strict=True))
    parent_of |= given
    against: dict[str, str] = {}
    for account in given:
        if account in _circle(account, parent_of):
            against[account] = "parent: leads in a circle back to the account itself"
    while True:
        # A rejected row is no parent either, unless the database knows it: so look again until nothing falls out.
        lost = [
            account
            for account, parent in given.items()
            if account not in against
            and parent is not None
            and parent not in stored
            and (parent not in given or parent in against)
        ]
        if not lost:
            break
        against |= {account: f"unknown parent {given[account]!r}" for account in lost}
    refused = rows.filter(pl.col("account").is_in(list(against)))
    load.rejects.add(refused["line"], [against[account] for account in refused["account"]])
    return rows.filter(~pl.col("account").is_in(list(against)))


def _circle(account: str, parent_of: dict[str, str | None]) -> set[str]:
    """Return the ancestors of an account, itself among them only where its parents lead back to it."""
    seen: set[str] = set()
    above = parent_of.get(account)
    while above is not None and above not in seen:
        seen.add(above)
        above = parent_of.get(above)
    return seen


def _parents(connection: Connection) -> dict[str, str | None]:
    above = accounts.alias("above")
    query = select(accounts.c.external_id, above.c.external_id).outerjoin_from(
        accounts, above, accounts.c.parent_id == above.c.id
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _set_parents(connection: Connection, part: pl.DataFrame) -> set[str]:
    keys = part["account"].to_list()
    ids = ids_of(connection, accounts, [*keys, *part["parent"].drop_nulls().to_list()])
    query = select(accounts.c.id, accounts.c.parent_id).where(among(connection, accounts.c.external_id, keys))
    before = {row[0]: row[1] for row in connection.execute(query)}
    moved = {
        account: ids[parent] if parent is not None else None
        for account, parent in part.select("account", "parent").iter_rows()
        if before[ids[account]] != (ids[parent] if parent is not None else None)
    }
    update_rows(connection, accounts, ["parent_id"], [(ids[account], parent) for account, parent in moved.items()])
    left = (before[ids[account]] for account in moved)
    touch(connection, Subject.ACCOUNT, [*(ids[account] for account in moved), *moved.values(), *left])
    return set(moved)


def load_contacts(load: Load) -> None:
    """Store contacts; a row whose account is unknown is rejected."""
    rows = filled(load.keep_last("contact"), "first_name", "last_name")
    for connection, part in load.slices(rows, "contacts"):
        known = load.linked(connection, part, "account", accounts)
        columns = only(
            known,
            *("account_id", "email", "phone", "first_name", "last_name"),
            *("role", "timezone", "language", "created_at", "attributes"),
        )
        done = upsert(connection, contacts, columns, rows_of(known, ["contact", *columns]))
        load.count(len(done.new), len(done.changed), known.height)


def load_consents(load: Load) -> None:
    """Keep every word as evidence, and the latest as the one that holds; on equal times a withdrawal holds."""
    rows = filled(load.keep_last("contact", "channel", "at", "status"), "source", "wording")
    missing = [pl.lit("").alias(name) for name in ("source", "wording") if name not in rows.columns]
    for connection, part in load.slices(rows.with_columns(missing), "consents"):
        known = load.linked(connection, part, "contact", contacts)
        fresh = _new_words(connection, known)
        columns = ["contact_id", "channel", "status", "at", "source"]
        insert_rows(connection, consent_events, [*columns, "wording"], rows_of(fresh, [*columns, "wording"]))
        _hold_latest(connection, fresh)
        touch(connection, Subject.CONTACT, fresh["contact_id"].unique().to_list())
        load.count(fresh.height, 0, known.height)


def _new_words(connection: Connection, known: pl.DataFrame) -> pl.DataFrame:
    table = consent_events.c
    query = select(table.contact_id, table.channel, type_coerce(table.at, BigInteger), table.status)
    people = known["contact_id"].unique().to_list()
    before = set(map(tuple, connection.execute(query.where(among(connection, table.contact_id, people)))))
    words = known.select("contact_id", "channel", "at", "status").iter_rows()
    return known.filter(pl.Series([word not in before for word in words], dtype=pl.Boolean))


def _hold_latest(connection: Connection, fresh: pl.DataFrame) -> None:
    latest = (
        fresh.with_columns((pl.col("status") == str(ConsentStatus.WITHDRAWN)).alias("no"))
        .sort("at", "no", maintain_order=True)
        .unique(subset=["contact_id", "channel"], keep="last", maintain_order=True)
    )
    if latest.is_empty():
        return
    statement = insert_into(connection, consents)
    new = statement.excluded
    later = (new.at > consents.c.at) | (
        (new.at == consents.c.at) & (new.status == str(ConsentStatus.WITHDRAWN)) & (consents.c.status != new.status)
    )
    columns = ["contact_id", "channel", "status", "at", "source"]
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["contact_id", "channel"],
            set_={"status": new.status, "at": new.at, "source": new.source},
            where=later,
        ),
        latest.select(columns).to_dicts(),
    )
