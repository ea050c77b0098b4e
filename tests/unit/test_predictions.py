"""Lifetime values of everybody: the fast way against the formula, refusals with their reasons, intervals."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import ConfigError
from segments import horizon
from segments.histories import KINDS, Kind
from segments.horizon import TOLERANCE, Horizon, discounted_orders, orders_ahead
from segments.lifetime import BgNbd, expected_orders, p_alive
from segments.predictions import LifetimeModels, Predictions, Refusal, fit_models, histories, order_values, predict
from segments.purchases import DAY_MS, Purchases
from segments.spending import GammaGamma, expected_value
from segments.uncertainty import intervals
from tests.unit.lifetime_samples import AS_OF_MS, purchases, simulated_purchases

BG = BgNbd(kind="bg_nbd", r=0.6, alpha=40.0, a=0.8, b=2.4, loglik=0, subjects=1)
GG = GammaGamma(p=6.25, q=3.74, v=1544.0, loglik=0, subjects=1)
YEAR = {"horizon_days": 365.0, "margin": 0.4, "annual_discount": 0.1}


@pytest.fixture(scope="module")
def crowd() -> Purchases:
    return simulated_purchases(20_000, 12)


@pytest.fixture(scope="module")
def models(crowd: Purchases) -> LifetimeModels:
    found = fit_models(crowd, AS_OF_MS)
    assert isinstance(found, LifetimeModels)
    return found


# --- orders ahead --------------------------------------------------------------------------------------------


@given(
    st.floats(0.02, 20), st.floats(0.05, 3_000), st.floats(0.05, 20), st.floats(0.05, 20), st.sampled_from(KINDS),
    st.floats(1, 1_500), st.floats(0, 0.9), st.floats(1, 6_000), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_what_is_read_off_polynomials_is_the_formula_to_the_tolerance(
    r: float, alpha: float, a: float, b: float, kind: Kind, days: float, discount: float, oldest: float, seed: int
) -> None:
    model = BgNbd(kind=kind, r=r, alpha=alpha, a=a, b=b, loglik=0, subjects=1)
    rng = np.random.default_rng(seed)
    x = rng.choice([0, 1, 40, 400], 320)
    age = rng.uniform(0, oldest, len(x)) + x
    ahead = Horizon(days=days, annual_discount=discount)
    fast, slow = orders_ahead(model, x, age, ahead), discounted_orders(model, x.astype(np.float64), age, ahead)
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


def test_very_many_are_computed_at_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = horizon.discounted_orders

    def counted(model: BgNbd, x: np.ndarray, age: np.ndarray, ahead: Horizon) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(x))
        return plain(model, x, age, ahead)

    monkeypatch.setattr(horizon, "discounted_orders", counted)
    rng = np.random.default_rng(1)
    orders_ahead(
        BG, rng.integers(0, 10, 50_000), rng.uniform(10, 1_000, 50_000), Horizon(days=365, annual_discount=0.1)
    )
    assert sum(asked) < 500


def test_everybody_of_the_same_age_is_answered_too() -> None:
    x, age = np.repeat([0, 3], 500), np.full(1_000, 200.0)
    found, _ = orders_ahead(BG, x, age, Horizon(days=90, annual_discount=0))
    assert found == pytest.approx(np.repeat(expected_orders(BG, 90, [0, 3], 0, 200) / p_alive(BG, [0, 3], 0, 200), 500))


def test_a_horizon_of_a_year_has_twelve_months_and_others_a_shorter_last_one() -> None:
    ends, discounts = Horizon(days=365, annual_discount=0.1).steps()
    assert len(ends) == 12
    assert ends[-1] == pytest.approx(365)
    assert discounts[-1] == pytest.approx(1 / 1.1)
    assert (1 / discounts[0]) ** 12 == pytest.approx(1.1)
    assert Horizon(days=40, annual_discount=0).steps()[0].tolist() == pytest.approx([365 / 12, 40])
    assert Horizon(days=10, annual_discount=0).steps()[0].tolist() == [10]


# --- predictions ---------------------------------------------------------------------------------------------


def test_lifetime_value_is_margin_times_value_times_discounted_monthly_orders(crowd: Purchases) -> None:
    found = predict(crowd, AS_OF_MS, BG, GG, **YEAR)
    for i in range(0, len(crowd), 997):
        x, age = int(crowd.days[i]) - 1, (AS_OF_MS - int(crowd.first_ms[i])) / DAY_MS
        t_x = (int(crowd.last_ms[i]) - int(crowd.first_ms[i])) / DAY_MS if x else 0.0
        until = [float(expected_orders(BG, m * 365 / 12, x, t_x, age)) for m in range(13)]
        total = sum((until[m] - until[m - 1]) / 1.1 ** (m / 12) for m in range(1, 13))
        value = float(expected_value(GG, x + 1, crowd.net_minor[i] / (x + 1)))
        assert found.p_alive[i] == pytest.approx(float(p_alive(BG, x, t_x, age)))
        assert found.expected_orders[i] == pytest.approx(until[12], abs=1e-8)
        assert found.order_value_minor[i] == round(value)
        assert found.clv_minor[i] == pytest.approx(0.4 * value * total, abs=0.51)


def test_without_discount_lifetime_value_is_contribution_of_the_expected_orders(crowd: Purchases) -> None:
    found = predict(crowd, AS_OF_MS, BG, GG, horizon_days=200, margin=1.0, annual_discount=0.0)
    assert found.clv_minor == pytest.approx(found.expected_orders * found.order_value_minor, rel=1e-3, abs=1)


def test_permuting_subjects_changes_nobodys_prediction(crowd: Purchases) -> None:
    order = np.random.default_rng(3).permutation(len(crowd))
    one, other = (predict(who, AS_OF_MS, BG, GG, **YEAR) for who in (crowd, crowd.take(order)))
    for field in fields(Predictions):
        np.testing.assert_allclose(getattr(one, field.name)[order], getattr(other, field.name), rtol=1e-9)


def test_a_prediction_is_the_same_alone_as_among_many(crowd: Purchases) -> None:
    among = predict(crowd, AS_OF_MS, BG, GG, **YEAR)
    alone = predict(crowd.take(np.array([17])), AS_OF_MS, BG, GG, **YEAR)
    assert alone.expected_orders[0] == pytest.approx(among.expected_orders[17], abs=2 * TOLERANCE)
    assert abs(int(alone.clv_minor[0] - among.clv_minor[17])) <= 1


def test_who_returned_everything_is_given_the_population_mean() -> None:
    who = purchases(np.array([0, 3]), np.array([0.0, 50.0]), np.array([90.0, 90.0]), np.array([0, -12_000]))
    found = predict(who, AS_OF_MS, BG, GG, **YEAR)
    assert found.order_value_minor.tolist() == [round(GG.population_mean)] * 2
    assert (found.clv_minor > 0).all()


def test_two_orders_on_one_day_are_one_transaction() -> None:
    who = replace(
        purchases(np.array([0]), np.array([0.0]), np.array([90.25]), np.array([5_000])),
        last_ms=np.array([AS_OF_MS - 90 * DAY_MS]),
        orders=np.array([2]),
    )
    x, t_x, age = histories(who, AS_OF_MS)
    assert (x.tolist(), t_x.tolist(), age.tolist()) == ([0], [0.0], [90.25])
    assert [column.tolist() for column in order_values(who)] == [[1], [5_000.0]]


def test_the_next_order_is_ahead_and_at_most_a_hundred_years() -> None:
    rare = replace(BG, r=0.01)
    who = purchases(np.array([0, 20]), np.array([0.0, 300.0]), np.array([900.0, 301.0]), np.array([100, 100]))
    found = predict(who, AS_OF_MS, rare, GG, **YEAR)
    assert found.next_order_ms[0] == AS_OF_MS + 36_500 * DAY_MS
    assert AS_OF_MS < found.next_order_ms[1] < AS_OF_MS + 30 * DAY_MS


def test_nobody_gives_empty_predictions(crowd: Purchases) -> None:
    found = predict(crowd.take(np.zeros(0, dtype=np.int64)), AS_OF_MS, BG, GG, **YEAR)
    assert [len(getattr(found, field.name)) for field in fields(Predictions)] == [0] * 5
    assert found.clv_minor.dtype == np.int64


def test_orders_after_the_date_are_refused_with_their_number(crowd: Purchases) -> None:
    late = int((crowd.last_ms > AS_OF_MS - 5 * DAY_MS).sum())
    assert late > 0
    with pytest.raises(ConfigError, match=f"{late} buyers have an order after the date asked about"):
        predict(crowd, AS_OF_MS - 5 * DAY_MS, BG, GG, **YEAR)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"horizon_days": 0}, "horizon of 0 days"),
        ({"horizon_days": 40_000}, "horizon of 40000 days"),
        ({"margin": 0}, "margin 0"),
        ({"margin": 30}, "margin 30: give a share"),
        ({"annual_discount": -0.1}, "discount -0.1"),
        ({"annual_discount": 10}, "discount 10: give a rate"),
    ],
)
def test_a_horizon_that_cannot_be_is_refused_with_its_value(
    crowd: Purchases, change: dict[str, float], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        predict(crowd, AS_OF_MS, BG, GG, **{**YEAR, **change})


# --- fitting or refusing -------------------------------------------------------------------------------------


def test_models_are_fitted_with_their_report(crowd: Purchases, models: LifetimeModels) -> None:
    assert models.report.subjects == len(crowd)
    assert models.report.repeaters == int((crowd.days > 1).sum())
    assert models.report.valued + models.report.unvalued == len(crowd)
    assert models.report.correlation == pytest.approx(0, abs=0.05)
    assert models.bg.values == pytest.approx((0.6, 40, 0.8, 2.4), rel=0.25)
    assert models.gg.population_mean == pytest.approx(GG.population_mean, rel=0.03)
    assert models.summary()["bg"]["standard_errors"] == models.bg.standard_errors
    assert LifetimeModels.from_json(json.loads(json.dumps(models.to_json()))) == models


def test_who_returned_everything_takes_no_part_in_the_values(crowd: Purchases) -> None:
    net = crowd.net_minor.copy()
    net[:300] = -5
    found = fit_models(replace(crowd, net_minor=net), AS_OF_MS, "mbg_nbd")
    assert isinstance(found, LifetimeModels)
    assert (found.report.unvalued, found.gg.subjects) == (300, len(crowd) - 300)
    assert found.bg.subjects == len(crowd)
    assert found.bg.kind == "mbg_nbd"


def test_bg_nbd_warns_where_most_ordered_once_and_mbg_nbd_does_not(crowd: Purchases) -> None:
    once = np.flatnonzero(crowd.days == 1)
    again = np.flatnonzero(crowd.days > 1)[: len(once) // 2]
    few = crowd.take(np.sort(np.concatenate([once, again])))
    warned = {}
    for kind in KINDS:
        found = fit_models(few, AS_OF_MS, kind)
        assert isinstance(found, LifetimeModels)
        warned[kind] = [text for text in found.report.warnings if "ordered once" in text]
    assert len(warned["bg_nbd"]) == 1
    assert warned["mbg_nbd"] == []


def test_values_that_go_with_the_number_of_orders_are_warned_of(crowd: Purchases) -> None:
    found = fit_models(replace(crowd, net_minor=crowd.net_minor * crowd.days), AS_OF_MS)
    assert isinstance(found, LifetimeModels)
    assert any("correlation" in text for text in found.report.warnings)
    assert (found.report.correlation or 0) > 0.3


def reasons(who: Purchases) -> str:
    found = fit_models(who, AS_OF_MS)
    assert isinstance(found, Refusal)
    assert found.to_json()["reasons"] == list(found.reasons)
    return " ".join(found.reasons)


def test_too_few_repeaters_are_refused_with_their_number(crowd: Purchases) -> None:
    repeaters = np.flatnonzero(crowd.days > 1)
    assert "only 199 buyers ordered on more than one day" in reasons(crowd.take(repeaters[:199]))
    assert isinstance(fit_models(crowd.take(repeaters[:1]), AS_OF_MS), Refusal)
    assert isinstance(fit_models(crowd.take(repeaters[:0]), AS_OF_MS), Refusal)


def test_all_equal_amounts_are_refused(crowd: Purchases) -> None:
    assert "no variation" in reasons(replace(crowd, net_minor=crowd.days * 2_500))


def test_negative_totals_throughout_are_refused(crowd: Purchases) -> None:
    assert "only 0 repeat buyers have money left" in reasons(replace(crowd, net_minor=-crowd.net_minor))


def test_buyers_who_never_stop_are_refused_for_a_parameter_at_its_bound() -> None:
    rng = np.random.default_rng(5)
    x = 1 + rng.poisson(rng.gamma(2, 3, 1_000))
    who = purchases(x, np.full(1_000, 199.9), np.full(1_000, 200.0), rng.integers(100, 9_000, 1_000))
    assert "ran to a bound" in reasons(who)


# --- intervals -----------------------------------------------------------------------------------------------


def test_intervals_hold_the_predictions(crowd: Purchases, models: LifetimeModels) -> None:
    few = crowd.take(np.arange(0, 20_000, 1_000))
    found = predict(few, AS_OF_MS, models.bg, models.gg, **YEAR)
    ranges = intervals(few, AS_OF_MS, models, **YEAR)
    assert (ranges.p_alive.low <= found.p_alive).all()
    assert (found.p_alive <= ranges.p_alive.high).all()
    for (low, high), centre in (
        (ranges.expected_orders, found.expected_orders),
        (ranges.clv_minor, found.clv_minor),
        (ranges.next_order_ms, found.next_order_ms),
    ):
        assert (low < centre).all()
        assert (centre < high).all()


def test_a_higher_level_is_wider_and_more_customers_make_the_estimate_narrower(
    crowd: Purchases, models: LifetimeModels
) -> None:
    few = crowd.take(np.arange(5))
    narrow, wide = (intervals(few, AS_OF_MS, models, **YEAR, level=level) for level in (0.5, 0.99))
    assert (wide.clv_minor.high > narrow.clv_minor.high).all()
    assert (wide.contribution_minor.high > narrow.contribution_minor.high).all()
    fewer = fit_models(crowd.take(np.arange(2_000)), AS_OF_MS)
    assert isinstance(fewer, LifetimeModels)
    loose = intervals(few, AS_OF_MS, fewer, **YEAR, level=0.5)
    assert (np.subtract(*loose.expected_orders[::-1]) > np.subtract(*narrow.expected_orders[::-1])).all()


def test_nine_of_ten_outcomes_fall_into_the_interval(models: LifetimeModels) -> None:
    """One customer's future, played 200,000 times after the model: days with an order, and what they bring."""
    who = purchases(np.array([6]), np.array([150.0]), np.array([180.0]), np.array([70_000]))
    bg, gg, size = models.bg, models.gg, 200_000
    rng = np.random.default_rng(4)
    rate = rng.gamma(bg.r + 6, 1 / (bg.alpha + 180), size)
    stop = rng.beta(bg.a, bg.b + 6, size)
    there = rng.random(size) < float(p_alive(bg, 6, 150.0, 180.0))
    orders, now = np.zeros(size), np.zeros(size)
    while there.any():
        now += rng.exponential(1, size) / rate
        there &= now <= 365
        orders += there
        there &= rng.random(size) >= stop
    scale = rng.gamma(gg.p * 7 + gg.q, 1 / (gg.v + 70_000), size)
    money = 0.4 * rng.gamma(gg.p * np.maximum(orders, 1e-9), 1 / scale) * (orders > 0)
    ranges = intervals(who, AS_OF_MS, models, **YEAR, level=0.9)
    high, low = ranges.orders.high[0], ranges.orders.low[0]
    assert (orders <= high).mean() >= 0.949
    assert (orders <= high - 1).mean() < 0.951
    assert (orders < low).mean() <= 0.051
    assert (money <= ranges.contribution_minor.high[0]).mean() == pytest.approx(0.95, abs=0.002)
    assert (money <= ranges.contribution_minor.low[0]).mean() == pytest.approx(
        max(0.05, (orders == 0).mean()), abs=0.002
    )


def test_estimates_spread_over_samples_as_their_interval_says() -> None:
    """Of thirty samples of customers about nine in ten give an interval that holds the truth."""
    truth = BgNbd(kind="bg_nbd", r=0.6, alpha=40.0, a=0.8, b=2.4, loglik=0, subjects=1)
    who = purchases(np.array([4]), np.array([150.0]), np.array([220.0]), np.array([9_000]))
    true = float(expected_orders(truth, 365, 4, 150, 220))
    held = 0
    for seed in range(30):
        found = fit_models(simulated_purchases(2_000, 100 + seed), AS_OF_MS)
        assert isinstance(found, LifetimeModels)
        low, high = intervals(who, AS_OF_MS, found, **YEAR).expected_orders
        held += bool(low[0] <= true <= high[0])
    assert 22 <= held <= 30


def test_who_ordered_once_is_surely_alive_in_bg_nbd(models: LifetimeModels) -> None:
    who = purchases(np.array([0]), np.array([0.0]), np.array([400.0]), np.array([900]))
    assert intervals(who, AS_OF_MS, models, **YEAR).p_alive == ([1.0], [1.0])


@pytest.mark.parametrize("level", [0, 1, 90])
def test_a_level_must_be_a_share(models: LifetimeModels, crowd: Purchases, level: float) -> None:
    with pytest.raises(ConfigError, match=f"interval level {level}"):
        intervals(crowd.take(np.arange(2)), AS_OF_MS, models, **YEAR, level=level)


def test_models_without_covariance_have_no_intervals(models: LifetimeModels, crowd: Purchases) -> None:
    bare = replace(models, bg=replace(models.bg, covariance=None))
    with pytest.raises(ConfigError, match="no covariance"):
        intervals(crowd.take(np.arange(2)), AS_OF_MS, bare, **YEAR)
