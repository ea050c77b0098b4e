"""Random orders that hit every border of what counts as bought, and a plain answer to compare with."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine, insert

from kernel.clock import from_ms, to_ms
from kernel.vocabulary import Subject
from segments.buyers import Bought
from store.columns import NULL_INT
from store.engine import writing
from store.tables import accounts, contacts, order_lines, orders, products

AS_OF = datetime(2026, 3, 29, 13, 30, tzinfo=UTC)
DAY = 86_400_000
KINDS = ("order", "order", "order", "return", "cancellation", "adjustment")


@dataclass
class Facts:
    """Rows as they stand in the tables, ids counting from 1."""

    accounts: list[dict[str, Any]] = field(default_factory=list)
    contacts: list[dict[str, Any]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)


def random_facts(seed: int, *, subjects: int = 25, number: int = 400, currencies: tuple[str, ...] = ("GBP",)) -> Facts:
    """Return accounts in small trees, a contact for each, orders around `AS_OF` and before 1970, and lines."""
    chance = random.Random(seed)
    facts = Facts()
    for one in range(1, subjects + 1):
        parent = chance.randrange(1, one) if one > 1 and chance.random() < 0.4 else None
        facts.accounts.append({"id": one, "external_id": f"A'{one}%", "parent_id": parent})
        facts.contacts.append({"id": one, "external_id": f"C{one}", "account_id": one})
    now = to_ms(AS_OF)
    borders = [now - 1, now, now + 1, 0, -1, 1, -DAY, DAY - 1, now - now % DAY, now - now % DAY - 1]
    for one in range(1, number + 1):
        at = chance.choice(borders) if chance.random() < 0.3 else now - chance.randrange(-20 * DAY, 400 * DAY)
        kind = chance.choice(KINDS)
        net = chance.randrange(-50, 2_000) if kind in ("order", "adjustment") else -chance.randrange(0, 900)
        facts.orders.append(
            {
                "id": one,
                "external_id": f"O{one}",
                "account_id": None if chance.random() < 0.05 else chance.randrange(1, subjects + 1),
                "contact_id": None if chance.random() < 0.5 else chance.randrange(1, subjects + 1),
                "ordered_at": at,
                "kind": kind,
                "net_minor": net,
                "gross_minor": max(net, 0) + chance.randrange(50),
                "currency": chance.choice(currencies),
                "cancelled_at": chance.choice([None, None, None, now - 1, now, now + 1]),
            }
        )
        for line in range(chance.randrange(4)):
            facts.lines.append(
                {
                    "order_id": one,
                    "line": line + 1,
                    "product_id": chance.choice([None, *range(1, 8)]),
                    "quantity": 1.0,
                    "net_minor": chance.randrange(-50, 500),
                    "cost_minor": chance.choice([None, *range(0, 300, 10)]),
                }
            )
    return facts


def store(engine: Engine, facts: Facts) -> None:
    """Write the rows."""
    with writing(engine) as connection:
        connection.execute(insert(products), [{"id": one, "external_id": f"P{one}"} for one in range(1, 8)])
        for table, rows in (
            (accounts, facts.accounts),
            (contacts, facts.contacts),
            (orders, facts.orders),
            (order_lines, facts.lines),
        ):
            if rows:
                connection.execute(insert(table), rows)


def plainly(
    facts: Facts,
    subject: Subject,
    *,
    as_of: datetime = AS_OF,
    window: timedelta | None = None,
    head: Callable[[int], int] = lambda one: one,
) -> dict[int, dict[str, Any]]:
    """Return, by account or contact, what a person would find going through the orders one by one."""
    column = "account_id" if subject is Subject.ACCOUNT else "contact_id"
    by_head: dict[int, list[dict[str, Any]]] = {}
    for order in facts.orders:
        cancelled = order["cancelled_at"]
        stood = from_ms(order["ordered_at"]) < as_of and (cancelled is None or from_ms(cancelled) >= as_of)
        if order[column] is not None and stood:
            by_head.setdefault(head(order[column]), []).append(order)
    since = to_ms(as_of - window) if window else -(2**62)
    return {
        one: _summed(facts, theirs, since)
        for one, theirs in by_head.items()
        if any(order["kind"] == "order" for order in theirs)
    }


def _summed(facts: Facts, theirs: list[dict[str, Any]], since: int) -> dict[str, Any]:
    placed = [order for order in theirs if order["kind"] == "order"]
    days = sorted({order["ordered_at"] // DAY for order in placed})
    late = [order for order in theirs if order["ordered_at"] >= since]
    late_ids = {order["id"] for order in late}
    placed_ids = {order["id"] for order in placed}
    costed = [line for line in facts.lines if line["order_id"] in late_ids and line["cost_minor"] is not None]
    bought = {line["product_id"] for line in facts.lines if line["order_id"] in placed_ids} - {None}
    gaps = [later - earlier for earlier, later in itertools.pairwise(days)]
    return {
        "first_ms": min(order["ordered_at"] for order in placed),
        "last_ms": max(order["ordered_at"] for order in placed),
        "orders": len(placed),
        "days": len(days),
        "net_minor": sum(order["net_minor"] for order in theirs),
        "gross_minor": sum(order["gross_minor"] for order in placed),
        "returned_minor": sum(
            -order["net_minor"] for order in theirs if order["kind"] != "order" and order["net_minor"] < 0
        ),
        "window_orders": sum(order["kind"] == "order" for order in late),
        "window_net_minor": sum(order["net_minor"] for order in late),
        "window_gross_minor": sum(order["gross_minor"] for order in late if order["kind"] == "order"),
        "margin_minor": sum(line["net_minor"] - line["cost_minor"] for line in costed),
        "products": len(bought) or None,
        "median_gap_days": statistics.median(gaps) if len(gaps) > 1 else None,
    }


def as_rows(bought: Bought) -> dict[int, dict[str, Any]]:
    """Return what was read in the form of `plainly`, without what was not asked for."""
    columns: dict[str, Any] = {
        name: getattr(bought.purchases, name)
        for name in ("first_ms", "last_ms", "orders", "days", "net_minor", "gross_minor", "returned_minor")
    }
    for name in (
        "window_orders",
        "window_net_minor",
        "window_gross_minor",
        "margin_minor",
        "products",
        "median_gap_days",
    ):
        if getattr(bought, name) is not None:
            columns[name] = getattr(bought, name)
    ids = bought.purchases.ids.tolist()
    assert ids == sorted(set(ids))
    assert all(
        column.dtype == (np.float64 if name == "median_gap_days" else np.int64) for name, column in columns.items()
    )
    return {
        one: {
            name: None if value == NULL_INT or value != value else value
            for name, value in ((name, column[at].item()) for name, column in columns.items())
        }
        for at, one in enumerate(ids)
    }
