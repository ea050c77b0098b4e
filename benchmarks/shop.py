"""A made-up wholesaler of any size: accounts that buy as BG/NBD says, contacts, consents and events, from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from store.engine import writing
from store.ingest.bulk import insert_rows
from store.tables import accounts, consent_events, consents, contacts, events, orders

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
YEARS_DAYS = 1_095
SLICE = 200_000
_RATE, _RATE_SCALE, _DROP_A, _DROP_B = 0.7, 16.5, 0.9, 12.0
"""Orders a day of a living account: gamma; the chance that an order is the last: beta. About 10.7 orders each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Orders in the order they were placed: whose, when, what kind, how much. Accounts count from 1."""

    accounts: int
    account: NDArray[np.int64]
    at_ms: NDArray[np.int64]
    is_return: NDArray[np.bool_]
    net_minor: NDArray[np.int64]

    @property
    def orders(self) -> int:
        return len(self.account)


def simulated(size: int, *, seed: int = 7) -> Shop:
    """Return a shop with this many accounts and about ten orders for each over three years; 3 % are returns.

    The last twentieth of the accounts never bought.
    """
    chance = np.random.default_rng(seed)
    accounts, size = size, size - size // 20
    rate = chance.gamma(_RATE, 1 / _RATE_SCALE, size)
    drop = chance.beta(_DROP_A, _DROP_B, size)
    usual = np.exp(chance.normal(9.5, 0.8, size))
    clock = chance.uniform(0, YEARS_DAYS, size)
    alive = np.arange(size)
    days, who = [clock.copy()], [alive]
    while len(alive):
        alive = alive[chance.random(len(alive)) >= drop[alive]]
        clock[alive] += chance.exponential(1, len(alive)) / rate[alive]
        alive = alive[clock[alive] < YEARS_DAYS]
        days.append(clock[alive].copy())
        who.append(alive)
    day, account = np.concatenate(days), np.concatenate(who)
    order = np.argsort(day, kind="stable")
    day, account = day[order], account[order]
    worth = chance.gamma(6.0, 1 / 6.0, len(account)) * usual[account]
    first = np.zeros(len(account), dtype=bool)
    first[np.unique(account, return_index=True)[1]] = True
    back = (chance.random(len(account)) < 0.03) & ~first
    return Shop(
        accounts=accounts,
        account=account.astype(np.int64) + 1,
        at_ms=NOW_MS - YEARS_DAYS * DAY_MS + (day * DAY_MS).astype(np.int64),
        is_return=back,
        net_minor=np.where(back, -worth / 3, worth).astype(np.int64),
    )


def fill(engine: Engine, shop: Shop, *, seed: int = 11) -> None:
    """Store the shop, with a contact for every fifth account, consents, and an event for every third."""
    chance = np.random.default_rng(seed)
    people, visits = shop.accounts // 5, shop.accounts // 3
    with writing(engine) as connection:
        for part in _slices(shop.accounts):
            rows = [
                (n + 1, f"A{n:07d}", f"Account {n}", ["GB", "DE", "FR", "US"][n % 4], f'{{"tier": {n % 7}}}')
                for n in part
            ]
            insert_rows(connection, accounts, ("id", "external_id", "name", "country", "attributes"), rows)
        for part in _slices(people):
            roles = ("buyer", "owner", "finance")
            rows = [(n + 1, f"C{n:07d}", 5 * n + 1, f"c{n}@a{n}.example", roles[n % 3]) for n in part]
            insert_rows(connection, contacts, ("id", "external_id", "account_id", "email", "role"), rows)
            rows = [(n + 1, "email", "granted" if n % 4 else "withdrawn", NOW_MS - DAY_MS) for n in part]
            for table in (consents, consent_events):
                insert_rows(connection, table, ("contact_id", "channel", "status", "at"), rows)
        whose = chance.integers(1, shop.accounts + 1, visits).tolist()
        when = (NOW_MS - chance.integers(0, 200 * DAY_MS, visits)).tolist()
        for part in _slices(visits):
            rows = [(f"E{n:07d}", whose[n], ("visit", "demo_requested")[n % 2], when[n], "{}") for n in part]
            insert_rows(connection, events, ("external_id", "account_id", "name", "at", "properties"), rows)
    columns = ("external_id", "account_id", "ordered_at", "kind", "net_minor", "gross_minor", "currency")
    # Indexes are made once all rows are there, which is many times faster.
    indexes = [index for index in orders.indexes if index.name]
    for index in indexes:
        index.drop(engine)
    for part in _slices(shop.orders):
        with writing(engine) as connection:
            insert_rows(connection, orders, columns, order_rows(shop, part))
    for index in indexes:
        index.create(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"))


def order_rows(shop: Shop, part: range) -> list[tuple[str, int, int, str, int, int, str]]:
    """Return some of the orders as rows to insert."""
    some = slice(part.start, part.stop)
    columns = (shop.account[some].tolist(), shop.at_ms[some].tolist(), shop.is_return[some].tolist())
    money = shop.net_minor[some].tolist()
    return [
        (f"O{n:08d}", account, at, "return" if back else "order", net, max(net, 0), "EUR")
        for n, account, at, back, net in zip(part, *columns, money, strict=True)
    ]


def _slices(count: int) -> Iterator[range]:
    return (range(start, min(start + SLICE, count)) for start in range(0, count, SLICE))
