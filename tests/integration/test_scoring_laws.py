"""Laws of scoring, on random shops: what is not known yet cannot matter, who somebody is neither, nor do others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, null, select

from kernel.clock import from_ms, to_ms
from kernel.settings import Settings
from kernel.vocabulary import Subject
from segments.scoring import refresh_profiles
from store.engine import reading, writing
from store.tables import accounts, contacts, models, order_lines, orders, products, profiles
from tests.integration.buying import DAY, DAY_MS, NOW, settings

FIRMS = 120
KINDS = ("rfm", "clusters", "lifetime")
SCHEMES: list[dict[str, Any]] = [
    {},
    {"scheme": "thirds", "monetary": "average", "band": 0.1},
    {"scheme": "equal_behaviour", "monetary": "margin", "window": "200d"},
    {"scheme": "quintiles", "map": "eleven", "recency": "relative", "rollup": "top"},
    {"scheme": "quantiles", "scores": 5, "monetary": "gross", "rollup": "parent", "window": "100d"},
]
worlds = pytest.mark.parametrize("seed", range(len(SCHEMES)))


def build(engine: Engine, seed: int, *, shift: int = 0) -> None:
    """Store a random shop: families, contacts, orders before and after NOW, returns, cancellations, lines.

    Ids are turned round by `shift`; all else is the same.
    """
    chance = np.random.default_rng(seed)
    turned = {n: 1 + (n - 1 + shift) % FIRMS for n in range(1, FIRMS + 1)}
    parents = {n: int(chance.integers(1, n)) if n > 1 and chance.random() < 0.3 else None for n in range(1, FIRMS + 1)}
    firms = [{"id": turned[n], "external_id": f"A{n:03d}"} for n in range(1, FIRMS + 1)]
    rows, lines = [], []
    for number in range(1, 900):
        firm = min(int(chance.exponential(FIRMS / 4)) + 1, FIRMS)
        at = to_ms(NOW) + int(chance.integers(-300, 60)) * DAY_MS + int(chance.integers(0, DAY_MS))
        kind = str(chance.choice(["order", "order", "order", "order", "return", "adjustment"]))
        net = int(chance.integers(1, 40)) * 250 * (1 if kind == "order" else -1)
        gone = from_ms(at + int(chance.integers(1, 90 * DAY_MS))) if chance.random() < 0.1 else None
        row = {"id": number, "external_id": f"O{number}", "account_id": turned[firm], "ordered_at": from_ms(at)}
        own = {"contact_id": 1000 + turned[firm] if chance.random() < 0.7 else None, "kind": kind, "currency": "GBP"}
        rows.append({**row, **own, "net_minor": net, "gross_minor": max(net, 0), "cancelled_at": gone})
        if kind == "order":
            line = {"order_id": number, "line": 1, "product_id": int(chance.integers(1, 8)), "quantity": 1.0}
            lines.append({**line, "net_minor": net, "cost_minor": net // 3})
    with writing(engine) as connection:
        connection.execute(accounts.insert(), firms)
        for n, parent in parents.items():
            if parent:
                link = accounts.update().where(accounts.c.id == turned[n])
                connection.execute(link.values(parent_id=turned[parent]))
        people = [{"id": 1000 + turned[n], "external_id": f"C{n:03d}", "account_id": turned[n]} for n in turned]
        connection.execute(contacts.insert(), people)
        connection.execute(products.insert(), [{"id": n, "external_id": f"P{n}"} for n in range(1, 8)])
        connection.execute(orders.insert(), rows)
        connection.execute(order_lines.insert(), lines)


def chosen(seed: int) -> Settings:
    return settings(rfm={**SCHEMES[seed], "refit_every": "300d"}, clusters={"k": 3, "refit_every": "300d"})


def refresh(engine: Engine, seed: int, now: Any = NOW, **options: Any) -> None:
    for subject in Subject:
        refresh_profiles(engine, chosen(seed), subject=subject, now=now, kinds=KINDS, **options)


def stored(engine: Engine) -> dict[str, dict[str, Any]]:
    """Return every profile by the subject's external id, without ids."""
    found = {}
    with reading(engine) as connection:
        for subject, table in ((Subject.ACCOUNT, accounts), (Subject.CONTACT, contacts)):
            names = {row.id: row.external_id for row in connection.execute(select(table.c.id, table.c.external_id))}
            mine = select(profiles).where(profiles.c.subject == subject)
            for row in connection.execute(mine).mappings():
                own = {name: value for name, value in row.items() if not name.endswith(("_id", "scored_at"))}
                found[names[row["subject_id"]]] = {**own, "scored_as": names[row["scored_as"]]}
    return found


def forget(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(profiles.delete())
        connection.execute(models.delete())


@worlds
def test_a_refresh_as_of_a_date_is_that_of_the_facts_known_then(engine: Engine, seed: int) -> None:
    build(engine, seed)
    at = NOW - 20 * DAY + timedelta(hours=seed, milliseconds=seed)
    refresh(engine, seed, at)
    everything = stored(engine)
    forget(engine)
    with writing(engine) as connection:
        late = select(orders.c.id).where(orders.c.ordered_at >= at)
        connection.execute(order_lines.delete().where(order_lines.c.order_id.in_(late)))
        connection.execute(orders.delete().where(orders.c.ordered_at >= at))
        connection.execute(orders.update().where(orders.c.cancelled_at >= at).values(cancelled_at=null()))
    refresh(engine, seed, at)
    assert everything == stored(engine)
    assert sum(row["rfm_segment"] is not None for row in everything.values()) > 50


@worlds
def test_turning_the_ids_round_changes_nobodys_profile(engine: Engine, seed: int) -> None:
    build(engine, seed)
    refresh(engine, seed)
    before = stored(engine)
    with writing(engine) as connection:
        for table in (profiles, models, order_lines, orders, contacts):
            connection.execute(table.delete())
        connection.execute(accounts.update().values(parent_id=null()))
        for table in (accounts, products):
            connection.execute(table.delete())
    build(engine, seed, shift=41)
    refresh(engine, seed)
    assert stored(engine) == before


@worlds
def test_without_new_facts_only_time_moves_anybody(engine: Engine, seed: int) -> None:
    build(engine, seed)
    with writing(engine) as connection:
        connection.execute(orders.update().where(orders.c.cancelled_at >= NOW).values(cancelled_at=null()))
        connection.execute(orders.update().where(orders.c.ordered_at >= NOW).values(ordered_at=NOW + 900 * DAY))
    refresh(engine, seed)
    before = stored(engine)
    refresh(engine, seed)
    assert stored(engine) == before
    refresh(engine, seed, NOW + 60 * DAY)
    after = stored(engine)
    moved = {name for name in before if after[name]["rfm_segment"] != before[name]["rfm_segment"]}
    assert moved
    assert {after[name]["rfm_moved_by"] for name in moved} == {"time"}
    assert {after[name]["previous_rfm_segment"] == before[name]["rfm_segment"] for name in moved} == {True}
    stayed = [name for name in before if name not in moved]
    assert all(after[name]["rfm_since"] == before[name]["rfm_since"] for name in stayed)


@worlds
def test_scoring_the_touched_alone_is_scoring_everybody(engine: Engine, seed: int) -> None:
    build(engine, seed)
    refresh(engine, seed)
    later = NOW + 2 * DAY
    with reading(engine) as connection:
        since = (orders.c.ordered_at >= NOW) & (orders.c.ordered_at < later)
        since |= (orders.c.cancelled_at >= NOW) & (orders.c.cancelled_at < later)
        firms, people = (
            np.unique(np.array(connection.execute(select(key).where(since, key.is_not(None))).scalars().all()))
            for key in (orders.c.account_id, orders.c.contact_id)
        )
    assert 0 < len(firms) < FIRMS
    with reading(engine) as connection:
        kept = [dict(row) for row in connection.execute(select(profiles)).mappings()]
    some = {Subject.ACCOUNT: firms, Subject.CONTACT: people}
    for subject, only in some.items():
        refresh_profiles(engine, chosen(seed), subject=subject, now=later, kinds=KINDS, only=only)
    partly = stored(engine)
    with writing(engine) as connection:
        connection.execute(profiles.delete())
        connection.execute(profiles.insert(), kept)
    refresh(engine, seed, later, frozen=True)
    fully = stored(engine)
    with reading(engine) as connection:
        tables = {Subject.ACCOUNT: accounts, Subject.CONTACT: contacts}
        touched = {
            name
            for subject, ids in some.items()
            for name in connection.execute(
                select(tables[subject].c.external_id).where(tables[subject].c.id.in_(ids.tolist()))
            ).scalars()
        }
    assert {name: partly.get(name) for name in touched} == {name: fully.get(name) for name in touched}
