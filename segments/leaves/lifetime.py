"""Lifetime value and cadence: what the models expect of a buyer, and whether an order is late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field
from sqlalchemy import BigInteger, ColumnElement, Double, and_, cast, func, literal, type_coerce

from kernel.clock import to_ms
from kernel.fields import DurationText, Strict
from kernel.quantities import parse_duration
from segments.buyers import DAY_MS
from segments.comparisons import LARGEST, Comparison, compared
from segments.leaves.profiles import Model, ProfileLeaf, found, placed
from segments.scope import Clock, Flaw, Scope, Surroundings
from store.tables import profiles

_MONEY = {"clv": "clv_minor", "order_value": "order_value_minor", "historic": "net_minor"}
_NUMBERS = {"p_alive": "p_alive", "expected_orders": "expected_orders"}
_MILLISECOND = timedelta(milliseconds=1)


class NextOrder(Strict):
    """When the next order is expected. Always ahead of the last scoring: who is late is told by `cadence`."""

    in_next: DurationText = Field(description='From now on, at most this far ahead, as "14d".')

    def holds_for(self, scope: Scope, at: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return whether an instant lies so; NULL does not."""
        return and_(at >= scope.as_of, at < scope.as_of + parse_duration(self.in_next))

    def after(self) -> tuple[timedelta, ...]:
        """Return how long after the instant (before it, where negative) time alone changes the answer."""
        return (timedelta(0), -parse_duration(self.in_next))


def _number_flaws(key: str, borders: Comparison) -> Iterator[Flaw]:
    yield from borders.missing_flaws(place=(key,))
    for operator, value in borders.borders():
        if isinstance(value, str) or not abs(value) <= LARGEST:
            yield Flaw(place=(key, operator), message=f"{operator}: {key} is a number, got {value!r}")
        elif key == "p_alive" and not 0 <= value <= 1:
            message = f"{operator}: a probability lies between 0 and 1, got {value!r}"
            yield Flaw(place=(key, operator), message=message)


class Lifetime(ProfileLeaf):
    """Buyers by what they brought and what the model of lifetime value expects. Several keys must all hold.

    Money is in major units of the workspace's currency. Where the model was refused, or says nothing of a buyer, no
    border holds; `historic` needs no model.
    """

    model: ClassVar[Model] = "lifetime"

    clv: Comparison | None = Field(default=None, description="Expected contribution within the horizon, discounted.")
    p_alive: Comparison | None = Field(default=None, description="Probability, 0 to 1, that the buyer still buys.")
    expected_orders: Comparison | None = Field(default=None, description="Orders expected within the horizon.")
    order_value: Comparison | None = Field(default=None, description="Expected net value of an order.")
    historic: Comparison | None = Field(default=None, description="What was bought so far, net of returns.")
    next_order: NextOrder | None = Field(default=None, description="When the next order is expected.")

    def flaws(self, surroundings: Surroundings) -> Iterator[Flaw]:
        """Yield an empty condition, borders that do not fit, or a contact's figures asked of an account."""
        yield from super().flaws(surroundings)
        if not self.model_fields_set - {"of"}:
            hint = "add clv, p_alive, expected_orders, order_value, historic or next_order"
            yield Flaw(place=(), message="lifetime asks nothing", hint=hint)
        for key, borders in self._given(_MONEY):
            yield from borders.money_flaws(place=(key,))
        for key, borders in self._given(_NUMBERS):
            yield from _number_flaws(key, borders)

    def _given(self, keys: Iterable[str]) -> Iterator[tuple[str, Comparison]]:
        return placed({key: getattr(self, key) for key in keys})

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether there are figures and they are as asked."""
        columns = profiles.c
        parts = [borders.holds_for_money(columns[_MONEY[key]], scope.currency) for key, borders in self._given(_MONEY)]
        for key, borders in self._given(_NUMBERS):
            parts.extend(compared(op, columns[_NUMBERS[key]], _double(value)) for op, value in borders.borders())
        if self.next_order is not None:
            parts.append(self.next_order.holds_for(scope, columns.next_order_at))
        return found(and_(*parts))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the figures asked for; money in minor units."""
        columns = profiles.c
        shown = {f"{key}_minor": self.value(scope, columns[_MONEY[key]]) for key, _ in self._given(_MONEY)}
        shown.update({key: self.value(scope, columns[_NUMBERS[key]]) for key, _ in self._given(_NUMBERS)})
        if self.next_order is not None:
            shown["next_order_at"] = self.value(scope, columns.next_order_at)
        return shown

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when the next order becomes near, and when it is past."""
        if self.next_order is not None:
            rows, at = self.rows(scope), profiles.c.next_order_at
            where = and_(rows.where, at.is_not(None))
            after = self.next_order.after()
            yield Clock(source=profiles, key=rows.key, whose=rows.whose, at=at, where=where, after=after)


class Cadence(ProfileLeaf, Comparison):
    """Buyers by the time since their last order, over the median gap between their own days with an order.

    1 is the usual time, 2 twice as long. Who has not ordered on three days has no such gap and satisfies no border.
    """

    model: ClassVar[Model] = "rfm"

    def flaws(self, surroundings: Surroundings) -> Iterator[Flaw]:
        """Yield no border, a border that is no number, or a contact's cadence asked of an account."""
        yield from super().flaws(surroundings)
        yield from self.missing_flaws()
        for operator, value in self.borders():
            if isinstance(value, str) or not 0 <= value <= LARGEST:
                message = f"{operator}: cadence is a number of usual gaps, 0 or more, got {value!r}"
                yield Flaw(place=(operator,), message=message)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether there is a gap and the time since the last order is as asked."""
        since = cast(literal(to_ms(scope.as_of), BigInteger) - _last_ms(), Double)
        return found(and_(*(compared(op, since, _gap_ms(value)) for op, value in self.borders())))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the last order and the gap."""
        columns = profiles.c
        shown = {"last_order_at": columns.last_order_at, "median_gap_days": columns.median_gap_days}
        return {name: self.value(scope, column) for name, column in shown.items()}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when the time since the last order passes a border."""
        rows = self.rows(scope)
        where = and_(rows.where, profiles.c.median_gap_days.is_not(None))
        after = (-_MILLISECOND, timedelta(0), _MILLISECOND)
        for _, value in self.borders():
            at = _last_ms() + cast(func.round(_gap_ms(value)), BigInteger)
            yield Clock(source=profiles, key=rows.key, whose=rows.whose, at=at, where=where, after=after)


def _last_ms() -> ColumnElement[Any]:
    return type_coerce(profiles.c.last_order_at, BigInteger)


def _double(value: object) -> ColumnElement[Any]:
    return literal(float(str(value)), Double)


def _gap_ms(value: object) -> ColumnElement[Any]:
    """Return so many of the buyer's own gaps in milliseconds; a median of 0 days never occurs between days."""
    return profiles.c.median_gap_days * _double(float(str(value)) * DAY_MS)
