"""How far predictions of a few subjects may be off: two different questions, never to be mixed up.

*Of the estimate*: how much p_alive, expected orders and lifetime value would move had other customers of the same kind
been observed. From the covariance of the fitted parameters, by the delta method. With many customers it is narrow.

*Of the outcome*: between which bounds the number of orders, the contribution and the next order will really fall, the
parameters taken as right. From the models' exact distributions. It is wide, whatever the amount of data: customers
are free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from kernel.errors import ConfigError
from segments.histories import Floats, Ints
from segments.horizon import Horizon, discounted_orders
from segments.lifetime import BgNbd, count_probabilities, p_alive
from segments.predictions import LifetimeModels, checked_horizon, histories, order_values, waits_days
from segments.purchases import DAY_MS, Purchases
from segments.spending import GammaGamma, expected_value

_STEP = 1e-4
_MOST_ORDERS = 2**17


class Range(NamedTuple):
    """Lower and upper ends, one position per subject."""

    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Ranges of a level, say 0.9, per subject in the order of the purchases.

    Of the estimate: `p_alive`, `expected_orders`, `clv_minor`. Of the outcome: `orders` within the horizon,
    `contribution_minor` (margin × what they spend within the horizon, not discounted) and `next_order_ms` (if the
    subject still buys).
    """

    level: float
    p_alive: Range
    expected_orders: Range
    clv_minor: Range
    orders: Range
    contribution_minor: Range
    next_order_ms: Range


def intervals(
    purchases: Purchases,
    as_of_ms: int,
    models: LifetimeModels,
    *,
    horizon_days: float,
    margin: float,
    annual_discount: float,
    level: float = 0.9,
) -> Intervals:
    """Return how far the predictions of some subjects may be off; meant for a page or two of them, some ms each.

    Raises:
        ConfigError: as `predict`, or a level outside (0, 1), or models without a covariance.
    """
    if not 0 < level < 1:
        raise ConfigError(f"interval level {level:g}: give a share between 0 and 1, as 0.9")
    if models.bg.covariance is None or models.gg.covariance is None:
        raise ConfigError("the lifetime models have no covariance: fit them anew")
    horizon = checked_horizon(horizon_days, margin, annual_discount)
    x, t_x, age = histories(purchases, as_of_ms)
    n, mean = order_values(purchases)

    def estimates(bg: BgNbd, gg: GammaGamma) -> Floats:
        alive = p_alive(bg, x, t_x, age)
        ahead, discounted = discounted_orders(bg, x.astype(np.float64), age, horizon)
        clv = margin * expected_value(gg, n, mean) * alive * discounted
        return np.array([alive, alive * ahead, clv])

    low, high = _of_estimates(estimates, models, level)
    tails = ((1 - level) / 2, (1 + level) / 2)
    outcomes = [
        _of_outcome(models, horizon, margin, tails, subject)
        for subject in zip(x.tolist(), t_x.tolist(), age.tolist(), n.tolist(), mean.tolist(), strict=True)
    ]
    table = np.array(outcomes, dtype=np.float64).reshape(-1, 4)
    waits = [as_of_ms + np.rint(waits_days(models.bg, x, age, tail) * DAY_MS) for tail in tails]
    return Intervals(
        level=level,
        p_alive=Range(low[0], high[0]),
        expected_orders=Range(low[1], high[1]),
        clv_minor=Range(low[2], high[2]),
        orders=Range(table[:, 0], table[:, 1]),
        contribution_minor=Range(table[:, 2], table[:, 3]),
        next_order_ms=Range(*waits),
    )


def _of_estimates(
    estimates: Callable[[BgNbd, GammaGamma], Floats], models: LifetimeModels, level: float
) -> tuple[Floats, Floats]:
    """Return the ends of the estimates' intervals: symmetric in the logit of p_alive and in the log of the others."""
    from scipy.special import expit
    from scipy.stats import norm

    def stretched(bg: BgNbd, gg: GammaGamma) -> Floats:
        found = estimates(bg, gg)
        with np.errstate(divide="ignore"):
            return np.array([np.log(found[0]) - np.log1p(-found[0]), np.log(found[1]), np.log(found[2])])

    centre = stretched(models.bg, models.gg)
    slopes = []
    for i in range(7):
        up, down = (stretched(*_moved(models, i, side * _STEP)) for side in (1, -1))
        with np.errstate(invalid="ignore"):
            slopes.append(np.nan_to_num((up - down) / (2 * _STEP), nan=0.0, posinf=0.0, neginf=0.0))
    covariance = np.zeros((7, 7))
    covariance[:4, :4] = np.array(models.bg.covariance)
    covariance[4:, 4:] = np.array(models.gg.covariance)
    jacobian = np.array(slopes)
    spread = norm.ppf((1 + level) / 2) * np.sqrt(np.einsum("iqs,ij,jqs->qs", jacobian, covariance, jacobian))
    low, high = (np.vstack([expit(end[:1]), np.exp(end[1:])]) for end in (centre - spread, centre + spread))
    return low, high


def _moved(models: LifetimeModels, i: int, step: float) -> tuple[BgNbd, GammaGamma]:
    """Return the models with the i-th of the seven parameters moved, in logarithms."""
    values = np.array([*models.bg.values, *models.gg.values])
    values[i] *= np.exp(step)
    r, alpha, a, b, p, q, v = values.tolist()
    return replace(models.bg, r=r, alpha=alpha, a=a, b=b), replace(models.gg, p=p, q=q, v=v)


def _of_outcome(
    models: LifetimeModels,
    horizon: Horizon,
    margin: float,
    tails: tuple[float, float],
    subject: tuple[float, float, float, float, float],
) -> tuple[float, float, float, float]:
    """Return the ends of one subject's number of orders and of their contribution.

    What N orders bring is (v + n × mean) × G(pN)/G(pn + q), G standard gamma and independent: a beta-prime, mixed over
    the probabilities of N.
    """
    x, t_x, age, n, mean = subject
    most = 64
    chances = count_probabilities(models.bg, horizon.days, x, t_x, age, most)
    while chances.sum() < 1 - 1e-9 and most < _MOST_ORDERS:
        most *= 2
        chances = count_probabilities(models.bg, horizon.days, x, t_x, age, most)
    reached = np.cumsum(chances)
    counts = np.minimum(np.searchsorted(reached, tails), most).tolist()
    money = [margin * _spent(models.gg, n, mean, chances, tail) for tail in tails]
    return counts[0], counts[1], money[0], money[1]


def _spent(model: GammaGamma, n: float, mean: float, chances: Floats, tail: float) -> float:
    """Return the money below which a share of the outcomes lies: 0 where that many order nothing."""
    from scipy.optimize import brentq
    from scipy.special import betainc

    if chances[0] >= tail:
        return 0.0
    likely = np.flatnonzero(chances[1:] > 1e-12) + 1
    weights: Ints | Floats = chances[likely]
    scale = model.v + n * mean

    def short(share: float) -> float:
        return float(chances[0] + weights @ betainc(model.p * likely, model.p * n + model.q, share)) - tail

    share = brentq(short, 0.0, 1.0, xtol=1e-12)
    return float(scale * share / (1 - share))
