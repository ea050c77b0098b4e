"""The invented wholesaler, Northgate Supply: the files its shop would export, made from a seed.

Everything in these files is made up. Addresses lie under .example (RFC 2606) and telephone numbers in ranges kept
for fiction (see `demo.places`), so nothing can reach a real person. The same seed and anchor give the same bytes.

    python -m demo.shop FOLDER --seed 7 --anchor 2026-11-21
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from demo.people import Account, Consent, Contact, make_accounts, make_consents, make_contacts
from demo.pipeline import EventRow, StageRow, make_events, make_stages
from demo.trade import LIVES, Trade, make_trade

ACCOUNTS = 2_000
CONTACTS = 6_000
OPPORTUNITIES = 420
EVENTS = 2_500

BAD_CONTACT_ROWS: tuple[tuple[str, ...], ...] = (
    ("", "A10001", "Row", "Without-Key", "row.without-key@lost.example", "", "buyer", "", "en", "2025-03-02"),
    ("C900002", "A99999", "Gone", "Account", "gone.account@lost.example", "", "buyer", "", "en", "2025-03-03"),
    ("C900003", "A10002", "Broken", "Address", "broken.address(at)lost.example", "", "owner", "", "en", "2025-03-04"),
    (
        "C900004",
        "A10003",
        "Nowhere",
        "Zone",
        "nowhere.zone@lost.example",
        "",
        "buyer",
        "Mars/Olympus",
        "en",
        "2025-03-05",
    ),
    ("C900005", "A10004", "Odd", "Date", "odd.date@lost.example", "", "finance", "", "en", "31.02.2025"),
)
"""Rows wrong on purpose, so that the rejects file of the import can be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The wholesaler's facts before they are written down."""

    accounts: list[Account]
    contacts: list[Contact]
    consents: list[Consent]
    trade: Trade
    stages: list[StageRow]
    events: list[EventRow]


def make_shop(seed: int, anchor: date, *, accounts: int = ACCOUNTS, contacts: int = CONTACTS) -> Shop:
    """Return the wholesaler's facts up to the day before `anchor`; a pure function of its arguments.

    Each part draws from a stream of its own, so that a change to one part leaves the others as they were.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)]
    all_accounts = make_accounts(streams[0], accounts, anchor, {name: life.share for name, life in LIVES.items()})
    all_contacts = make_contacts(streams[1], all_accounts, contacts, anchor)
    return Shop(
        accounts=all_accounts,
        contacts=all_contacts,
        consents=make_consents(streams[2], all_contacts, anchor),
        trade=make_trade(streams[3], all_accounts, all_contacts, anchor),
        stages=make_stages(streams[4], all_accounts, all_contacts, anchor, OPPORTUNITIES * accounts // ACCOUNTS),
        events=make_events(streams[5], all_contacts, anchor, EVENTS * accounts // ACCOUNTS),
    )


def write_shop(shop: Shop, folder: Path) -> dict[str, int]:
    """Write the exports into `folder`, made if need be; return data rows by file name, bad ones included."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = {
        "accounts.csv": _accounts(shop.accounts),
        "contacts.csv": _contacts(shop.contacts),
        "consents.csv.gz": _consents(shop.consents),
        "products.tsv": shop.trade.products,
        "orders.parquet": shop.trade.orders,
        "order_lines.parquet": shop.trade.order_lines,
        "stock.csv.gz": shop.trade.stock,
        "opportunities.jsonl": _stages(shop.stages),
        "events.jsonl.gz": _events(shop.events),
    }
    for name, frame in frames.items():
        (folder / name).write_bytes(_encoded(frame, name))
    return {name: len(frame) for name, frame in frames.items()}


def _encoded(frame: pl.DataFrame, name: str) -> bytes:
    buffer = io.BytesIO()
    if ".parquet" in name:
        frame.write_parquet(buffer)
    elif ".jsonl" in name:
        frame.write_ndjson(buffer)
    else:
        frame.write_csv(buffer, separator="\t" if ".tsv" in name else ",", datetime_format="%Y-%m-%d %H:%M:%S")
    raw = buffer.getvalue()
    return gzip.compress(raw, compresslevel=6, mtime=0) if name.endswith(".gz") else raw


def _accounts(accounts: Sequence[Account]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "account_no": [account.code for account in accounts],
            "company": [account.name for account in accounts],
            "head_office": [account.parent_code for account in accounts],
            "country": [account.country.code for account in accounts],
            "time_zone": [account.timezone for account in accounts],
            "language": [account.country.language for account in accounts],
            "industry": [account.industry for account in accounts],
            "price_list": [account.tier for account in accounts],
            "opened_on": [account.opened_on for account in accounts],
        },
        schema_overrides={"head_office": pl.String},
    )


def _contacts(contacts: Sequence[Contact]) -> pl.DataFrame:
    columns = (
        "contact_no", "account_no", "first_name", "last_name", "email", "mobile_or_phone", "job_role", "time_zone",
        "language", "created_on",
    )  # fmt: skip
    rows: list[tuple[str | None, ...]] = [
        (
            contact.code, contact.account_code, contact.first_name, contact.last_name, contact.email, contact.phone,
            contact.role, contact.timezone, contact.language, contact.created_on.isoformat(),
        )
        for contact in contacts
    ]  # fmt: skip
    for index, bad in enumerate(BAD_CONTACT_ROWS):
        rows.insert((index + 1) * len(contacts) // (len(BAD_CONTACT_ROWS) + 1), bad)
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _consents(consents: Sequence[Consent]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "contact_no": [consent.contact_code for consent in consents],
            "channel": [consent.channel for consent in consents],
            "status": [consent.status for consent in consents],
            "given_at": [consent.at for consent in consents],
            "source": [consent.source for consent in consents],
            "wording": [consent.wording for consent in consents],
        }
    )


def _stages(rows: Sequence[StageRow]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "opportunity_no": [row.opportunity_no for row in rows],
            "account_no": [row.account_code for row in rows],
            "contact_no": [row.contact_code for row in rows],
            "title": [row.title for row in rows],
            "stage": [row.stage for row in rows],
            "entered_at": [row.entered_at.isoformat() + "Z" for row in rows],
            "value": [row.value for row in rows],
        }
    )


def _events(rows: Sequence[EventRow]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "event_id": [row.event_id for row in rows],
            "account_no": [row.account_code for row in rows],
            "contact_no": [row.contact_code for row in rows],
            "event": [row.name for row in rows],
            "at": [row.at.isoformat() + "Z" for row in rows],
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the exports into a folder and say what is in them."""
    parser = argparse.ArgumentParser(prog="python -m demo.shop", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="where the exports go; made if need be")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--anchor", type=date.fromisoformat, help="the day of the export (default: today, UTC)")
    options = parser.parse_args(arguments)
    anchor = options.anchor or datetime.now(UTC).date()
    for name, rows in write_shop(make_shop(options.seed, anchor), options.folder).items():
        print(f"{rows:>8,} rows  {options.folder / name}")


if __name__ == "__main__":
    main()
