"""Lifetime value for scoring: both models fitted to purchases, or refused with reasons, and asked about everybody.

Conventions: days, as floats. A transaction is a distinct UTC day with an order, so x = days - 1, t_x = last order -
first order, T = date asked about - first order. An order value is net money over days with an order, the first
included, of everybody whose net is positive; who has none left (all returned) is given the population mean, as
somebody of whom nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernel.errors import ConfigError
from segments import lifetime, spending
from segments.histories import Floats, Ints, Kind
from segments.horizon import Horizon, orders_ahead
from segments.lifetime import BgNbd, fit_bgnbd, next_order_in, p_alive
from segments.purchases import DAY_MS, Purchases
from segments.spending import GammaGamma, expected_value, fit_gamma_gamma, value_correlation

FEWEST_REPEATERS = 200
LONGEST_WAIT_DAYS = 36_500
"""A next order expected later than in a hundred years is given as in a hundred years."""
_MANY_ONCE = 0.5
_CORRELATED = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why there are no lifetime values: every reason as a sentence, and how many buyers there are."""

    reasons: tuple[str, ...]
    subjects: int
    repeaters: int

    def to_json(self) -> dict[str, Any]:
        return {"reasons": list(self.reasons), "subjects": self.subjects, "repeaters": self.repeaters}


@dataclass(frozen=True, slots=True, kw_only=True)
class LifetimeReport:
    """What the models were fitted to.

    `repeaters` bought on at least two days. `valued` have positive net money; the others, `unvalued`, took no part in
    the model of order values. `correlation` is that of purchase days and mean value among repeaters, which the
    models take to be 0; None where either does not vary. `warnings` are sentences.
    """

    as_of_ms: int
    subjects: int
    repeaters: int
    valued: int
    unvalued: int
    correlation: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LifetimeModels:
    """Both fitted models, in days and minor units, with their report."""

    bg: BgNbd
    gg: GammaGamma
    report: LifetimeReport

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal object."""
        return {"bg": self.bg.to_json(), "gg": self.gg.to_json(), "report": asdict(self.report)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LifetimeModels:
        """Return what `to_json` wrote, also after a way through JSON text."""
        report = value["report"]
        return cls(
            bg=BgNbd.from_json(value["bg"]),
            gg=GammaGamma.from_json(value["gg"]),
            report=LifetimeReport(**{**report, "warnings": tuple(report["warnings"])}),
        )

    def summary(self) -> dict[str, Any]:
        """Return what people look at: parameters, standard errors, log-likelihoods and the report."""
        return {
            "bg": _facts(self.bg, lifetime.NAMES) | {"kind": self.bg.kind},
            "gg": _facts(self.gg, spending.NAMES) | {"population_mean_minor": self.gg.population_mean},
            **asdict(self.report),
        }


def _facts(model: BgNbd | GammaGamma, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "parameters": dict(zip(names, model.values, strict=True)),
        "standard_errors": model.standard_errors,
        "loglik": model.loglik,
        "subjects": model.subjects,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """One position per subject, in the order of the purchases.

    `expected_orders` are days with an order within the horizon. `order_value_minor` is the expected net value of one,
    `clv_minor` the discounted contribution within the horizon. `next_order_ms` is the median instant of the next
    order if the subject still buys: read it beside `p_alive`.
    """

    p_alive: Floats
    expected_orders: Floats
    order_value_minor: Ints
    clv_minor: Ints
    next_order_ms: Ints


def histories(purchases: Purchases, as_of_ms: int) -> tuple[Ints, Floats, Floats]:
    """Return x, t_x and T of each subject, times in days.

    Raises:
        ConfigError: somebody's last order is not before the instant.
    """
    late = purchases.last_ms > as_of_ms
    if late.any():
        raise ConfigError(
            f"{int(late.sum())} buyers have an order after the date asked about (the first one is number "
            f"{int(purchases.ids[np.argmax(late)])}); count only orders before it"
        )
    x = purchases.days - 1
    t_x = np.where(x > 0, (purchases.last_ms - purchases.first_ms) / DAY_MS, 0.0)
    return x, t_x, (as_of_ms - purchases.first_ms) / DAY_MS


def order_values(purchases: Purchases) -> tuple[Ints, Floats]:
    """Return purchase days and mean net value of a day, both 0 where there is no positive net to speak of."""
    n = np.where(purchases.net_minor > 0, purchases.days, 0)
    return n, np.where(n > 0, purchases.net_minor / np.maximum(n, 1), 0.0)


def fit_models(purchases: Purchases, as_of_ms: int, kind: Kind = "bg_nbd") -> LifetimeModels | Refusal:
    """Return both models fitted to what was bought before an instant, or why they must not be used.

    Refused are fewer than 200 repeaters; order values that do not vary; parameters at a bound; no clear maximum of the
    likelihood; and order values without a mean (q <= 1).

    Raises:
        ConfigError: an order is not before the instant, or `kind` is unknown.
    """
    x, t_x, age = histories(purchases, as_of_ms)
    n, mean = order_values(purchases)
    valued = n > 0
    repeaters = int((x > 0).sum())
    reasons = _too_little(repeaters, int((n > 1).sum()), mean[valued])
    if reasons:
        return Refusal(reasons=tuple(reasons), subjects=len(purchases), repeaters=repeaters)
    bg = fit_bgnbd(x, t_x, age, kind=kind)
    gg = fit_gamma_gamma(n[valued], mean[valued])
    reasons = [*bg.doubts(), *gg.doubts()]
    if reasons:
        return Refusal(reasons=tuple(reasons), subjects=len(purchases), repeaters=repeaters)
    correlation = value_correlation(n[n > 1], mean[n > 1])
    report = LifetimeReport(
        as_of_ms=as_of_ms,
        subjects=len(purchases),
        repeaters=repeaters,
        valued=int(valued.sum()),
        unvalued=int((~valued).sum()),
        correlation=correlation,
        warnings=tuple(_warnings(kind, 1 - repeaters / len(purchases), correlation)),
    )
    return LifetimeModels(bg=bg, gg=gg, report=report)


def _too_little(repeaters: int, valued_repeaters: int, mean: Floats) -> list[str]:
    """Return what the data lack, before anything is fitted."""
    if repeaters < FEWEST_REPEATERS:
        return [f"only {repeaters} buyers ordered on more than one day; the models need at least {FEWEST_REPEATERS}"]
    if valued_repeaters < FEWEST_REPEATERS:
        return [
            f"only {valued_repeaters} repeat buyers have money left after returns; at least {FEWEST_REPEATERS} must"
        ]
    if mean.min() == mean.max():
        return ["all buyers spend exactly the same on an order: there is no variation to model order values by"]
    return []


def _warnings(kind: Kind, once: float, correlation: float | None) -> list[str]:
    found = []
    if kind == "bg_nbd" and once > _MANY_ONCE:
        found.append(
            f"{once:.0%} of the buyers ordered once, and bg_nbd takes each of them to be still there; compare mbg_nbd"
        )
    if correlation is not None and abs(correlation) > _CORRELATED:
        found.append(
            f"number and value of orders go together (correlation {correlation:.2f}); the models take them to be "
            "independent, so take lifetime values with care"
        )
    return found


def predict(
    purchases: Purchases,
    as_of_ms: int,
    bg: BgNbd,
    gg: GammaGamma,
    *,
    horizon_days: float,
    margin: float,
    annual_discount: float,
) -> Predictions:
    """Return what the models say of everybody.

    Args:
        purchases: What was bought before the instant; net money in the unit `gg` was fitted in.
        as_of_ms: Now.
        bg: Fitted in days.
        gg: Fitted with all purchase days, the first included.
        horizon_days: How far ahead.
        margin: Share of net money that is contribution.
        annual_discount: What a year's waiting costs, 0.1 for ten per cent. Each month's orders count as at its end.

    Raises:
        ConfigError: an order is not before the instant, or horizon, margin or discount cannot be.
    """
    horizon = checked_horizon(horizon_days, margin, annual_discount)
    x, t_x, age = histories(purchases, as_of_ms)
    if not len(x):
        nobody, nothing = np.zeros(0), np.zeros(0, dtype=np.int64)
        return Predictions(
            p_alive=nobody, expected_orders=nobody, order_value_minor=nothing, clv_minor=nothing, next_order_ms=nothing
        )
    alive = p_alive(bg, x, t_x, age)
    ahead, discounted = orders_ahead(bg, x, age, horizon)
    value = expected_value(gg, *order_values(purchases))
    return Predictions(
        p_alive=alive,
        expected_orders=alive * ahead,
        order_value_minor=_whole(value),
        clv_minor=_whole(margin * value * alive * discounted),
        next_order_ms=as_of_ms + _whole(waits_days(bg, x, age) * DAY_MS),
    )


def waits_days(bg: BgNbd, x: Ints, age: Floats, share: float = 0.5) -> Floats:
    """Return the wait by which a share of those still there will have ordered, at most a hundred years."""
    return np.minimum(next_order_in(bg, x, age, share), LONGEST_WAIT_DAYS)


def checked_horizon(horizon_days: float, margin: float, annual_discount: float) -> Horizon:
    """Return the horizon.

    Raises:
        ConfigError: it is not ahead, or margin or discount are none.
    """
    if not 0 < horizon_days <= LONGEST_WAIT_DAYS:
        raise ConfigError(
            f"lifetime horizon of {horizon_days:g} days: give more than 0 and at most {LONGEST_WAIT_DAYS}"
        )
    if not 0 < margin <= 1:
        raise ConfigError(f"lifetime margin {margin:g}: give a share above 0 and at most 1, as 0.3 for 30 %")
    if not 0 <= annual_discount < 1:
        raise ConfigError(f"annual discount {annual_discount:g}: give a rate from 0 to below 1, as 0.1 for 10 %")
    return Horizon(days=horizon_days, annual_discount=annual_discount)


def _whole(values: Floats) -> NDArray[np.int64]:
    return np.rint(values).astype(np.int64)
