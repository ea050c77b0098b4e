"""Inventory turnover and days of stock, from counts and sold lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from segments.stock import StockReport, stock_report
from store.engine import reading, writing
from store.tables import order_lines, orders, products, stock_levels

NOW = datetime(2026, 6, 30, tzinfo=UTC)
WINDOW = timedelta(days=10)


def _day(back: int) -> datetime:
    return NOW - timedelta(days=back, hours=12)


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """Four products: sold steadily, never sold, sold out for four days, and never counted."""
    with writing(engine) as connection:
        for number, (name, cost) in enumerate(
            {"pump": 500, "relic": 2000, "valve": 100, "hose": None}.items(), start=1
        ):
            row = {"id": number, "external_id": name, "name": name.title(), "cost_minor": cost, "currency": "EUR"}
            connection.execute(products.insert(), row)
        levels = [(1, 60, 100.0), (2, 9, 7.0), (3, 30, 40.0), (3, 6, 0.0), (3, 2, 80.0)]
        connection.execute(
            stock_levels.insert(), [{"product_id": p, "at": _day(back), "on_hand": n} for p, back, n in levels]
        )
        sold = [("O1", 8, None, 1, 20.0, 10_000), ("O2", 3, None, 1, 30.0, 18_000), ("O3", 40, None, 1, 99.0, 49_500)]
        sold += [("R1", 2, None, 1, -10.0, -4_000), ("X1", 5, _day(4), 1, 77.0, 1), ("O4", 7, None, 3, 40.0, None)]
        sold += [("O5", 1, None, 4, 3.0, None), ("F1", -1, None, 1, 500.0, 1)]
        for number, (name, back, cancelled, product, quantity, cost) in enumerate(sold, start=1):
            head = {"id": number, "external_id": name, "ordered_at": _day(back), "cancelled_at": cancelled}
            head |= {"kind": "return" if quantity < 0 else "order", "net_minor": 0, "gross_minor": 0, "currency": "EUR"}
            connection.execute(orders.insert(), head)
            line = {"order_id": number, "line": 1, "product_id": product, "quantity": quantity, "net_minor": 0}
            connection.execute(order_lines.insert(), line | {"cost_minor": cost})
    return engine


def _report(engine: Engine) -> StockReport:
    with reading(engine) as connection:
        return stock_report(connection, as_of=NOW, window=WINDOW)


def test_turnover_is_cost_of_goods_sold_over_the_mean_of_daily_stock_at_cost(shop: Engine) -> None:
    pump = next(product for product in _report(shop).products if product.product == "pump")
    # 20 + 30 sold, 10 returned; the order before the window, the cancelled and the future one count nothing.
    assert (pump.sold, pump.cost_minor) == (40.0, 24_000)
    assert pump.average_minor == 100 * 500
    assert pump.turnover == pytest.approx(24_000 / 50_000)
    assert pump.days_of_stock == pytest.approx(10 / 0.48)
    assert pump.cover_days == pytest.approx(100 / 4)


def test_days_without_stock_are_counted_and_left_out_of_the_mean(shop: Engine) -> None:
    valve = next(product for product in _report(shop).products if product.product == "valve")
    # At the ends of three days 40 pieces, of four none, of three 80.
    assert valve.days_out == 4
    assert valve.average_minor == pytest.approx((40 * 3 + 80 * 3) / 6 * 100)
    assert valve.cost_minor == 4_000


def test_a_product_nothing_sold_of_has_turnover_nought_and_no_days_of_stock(shop: Engine) -> None:
    relic = next(product for product in _report(shop).products if product.product == "relic")
    assert (relic.sold, relic.turnover, relic.days_of_stock, relic.cover_days) == (0.0, 0.0, None, None)


def test_unknown_cost_and_missing_counts_are_told_not_guessed(shop: Engine) -> None:
    report = _report(shop)
    hose = next(product for product in report.products if product.product == "hose")
    assert (hose.cost_minor, hose.average_minor, hose.turnover, hose.on_hand) == (None, None, None, None)
    assert [note.split(":")[0] for note in report.notes] == [
        "1 product(s) were sold at an unknown cost",
        "1 product(s) sold were never counted in stock",
    ]


def test_the_total_is_no_mean_of_the_products(shop: Engine) -> None:
    report = _report(shop)
    # Pump and relic lie there all ten days; the relic counts for the whole though nobody bought it.
    worth = [50_000 + 14_000 + (4_000 if day < 3 else 0 if day < 7 else 8_000) for day in range(10)]
    mean = sum(worth) / 10
    assert report.total_average_minor == pytest.approx(mean)
    assert report.total_turnover == pytest.approx(28_000 / mean)
    each = [product.turnover for product in report.products if product.turnover is not None]
    assert report.total_turnover != pytest.approx(sum(each) / len(each))


def test_without_any_product_the_report_is_empty(engine: Engine) -> None:
    report = _report(engine)
    assert (report.products, report.total_turnover, report.total_average_minor) == ([], None, None)
