"""Orders ahead of very many customers at once: expected within a horizon, and discounted month by month.

Of a customer who is still there both depend on two numbers only: the repeat purchases x and the age T. x is whole, and
along T both are analytic. So for each x they are computed at a few Chebyshev points of w = log(alpha + T), and read
off the polynomial through them for everybody else: no more than `TOLERANCE` from the formula.

That bound is proved, not observed. With z = t/(alpha+T) = t e^-w, the expected orders are
h(z) = E[(1 - (1 + pz)^-R)/p] over p ~ Beta, with R = r + x. The derivative is R E[(1 + pz)^(-R-1)], at most R in size
where Re z >= 0, so |h(z)| <= R|z| in the strip |Im w| <= pi/2. The discounted sum is, by partial summation, a mean of
such values with weights that add up to at most 1. In the ellipse of Bernstein that just fits into the strip both
are thus at most M = R t e^-(its leftmost point), and interpolation in n+1 Chebyshev points errs by at most
4 M rho^-n/(rho-1).

Source:
    Trefethen, Approximation Theory and Approximation Practice, theorem 8.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segments.histories import BLOCK, Floats, Ints, order_by
from segments.lifetime import BgNbd, orders_if_alive

MONTH_DAYS = 365 / 12
"""A month is a twelfth of 365 days, so that a year of 365 days has exactly twelve."""
TOLERANCE = 1e-9
"""In orders, of a customer who is still there."""
_MOST_POINTS = 200
_NARROW = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How far ahead to look, and what a later order is worth: `annual_discount` 0.1 is ten per cent a year."""

    days: float
    annual_discount: float

    def steps(self) -> tuple[Floats, Floats]:
        """Return the ends of the months in days, the last one cut off at the horizon, and the discount at each."""
        whole = np.arange(1, int(np.ceil(self.days / MONTH_DAYS - 1e-9)) + 1) * MONTH_DAYS
        ends = np.minimum(whole, self.days)
        return ends, (1 + self.annual_discount) ** (-ends / 365)


def orders_ahead(model: BgNbd, x: Ints, age: Floats, horizon: Horizon) -> tuple[Floats, Floats]:
    """Return expected orders within the horizon and their discounted sum, of customers still there.

    Args:
        model: Fitted in days.
        x: Repeat purchases.
        age: Days since the first purchase.
        horizon: How far ahead.
    """
    order = order_by(x)
    repeats, w = x[order], np.log(model.alpha + age[order])
    starts = np.flatnonzero(np.concatenate(([True], repeats[1:] != repeats[:-1])))
    groups = [
        _Group.of(model, horizon, repeats, w, slice(*ends)) for ends in zip(starts, [*starts[1:], len(w)], strict=True)
    ]
    counts = np.repeat([float(group.x) for group in groups], [len(group.points) for group in groups])
    points = np.concatenate([group.points for group in groups])
    computed = np.array(discounted_orders(model, counts, np.exp(points) - model.alpha, horizon))
    ordered = np.empty((2, len(w)))
    begin = 0
    for group in groups:
        found = computed[:, begin : begin + len(group.points)]
        begin += len(group.points)
        ordered[:, group.rows] = found if group.exact else _interpolated(found, w[group.rows], group.low, group.high)
    result = np.empty_like(ordered)
    result[:, order] = ordered
    return result[0], result[1]


def discounted_orders(model: BgNbd, x: Floats, age: Floats, horizon: Horizon) -> tuple[Floats, Floats]:
    """Return the same by the formula, month by month: for few customers."""
    expected = np.zeros(len(x))
    discounted = np.zeros(len(x))
    for end, discount in zip(*horizon.steps(), strict=True):
        until = orders_if_alive(model, end, x, age)
        discounted += (until - expected) * discount
        expected = until
    return expected, discounted


@dataclass(frozen=True, slots=True)
class _Group:
    """Everybody with the same x: their rows, the range of their w, and the points at which to compute."""

    x: int
    rows: slice
    low: float
    high: float
    points: Floats
    exact: bool

    @classmethod
    def of(cls, model: BgNbd, horizon: Horizon, x: Ints, w: Floats, rows: slice) -> _Group:
        own = w[rows]
        low, high = float(own.min()), float(own.max())
        if high - low < _NARROW:
            low, high = low - _NARROW, high + _NARROW
        n = _degree(model.r + int(x[rows.start]), horizon.days, low, high)
        exact = len(own) <= n + 1 or n > _MOST_POINTS
        points = own if exact else (low + high) / 2 + (high - low) / 2 * _chebyshev(n)
        return cls(int(x[rows.start]), rows, low, high, points, exact)


def _chebyshev(n: int) -> Floats:
    return np.cos(np.pi * np.arange(n + 1) / n)


def _degree(orders: float, days: float, low: float, high: float) -> int:
    """Return the degree whose error is proved to be at most the tolerance."""
    half = (high - low) / 2
    minor = np.pi / 2 / half
    major = np.sqrt(1 + minor**2)
    rho = minor + major
    largest = orders * days * np.exp(-((low + high) / 2 - half * major))
    return max(2, int(np.ceil(np.log(4 * largest / (rho - 1) / TOLERANCE) / np.log(rho))))


def _interpolated(values: Floats, w: Floats, low: float, high: float) -> NDArray[np.float64]:
    """Return the polynomials through values at Chebyshev points, at w: by Clenshaw's sum, block by block."""
    n = values.shape[1] - 1
    weights = np.ones(n + 1)
    weights[[0, n]] = 0.5
    angles = np.cos(np.pi * np.outer(np.arange(n + 1), np.arange(n + 1)) / n)
    series = (values * weights) @ angles * weights * (2 / n)
    result = np.empty((len(values), len(w)))
    for begin in range(0, len(w), BLOCK):
        place = (2 * w[begin : begin + BLOCK] - low - high) / (high - low)
        above, beyond = np.zeros((len(values), len(place))), np.zeros((len(values), len(place)))
        for term in series.T[:0:-1]:
            above, beyond = term[:, None] + 2 * place * above - beyond, above
        result[:, begin : begin + BLOCK] = series[:, :1] + place * above - beyond
    return result
