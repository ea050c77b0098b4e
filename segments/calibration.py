"""Whether the lifetime models would have been right: fitted up to a date, held against what happened after it.

The usual picture: customers by how often they had bought before the date, and for each group what was predicted and
what really came. Beside it the simplest forecast there is, everybody going on at their own rate (x / T × length), so
that it can be seen what the model is good for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kernel.errors import ConfigError
from segments.histories import Floats, Ints, Kind, checked_history
from segments.lifetime import BgNbd, expected_orders
from segments.predictions import LifetimeModels, Refusal, fit_models, histories, order_values
from segments.purchases import DAY_MS, Purchases
from segments.spending import expected_value

LAST_GROUP = 7
"""Everybody with this many repeat purchases or more is one group, as in the published figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationGroup:
    """Customers with the same number of repeat purchases before the date; the means are per customer, after it."""

    repeats: int
    and_more: bool
    customers: int
    predicted_mean: float
    actual_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Predicted and actual purchases after the date.

    `error` is (predicted - actual) / actual of the totals, None where nothing was bought. `mae` is the mean absolute
    error per customer, `correlation` that of predicted and actual per customer, None where either does not vary;
    `naive_…` are the same of everybody going on at their own rate.
    """

    length: float
    customers: int
    predicted: float
    actual: int
    error: float | None
    mae: float
    correlation: float | None
    naive_predicted: float
    naive_mae: float
    groups: tuple[CalibrationGroup, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under stable keys."""
        return {**asdict(self), "groups": [asdict(group) for group in self.groups]}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackTest:
    """A calibration of both models on purchases: the models of the earlier date, days with orders, and net money.

    Lengths are in days. `newcomers` first bought after the date and take no part; `revised` are buyers whose
    later cancellations left them fewer days with orders than were known at the date: they count as 0.
    """

    models: LifetimeModels
    orders: Calibration
    predicted_minor: int
    actual_minor: int
    newcomers: int
    revised: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values under stable keys; the models by their summary."""
        return {
            "models": self.models.summary(),
            "orders": self.orders.to_json(),
            "predicted_minor": self.predicted_minor,
            "actual_minor": self.actual_minor,
            "newcomers": self.newcomers,
            "revised": self.revised,
        }


def calibrate(
    model: BgNbd,
    x: ArrayLike,
    t_x: ArrayLike,
    T: ArrayLike,  # noqa: N803
    length: float,
    actual: ArrayLike,
) -> Calibration:
    """Return how the purchases of a hold-out period compare with what the model says of the time before it.

    Args:
        model: Fitted to the time before.
        x: Repeat purchases before; with t_x and T, in the model's unit of time.
        t_x: Time from the first purchase to the last before.
        T: Time from the first purchase to the end of the time before.
        length: Of the hold-out period.
        actual: Purchases of each customer in the hold-out period.

    Raises:
        ConfigError: a history that cannot be, no length, or numbers of purchases that are none.
    """
    counts, last, age = checked_history(x, t_x, T)
    bought = np.atleast_1d(np.asarray(actual, dtype=np.float64))
    if not length > 0:
        raise ConfigError(f"hold-out period of length {length:g}: give more than 0")
    if len(bought) != len(counts) or not (bought >= 0).all():
        raise ConfigError(f"actual purchases must be {len(counts)} numbers from 0")
    predicted = expected_orders(model, length, counts, last, age)
    naive = np.divide(counts * length, age, out=np.zeros(len(age)), where=age > 0)
    total = float(bought.sum())
    return Calibration(
        length=length,
        customers=len(counts),
        predicted=float(predicted.sum()),
        actual=int(total),
        error=float(predicted.sum() - total) / total if total else None,
        mae=float(np.abs(predicted - bought).mean()),
        correlation=_correlation(predicted, bought),
        naive_predicted=float(naive.sum()),
        naive_mae=float(np.abs(naive - bought).mean()),
        groups=_groups(counts, predicted, bought),
    )


def _correlation(one: Floats, other: Floats) -> float | None:
    if one.min() == one.max() or other.min() == other.max():
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _groups(x: Ints, predicted: Floats, actual: Floats) -> tuple[CalibrationGroup, ...]:
    """Return the groups that have customers, by ascending number of repeat purchases."""
    group = np.minimum(x, LAST_GROUP)
    sizes = np.bincount(group)
    sums = np.bincount(group, weights=predicted), np.bincount(group, weights=actual)
    return tuple(
        CalibrationGroup(
            repeats=int(repeats),
            and_more=bool(repeats == LAST_GROUP),
            customers=int(sizes[repeats]),
            predicted_mean=float(sums[0][repeats] / sizes[repeats]),
            actual_mean=float(sums[1][repeats] / sizes[repeats]),
        )
        for repeats in np.flatnonzero(sizes)
    )


def back_test(
    before: Purchases, before_ms: int, after: Purchases, after_ms: int, kind: Kind = "bg_nbd"
) -> BackTest | Refusal:
    """Return what models fitted to an earlier date say of the time up to a later one, and what came.

    Args:
        before: Purchases as they were known at the earlier date.
        before_ms: The earlier date, at best a midnight UTC: a day on both sides of it counts once.
        after: Purchases as they are known at the later date.
        after_ms: The later date.
        kind: As for `fit_models`.

    Raises:
        ConfigError: the dates are in the wrong order, or an order is not before its date.
    """
    if after_ms <= before_ms:
        raise ConfigError(f"the later date ({after_ms}) must come after the earlier one ({before_ms})")
    models = fit_models(before, before_ms, kind)
    if isinstance(models, Refusal):
        return models
    days, net = _later(before, after)
    x, t_x, age = histories(before, before_ms)
    gained = days - before.days
    orders = calibrate(models.bg, x, t_x, age, (after_ms - before_ms) / DAY_MS, np.maximum(gained, 0))
    value = expected_value(models.gg, *order_values(before))
    predicted = expected_orders(models.bg, orders.length, x, t_x, age)
    return BackTest(
        models=models,
        orders=orders,
        predicted_minor=round(float(predicted @ value)),
        actual_minor=int((net - before.net_minor).sum()),
        newcomers=int((~np.isin(after.ids, before.ids, assume_unique=True)).sum()),
        revised=int((gained < 0).sum()),
    )


def _later(before: Purchases, after: Purchases) -> tuple[Ints, Ints]:
    """Return days with orders and net money at the later date of who had bought at the earlier; 0 of who is gone."""
    if not len(after):
        return np.zeros(len(before), dtype=np.int64), np.zeros(len(before), dtype=np.int64)
    place = np.minimum(np.searchsorted(after.ids, before.ids), len(after) - 1)
    there = after.ids[place] == before.ids
    return np.where(there, after.days[place], 0), np.where(there, after.net_minor[place], 0)
