"""Orders: counts, money, pieces and days over a stretch of time, of all products or of some."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    and_,
    cast,
    distinct,
    func,
    literal,
    select,
    true,
    type_coerce,
)

from kernel.clock import to_ms
from kernel.ids import digest
from kernel.vocabulary import OrderKind, Subject
from segments.buyers import DAY_MS, counted, subject_column
from segments.comparisons import LARGEST, Comparison, Period, Text, compared
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings, Whose, sure
from store.aggregates import first_number, last_number
from store.json_values import one_of
from store.tables import order_lines, orders, products

Measure = Literal[
    "count",
    "sum",
    "average",
    "min",
    "max",
    "first",
    "last",
    "quantity",
    "products",
    "days_since_first",
    "days_since_last",
]
Status = Literal["standing", "cancelled", "any"]
MONEY_MEASURES = ("sum", "average", "min", "max", "first", "last")
NET_MEASURES = ("sum", "quantity")
"""Measures that returns and cancellations lessen; the others look at orders only."""
_LINE_MEASURES = ("quantity", "products")
_PIECE = 1000
"""Quantities are added up in thousandths, whole numbers, so that both databases find the same."""


def listed(value: object) -> object:
    """Return a single word as a list of one."""
    return [value] if isinstance(value, str) else value


Words = Annotated[list[Text], BeforeValidator(listed), Field(min_length=1, max_length=10_000)]
Kinds = Annotated[
    list[Annotated[OrderKind, Field(strict=False)]], BeforeValidator(listed), Field(min_length=1, max_length=4)
]


class Orders(OnRows, Comparison, Period):
    """A measure over the orders placed before now that were not cancelled by then.

    `sum` and `quantity` are net of returns, cancellations and adjustments; every other measure looks at orders only,
    and `kind` makes any measure look at other kinds. Money is in major units of the workspace's currency, and orders
    in other currencies are left out of it. With `product` or `category` only lines of those products count: an order
    counts where it has one, with the money and the pieces of those lines. Without any order that counts `count`,
    `sum`, `quantity` and `products` are 0, and the others satisfy no border.
    """

    measure: Measure
    of: Whose | None = Field(default=None, description="Whose orders; default: the subject's own.")
    product: Words | None = Field(default=None, description="Only lines of these products, by their codes.")
    category: Words | None = Field(default=None, description="Only lines of products of these categories.")
    kind: Kinds | None = Field(default=None, description="order, return, cancellation or adjustment.")
    status: Status = Field(default="standing", description="Orders that stand, were cancelled, or any.")

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return borders that do not fit the measure, or a contact's orders asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {orders: …}")
        if self.measure in MONEY_MEASURES:
            yield from self.money_flaws()
        elif self.measure == "quantity":
            yield from self._quantity_flaws()
        else:
            yield from self.whole_number_flaws(self.measure)

    def _quantity_flaws(self) -> Iterable[Flaw]:
        yield from self.missing_flaws()
        for operator, value in self.borders():
            if isinstance(value, str) or not abs(value) <= LARGEST // _PIECE:
                yield Flaw(place=(operator,), message=f"{operator}: a quantity is a number, got {value!r}")

    def rows(self, scope: Scope) -> Rows:
        """Return the orders of this status, or their lines where products are counted; only those of the products."""
        by_line = self.measure in _LINE_MEASURES
        name = f"{'order_lines' if by_line else 'orders'}/{self._whose(scope)}/{self.status}"
        if self._chooses_products:
            name += "/" + digest(repr((sorted(self.product or ()), sorted(self.category or ()))))
        stands = {
            "standing": counted(orders, scope.as_of),
            "cancelled": and_(orders.c.ordered_at < scope.as_of, orders.c.cancelled_at < scope.as_of),
            "any": orders.c.ordered_at < scope.as_of,
        }
        key = subject_column(self._whose(scope))
        chosen = self._lines_chosen() if by_line else self._orders_chosen()
        where = and_(key.is_not(None), stands[self.status], chosen)
        return Rows(name=name, source=_source(by_line), key=key, whose=self._whose(scope), where=where)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the measure lies within the borders."""
        counts = self._counts(scope)
        if self.measure == "average":
            total, number = func.sum(self._net()).filter(counts), func.count().filter(counts)
            return sure(self.holds_for_average(total, number, scope.currency))
        value = self._value(scope)
        if self.measure == "quantity":
            borders = ((op, int(Decimal(str(border)) * _PIECE)) for op, border in self.borders())
            return sure(and_(true(), *(compared(op, value, border) for op, border in borders)))
        if self.measure in MONEY_MEASURES:
            return sure(self.holds_for_money(value, scope.currency))
        return sure(self.holds_for(value))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the measure; money in minor units."""
        unit = "_minor" if self.measure in MONEY_MEASURES else ""
        value = self._value(scope)
        shown = value / float(_PIECE) if self.measure == "quantity" else value
        return {f"{self.measure}{unit}": self.asked(scope, shown)}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when orders leave the window, reach an age that is asked for, or cease to be in the future."""
        key, whose = subject_column(self._whose(scope)), self._whose(scope)
        ages = self.days_after() if self.measure.startswith("days_since") else ()
        where = and_(key.is_not(None), self._orders_chosen())
        at, after = orders.c.ordered_at, tuple(sorted({*self.after(), *ages}))
        yield Clock(source=orders, key=key, whose=whose, at=at, where=where, after=after)
        if self.status != "any":
            where = and_(where, orders.c.cancelled_at.is_not(None))
            yield Clock(
                source=orders, key=key, whose=whose, at=orders.c.cancelled_at, where=where, after=self.after()[:1]
            )

    def _whose(self, scope: Scope) -> Subject:
        return Subject(self.of or scope.subject)

    @property
    def _chooses_products(self) -> bool:
        return self.product is not None or self.category is not None

    def _counts(self, scope: Scope) -> ColumnElement[bool]:
        """Return which of the rows count for the measure."""
        parts = [self.lies_in(scope, orders.c.ordered_at)]
        if self.kind is not None:
            parts.append(orders.c.kind.in_(self.kind))
        elif self.measure not in NET_MEASURES:
            parts.append(orders.c.kind == OrderKind.ORDER)
        if self.measure in MONEY_MEASURES:
            parts.append(orders.c.currency == scope.currency)
        return and_(*parts)

    def _value(self, scope: Scope) -> ColumnElement[Any]:
        counts = self._counts(scope)
        at = type_coerce(orders.c.ordered_at, BigInteger)
        now_ms = literal(to_ms(scope.as_of), BigInteger)
        if self.measure == "count":
            return func.count().filter(counts)
        if self.measure == "products":
            return func.count(distinct(order_lines.c.product_id)).filter(counts)
        if self.measure == "quantity":
            pieces = cast(func.round(order_lines.c.quantity * _PIECE), BigInteger)
            return cast(func.coalesce(func.sum(pieces).filter(counts), 0), BigInteger)
        if self.measure == "days_since_first":
            return (now_ms - func.min(at).filter(counts)) // DAY_MS
        if self.measure == "days_since_last":
            return (now_ms - func.max(at).filter(counts)) // DAY_MS
        return self._money(counts, at)

    def _money(self, counts: ColumnElement[bool], at: ColumnElement[Any]) -> ColumnElement[Any]:
        net = self._net()
        if self.measure == "first":
            return first_number(net, at, orders.c.id, counts)
        if self.measure == "last":
            return last_number(net, at, orders.c.id, counts)
        if self.measure == "sum":
            return cast(func.coalesce(func.sum(net).filter(counts), 0), BigInteger)
        plain = {"average": func.avg(net), "min": func.min(net), "max": func.max(net)}
        return plain[self.measure].filter(counts)

    def _net(self) -> ColumnElement[Any]:
        """Return the net money of an order, or of its lines of the chosen products."""
        if not self._chooses_products:
            return orders.c.net_minor
        mine = select(func.coalesce(func.sum(order_lines.c.net_minor), 0))
        mine = mine.where(order_lines.c.order_id == orders.c.id, self._lines_chosen())
        return cast(mine.correlate(orders).scalar_subquery(), BigInteger)

    def _orders_chosen(self) -> ColumnElement[bool]:
        if not self._chooses_products:
            return true()
        return orders.c.id.in_(select(order_lines.c.order_id).where(self._lines_chosen()))

    def _lines_chosen(self) -> ColumnElement[bool]:
        if not self._chooses_products:
            return true()
        return order_lines.c.product_id.in_(select(products.c.id).where(chosen_products(self.product, self.category)))


def chosen_products(codes: list[str] | None, categories: list[str] | None) -> ColumnElement[bool]:
    """Return which products have one of the codes and one of the categories; None leaves that open."""
    by_code = true() if codes is None else one_of(products.c.external_id, codes)
    return and_(by_code, true() if categories is None else one_of(products.c.category, categories))


def _source(by_line: bool) -> FromClause:
    return orders.join(order_lines, order_lines.c.order_id == orders.c.id) if by_line else orders
