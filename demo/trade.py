"""What the wholesaler sells and what its accounts bought: products, orders with lines, returns, stock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import numpy as np
import polars as pl

from demo.people import Account, Contact
from demo.places import Rng

HISTORY_DAYS = 730

CATEGORIES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], float]] = {
    "Kitchen": (
        ("Stockpot", "Sauté pan", "Chef's knife", "Mixing bowl", "Cutting board"),
        ("20 cm", "26 cm", "32 cm"),
        34,
    ),
    "Tableware": (("Dinner plate", "Soup bowl", "Wine glass", "Espresso cup"), ("white", "stone", "cobalt"), 5),
    "Cleaning": (("Floor cleaner", "Degreaser", "Hand soap", "Descaler"), ("1 l", "5 l", "10 l"), 14),
    "Paper & packaging": (("Kraft bag", "Napkin", "Till roll", "Takeaway box"), ("S", "M", "L"), 22),
    "Hand tools": (("Spanner set", "Claw hammer", "Tape measure", "Pry bar"), ("basic", "pro", "heavy duty"), 27),
    "Power tools": (("Cordless drill", "Angle grinder", "Impact driver"), ("12 V", "18 V", "36 V"), 128),
    "Fixings": (("Wood screw", "Wall plug", "Hex bolt", "Cable tie"), ("M4", "M6", "M8"), 8),
    "Electrical": (("LED panel", "Cable reel", "Socket", "Circuit breaker"), ("10 A", "16 A", "32 A"), 24),
    "Safety": (("Work gloves", "Safety boots", "Hi-vis vest", "Ear defenders"), ("size M", "size L", "size XL"), 19),
    "Office": (("Copier paper", "Label roll", "Lever arch file", "Marker"), ("single", "box", "pallet"), 16),
}
"""Category: kinds of product, variants, and a typical price in pounds."""

INDUSTRY_TASTE: Mapping[str, tuple[str, ...]] = {
    "hospitality": ("Kitchen", "Tableware", "Cleaning", "Paper & packaging"),
    "trade": ("Hand tools", "Power tools", "Fixings", "Electrical", "Safety"),
    "facilities": ("Cleaning", "Paper & packaging", "Safety", "Electrical"),
    "retail": ("Office", "Tableware", "Hand tools", "Paper & packaging"),
    "care": ("Cleaning", "Safety", "Paper & packaging", "Office"),
    "industry": ("Safety", "Fixings", "Paper & packaging", "Power tools"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """How a kind of account buys over time.

    Days are counted back from the anchor; `gap_days` between orders; `started` and `ended` are ranges.
    """

    share: float
    gap_days: tuple[float, float]
    started: tuple[int, int]
    ended: tuple[int, int] = (0, 0)
    size: float = 1.0
    most_orders: int | None = None


LIVES: Mapping[str, Life] = {
    "key": Life(share=0.10, gap_days=(5, 11), started=(560, 730), size=3.2),
    "regular": Life(share=0.20, gap_days=(13, 28), started=(400, 730), size=1.4),
    "steady": Life(share=0.16, gap_days=(26, 60), started=(300, 730), size=1.0),
    "occasional": Life(share=0.12, gap_days=(70, 170), started=(400, 730), size=0.8),
    "lapsing": Life(share=0.13, gap_days=(16, 45), started=(500, 730), ended=(75, 320), size=1.2),
    "lost_key": Life(share=0.035, gap_days=(5, 11), started=(600, 730), ended=(80, 300), size=2.4),
    "one_off": Life(share=0.09, gap_days=(20, 90), started=(90, 720), size=0.7, most_orders=2),
    "newest": Life(share=0.06, gap_days=(60, 120), started=(0, 28), size=0.7, most_orders=1),
    "new": Life(share=0.065, gap_days=(9, 25), started=(5, 58), size=0.9),
    "prospect": Life(share=0.04, gap_days=(1, 2), started=(0, 0), most_orders=0),
}

_MONTH_DEMAND = np.array([0.78, 0.82, 0.95, 1.0, 1.02, 1.0, 0.88, 0.80, 1.02, 1.12, 1.25, 1.15]) / 1.25
"""Chance that an order that the cadence asks for is placed, by month: summer is slow, autumn strong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """Products, orders (returns and cancellations among them), their lines, and stock, as frames to be written."""

    products: pl.DataFrame
    orders: pl.DataFrame
    order_lines: pl.DataFrame
    stock: pl.DataFrame


def make_trade(rng: Rng, accounts: list[Account], contacts: list[Contact], anchor: date) -> Trade:
    """Return two years of trade that ends the day before `anchor`."""
    products = _products(rng)
    heads = _order_heads(rng, accounts, anchor)
    lines = _lines(rng, heads, accounts, products)
    lines = pl.concat([lines, _reversals(rng, lines, anchor)]) if len(lines) else lines
    lines = lines.sort("ordered_at", "order_no", "line_no")
    return Trade(
        products=products,
        orders=_orders(lines, contacts),
        order_lines=lines.select("order_no", "line_no", "sku", "quantity", "unit_price", "unit_cost"),
        stock=_stock(rng, products, anchor),
    )


def _products(rng: Rng) -> pl.DataFrame:
    rows: list[dict[str, str | float]] = []
    for category, (kinds, variants, typical) in CATEGORIES.items():
        for kind in kinds:
            base = typical * float(np.exp(rng.normal(0, 0.35)))
            for step, variant in enumerate(variants):
                price = round(base * (1 + 0.45 * step), 2)
                rows.append(
                    {
                        "sku": f"NS-{1001 + len(rows)}",
                        "title": f"{kind}, {variant}",
                        "category": category,
                        "list_price": price,
                        "unit_cost": round(price * float(rng.uniform(0.52, 0.74)), 2),
                    }
                )
    return pl.DataFrame(rows)


def _order_heads(rng: Rng, accounts: list[Account], anchor: date) -> pl.DataFrame:
    """Return account index and instant of every order: gaps are gamma-distributed around the account's own cadence."""
    indexes: list[np.ndarray] = []
    moments: list[np.ndarray] = []
    for index, account in enumerate(accounts):
        days_ago = _order_days(rng, LIVES[account.life], anchor)
        indexes.append(np.full(len(days_ago), index))
        moments.append(days_ago)
    days = np.concatenate(moments)
    start_of_day = np.datetime64(anchor) - days.astype("timedelta64[D]")
    seconds = rng.integers(7 * 3600, 18 * 3600, len(days)).astype("timedelta64[s]")
    return pl.DataFrame(
        {
            "account": np.concatenate(indexes),
            "ordered_at": (start_of_day.astype("datetime64[s]") + seconds).astype("datetime64[ms]"),
        }
    )


def _order_days(rng: Rng, life: Life, anchor: date) -> np.ndarray:
    """Return on which days, counted back from the anchor (1 is the day before it), an account ordered."""
    start, end = (
        int(rng.integers(life.started[0], life.started[1] + 1)),
        int(rng.integers(life.ended[0], life.ended[1] + 1)),
    )
    if life.most_orders == 0:
        return np.empty(0, dtype=int)
    gap = float(rng.uniform(*life.gap_days))
    gaps = rng.gamma(3.0, gap / 3.0, size=int((start - end) / gap * 1.6) + 8)
    days_ago = np.round(start - np.concatenate([[0.0], np.cumsum(gaps)])).astype(int)
    days_ago = days_ago[days_ago > end]
    if life.most_orders is not None:
        days_ago = days_ago[: life.most_orders]
    dates = np.datetime64(anchor) - days_ago.astype("timedelta64[D]")
    weekday = (dates.astype("datetime64[D]").view("int64") + 3) % 7
    weekend = (weekday >= 5) & (rng.random(len(days_ago)) < 0.85)
    days_ago = days_ago + np.where(weekend, weekday - 4, 0)
    month = dates.astype("datetime64[M]").astype(int) % 12
    kept = rng.random(len(days_ago)) < _MONTH_DEMAND[month]
    kept[: 1 if life.most_orders else 0] = True
    return np.unique(np.maximum(days_ago[kept], 1))


def _lines(rng: Rng, heads: pl.DataFrame, accounts: list[Account], products: pl.DataFrame) -> pl.DataFrame:
    count = len(heads)
    account_of = heads["account"].to_numpy()
    scale = np.array([account.size * LIVES[account.life].size for account in accounts])
    per_order = 1 + rng.poisson(np.minimum(1.0 + 0.5 * scale[account_of] ** 0.5, 4.0))
    head_of = np.repeat(np.arange(count), per_order)
    line_no = np.arange(len(head_of)) - np.repeat(np.cumsum(per_order) - per_order, per_order) + 1
    owner = account_of[head_of]
    product = _choose_products(rng, owner, accounts, products)
    price = products["list_price"].to_numpy()[product]
    discount = np.array([{"gold": 0.88, "silver": 0.94, "standard": 1.0}[account.tier] for account in accounts])
    budget = 55.0 * scale[owner] * np.exp(rng.normal(0.0, 0.7, len(head_of)))
    quantity = np.maximum(1, np.round(budget / price)).astype(int)
    codes = np.array([account.code for account in accounts])
    order_no = np.array([f"SO-{200_001 + index}" for index in range(count)])
    return pl.DataFrame(
        {
            "order_no": order_no[head_of],
            "kind": np.full(len(head_of), "order"),
            "account_no": codes[owner],
            "ordered_at": heads["ordered_at"].to_numpy()[head_of],
            "line_no": line_no,
            "sku": products["sku"].to_numpy()[product],
            "quantity": quantity,
            "unit_price": np.round(price * discount[owner], 2),
            "unit_cost": products["unit_cost"].to_numpy()[product],
        },
        schema_overrides={"line_no": pl.Int64, "quantity": pl.Int64},
    )


def _choose_products(rng: Rng, owner: np.ndarray, accounts: list[Account], products: pl.DataFrame) -> np.ndarray:
    """Four lines in five come from the categories of the account's industry; within those a few products lead."""
    popularity = 1.0 / (1.0 + rng.permutation(len(products)))
    categories = products["category"].to_numpy()
    chosen = rng.choice(len(products), size=len(owner), p=popularity / popularity.sum())
    industry_of = np.array([account.industry for account in accounts])[owner]
    follows_taste = rng.random(len(owner)) < 0.8
    for industry, taste in INDUSTRY_TASTE.items():
        wanted = np.flatnonzero(follows_taste & (industry_of == industry))
        weights = popularity * np.isin(categories, taste)
        chosen[wanted] = rng.choice(len(products), size=len(wanted), p=weights / weights.sum())
    return chosen


def _reversals(rng: Rng, lines: pl.DataFrame, anchor: date) -> pl.DataFrame:
    """Return credit notes: 4 % of orders send one line back later, 1.5 % are cancelled whole within two days."""
    numbers = lines["order_no"].unique(maintain_order=True).to_numpy()
    draw = rng.random(len(numbers))
    later = rng.integers(2, 30, len(numbers))
    fate = pl.DataFrame(
        {
            "order_no": numbers,
            "fate": np.where(draw < 0.04, "return", np.where(draw < 0.055, "cancellation", "none")),
            "days": np.where(draw < 0.04, later, rng.integers(0, 2, len(numbers))),
            "hours": rng.integers(1, 6, len(numbers)),
        }
    )
    back = lines.join(fate, on="order_no", how="left", maintain_order="left").filter(
        (pl.col("fate") == "cancellation") | ((pl.col("fate") == "return") & (pl.col("line_no") == 1))
    )
    prefix = pl.when(pl.col("fate") == "return").then(pl.lit("RT-")).otherwise(pl.lit("CN-"))
    back = back.with_columns(
        order_no=prefix + pl.col("order_no").str.slice(3),
        kind=pl.col("fate"),
        ordered_at=pl.col("ordered_at") + pl.duration(days=pl.col("days"), hours=pl.col("hours")),
        quantity=-pl.col("quantity"),
    )
    return back.filter(pl.col("ordered_at") < datetime.combine(anchor, time())).select(lines.columns)


def _orders(lines: pl.DataFrame, contacts: list[Contact]) -> pl.DataFrame:
    """Return one row an order. The account's first buyer placed it; one order in five names nobody."""
    buyer: dict[str, str] = {}
    for contact in contacts:
        buyer.setdefault(contact.account_code, contact.code)
    serial = pl.col("order_no").str.slice(3).cast(pl.Int64)
    placed_by = pl.col("account_no").replace_strict(buyer, return_dtype=pl.String)
    return (
        lines.group_by("order_no", "kind", "account_no", "ordered_at", maintain_order=True)
        .agg(net_amount=(pl.col("quantity") * pl.col("unit_price")).sum().round(2))
        .with_columns(contact_no=pl.when(serial % 5 > 0).then(placed_by).otherwise(None))
    )


def _stock(rng: Rng, products: pl.DataFrame, anchor: date) -> pl.DataFrame:
    """Return snapshots: weekly for two years, daily for the last two weeks."""
    days_ago = np.array([*range(HISTORY_DAYS, 14, -7), *range(14, 0, -1)])
    count = len(products)
    level = rng.uniform(80, 900, count)
    rows = []
    for ago in days_ago:
        level = level - rng.gamma(2.0, 20.0 if ago > 14 else 4.0, count)
        refill = level < 60 * (rng.random(count) < 0.8)
        level = np.where(refill, level + rng.uniform(300, 900, count), np.maximum(level, 0))
        rows.append(
            pl.DataFrame(
                {
                    "sku": products["sku"],
                    "counted_on": [anchor - timedelta(days=int(ago))] * count,
                    "on_hand": np.round(level).astype(int),
                }
            )
        )
    return pl.concat(rows)
