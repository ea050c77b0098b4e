"""Stock: what the subject buys and how much of it is on hand, so that slow movers and restocks can drive campaigns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Select,
    and_,
    case,
    cast,
    distinct,
    exists,
    false,
    func,
    literal,
    not_,
    select,
    true,
)

from kernel.fields import DurationText
from kernel.ids import digest
from kernel.quantities import parse_duration
from kernel.vocabulary import OrderKind, Subject
from segments.buyers import counted, subject_column
from segments.comparisons import LARGEST, Comparison, compared
from segments.leaves.orders import Words, chosen_products
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings, Whose, sure
from store.tables import order_lines, orders, products, stock_levels

_PIECE = 1000
_YEAR = timedelta(days=365)
_ZERO = timedelta(0)
_FIGURES = ("on_hand", "days_of_stock", "turnover")


class Stock(OnRows, Comparison):
    """How many of the products the subject bought are in stock as asked; without a border, at least one.

    `on_hand` is the last level recorded before now; a product without any recorded level never counts. `days_of_stock`
    is what is on hand over the pieces sold a day in the stretch `sales_over`, returns taken off: 0 where nothing is on
    hand, and endless where nothing was sold. `turnover` is the pieces sold in that stretch, as for a year, over the
    mean of the levels recorded in it, levels of nothing left out; a product with none of those never counts.
    """

    others_matter: ClassVar[bool] = True

    on_hand: Comparison | None = Field(default=None, description="Pieces on hand.")
    days_of_stock: Comparison | None = Field(default=None, description="Days the stock lasts at the present sales.")
    turnover: Comparison | None = Field(default=None, description="How often a year the stock is sold.")
    restocked_within: DurationText | None = Field(
        default=None, description="On hand again since at most this long ago, after there was nothing."
    )
    bought_within: DurationText | None = Field(default=None, description="Only what was bought this lately.")
    sales_over: DurationText = Field(default="90d", description="The stretch that sales are measured over.")
    product: Words | None = Field(default=None, description="Only these products, by their codes.")
    category: Words | None = Field(default=None, description="Only products of these categories.")
    of: Whose | None = Field(default=None, description="Whose orders; default: the subject's own.")

    def flaws(self, surroundings: Surroundings) -> Iterator[Flaw]:
        """Yield no question about stock, borders that are no numbers, or a contact's orders asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {stock: …}")
        if not any(self._figures()) and self.restocked_within is None:
            hint = f"add {', '.join(_FIGURES)} or restocked_within"
            yield Flaw(place=(), message="stock asks nothing about stock", hint=hint)
        if parse_duration(self.sales_over) == _ZERO:
            yield Flaw(place=("sales_over",), message="sales_over: no sales can be measured over no time at all")
        if any(self.borders()):
            yield from self.whole_number_flaws("a count")
        for key, borders in self._figures():
            yield from borders.missing_flaws(place=(key,))
            for operator, value in borders.borders():
                if isinstance(value, str) or not abs(value) <= LARGEST // _PIECE:
                    yield Flaw(place=(key, operator), message=f"{operator}: {key} is a number, got {value!r}")

    def rows(self, scope: Scope) -> Rows:
        """Return the lines of orders, for those products that are in stock as asked."""
        whose, key = self._key(scope)
        asked = {"measure", *Comparison.model_fields, "bought_within", "of"}
        what = digest(repr(sorted(self.model_dump(mode="json", exclude=asked).items())))
        where = and_(self._bought(key), counted(orders, scope.as_of), self._in_stock(scope))
        return Rows(name=f"stock/{whose}/{what}", source=_LINES, key=key, whose=whose, where=where)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the number of products lies within the borders."""
        value = self._value(scope)
        return sure(self.holds_for(value)) if any(self.borders()) else value >= 1

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return how many products are in stock as asked."""
        return {"products": self.asked(scope, self._value(scope))}

    def clocks(self, scope: Scope) -> Iterator[Clock]:
        """Yield when own orders leave the window, and when sales and levels of what was bought begin or cease to count.

        Those are rows of other subjects too: a product's sales concern everyone who bought it.
        """
        whose, key = self._key(scope)
        mine = self._bought(key)
        bought = [parse_duration(self.bought_within)] if self.bought_within else []
        spans = (parse_duration(self.sales_over),)
        again = [parse_duration(self.restocked_within)] if self.restocked_within else []
        own = (_ZERO, *bought)
        yield Clock(source=_LINES, key=key, whose=whose, at=orders.c.ordered_at, where=mine, after=own)
        gone = and_(mine, orders.c.cancelled_at.is_not(None))
        yield Clock(source=_LINES, key=key, whose=whose, at=orders.c.cancelled_at, where=gone, after=(_ZERO,))
        levels = _LINES.join(stock_levels, stock_levels.c.product_id == order_lines.c.product_id)
        after = (_ZERO, *spans, *again)
        yield Clock(source=levels, key=key, whose=whose, at=stock_levels.c.at, where=mine, after=after)
        if self.days_of_stock or self.turnover:
            theirs, lines = orders.alias("their_orders"), order_lines.alias("their_lines")
            sales = _LINES.join(lines, lines.c.product_id == order_lines.c.product_id)
            sales = sales.join(theirs, theirs.c.id == lines.c.order_id)
            yield Clock(source=sales, key=key, whose=whose, at=theirs.c.ordered_at, where=mine, after=(_ZERO, *spans))
            gone = and_(mine, theirs.c.cancelled_at.is_not(None))
            yield Clock(source=sales, key=key, whose=whose, at=theirs.c.cancelled_at, where=gone, after=(_ZERO,))

    def _key(self, scope: Scope) -> tuple[Subject, ColumnElement[Any]]:
        whose = Subject(self.of or scope.subject)
        return whose, subject_column(whose)

    def _figures(self) -> Iterator[tuple[str, Comparison]]:
        for key in _FIGURES:
            borders = getattr(self, key)
            if borders is not None:
                yield key, borders

    def _bought(self, key: ColumnElement[Any]) -> ColumnElement[bool]:
        return and_(key.is_not(None), orders.c.kind == OrderKind.ORDER)

    def _value(self, scope: Scope) -> ColumnElement[Any]:
        lately: ColumnElement[bool] = true()
        if self.bought_within is not None:
            lately = orders.c.ordered_at >= scope.as_of - parse_duration(self.bought_within)
        return func.count(distinct(order_lines.c.product_id)).filter(lately)

    def _in_stock(self, scope: Scope) -> ColumnElement[bool]:
        """Return which lines are of products in stock as asked: a query of products, answered once for everybody."""
        level = _last_level(scope)
        chosen: Select[Any] = select(products.c.id).where(chosen_products(self.product, self.category))
        chosen = chosen.where(level.is_not(None))
        if self.on_hand is not None:
            borders = self.on_hand.borders()
            chosen = chosen.where(*(compared(op, level, _double(float(value))) for op, value in borders))
        if self.restocked_within is not None:
            chosen = chosen.where(level > 0, _restocked(scope, parse_duration(self.restocked_within)))
        if self.days_of_stock is not None or self.turnover is not None:
            chosen = self._by_sales(scope, chosen, level)
        return order_lines.c.product_id.in_(chosen)

    def _by_sales(self, scope: Scope, chosen: Select[Any], level: ColumnElement[Any]) -> Select[Any]:
        stretch = parse_duration(self.sales_over)
        days = stretch / timedelta(days=1)
        sales = _sales(scope, stretch).subquery("sales")
        chosen = chosen.outerjoin_from(products, sales, sales.c.product_id == products.c.id)
        sold = cast(func.coalesce(sales.c.pieces, 0), Double)
        if self.days_of_stock is not None:
            stock = cast(_pieces(level), Double) * _double(days)
            for op, border in self.days_of_stock.borders():
                limit = float(border)
                empty, endless = _plainly(op, 0.0, limit), _plainly(op, float("inf"), limit)
                chosen = chosen.where(
                    case((level <= 0, empty), (sold <= 0, endless), else_=compared(op, stock, _double(limit) * sold))
                )
        if self.turnover is not None:
            levels = _levels(scope, stretch).subquery("levels")
            chosen = chosen.join(levels, levels.c.product_id == products.c.id)
            turned = sold * cast(levels.c.number, Double) * _double(_YEAR / stretch)
            total = cast(levels.c.pieces, Double)
            borders = self.turnover.borders()
            chosen = chosen.where(*(compared(op, turned, _double(float(border)) * total) for op, border in borders))
        return chosen


def _double(value: float) -> ColumnElement[Any]:
    return literal(value, Double)


def _plainly(operator: str, left: float, right: float) -> ColumnElement[bool]:
    holds = {"eq": left == right, "gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}
    return true() if holds[operator] else false()


def _pieces(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a quantity in whole thousandths, which add up to the same on both databases."""
    return cast(func.round(column * _PIECE), BigInteger)


def _last_level(scope: Scope) -> ColumnElement[Any]:
    level = stock_levels.alias("last_levels")
    last = select(level.c.on_hand).where(level.c.product_id == products.c.id, level.c.at < scope.as_of)
    return last.order_by(level.c.at.desc()).limit(1).correlate(products).scalar_subquery()


def _restocked(scope: Scope, span: timedelta) -> ColumnElement[bool]:
    """Return whether the latest end of being out of stock lies at most so long ago."""
    again, before, later = (stock_levels.alias(name) for name in ("again", "before", "later"))
    previous = select(before.c.on_hand).where(before.c.product_id == again.c.product_id, before.c.at < again.c.at)
    previous = previous.order_by(before.c.at.desc()).limit(1).correlate(again)
    emptied = exists().where(
        later.c.product_id == again.c.product_id,
        later.c.at > again.c.at,
        later.c.at < scope.as_of,
        later.c.on_hand <= 0,
    )
    found = exists().where(
        again.c.product_id == products.c.id,
        again.c.at >= scope.as_of - span,
        again.c.at < scope.as_of,
        again.c.on_hand > 0,
        previous.scalar_subquery() <= 0,
        not_(emptied.correlate(again)),
    )
    return found.correlate(products)


def _sales(scope: Scope, stretch: timedelta) -> Select[Any]:
    """Return the pieces of each product sold in the stretch before now, net of returns, in thousandths."""
    sold, lines = orders.alias("sold_orders"), order_lines.alias("sold_lines")
    return (
        select(lines.c.product_id, cast(func.sum(_pieces(lines.c.quantity)), BigInteger).label("pieces"))
        .join_from(sold, lines, lines.c.order_id == sold.c.id)
        .where(counted(sold, scope.as_of), sold.c.ordered_at >= scope.as_of - stretch)
        .group_by(lines.c.product_id)
    )


def _levels(scope: Scope, stretch: timedelta) -> Select[Any]:
    """Return how many levels above nothing were recorded in the stretch, and their sum in thousandths."""
    level = stock_levels.alias("levels_between")
    return (
        select(
            level.c.product_id,
            func.count().label("number"),
            cast(func.sum(_pieces(level.c.on_hand)), BigInteger).label("pieces"),
        )
        .where(level.c.at >= scope.as_of - stretch, level.c.at < scope.as_of, level.c.on_hand > 0)
        .group_by(level.c.product_id)
    )


_LINES = orders.join(order_lines, order_lines.c.order_id == orders.c.id)
