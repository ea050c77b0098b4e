"""Gamma-Gamma: published numbers, another implementation, and customers whose truth is known."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ConfigError
from segments import spending
from segments.histories import Floats
from segments.spending import GammaGamma, expected_value, fit_gamma_gamma, value_correlation
from tests.unit.lifetime_samples import summary_with_values


def repeaters() -> tuple[Floats, Floats]:
    _, x, _, _, mean = summary_with_values().T
    return x[x > 0], mean[x > 0]


def drawn(size: int, seed: int) -> tuple[Floats, Floats]:
    """Customers after the published parameters, v in cents."""
    rng = np.random.default_rng(seed)
    n = rng.geometric(0.3, size).astype(np.float64)
    return n, rng.gamma(6.25 * n, 1 / rng.gamma(3.74, 1 / 1544, size)) / n


def test_cdnow_has_the_published_parameters() -> None:
    x, mean = repeaters()
    found = fit_gamma_gamma(x, mean)
    assert len(x) == 946
    assert [round(value, 5) for value in found.values] == [6.24880, 3.74459, 15.44775]
    assert round(found.loglik, 3) == -4055.923
    assert round(found.population_mean, 3) == 35.171
    assert round(float(mean.mean()), 3) == 35.079
    assert round(value_correlation(x, mean) or 0, 3) == 0.114
    assert found.doubts() == []


def test_no_parameters_near_the_optimum_have_a_larger_likelihood() -> None:
    x, mean = repeaters()
    found = fit_gamma_gamma(x, mean)
    rows = spending._Values.of(x.astype(np.int64), mean, None)
    best = np.log(found.values)
    assert rows.loglik(best)[0] == pytest.approx(found.loglik, abs=1e-8)
    for aside in 1e-3 * np.vstack([np.eye(3), -np.eye(3)]):
        assert rows.loglik(best + aside)[0] < found.loglik


def test_lifetimes_finds_the_same_parameters_and_says_the_same_of_everybody() -> None:
    x, mean = repeaters()
    ours = fit_gamma_gamma(x, mean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lifetimes import GammaGammaFitter

        other = GammaGammaFitter()
        other.fit(x, mean)
        theirs = np.asarray(other.conditional_expected_average_profit(x, mean))
    p, q, v = (float(other.params_[name]) for name in ("p", "q", "v"))
    assert ours.values == pytest.approx((p, q, v), rel=1e-3)
    same = GammaGamma(p=p, q=q, v=v, loglik=0, subjects=946)
    assert expected_value(same, x, mean) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("theta", [(1.8, 1.3, 0.5), (0.1, -0.4, 2.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_the_likelihood(theta: tuple[float, ...], weighted: bool) -> None:
    n, mean = drawn(20_000, 1)
    mass = np.random.default_rng(5).uniform(0.2, 3, len(n)) if weighted else None
    rows = spending._Values.of(n.astype(np.int64), mean / mean.mean(), mass)
    _, gradient = rows.loglik(np.array(theta))
    for i, slope in enumerate(gradient):
        aside = np.eye(3)[i] * 1e-5
        rise = rows.loglik(np.array(theta) + aside)[0] - rows.loglik(np.array(theta) - aside)[0]
        assert rise / 2e-5 == pytest.approx(slope, rel=1e-6, abs=1e-2)


def test_simulated_customers_give_back_their_truth_within_the_standard_errors() -> None:
    found = fit_gamma_gamma(*drawn(150_000, 2))
    errors = found.standard_errors
    assert errors is not None
    for name, value, true in zip(spending.NAMES, found.values, (6.25, 3.74, 1544), strict=True):
        assert abs(value - true) < 4 * errors[name], name
        assert errors[name] < 0.1 * true


def test_very_many_customers_have_the_optimum_a_plain_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    n, mean = drawn(60_000, 3)
    plain = fit_gamma_gamma(n, mean)
    monkeypatch.setattr(spending, "_SAMPLE", 4_000)
    assert fit_gamma_gamma(n, mean).values == pytest.approx(plain.values, rel=1e-6)


def test_order_of_rows_and_unit_of_money_change_nothing_but_v() -> None:
    n, mean = drawn(5_000, 4)
    order = np.random.default_rng(1).permutation(len(n))
    one, other = fit_gamma_gamma(n, mean), fit_gamma_gamma(n[order], mean[order] / 100)
    assert (other.p, other.q, other.v * 100) == pytest.approx(one.values, rel=1e-6)
    assert other.loglik == pytest.approx(one.loglik + len(n) * np.log(100), abs=1e-4)


def test_a_row_with_weight_two_is_two_rows() -> None:
    n, mean = drawn(3_000, 5)
    twice = fit_gamma_gamma(np.repeat(n, 2), np.repeat(mean, 2))
    weighted = fit_gamma_gamma(n, mean, np.full(len(n), 2.0))
    assert weighted.values == pytest.approx(twice.values, rel=1e-6)
    assert weighted.subjects == twice.subjects


@given(st.integers(1, 500), st.floats(0.01, 1e6))
def test_the_expected_value_lies_between_own_and_population_mean(n: int, mean: float) -> None:
    m = GammaGamma(p=6.25, q=3.74, v=15.44, loglik=0, subjects=1)
    low, high = sorted((mean, m.population_mean))
    assert low * (1 - 1e-12) <= float(expected_value(m, n, mean)) <= high * (1 + 1e-12)


def test_who_has_no_orders_with_money_is_expected_to_spend_as_everybody() -> None:
    m = GammaGamma(p=6.25, q=3.74, v=15.44, loglik=0, subjects=1)
    assert expected_value(m, [0, 0], [0.0, -80.0]) == pytest.approx([m.population_mean] * 2)


def test_equal_values_leave_the_fit_in_doubt() -> None:
    assert fit_gamma_gamma(np.arange(1, 400), np.full(399, 50.0)).doubts()


def test_values_without_a_mean_are_doubted() -> None:
    rng = np.random.default_rng(9)
    n = rng.integers(2, 9, 4_000)
    mean = rng.gamma(4.0 * n, 1 / rng.gamma(0.6, 1, 4_000)) / n
    found = fit_gamma_gamma(n, mean)
    assert found.q < 1
    (doubt,) = found.doubts()
    assert "must be above 1" in doubt
    assert found.population_mean == float("inf")


@pytest.mark.parametrize(
    ("n", "mean", "told"),
    [
        ([], [], "no customers with money"),
        ([1, 2], [3.0], "differ in length: 2, 1"),
        ([1, 0], [3.0, 3.0], "row 1: n=0"),
        ([1, 2], [3.0, 0.0], "row 1: n=2, mean=0"),
        ([1, 2], [-3.0, 1.0], "row 0: n=1, mean=-3"),
        ([1, 2.5], [3.0, 1.0], "n=2.5"),
        ([1, 2], [3.0, float("nan")], "mean=nan"),
    ],
)
def test_what_cannot_be_is_refused_by_row(n: list[float], mean: list[float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fit_gamma_gamma(n, mean)


def test_without_variation_there_is_no_correlation() -> None:
    assert value_correlation([2, 2, 2], [1.0, 2.0, 3.0]) is None
    assert value_correlation([1, 2, 3], [5.0, 5.0, 5.0]) is None
    assert value_correlation([1], [5.0]) is None
    assert value_correlation([1, 2, 3], [2.0, 4.0, 6.0]) == pytest.approx(1)


def test_a_model_survives_json() -> None:
    found = fit_gamma_gamma(*drawn(2_000, 6))
    assert GammaGamma.from_json(json.loads(json.dumps(found.to_json()))) == found
