"""Orders: counts, money and days over a stretch of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import BigInteger, ColumnElement, cast, func, literal, select, type_coerce

from kernel.clock import to_ms
from kernel.vocabulary import OrderKind, Subject
from segments.buyers import DAY_MS, counted
from segments.comparisons import Comparison, Period, own_rows
from segments.scope import Flaw, Scope, Surroundings, Whose, sure
from store.tables import orders

Measure = Literal["count", "sum", "average", "min", "max", "days_since_first", "days_since_last"]
MONEY_MEASURES = ("sum", "average", "min", "max")


class Orders(Comparison, Period):
    """A measure over the orders placed before now that were not cancelled by then.

    `count`, `average`, `min`, `max` and the days look at orders only; `sum` is net of returns and cancellations.
    Money is in major units of the workspace's currency, and orders in other currencies are left out of it.
    Without any order `count` and `sum` are 0, and the others satisfy no border.
    """

    measure: Measure
    of: Whose | None = Field(default=None, description="Whose orders; default: the subject's own.")

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return borders that do not fit the measure, or a contact's orders asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {orders: …}")
        if self.measure in MONEY_MEASURES:
            yield from self.money_flaws()
        else:
            yield from self.whole_number_flaws(self.measure)

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the measure lies within the borders."""
        value = self._value(scope)
        if self.measure in MONEY_MEASURES:
            return sure(self.holds_for_money(value, scope.currency))
        return sure(self.holds_for(value))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the measure; money in minor units."""
        unit = "_minor" if self.measure in MONEY_MEASURES else ""
        return {f"{self.measure}{unit}": self._value(scope)}

    def _value(self, scope: Scope) -> ColumnElement[Any]:
        table = orders.alias()
        query = select(self._aggregate(table, scope)).where(
            own_rows(table, scope, self.of or scope.subject),
            counted(table, scope.as_of),
            self.lies_in(scope, table.c.ordered_at),
        )
        if self.measure != "sum":
            query = query.where(table.c.kind == OrderKind.ORDER)
        if self.measure in MONEY_MEASURES:
            query = query.where(table.c.currency == scope.currency)
        return query.correlate(scope.table).scalar_subquery()

    def _aggregate(self, table: Any, scope: Scope) -> ColumnElement[Any]:
        net = table.c.net_minor
        at = type_coerce(table.c.ordered_at, BigInteger)
        now_ms = literal(to_ms(scope.as_of), BigInteger)
        aggregates: dict[Measure, ColumnElement[Any]] = {
            "count": func.count(table.c.id),
            "sum": cast(func.coalesce(func.sum(net), 0), BigInteger),
            "average": func.avg(net),
            "min": func.min(net),
            "max": func.max(net),
            "days_since_first": (now_ms - func.min(at)) // DAY_MS,
            "days_since_last": (now_ms - func.max(at)) // DAY_MS,
        }
        return aggregates[self.measure]
