"""Buyers and their orders for tests of scoring: a few by hand, or a whole shop by a seed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine, func, select

from kernel.clock import to_ms
from kernel.settings import Settings
from store.engine import reading, writing
from store.ingest.bulk import insert_rows
from store.tables import accounts, contacts, models, orders, profiles

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_MS = 86_400_000


def settings(**sections: Any) -> Settings:
    """Return a workspace's settings with these sections, as rfm={"scheme": "thirds"}."""
    base = {
        "brand": {"name": "Acme", "postal_address": "1 Dock Road"},
        "currency": "GBP",
        "senders": {"default": {"name": "Acme", "email": "hello@acme.example"}},
    }
    return Settings.model_validate({**base, **sections})


def seed(engine: Engine, *rows: dict[str, Any], firms: int = 3) -> None:
    """Store accounts A1, A2, … with one contact each, and orders; a row needs `account` and `days` before NOW."""
    with writing(engine) as connection:
        connection.execute(accounts.insert(), [{"id": n, "external_id": f"A{n}"} for n in range(1, firms + 1)])
        connection.execute(
            contacts.insert(), [{"id": n + 100, "external_id": f"C{n}", "account_id": n} for n in range(1, firms + 1)]
        )
    add(engine, *rows)


def add(engine: Engine, *rows: dict[str, Any]) -> None:
    """Store orders."""
    with writing(engine) as connection:
        known = connection.execute(select(func.count()).select_from(orders)).scalar_one()
        for number, row in enumerate(rows, start=known + 1):
            connection.execute(
                orders.insert().values(
                    external_id=f"O{number}",
                    account_id=row["account"],
                    contact_id=row.get("contact"),
                    ordered_at=NOW - row["days"] * DAY,
                    kind=row.get("kind", "order"),
                    net_minor=row.get("net", 1000),
                    gross_minor=row.get("gross", max(row.get("net", 1000), 0)),
                    currency=row.get("currency", "GBP"),
                    cancelled_at=row.get("cancelled_at"),
                )
            )


def open_shop(engine: Engine, *, buyers: int, seed: int = 1, history_days: int = 730) -> None:
    """Store accounts that buy as BG/NBD and Gamma-Gamma say: at own rates until they stop, with returns."""
    chance = np.random.default_rng(seed)
    with writing(engine) as connection:
        columns = ("id", "external_id", "name")
        insert_rows(connection, accounts, columns, [(n, f"A{n}", f"Firm {n}") for n in range(1, buyers + 1)])
        rows = [row for n in range(1, buyers + 1) for row in _history(chance, n, history_days)]
        names = ("external_id", "account_id", "ordered_at", "kind", "net_minor", "gross_minor", "currency")
        insert_rows(connection, orders, names, [(f"O{at}", *row, "GBP") for at, row in enumerate(rows)])


def _history(chance: np.random.Generator, account: int, history_days: int) -> list[tuple[Any, ...]]:
    rate, stop = chance.gamma(1.2, 1 / 40), chance.beta(0.8, 4.0)
    usual = chance.gamma(6.0) * 4_000
    day, found = chance.uniform(1, history_days), []
    while day > 0:
        at = to_ms(NOW) - int(day * DAY_MS)
        net = int(usual * chance.gamma(4.0) / 4) + 1
        found.append((account, at, "order", net, net))
        if chance.random() < 0.08:
            found.append((account, at + DAY_MS // 2, "return", -net // 2, 0))
        if chance.random() < stop:
            break
        day -= chance.exponential(1 / rate)
    return [row for row in found if row[1] < to_ms(NOW)]


def kept(engine: Engine) -> dict[int, Any]:
    """Return all profiles by the id of the subject."""
    with reading(engine) as connection:
        return {row.subject_id: row for row in connection.execute(select(profiles))}


def versions(engine: Engine) -> list[Any]:
    """Return all models, the oldest first."""
    with reading(engine) as connection:
        return list(connection.execute(select(models).order_by(models.c.id)))
