"""BG/NBD and MBG/NBD: published numbers, other implementations, and customers whose truth is known."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betaln

from kernel.errors import ConfigError
from segments import lifetime
from segments.histories import KINDS, Histories, Kind
from segments.lifetime import (
    BgNbd,
    count_probabilities,
    expected_orders,
    fit_bgnbd,
    log_likelihood,
    next_order_in,
    orders_if_alive,
    p_alive,
)
from tests.unit.lifetime_samples import cdnow, simulated, summary


def model(r: float, alpha: float, a: float, b: float, kind: Kind = "bg_nbd") -> BgNbd:
    return BgNbd(kind=kind, r=r, alpha=alpha, a=a, b=b, loglik=0.0, subjects=1)


@pytest.fixture(scope="module")
def fitted() -> BgNbd:
    _, x, t_x, age = summary().T
    return fit_bgnbd(x, t_x, age)


# --- published numbers ---------------------------------------------------------------------------------------


def test_the_sample_counts_up_to_the_published_summary() -> None:
    counted = cdnow()
    _, x, t_x, age = summary().T
    assert len(x) == 2_357
    assert (counted.x == x).all()
    assert counted.x.sum() == 2_457
    assert round(float((x == 0).mean()), 3) == 0.599
    assert max(np.abs(counted.t_x - t_x).max(), np.abs(counted.T - age).max()) < 0.005


def test_cdnow_has_the_published_parameters(fitted: BgNbd) -> None:
    assert [round(value, 3) for value in fitted.values] == [0.243, 4.414, 0.793, 2.426]
    assert fitted.values == pytest.approx((0.24259293, 4.41353204, 0.79288611, 2.42575323), rel=2e-7)
    assert round(fitted.loglik, 5) == -9582.42556
    assert fitted.doubts() == []


def test_no_parameters_near_the_optimum_have_a_larger_likelihood(fitted: BgNbd) -> None:
    _, x, t_x, age = summary().T
    assert log_likelihood(fitted, x, t_x, age) == pytest.approx(fitted.loglik, abs=1e-8)
    for values in np.array(fitted.values) * (1 + 1e-3 * np.vstack([np.eye(4), -np.eye(4)])):
        assert log_likelihood(model(*values), x, t_x, age) < fitted.loglik


def test_the_published_parameters_have_the_known_likelihood() -> None:
    _, x, t_x, age = summary().T
    assert round(log_likelihood(model(0.243, 4.414, 0.793, 2.426), x, t_x, age), 5) == -9582.42683


def test_the_customer_of_the_paper_is_expected_to_buy_as_often_as_it_says(fitted: BgNbd) -> None:
    expected = float(expected_orders(fitted, 39, 2, 30.43, 38.86))
    assert round(expected, 4) == 1.2259
    assert round(expected, 3) == 1.226


# --- other implementations -----------------------------------------------------------------------------------


def oracle(kind: Kind) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lifetimes import BetaGeoFitter, ModifiedBetaGeoFitter

        fitter = BetaGeoFitter() if kind == "bg_nbd" else ModifiedBetaGeoFitter()
        _, x, t_x, age = summary().T
        fitter.fit(x, t_x, age)
        return fitter


@pytest.mark.parametrize("kind", KINDS)
def test_lifetimes_finds_the_same_parameters_and_says_the_same_of_everybody(kind: Kind) -> None:
    _, x, t_x, age = summary().T
    other = oracle(kind)
    ours = fit_bgnbd(x, t_x, age, kind=kind)
    theirs = other.params_[["r", "alpha", "a", "b"]]
    assert ours.values == pytest.approx(tuple(theirs), rel=1e-3)
    same = model(*theirs, kind=kind)
    assert 0 <= ours.loglik - log_likelihood(same, x, t_x, age) < 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alive = other.conditional_probability_alive(x, t_x, age)
        ahead = other.conditional_expected_number_of_purchases_up_to_time(39, x, t_x, age)
    assert p_alive(same, x, t_x, age) == pytest.approx(np.asarray(alive), rel=1e-9)
    assert expected_orders(same, 39, x, t_x, age) == pytest.approx(np.asarray(ahead), rel=1e-8)


def by_integration(m: BgNbd, t: float, x: int, age: float) -> float:
    """E[(1 - (1 + pz)^-R) / p] over p ~ Beta(a, b+k), z = t/(alpha+T), R = r+x."""
    b, z = m.b + x + m.first_chance, t / (m.alpha + age)

    def value(p: float) -> float:
        return -np.expm1(-(m.r + x) * np.log1p(p * z)) / p if p else (m.r + x) * z

    def left(p: float) -> float:
        return value(p) * (1 - p) ** (b - 1)

    def right(p: float) -> float:
        return left(p) * p ** (m.a - 1)

    cut = min(0.5, 5 * (m.a + 1) / (m.a + b + 1))
    near = quad(left, 0, cut, weight="alg", wvar=(m.a - 1, 0), epsabs=0, epsrel=1e-9, limit=500)[0]
    far = quad(right, cut, 1, epsabs=1e-300, epsrel=1e-9, limit=500)[0]
    return float((near + far) / np.exp(betaln(m.a, b)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("a", [0.1, 0.8, 1 - 1e-7, 1.0, 1 + 1e-7, 1 + 5e-5, 2.5])
@pytest.mark.parametrize(("x", "age"), [(0, 1.0), (0, 700.0), (1, 90.0), (12, 400.0), (300, 900.0)])
@pytest.mark.parametrize("t", [1.0, 365.0, 3650.0])
def test_expected_orders_are_the_integral_they_stand_for(kind: Kind, a: float, x: int, age: float, t: float) -> None:
    m = model(0.4, 30.0, a, 2.4, kind)
    assert float(orders_if_alive(m, t, x, age)) == pytest.approx(by_integration(m, t, x, age), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(
    ("x", "age", "t"), [(2_000, 2_100.0, 3_650.0), (900, 950.0, 3_650.0), (40_000, 9_000.0, 900.0)]
)
def test_expected_orders_of_who_buys_every_day_are_finite_and_right(x: int, age: float, t: float) -> None:
    m = model(0.4, 30.0, 0.8, 2.4)
    assert not np.isfinite(lifetime._closed(m, m.a, np.array([t]), np.array([float(x)]), np.array([age]))).all()
    assert float(orders_if_alive(m, t, x, age)) == pytest.approx(by_integration(m, t, x, age), rel=1e-8)


# --- the likelihood ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("theta", [(-1.4, 1.5, -0.2, 0.9), (0.5, -0.5, 1.2, -0.7)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_the_likelihood(kind: Kind, theta: tuple[float, ...], weighted: bool) -> None:
    counted = cdnow()
    mass = np.random.default_rng(5).uniform(0.2, 3, len(counted.x)) if weighted else None
    rows = Histories.of(counted.x, counted.t_x, counted.T, mass, kind)
    _, gradient = rows.loglik(np.array(theta))
    step = 1e-5
    for i, slope in enumerate(gradient):
        aside = np.eye(4)[i] * step
        rise = rows.loglik(np.array(theta) + aside)[0] - rows.loglik(np.array(theta) - aside)[0]
        assert rise / (2 * step) == pytest.approx(slope, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_of_one_history_is_the_integral_over_rates_and_chances_to_stop(kind: Kind) -> None:
    """By Monte Carlo over the two distributions the model mixes, which shares nothing with the formula."""
    rng = np.random.default_rng(8)
    m = model(1.3, 9.0, 1.7, 2.9, kind)
    rate, stop = rng.gamma(m.r, 1 / m.alpha, 2_000_000), rng.beta(m.a, m.b, 2_000_000)
    for x, t_x, age in ((0, 0.0, 12.0), (1, 3.0, 12.0), (4, 10.0, 11.0)):
        chances = x + m.first_chance
        stays = (1 - stop) ** chances * rate**x * np.exp(-rate * age)
        left = stop * (1 - stop) ** (chances - 1) * rate**x * np.exp(-rate * t_x) if chances else 0 * rate
        drawn = stays + left
        error = drawn.std() / len(drawn) ** 0.5
        assert np.exp(log_likelihood(m, [x], [t_x], [age])) == pytest.approx(drawn.mean(), abs=4 * error)
        assert float(p_alive(m, x, t_x, age)) == pytest.approx(stays.mean() / drawn.mean(), rel=0.01)


def test_the_order_of_the_rows_and_the_unit_of_time_change_nothing_but_alpha(fitted: BgNbd) -> None:
    _, x, t_x, age = summary().T
    order = np.random.default_rng(2).permutation(len(x))
    in_days = fit_bgnbd(x[order], t_x[order] * 7, age[order] * 7)
    assert in_days.r == pytest.approx(fitted.r, rel=1e-7)
    assert in_days.alpha == pytest.approx(fitted.alpha * 7, rel=1e-7)
    assert in_days.loglik == pytest.approx(fitted.loglik - x.sum() * np.log(7), abs=1e-6)
    assert in_days.standard_errors == pytest.approx(
        {**(fitted.standard_errors or {}), "alpha": 7 * (fitted.standard_errors or {})["alpha"]}, rel=1e-3
    )


def test_equal_rows_may_come_as_one_with_a_weight() -> None:
    counted = cdnow()
    t_x, age = np.rint(counted.t_x * 7), np.rint(counted.T * 7)
    once, heads = np.unique(np.column_stack([counted.x, t_x, age]), axis=0, return_counts=True)
    assert len(once) < len(age)
    one_by_one = fit_bgnbd(counted.x, t_x + 0.0, age)
    weighted = fit_bgnbd(*once.T, heads)
    shifted = fit_bgnbd(counted.x, t_x * 1.5, age * 1.5)
    assert weighted.values == pytest.approx(one_by_one.values, rel=1e-8)
    assert weighted.subjects == one_by_one.subjects == len(age)
    assert shifted.r == pytest.approx(one_by_one.r, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_very_many_customers_have_the_optimum_a_plain_search_finds(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    age = np.random.default_rng(4).uniform(30, 900, 60_000)
    x, t_x = simulated((0.4, 30.0, 0.8, 2.4), age, 4, mbg=kind == "mbg_nbd")
    plain = fit_bgnbd(x, t_x, age, kind=kind)
    monkeypatch.setattr(lifetime, "_SAMPLE", 4_000)
    sampled = fit_bgnbd(x, t_x, age, kind=kind)
    assert sampled.values == pytest.approx(plain.values, rel=1e-6)
    assert sampled.slope < 1e-8
    assert plain.slope < 1e-8


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_customers_give_back_their_truth_within_the_standard_errors(kind: Kind) -> None:
    truth = (0.243, 4.414, 0.793, 2.426)
    age = np.random.default_rng(6).uniform(27, 156, 150_000)
    x, t_x = simulated(truth, age, 6, mbg=kind == "mbg_nbd")
    found = fit_bgnbd(x, t_x, age, kind=kind)
    errors = found.standard_errors
    assert errors is not None
    for name, value, true in zip(lifetime.NAMES, found.values, truth, strict=True):
        assert abs(value - true) < 4 * errors[name], name
        assert errors[name] < 0.1 * true


# --- what is asked of a history ------------------------------------------------------------------------------


def test_one_order_never_dies_in_bg_and_does_in_mbg() -> None:
    ages = np.array([1.0, 100.0, 2_000.0])
    one = np.zeros(3)
    assert (p_alive(model(0.4, 30, 0.8, 2.4), one, one, ages) == 1).all()
    fading = p_alive(model(0.4, 30, 0.8, 2.4, "mbg_nbd"), one, one, ages)
    assert (np.diff(fading) < 0).all()
    assert fading[0] < 1


histories_strategy = st.tuples(
    st.floats(0.05, 5), st.floats(1, 200), st.floats(0.05, 5), st.floats(0.05, 8), st.integers(0, 60),
    st.floats(0, 1), st.floats(0.5, 1500), st.floats(1, 2000), st.sampled_from(KINDS),
)  # fmt: skip


@given(histories_strategy)
@settings(max_examples=150, deadline=None)
def test_laws_of_a_history(drawn: tuple[float, float, float, float, int, float, float, float, Kind]) -> None:
    r, alpha, a, b, x, share, age, t, kind = drawn
    m, t_x = model(r, alpha, a, b, kind), share * age if x else 0.0
    alive = float(p_alive(m, x, t_x, age))
    sooner, later = (float(expected_orders(m, ahead, x, t_x, age)) for ahead in (t, 2 * t))
    assert 0 <= alive <= 1
    assert float(p_alive(m, x, t_x, age + 10)) <= alive
    assert 0 <= sooner <= later <= 2 * sooner * (1 + 1e-9) + 1e-12
    assert sooner <= (r + x) * t / (alpha + age) * (1 + 1e-9) + 1e-12


@given(histories_strategy)
@settings(max_examples=60, deadline=None)
def test_the_probabilities_of_counts_add_up_and_have_the_expected_mean(
    drawn: tuple[float, float, float, float, int, float, float, float, Kind],
) -> None:
    r, alpha, a, b, x, share, age, t, kind = drawn
    m, t_x = model(r, alpha, a, b, kind), share * age if x else 0.0
    chances = count_probabilities(m, min(t, age), x, t_x, age, 4_000)
    assert (chances >= 0).all()
    assert chances.sum() == pytest.approx(1, abs=1e-6)
    mean = float(expected_orders(m, min(t, age), x, t_x, age))
    assert float(chances @ np.arange(4_001)) == pytest.approx(mean, rel=1e-5, abs=1e-9)


def test_half_of_those_still_there_have_ordered_by_the_next_expected_order() -> None:
    m = model(0.6, 40.0, 0.8, 2.4)
    rng = np.random.default_rng(3)
    wait = rng.exponential(1, 400_000) / rng.gamma(m.r + 5, 1 / (m.alpha + 200), 400_000)
    assert (wait < float(next_order_in(m, 5, 200))).mean() == pytest.approx(0.5, abs=0.005)
    assert (wait < float(next_order_in(m, 5, 200, 0.95))).mean() == pytest.approx(0.95, abs=0.003)


# --- where it must not be used -------------------------------------------------------------------------------


def test_a_fit_to_who_never_came_back_is_doubted() -> None:
    found = fit_bgnbd(np.zeros(500), np.zeros(500), np.linspace(10, 300, 500))
    assert found.doubts()


def test_a_fit_to_who_never_stops_is_doubted_and_names_the_parameter() -> None:
    age = np.full(800, 200.0)
    x = np.random.default_rng(1).poisson(np.random.default_rng(2).gamma(2, 3, 800))
    t_x = np.where(x > 0, age - 0.01, 0.0)
    (doubt,) = fit_bgnbd(x, t_x, age).doubts()
    assert "a" in doubt.split("fit: ")[1].split(" ran")[0].split(", ")


@pytest.mark.parametrize(
    ("x", "t_x", "age", "told"),
    [
        ([], [], [], "no customers"),
        ([1, 2], [1.0], [2.0, 3.0], "differ in length: 2, 1, 2"),
        ([1, -1], [1, 1], [2, 2], "row 1: x=-1"),
        ([1.5], [1], [2], "x=1.5"),
        ([1], [3], [2], "t_x=3, T=2"),
        ([0], [1], [2], "t_x=1"),
        ([1], [1], [float("nan")], "T=nan"),
        ([float("nan")], [1], [2], "x=nan"),
        ([1], [1], [float("inf")], "T=inf"),
    ],
)
def test_what_is_no_history_is_refused_by_row(x: list[float], t_x: list[float], age: list[float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fit_bgnbd(x, t_x, age)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_weights_must_be_positive_numbers_one_each(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights must be 2 positive numbers"):
        fit_bgnbd([0, 1], [0, 1], [2, 2], weights)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'pareto' is unknown; choose one of bg_nbd, mbg_nbd"):
        fit_bgnbd([0, 1], [0, 1], [2, 2], kind="pareto")  # type: ignore[arg-type]


def test_one_customer_gives_an_answer_that_is_doubted() -> None:
    assert fit_bgnbd([3], [20.0], [30.0]).doubts()


def test_a_model_survives_json(fitted: BgNbd) -> None:
    assert BgNbd.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    doubted = fit_bgnbd(np.zeros(9), np.zeros(9), np.arange(1.0, 10.0))
    assert BgNbd.from_json(json.loads(json.dumps(doubted.to_json()))) == doubted


@pytest.mark.parametrize(("spread", "told"), [(0.5, []), (4.0, ["a", "b"])])
def test_a_fit_that_cannot_tell_how_buyers_stop_is_doubted(spread: float, told: list[str]) -> None:
    # The covariance is that of logarithms: a standard error of twice the parameter is a variance of 4 there.
    covariance = tuple(tuple(spread if i == j else 0.0 for j in range(4)) for i in range(4))
    model = BgNbd(kind="bg_nbd", r=1, alpha=10, a=0.3, b=5, loglik=-1.0, subjects=500, covariance=covariance)
    assert [doubt.split(": ")[1].split(" ")[0] for doubt in model.doubts()] == told
