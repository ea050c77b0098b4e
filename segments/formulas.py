"""Textbook figures of marketing and stock: each formula by its usual name, with its convention said.

Money is in any one unit, the same for all arguments of a call, and comes back in it. A figure that would divide by
nothing is not 0 and not infinite: it has no value and a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernel.errors import ConfigError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Timing(StrEnum):
    """When the first margin comes; without end, the two conventions differ by exactly that margin."""

    END_OF_PERIOD = "end_of_period"
    NOW = "now"


class Undefined(StrEnum):
    """Why a figure has no value."""

    NO_COST = "no_cost"
    NO_CUSTOMERS = "no_customers"
    NO_MARGIN = "no_margin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number, or the reason why there is none; exactly one of the two."""

    value: float | None = None
    reason: Undefined | None = None


def _ratio(over: float, under: float, without: Undefined) -> Figure:
    return Figure(value=over / under) if under > 0 else Figure(reason=without)


# --- customer lifetime value ---------------------------------------------------------------------------------


def per_period_rate(annual: float, periods_per_year: float) -> float:
    """Return the rate per period that compounds to an annual one: (1 + annual)^(1/n) - 1.

    Raises:
        ConfigError: an annual rate of -1 or less, or no periods.
    """
    if annual <= -1 or periods_per_year <= 0:
        raise ConfigError(
            f"annual rate {annual:g} over {periods_per_year:g} periods: give a rate above -1 and periods above 0"
        )
    return float((1 + annual) ** (1 / periods_per_year) - 1)


def simple_clv(
    *, order_value: float, orders_per_year: float, years: float, margin: float = 1.0, acquisition_cost: float = 0.0
) -> float:
    """Return average order value × orders a year × years × margin − acquisition cost.

    Undiscounted. Gross of acquisition cost where that is left at 0, net of it otherwise; margin is a share of revenue.

    Raises:
        ConfigError: a margin above 1, or a negative argument other than the order value.
    """
    _not_negative(orders_per_year=orders_per_year, years=years, acquisition_cost=acquisition_cost)
    _share(margin=margin)
    return order_value * orders_per_year * years * margin - acquisition_cost


def retention_clv(
    *,
    margin_per_period: float,
    retention: float,
    discount: float,
    timing: Timing,
    periods: int | None = None,
    acquisition_cost: float = 0.0,
) -> float:
    """Return the discounted sum of a constant margin that each period keeps with a constant probability.

    END_OF_PERIOD: m r/(1+d) + m r²/(1+d)² + …, without end m r/(1+d-r). NOW: m + m r/(1+d) + …, without end
    m (1+d)/(1+d-r). Both have `periods` terms.

    Args:
        margin_per_period: Contribution of a customer who is there.
        retention: Probability to be there one period later.
        discount: Per period; see `per_period_rate`.
        timing: When the first margin comes.
        periods: How many margins; None: without end.
        acquisition_cost: What is taken off at the start.

    Raises:
        ConfigError: retention is no share, discount negative, no periods, or a sum without end that has none.
    """
    _share(retention=retention)
    _not_negative(discount=discount, acquisition_cost=acquisition_cost)
    step = retention / (1 + discount)
    first = margin_per_period * (step if timing is Timing.END_OF_PERIOD else 1.0)
    if periods is None:
        if step >= 1:
            raise ConfigError(
                "retention 1 without discount adds up without end: give a number of periods or a discount"
            )
        return first / (1 - step) - acquisition_cost
    _periods(periods)
    terms = periods if step == 1 else (1 - step**periods) / (1 - step)
    return first * terms - acquisition_cost


def discounted_sum(
    contributions: Sequence[float],
    *,
    discount: float,
    timing: Timing,
    survival: Sequence[float] | None = None,
    acquisition_cost: float = 0.0,
) -> float:
    """Return the sum of contributions (revenue − cost, one a period) × survival, discounted, less acquisition cost.

    Args:
        contributions: One per period, in order.
        discount: Per period; see `per_period_rate`.
        timing: END_OF_PERIOD discounts the first contribution by one period, NOW by none.
        survival: Probability to be there when each contribution comes; None: 1 throughout.
        acquisition_cost: What is taken off at the start.

    Raises:
        ConfigError: survival of another length or no shares, or a negative discount.
    """
    _not_negative(discount=discount, acquisition_cost=acquisition_cost)
    there = [1.0] * len(contributions) if survival is None else list(survival)
    if len(there) != len(contributions):
        raise ConfigError(f"{len(contributions)} contributions but {len(there)} survival probabilities")
    for probability in there:
        _share(survival=probability)
    start = 1 if timing is Timing.END_OF_PERIOD else 0
    terms = (
        contribution * alive / (1 + discount) ** period
        for period, (contribution, alive) in enumerate(zip(contributions, there, strict=True), start=start)
    )
    return sum(terms) - acquisition_cost


# --- what customers cost -------------------------------------------------------------------------------------


def acquisition_cost(cost: float, new_customers: int) -> Figure:
    """Return CAC: sales and marketing cost of a period over customers whose first order falls into it."""
    _not_negative(cost=cost, new_customers=new_customers)
    return _ratio(cost, new_customers, Undefined.NO_CUSTOMERS)


def lagged_acquisition_costs(costs: Sequence[float], new_customers: Sequence[int], lag: int = 0) -> list[Figure | None]:
    """Return CAC per period, the cost of each held against the new customers of `lag` periods later.

    In B2B months pass between the first contact and the first order: a lag of the median sales cycle sets the cost
    against the customers it won. None where that later period is not there yet, so that nothing can be said.

    Raises:
        ConfigError: other than equal lengths, or a negative number.
    """
    if len(costs) != len(new_customers):
        raise ConfigError(f"{len(costs)} periods of cost but {len(new_customers)} of new customers")
    _not_negative(lag=lag)
    return [
        acquisition_cost(cost, new_customers[period + lag]) if period + lag < len(costs) else None
        for period, cost in enumerate(costs)
    ]


def value_to_cost(lifetime_value: float, cost_per_customer: float) -> Figure:
    """Return CLV:CAC, both on the same base: contribution before acquisition cost, over a fully loaded CAC."""
    _not_negative(cost_per_customer=cost_per_customer)
    return _ratio(lifetime_value, cost_per_customer, Undefined.NO_COST)


def payback_months(cost_per_customer: float, monthly_margin: float) -> Figure:
    """Return after how many months a new customer's contribution has paid the acquisition cost, undiscounted."""
    _not_negative(cost_per_customer=cost_per_customer)
    return _ratio(cost_per_customer, monthly_margin, Undefined.NO_MARGIN)


def roi(margin: float, cost: float) -> Figure:
    """Return (margin − cost) / cost; say beside it whether the margin is attributed or incremental."""
    _not_negative(cost=cost)
    return _ratio(margin - cost, cost, Undefined.NO_COST)


def roas(revenue: float, cost: float) -> Figure:
    """Return revenue / cost: return on advertising spend, on revenue and not on margin."""
    _not_negative(cost=cost)
    return _ratio(revenue, cost, Undefined.NO_COST)


# --- stock ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Inventory figures over a period: one position per product, or one for the total.

    `average` is stock at cost, the mean over days with stock; `days_with` and `days_without` count the daily snapshots.
    `turnover` is cost of goods sold over average stock; `days_of_stock`, days with stock over turnover, is how long the
    average stock lasts at the pace it sold when there was any. Both are NaN where there was never any stock, and
    `days_of_stock` also where nothing was sold.
    """

    average: Floats
    days_with: Ints
    days_without: Ints
    turnover: Floats
    days_of_stock: Floats

    def turnover_per_year(self) -> Floats:
        """Return turnover as if the period's pace went on for 365 days with stock."""
        return _over(self.turnover * 365, self.days_with, np.nan)


def stock_by_product(product: ArrayLike, value: ArrayLike, sold: ArrayLike) -> Stock:
    """Return the figures of each product.

    Args:
        product: Of each daily snapshot, its product's position in `sold`; one snapshot per product and day.
        value: Stock of the snapshot at cost; 0 where there was none.
        sold: Cost of goods sold in the period, by product. Not sales value: that would mix in the margin.

    Raises:
        ConfigError: other than equal lengths, a position outside `sold`, or negative stock.
    """
    cost = np.atleast_1d(np.asarray(sold, dtype=np.float64))
    place, worth = _snapshots(product, value)
    if len(place) and place.max() >= len(cost):
        raise ConfigError(f"a snapshot is of product {int(place.max())}, but goods sold are given of {len(cost)}")
    return _stock(worth, place, cost)


def stock_in_total(day: ArrayLike, value: ArrayLike, sold: float) -> Stock:
    """Return the figures of all products together, which are not the mean of the products' figures.

    Args:
        day: Of each daily snapshot, its day's position in the period, from 0.
        value: Stock of the snapshot at cost.
        sold: Cost of goods sold in the period, of all products.

    Raises:
        ConfigError: as `stock_by_product`.
    """
    place, worth = _snapshots(day, value)
    _, which = np.unique(place, return_inverse=True)
    days = np.bincount(which, weights=worth).astype(np.float64)
    return _stock(days, np.zeros(len(days), dtype=np.int64), np.array([sold], dtype=np.float64))


def days_left(on_hand: ArrayLike, sold_per_day: ArrayLike) -> Floats:
    """Return for how many days what is on hand lasts at a pace of sale, in units; infinite where nothing sells.

    Negative stock (sold but not yet delivered) lasts 0 days.
    """
    units = np.maximum(np.asarray(on_hand, dtype=np.float64), 0.0)
    pace = np.asarray(sold_per_day, dtype=np.float64)
    units, pace = np.broadcast_arrays(units, pace)
    return _over(units, pace, np.inf)


def _over(one: ArrayLike, other: Floats | Ints, otherwise: float) -> Floats:
    """Return one / other, and a number of choice where the other is not above 0."""
    found: Floats = np.full(other.shape, otherwise)
    np.divide(one, other, out=found, where=other > 0)
    return found


def _stock(worth: Floats, place: Ints, sold: Floats) -> Stock:
    size = len(sold)
    all_days = np.bincount(place, minlength=size)
    days_with = np.bincount(place[worth > 0], minlength=size)
    held = np.bincount(place, weights=worth, minlength=size)
    average = _over(held, days_with, 0.0)
    turnover = _over(sold, average, np.nan)
    return Stock(
        average=average,
        days_with=days_with,
        days_without=all_days - days_with,
        turnover=turnover,
        days_of_stock=_over(days_with, turnover, np.nan),
    )


def _snapshots(place: ArrayLike, value: ArrayLike) -> tuple[Ints, Floats]:
    where = np.atleast_1d(np.asarray(place, dtype=np.int64))
    worth = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if len(where) != len(worth):
        raise ConfigError(f"{len(where)} snapshots but {len(worth)} values")
    if len(where) and where.min() < 0:
        raise ConfigError(f"a snapshot is at position {int(where.min())}: positions count from 0")
    if not (worth >= 0).all():
        raise ConfigError("stock at cost must not be negative: count oversold products as 0 in stock")
    return where, worth


# --- arguments -----------------------------------------------------------------------------------------------


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ConfigError(f"{name} is {value:g}: it must not be negative")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value:g}: give a share from 0 to 1, as 0.3 for 30 %")


def _periods(periods: int) -> None:
    if periods < 1:
        raise ConfigError(f"{periods} periods: give at least 1, or none for a sum without end")
