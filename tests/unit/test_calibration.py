"""Hold-out calibration: the known result on CDNOW, and purchases held against what came later."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kernel.errors import ConfigError
from segments.calibration import BackTest, Calibration, back_test, calibrate
from segments.histories import Floats, Ints
from segments.lifetime import BgNbd, expected_orders, fit_bgnbd
from segments.predictions import Refusal
from segments.purchases import DAY_MS, Purchases
from tests.unit.lifetime_samples import AS_OF_MS, cdnow, purchases, summary

HOLD_OUT_DAYS = 200


@pytest.fixture(scope="module")
def weeks_39() -> Calibration:
    _, x, t_x, age = summary().T
    return calibrate(fit_bgnbd(x, t_x, age), x, t_x, age, 39, cdnow().held_out)


def test_cdnow_is_predicted_an_eighth_too_low_and_that_is_told(weeks_39: Calibration) -> None:
    assert weeks_39.customers == 2_357
    assert weeks_39.actual == 1_882
    assert round(weeks_39.predicted, 2) == 1653.42
    assert round(weeks_39.error or 0, 2) == -0.12
    assert round(weeks_39.correlation or 0, 3) == 0.626
    assert round(weeks_39.mae, 3) == 0.785


def test_the_simplest_forecast_stands_beside_it(weeks_39: Calibration) -> None:
    _, x, _, age = summary().T
    own_rate = x / age * 39
    assert weeks_39.naive_predicted == pytest.approx(own_rate.sum())
    assert weeks_39.naive_mae == pytest.approx(np.abs(own_rate - cdnow().held_out).mean())
    assert weeks_39.mae < weeks_39.naive_mae


def test_groups_are_by_repeat_purchases_and_add_up_to_the_totals(weeks_39: Calibration) -> None:
    groups = weeks_39.groups
    assert [group.repeats for group in groups] == list(range(8))
    assert [group.and_more for group in groups] == [False] * 7 + [True]
    assert sum(group.customers for group in groups) == weeks_39.customers
    assert groups[0].customers == int((summary()[:, 1] == 0).sum())
    assert sum(group.customers * group.actual_mean for group in groups) == pytest.approx(weeks_39.actual)
    assert sum(group.customers * group.predicted_mean for group in groups) == pytest.approx(weeks_39.predicted)
    assert all(one.predicted_mean < other.predicted_mean for one, other in pairwise(groups))


def test_a_calibration_is_plain_json(weeks_39: Calibration) -> None:
    value = json.loads(json.dumps(weeks_39.to_json()))
    assert value["actual"] == 1_882
    assert value["groups"][7]["and_more"] is True


def test_a_period_without_purchases_has_no_relative_error_and_no_correlation() -> None:
    m = BgNbd(kind="bg_nbd", r=0.5, alpha=30, a=0.8, b=2.4, loglik=0, subjects=1)
    found = calibrate(m, [0, 2], [0, 20], [50, 60], 10, [0, 0])
    assert (found.error, found.correlation, found.actual) == (None, None, 0)
    assert found.predicted == found.mae * 2 == pytest.approx(expected_orders(m, 10, [0, 2], [0, 20], [50, 60]).sum())


@pytest.mark.parametrize(
    ("length", "actual", "told"),
    [(0, [1, 1], "length 0"), (5, [1], "must be 2 numbers"), (5, [1, -1], "must be 2 numbers from 0")],
)
def test_what_is_no_hold_out_is_refused(length: float, actual: list[int], told: str) -> None:
    m = BgNbd(kind="bg_nbd", r=0.5, alpha=30, a=0.8, b=2.4, loglik=0, subjects=1)
    with pytest.raises(ConfigError, match=told):
        calibrate(m, [0, 2], [0, 20], [50, 60], length, actual)


# --- purchases -----------------------------------------------------------------------------------------------


def lived(size: int, seed: int) -> tuple[Purchases, Purchases]:
    """Purchases of the same customers known at the earlier and at the later date; each order is worth 1,000 or so."""
    rng = np.random.default_rng(seed)
    rate, stop = rng.gamma(0.8, 1 / 30, size), rng.beta(0.8, 2.4, size)
    age = rng.uniform(1, 900, size)
    worth = rng.gamma(3.74, 1 / 1_000, size)
    orders = [[0.0] for _ in range(size)]
    for i, days in enumerate(orders):
        while len(days) == 1 or rng.random() >= stop[i]:
            following = days[-1] + rng.exponential(1) / max(rate[i], 1e-12)
            if following > age[i]:
                break
            days.append(following)
    values = [rng.gamma(6.25, 1 / worth[i], len(days)) for i, days in enumerate(orders)]
    then = age - HOLD_OUT_DAYS
    return _known(orders, values, age, then), _known(orders, values, age, age)


def _known(orders: list[list[float]], values: list[Floats], age: Floats, until: Floats) -> Purchases:
    kept = [i for i in range(len(orders)) if until[i] >= 0]
    counts = [sum(day <= until[i] for day in orders[i]) for i in kept]
    last = np.array([orders[i][n - 1] for i, n in zip(kept, counts, strict=True)])
    net = np.array([round(float(values[i][:n].sum())) + 1 for i, n in zip(kept, counts, strict=True)])
    found = purchases(np.array(counts) - 1, last, age[kept], net)
    return replace(found, ids=np.array(kept) + 1)


@pytest.fixture(scope="module")
def before_and_after() -> tuple[Purchases, Purchases]:
    return lived(6_000, 7)


BEFORE_MS = AS_OF_MS - HOLD_OUT_DAYS * DAY_MS


def test_models_that_are_true_predict_days_and_money_of_the_time_held_out(
    before_and_after: tuple[Purchases, Purchases],
) -> None:
    before, after = before_and_after
    found = back_test(before, BEFORE_MS, after, AS_OF_MS)
    assert isinstance(found, BackTest)
    assert found.orders.length == HOLD_OUT_DAYS
    assert found.orders.customers == len(before)
    there = np.isin(after.ids, before.ids)
    assert found.orders.actual == int((after.days[there] - before.days).sum())
    assert found.actual_minor == int((after.net_minor[there] - before.net_minor).sum())
    assert found.newcomers == len(after) - len(before) > 0
    assert found.revised == 0
    assert abs(found.orders.error or 1) < 0.05
    assert found.predicted_minor == pytest.approx(found.actual_minor, rel=0.08)
    assert json.loads(json.dumps(found.to_json()))["models"]["bg"]["kind"] == "bg_nbd"


def test_later_cancellations_count_as_nothing_bought_and_are_told(
    before_and_after: tuple[Purchases, Purchases],
) -> None:
    before, after = before_and_after
    days = after.days.copy()
    place = int(np.flatnonzero(after.ids == before.ids[0])[0])
    days[place] = 0
    plain, revised = (back_test(before, BEFORE_MS, who, AS_OF_MS) for who in (after, replace(after, days=days)))
    assert isinstance(plain, BackTest)
    assert isinstance(revised, BackTest)
    assert revised.revised == 1
    assert revised.orders.actual == plain.orders.actual - int(after.days[place] - before.days[0])


def test_buyers_who_are_gone_altogether_count_as_nothing_bought(before_and_after: tuple[Purchases, Purchases]) -> None:
    before, after = before_and_after
    nobody: Ints = np.zeros(0, dtype=np.int64)
    found = back_test(before, BEFORE_MS, after.take(nobody), AS_OF_MS)
    assert isinstance(found, BackTest)
    assert (found.orders.actual, found.revised, found.newcomers) == (0, len(before), 0)


def test_too_few_buyers_before_the_date_are_refused_with_the_reason(
    before_and_after: tuple[Purchases, Purchases],
) -> None:
    before, after = before_and_after
    found = back_test(before.take(np.arange(50)), BEFORE_MS, after, AS_OF_MS)
    assert isinstance(found, Refusal)
    assert "need at least 200" in found.reasons[0]


def test_dates_in_the_wrong_order_are_refused(before_and_after: tuple[Purchases, Purchases]) -> None:
    before, after = before_and_after
    with pytest.raises(ConfigError, match="must come after"):
        back_test(before, AS_OF_MS, after, BEFORE_MS)
