"""The one place where orders are added up per subject: queries that mean the same on every engine.

Nothing but GROUP BY, SUM, COUNT, MIN, MAX, CASE and, for gaps, two window functions; whole numbers throughout.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    case,
    cast,
    distinct,
    func,
    literal,
    literal_column,
    select,
)

from segments.portable import day_of
from segments.warehouse import LineRows, OrderRows
from store.columns import number_list

_NOTHING: ColumnElement[int] = literal_column("0", BigInteger)


def listed(rows: OrderRows, *, since_ms: int | None, home: str | None, convert: bool) -> Select[Any]:
    """Return the sums per subject, with the instants of its orders in one list.

    Columns: id, net_minor, gross_minor, returned_minor, at_count, at, and, where asked for, those of `_extra`. Who has
    no order, only returns, has a row as well.
    """
    return _grouped(
        rows,
        *_money(rows, since_ms=since_ms, home=home, convert=convert),
        func.count(case((rows.is_order, rows.at_ms))).label("at_count"),
        number_list(case((rows.is_order, rows.at_ms))).label("at"),
    )


def added(rows: OrderRows, *, since_ms: int | None, home: str | None, convert: bool) -> Select[Any]:
    """Return the same sums with first_ms, last_ms, orders, days and, for a window, window_orders in place of lists."""
    own: list[ColumnElement[Any]] = [
        func.min(case((rows.is_order, rows.at_ms))).label("first_ms"),
        func.max(case((rows.is_order, rows.at_ms))).label("last_ms"),
        func.count(case((rows.is_order, rows.at_ms))).label("orders"),
        func.count(distinct(case((rows.is_order, day_of(rows.at_ms))))).label("days"),
    ]
    if since_ms is not None:
        within = and_(rows.is_order, rows.at_ms >= literal(since_ms, BigInteger))
        own.append(func.count(case((within, rows.at_ms))).label("window_orders"))
    return _grouped(rows, *_money(rows, since_ms=since_ms, home=home, convert=convert), *own)


def foreign(rows: OrderRows, code: str, *, since_ms: int | None) -> Select[Any]:
    """Return the money in one currency per subject and UTC day: id, day, and the columns of money of `added`."""
    assert rows.currency is not None, "there is no other currency where none is told"  # noqa: S101
    day = day_of(rows.at_ms)
    query = select(rows.key.label("id"), day.label("day"), *_money(rows, since_ms=since_ms, home=None, convert=False))
    return query.select_from(rows.source).where(rows.where, rows.currency == code).group_by(rows.key, day)


def currencies(rows: OrderRows, home: str) -> Select[Any]:
    """Return the other currencies: code, number of orders, and the name of one."""
    assert rows.currency is not None, "there is no other currency where none is told"  # noqa: S101
    query = select(rows.currency, func.count(), func.min(rows.name)).select_from(rows.source)
    return query.where(rows.where, rows.currency != home).group_by(rows.currency).order_by(rows.currency)


def days(rows: OrderRows) -> Select[Any]:
    """Return each UTC day with an order of each subject once: id, day."""
    day = day_of(rows.at_ms)
    query = select(rows.key.label("id"), day.label("day")).select_from(rows.source)
    return query.where(rows.where, rows.is_order).group_by(rows.key, day)


def gaps(rows: OrderRows) -> Select[Any]:
    """Return twice the median gap between days with an order of each subject with two gaps: id, twice_gap."""
    day = days(rows).subquery()
    before = func.lag(day.c.day).over(partition_by=day.c.id, order_by=day.c.day)
    gap = select(day.c.id, (day.c.day - before).label("gap")).subquery()
    place = func.row_number().over(partition_by=gap.c.id, order_by=gap.c.gap).label("place")
    number = func.count().over(partition_by=gap.c.id).label("number")
    ranked = select(gap.c.id, gap.c.gap, place, number).where(gap.c.gap.is_not(None)).subquery()
    # Of an odd number of gaps the middle one counts twice, of an even number the two in the middle count once.
    middle = and_(2 * ranked.c.place >= ranked.c.number, 2 * ranked.c.place <= ranked.c.number + 2)
    twice = case((ranked.c.number % 2 == 1, 2 * ranked.c.gap), else_=ranked.c.gap)
    query = select(ranked.c.id, cast(func.sum(twice), BigInteger).label("twice_gap"))
    return query.where(middle, ranked.c.number >= 2).group_by(ranked.c.id)


def margins(lines: LineRows, *, since_ms: int | None) -> Select[Any]:
    """Return net less cost of each subject's lines: id, margin_minor, uncosted (lines whose cost is unknown)."""
    assert lines.cost_minor is not None, "asked only where cost is known"  # noqa: S101
    margin = case((lines.cost_minor.is_not(None), lines.net_minor - lines.cost_minor), else_=_NOTHING)
    unknown = func.count(case((lines.cost_minor.is_(None), 1))).label("uncosted")
    query = select(
        lines.rows.key.label("id"), cast(func.sum(margin), BigInteger).label("margin_minor"), unknown
    ).select_from(lines.source)
    query = query.where(lines.rows.where).group_by(lines.rows.key)
    return query if since_ms is None else query.where(lines.rows.at_ms >= literal(since_ms, BigInteger))


def assortment(lines: LineRows) -> Select[Any]:
    """Return how many products each subject ordered: id, products."""
    assert lines.product is not None, "asked only where products are known"  # noqa: S101
    query = select(lines.rows.key.label("id"), func.count(distinct(lines.product)).label("products"))
    query = query.select_from(lines.source).where(lines.rows.where, lines.rows.is_order, lines.product.is_not(None))
    return query.group_by(lines.rows.key)


def bought(lines: LineRows) -> Select[Any]:
    """Return each product each subject ordered once: id, product."""
    assert lines.product is not None, "asked only where products are known"  # noqa: S101
    query = select(lines.rows.key.label("id"), lines.product.label("product")).select_from(lines.source)
    query = query.where(lines.rows.where, lines.rows.is_order, lines.product.is_not(None))
    return query.group_by(lines.rows.key, lines.product)


def _grouped(rows: OrderRows, *columns: ColumnElement[Any]) -> Select[Any]:
    return select(rows.key.label("id"), *columns).select_from(rows.source).where(rows.where).group_by(rows.key)


def _money(rows: OrderRows, *, since_ms: int | None, home: str | None, convert: bool) -> list[ColumnElement[Any]]:
    """Return sums of money and, given the currency they should be in, how many orders are in another.

    `convert`: those are left out of the sums, to be added once they are converted.
    """
    counts = rows.currency == home if convert and rows.currency is not None else None
    # The number first: it is compared sooner than the word.
    returned = and_(rows.net_minor < _NOTHING, ~rows.is_order)
    columns: list[ColumnElement[Any]] = [
        _sum(rows.net_minor, counts).label("net_minor"),
        _sum(rows.gross_minor, _both(counts, rows.is_order)).label("gross_minor"),
        _sum(-rows.net_minor, _both(counts, returned)).label("returned_minor"),
    ]
    if since_ms is not None:
        within = rows.at_ms >= literal(since_ms, BigInteger)
        columns += [
            _sum(rows.net_minor, _both(counts, within)).label("window_net_minor"),
            _sum(rows.gross_minor, _both(counts, and_(rows.is_order, within))).label("window_gross_minor"),
        ]
    if home is not None and rows.currency is not None:
        columns.append(func.count(case((rows.currency != home, _NOTHING))).label("foreign"))
    return columns


def _both(one: ColumnElement[bool] | None, other: ColumnElement[bool]) -> ColumnElement[bool]:
    return other if one is None else and_(one, other)


def _sum(money: ColumnElement[Any], counts: ColumnElement[bool] | None) -> ColumnElement[int]:
    # Cast, because the sum of many whole numbers is a decimal on PostgreSQL and of 128 bits on DuckDB.
    return cast(func.sum(money if counts is None else case((counts, money), else_=_NOTHING)), BigInteger)
