"""Textbook figures: the golden numbers, the conventions, and what has no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ConfigError
from segments.formulas import (
    Figure,
    Timing,
    Undefined,
    acquisition_cost,
    days_left,
    discounted_sum,
    lagged_acquisition_costs,
    payback_months,
    per_period_rate,
    retention_clv,
    roas,
    roi,
    simple_clv,
    stock_by_product,
    stock_in_total,
    value_to_cost,
)

END, NOW = Timing.END_OF_PERIOD, Timing.NOW
BOOK = {"margin_per_period": 120.0, "retention": 0.8, "discount": 0.1}


# --- customer lifetime value ---------------------------------------------------------------------------------


def test_the_simple_formula_gives_the_textbook_value_gross_and_net() -> None:
    assert simple_clv(order_value=100, orders_per_year=4, years=3, margin=0.30) == pytest.approx(360)
    assert simple_clv(order_value=100, orders_per_year=4, years=3, margin=0.30, acquisition_cost=90) == pytest.approx(
        270
    )


def test_both_timings_give_their_textbook_values_without_end_and_over_five_periods() -> None:
    assert retention_clv(**BOOK, timing=END) == pytest.approx(320)
    assert retention_clv(**BOOK, timing=NOW) == pytest.approx(440)
    assert round(retention_clv(**BOOK, timing=END, periods=5), 4) == 254.8917
    assert round(retention_clv(**BOOK, timing=NOW, periods=5), 4) == 350.4761


rates = st.floats(0, 0.99)


@given(rates, st.floats(0.01, 1), st.integers(1, 40), st.sampled_from(Timing))
def test_constant_retention_is_a_special_case_of_the_general_sum(
    retention: float, discount: float, periods: int, timing: Timing
) -> None:
    first = 1 if timing is END else 0
    survival = [retention ** (first + t) for t in range(periods)]
    general = discounted_sum([120.0] * periods, discount=discount, timing=timing, survival=survival)
    special = retention_clv(
        margin_per_period=120, retention=retention, discount=discount, timing=timing, periods=periods
    )
    assert special == pytest.approx(general, rel=1e-9)


@given(rates, st.floats(0.01, 1))
def test_without_end_the_two_timings_differ_by_one_margin(retention: float, discount: float) -> None:
    both = [
        retention_clv(margin_per_period=50, retention=retention, discount=discount, timing=timing)
        for timing in (NOW, END)
    ]
    assert both[0] - both[1] == pytest.approx(50)


def test_many_periods_come_near_the_sum_without_end() -> None:
    assert retention_clv(**BOOK, timing=END, periods=500) == pytest.approx(320)


def test_full_retention_without_discount_is_counted_but_not_without_end() -> None:
    certain = {"margin_per_period": 10.0, "retention": 1.0, "discount": 0.0}
    assert retention_clv(**certain, timing=NOW, periods=6) == 60
    with pytest.raises(ConfigError, match="adds up without end"):
        retention_clv(**certain, timing=NOW)


def test_the_discounted_sum_takes_losses_and_acquisition_cost() -> None:
    found = discounted_sum([110.0, -121.0], discount=0.1, timing=END, acquisition_cost=5)
    assert found == pytest.approx(110 / 1.1 - 121 / 1.21 - 5)
    assert discounted_sum([], discount=0.1, timing=NOW, acquisition_cost=5) == -5


@given(st.floats(-0.5, 2), st.integers(1, 365))
def test_a_rate_per_period_compounds_to_the_annual_one(annual: float, periods: int) -> None:
    assert (1 + per_period_rate(annual, periods)) ** periods == pytest.approx(1 + annual, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: simple_clv(order_value=1, orders_per_year=1, years=1, margin=30), "margin is 30: give a share"),
        (lambda: simple_clv(order_value=1, orders_per_year=-1, years=1), "orders_per_year is -1"),
        (lambda: retention_clv(margin_per_period=1, retention=80, discount=0.1, timing=END), "retention is 80"),
        (lambda: retention_clv(margin_per_period=1, retention=0.8, discount=-0.1, timing=END), "discount is -0.1"),
        (lambda: retention_clv(**BOOK, timing=END, periods=0), "0 periods"),
        (lambda: discounted_sum([1.0], discount=0.1, timing=END, survival=[1, 1]), "1 contributions but 2"),
        (lambda: discounted_sum([1.0], discount=0.1, timing=END, survival=[1.5]), "survival is 1.5"),
        (lambda: per_period_rate(-1, 12), "annual rate -1"),
        (lambda: per_period_rate(0.1, 0), "over 0 periods"),
        (lambda: lagged_acquisition_costs([1.0], [1, 2]), "1 periods of cost but 2"),
        (lambda: acquisition_cost(-1, 3), "cost is -1"),
        (lambda: roi(5, float("nan")), "cost is nan"),
    ],
)
def test_arguments_that_cannot_be_are_refused_with_their_value(call: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        call()  # type: ignore[operator]


# --- what customers cost -------------------------------------------------------------------------------------


def test_figures_by_their_definitions() -> None:
    assert acquisition_cost(9_000, 30) == Figure(value=300)
    assert value_to_cost(960, 300) == Figure(value=3.2)
    assert payback_months(300, 25) == Figure(value=12)
    assert roi(150, 100) == Figure(value=0.5)
    assert roi(50, 100) == Figure(value=-0.5)
    assert roas(400, 100) == Figure(value=4)


def test_what_would_divide_by_nothing_has_a_reason_instead_of_a_value() -> None:
    assert acquisition_cost(9_000, 0) == Figure(reason=Undefined.NO_CUSTOMERS)
    assert value_to_cost(960, 0) == Figure(reason=Undefined.NO_COST)
    assert payback_months(300, 0) == Figure(reason=Undefined.NO_MARGIN)
    assert payback_months(300, -4) == Figure(reason=Undefined.NO_MARGIN)
    assert roi(150, 0) == Figure(reason=Undefined.NO_COST)
    assert roas(400, 0) == Figure(reason=Undefined.NO_COST)


def test_a_lag_holds_cost_against_the_customers_of_later_periods() -> None:
    costs, customers = [100.0, 200.0, 300.0], [0, 5, 10]
    assert lagged_acquisition_costs(costs, customers) == [
        Figure(reason=Undefined.NO_CUSTOMERS),
        Figure(value=40),
        Figure(value=30),
    ]
    assert lagged_acquisition_costs(costs, customers, lag=1) == [Figure(value=20), Figure(value=20), None]
    assert lagged_acquisition_costs(costs, customers, lag=5) == [None, None, None]


# --- stock ---------------------------------------------------------------------------------------------------


def test_turnover_and_days_of_stock_of_a_product_that_was_always_there() -> None:
    found = stock_by_product([0] * 30, [500.0] * 30, [1_500])
    assert found.average.tolist() == [500]
    assert found.turnover.tolist() == [3]
    assert found.days_of_stock.tolist() == [10]
    assert found.turnover_per_year().tolist() == pytest.approx([36.5])
    assert (found.days_with.tolist(), found.days_without.tolist()) == ([30], [0])


def test_days_without_stock_are_left_out_and_counted() -> None:
    """100 in stock on 15 of 30 days, 50 sold in them: it lasts 30 days of being there, not 60."""
    found = stock_by_product([0] * 30, [100.0, 0.0] * 15, [50])
    assert found.average.tolist() == [100]
    assert (found.days_with.tolist(), found.days_without.tolist()) == ([15], [15])
    assert found.days_of_stock.tolist() == [30]


def test_the_mean_is_that_of_all_days_and_not_of_first_and_last() -> None:
    assert stock_by_product([0, 0, 0], [900.0, 100.0, 200.0], [400]).average.tolist() == [400]


def test_nothing_sold_and_never_in_stock_have_no_days_and_no_turnover() -> None:
    found = stock_by_product([0, 0, 1], [10.0, 10.0, 0.0], [0, 5, 7])
    assert found.turnover.tolist() == pytest.approx([0, np.nan, np.nan], nan_ok=True)
    assert np.isnan(found.days_of_stock).all()
    assert found.days_without.tolist() == [0, 1, 0]
    assert np.isnan(found.turnover_per_year()).tolist() == [False, True, True]


def test_the_total_is_not_the_mean_of_the_products() -> None:
    products = stock_by_product([0, 1, 0, 1], [100.0, 900.0, 100.0, 900.0], [300, 900])
    total = stock_in_total([0, 0, 1, 1], [100.0, 900.0, 100.0, 900.0], 1_200)
    assert products.turnover.tolist() == [3, 1]
    assert total.turnover.tolist() == [1.2]
    assert total.average.tolist() == [1_000]
    assert total.days_with.tolist() == [2]


def test_days_of_the_total_may_have_gaps_in_their_numbers() -> None:
    assert stock_in_total([0, 7], [100.0, 300.0], 100).average.tolist() == [200]
    empty = stock_in_total([], [], 100)
    assert np.isnan(empty.turnover).all()


@given(st.lists(st.tuples(st.integers(0, 4), st.just(0.0) | st.floats(0.01, 1e6)), max_size=60), st.randoms())
def test_the_order_of_snapshots_changes_nothing(rows: list[tuple[int, float]], random: object) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        stock_by_product([p for p, _ in order], [v for _, v in order], [10.0] * 5) for order in (rows, shuffled)
    )
    np.testing.assert_allclose(one.days_of_stock, other.days_of_stock, rtol=1e-9)
    assert one.days_without.tolist() == other.days_without.tolist()


@pytest.mark.parametrize(
    ("product", "value", "told"),
    [
        ([0, 2], [1.0, 1.0], "product 2, but goods sold are given of 2"),
        ([-1], [1.0], "position -1"),
        ([0], [1.0, 2.0], "1 snapshots but 2 values"),
        ([0], [-1.0], "must not be negative"),
        ([0], [float("nan")], "must not be negative"),
    ],
)
def test_snapshots_that_cannot_be_are_refused(product: list[int], value: list[float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        stock_by_product(product, value, [1, 1])


def test_days_left_at_a_pace() -> None:
    assert days_left([12, 5, 0, -3], [4, 0, 2, 1]).tolist() == [3, float("inf"), 0, 0]
