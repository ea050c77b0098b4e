"""Stock and its turnover, per product and in total: what moves, what lies, what needs to be ordered again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import BigInteger, ColumnElement, Connection, case, cast, func, select, type_coerce

from kernel.clock import from_ms, to_ms
from kernel.errors import ConfigError
from segments.buyers import counted
from segments.formulas import days_left, stock_by_product, stock_in_total
from segments.purchases import DAY_MS, Floats, Ints
from store.tables import order_lines, orders, products, stock_levels

LONGEST_WINDOW = timedelta(days=3_650)
"""The stock of each product is laid out day by day, so a century of days would fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductStock:
    """One product over the window, in the order of external ids.

    `sold` is net of returns, in pieces; `cost_minor` is what the sold pieces cost, in minor units. `average_minor` is
    the mean over days with stock, at cost. None stands where a figure cannot be: no count of stock, no known cost,
    nothing sold. `cover_days` is how long `on_hand` lasts at the window's pace.
    """

    product: str
    name: str
    category: str | None
    on_hand: float | None
    counted_at: datetime | None
    sold: float
    cost_minor: int | None
    average_minor: float | None
    turnover: float | None
    days_of_stock: float | None
    cover_days: float | None
    days_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StockReport:
    """All products with stock or sales, and the whole; the whole is no mean of the products' figures."""

    as_of: datetime
    window_days: int
    products: list[ProductStock]
    total_cost_minor: int
    total_average_minor: float | None
    total_turnover: float | None
    total_days_of_stock: float | None
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the report under its stable keys."""
        return {**asdict(self), "products": [asdict(product) for product in self.products]}


def stock_report(connection: Connection, *, as_of: datetime, window: timedelta) -> StockReport:
    """Return stock and turnover over the window that ends at an instant.

    A day's stock is the last count known at its end, carried forward from day to day; days before the first count do
    not enter, days with nothing on hand are left out of the mean and counted. Turnover is for the whole window, not
    a year.

    Raises:
        ConfigError: a window of less than a day or of more than ten years.

    Source:
        Inventory turnover = cost of goods sold / average inventory at cost; days of stock = days / turnover.
    """
    if not timedelta(days=1) <= window <= LONGEST_WINDOW:
        hours = f"{window / timedelta(hours=1):g} hours" if window < timedelta(days=1) else f"{window.days} days"
        raise ConfigError(
            f"stock over {hours}: the window is from 1 to {LONGEST_WINDOW.days} days long; write --window 90d"
        )
    days = round(window / timedelta(days=1))
    start_ms = to_ms(as_of) - days * DAY_MS
    sales = _sales(connection, as_of=as_of, since=as_of - timedelta(days=days))
    counts = dict(_counts(connection, as_of=as_of))
    query = select(
        products.c.id, products.c.external_id, products.c.name, products.c.category, products.c.cost_minor
    ).order_by(products.c.external_id)
    known = [row for row in connection.execute(query) if row.id in sales or row.id in counts]
    sold = [sales.get(row.id, _NOTHING) for row in known]
    pieces = [_piece_minor(row.cost_minor, sale) for row, sale in zip(known, sold, strict=True)]
    kept = [
        daily(*counts[row.id], start_ms=start_ms, days=days) if row.id in counts else np.full(days, np.nan)
        for row in known
    ]
    # One row per product and day; NaN where there was no count yet, or where nobody knows what a piece costs.
    worth = np.array(kept).reshape(len(known), days) * np.array(pieces, dtype=float).reshape(-1, 1)
    place, day = np.nonzero(~np.isnan(worth))
    value = np.maximum(worth[place, day], 0)
    each = stock_by_product(place, value, np.array([max(sale.cost_minor, 0) for sale in sold], dtype=float))
    whole = stock_in_total(day, value, float(sum(max(sale.cost_minor, 0) for sale in sold)))
    found = [
        ProductStock(
            product=row.external_id,
            name=row.name,
            category=row.category,
            on_hand=float(counts[row.id][1][-1]) if row.id in counts else None,
            counted_at=from_ms(int(counts[row.id][0][-1])) if row.id in counts else None,
            sold=sale.pieces,
            cost_minor=sale.cost_minor if not sale.uncosted else None,
            average_minor=_number(each.average[i]) if each.days_with[i] else None,
            turnover=_number(each.turnover[i]) if not sale.uncosted else None,
            days_of_stock=_number(each.days_of_stock[i]) if not sale.uncosted else None,
            cover_days=_cover(counts.get(row.id), sale.pieces / days),
            days_out=int(each.days_without[i]),
        )
        for i, (row, sale) in enumerate(zip(known, sold, strict=True))
    ]
    return StockReport(
        as_of=as_of,
        window_days=days,
        products=found,
        total_cost_minor=sum(sale.cost_minor for sale in sold),
        total_average_minor=_number(whole.average[0]) if len(value) else None,
        total_turnover=_number(whole.turnover[0]),
        total_days_of_stock=_number(whole.days_of_stock[0]),
        notes=_notes(found, sold, pieces),
    )


def daily(at_ms: Ints, on_hand: Floats, *, start_ms: int, days: int) -> Floats:
    """Return the stock at the end of each of so many days from an instant, from counts in the order of time.

    A count holds until the next one. NaN for days that end before the first count.
    """
    ends = start_ms + DAY_MS * np.arange(1, days + 1)
    latest = np.searchsorted(at_ms, ends, side="left") - 1
    return np.where(latest >= 0, on_hand[np.maximum(latest, 0)], np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sale:
    """What the window sold of a product: pieces net of returns, their cost, and lines whose cost nobody knows."""

    pieces: float
    cost_minor: int
    uncosted: int


_NOTHING = _Sale(pieces=0.0, cost_minor=0, uncosted=0)


def _sales(connection: Connection, *, as_of: datetime, since: datetime) -> dict[int, _Sale]:
    lines = order_lines.c
    cost = _line_cost()
    query = (
        select(
            lines.product_id,
            func.sum(lines.quantity),
            cast(func.coalesce(func.sum(cost), 0), BigInteger),
            func.count().filter(cost.is_(None)),
        )
        .select_from(
            order_lines.join(orders, orders.c.id == lines.order_id).join(products, products.c.id == lines.product_id)
        )
        .where(counted(orders, as_of), orders.c.ordered_at >= since)
        .group_by(lines.product_id)
    )
    return {
        row[0]: _Sale(pieces=float(row[1]), cost_minor=int(row[2]), uncosted=int(row[3]))
        for row in connection.execute(query)
    }


def _line_cost() -> ColumnElement[Any]:
    """Return what a line's pieces cost: as the line says, else by the product's cost; NULL where neither is known."""
    by_product = cast(func.round(order_lines.c.quantity * products.c.cost_minor), BigInteger)
    return case((order_lines.c.cost_minor.is_not(None), order_lines.c.cost_minor), else_=by_product)


def _counts(connection: Connection, *, as_of: datetime) -> Iterator[tuple[int, tuple[Ints, Floats]]]:
    """Yield for each product its counts of stock before the instant: when, and how many."""
    table = stock_levels.c
    at = type_coerce(table.at, BigInteger).label("at_ms")
    query = select(table.product_id, at, table.on_hand).where(table.at < as_of).order_by(table.product_id, table.at)
    for product, rows in groupby(connection.execute(query), key=lambda row: int(row[0])):
        counts = list(rows)
        yield product, (np.array([row[1] for row in counts]), np.array([row[2] for row in counts], dtype=float))


def _piece_minor(listed_minor: int | None, sale: _Sale) -> float:
    """Return what one piece costs: as the product says, else as the sold ones did on average; NaN where unknown."""
    if listed_minor is not None:
        return float(listed_minor)
    return sale.cost_minor / sale.pieces if sale.pieces > 0 and not sale.uncosted else math.nan


def _cover(counts: tuple[Ints, Floats] | None, sold_per_day: float) -> float | None:
    return None if counts is None else _number(days_left(counts[1][-1], sold_per_day))


def _number(value: Any) -> float | None:
    """Return a figure, or None where it is not a finite number."""
    number = float(value)
    return number if math.isfinite(number) else None


def _notes(found: list[ProductStock], sold: list[_Sale], pieces: list[float]) -> list[str]:
    notes = []
    uncosted = sum(1 for sale in sold if sale.uncosted)
    if uncosted:
        notes.append(
            f"{uncosted} product(s) were sold at an unknown cost: import `cost` of products or `unit_cost` of lines"
        )
    uncounted = sum(1 for product in found if product.on_hand is None)
    if uncounted:
        notes.append(f"{uncounted} product(s) sold were never counted in stock: import a source of kind stock")
    unpriced = sum(1 for product, piece in zip(found, pieces, strict=True) if product.on_hand and math.isnan(piece))
    if unpriced:
        notes.append(f"{unpriced} product(s) in stock have no known cost and are left out of the total")
    return notes
