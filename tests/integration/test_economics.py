"""What new customers cost and are worth, by channel and period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from kernel.errors import ConfigError
from segments.economics import Economics, economics
from segments.formulas import Undefined
from store.engine import reading, writing
from store.tables import accounts, orders, profiles, spend

NOW = datetime(2026, 4, 1, tzinfo=UTC)
JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
MONTHS = {JANUARY: FEBRUARY, FEBRUARY: MARCH}


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """Ads and a fair in January and February; four new customers of ads, one of the fair, one of no channel."""
    firsts = [
        ("A1", "ads", JANUARY, 100_000),
        ("A2", "ads", JANUARY + timedelta(days=30), 50_000),
        ("A3", "ads", FEBRUARY, 30_000),
        ("A4", "ads", datetime(2025, 12, 31, 23, tzinfo=UTC), 900_000),
        ("A5", "fair", JANUARY + timedelta(days=3), 10_000),
        ("A6", None, JANUARY + timedelta(days=4), 20_000),
    ]
    with writing(engine) as connection:
        for number, (name, channel, first, net) in enumerate(firsts, start=1):
            attributes = {"channel": channel} if channel else {}
            connection.execute(accounts.insert(), {"id": number, "external_id": name, "attributes": attributes})
            for n, (at, kind, amount) in enumerate(
                [(first, "order", net), (first + timedelta(days=9), "return", -1000), (NOW, "order", 77)]
            ):
                row = {"external_id": f"{name}-{n}", "account_id": number, "ordered_at": at, "kind": kind}
                money = {"net_minor": amount, "gross_minor": max(amount, 0), "currency": "EUR"}
                connection.execute(orders.insert(), row | money)
        connection.execute(
            profiles.insert(),
            {"subject": "account", "subject_id": 1, "scored_as": 1, "scored_at": NOW, "first_order_at": JANUARY}
            | {"last_order_at": JANUARY, "orders": 1, "days": 1, "net_minor": 99_000, "returned_minor": 1000}
            | {"clv_minor": 60_000},
        )
        for channel, start, amount in [("ads", JANUARY, 40_000), ("ads", FEBRUARY, 40_000), ("fair", JANUARY, 0)]:
            row = {"external_id": f"{channel} {start}", "channel": channel, "starts_at": start, "currency": "EUR"}
            connection.execute(spend.insert(), row | {"ends_at": MONTHS[start], "amount_minor": amount})
    return engine


def test_spend_below_nothing_is_named(shop: Engine) -> None:
    with writing(shop) as connection:
        connection.execute(spend.update().where(spend.c.channel == "fair").values(amount_minor=-500))
    with pytest.raises(ConfigError, match="spend of 'fair' from 2026-01-01 is below nothing"):
        _report(shop)


def _report(engine: Engine, **options: timedelta) -> Economics:
    with reading(engine) as connection:
        return economics(connection, as_of=NOW, currency="EUR", margin=0.5, **options)


def test_cac_is_the_cost_of_a_period_over_customers_whose_first_order_lies_in_it(shop: Engine) -> None:
    january, february, fair = _report(shop).rows
    assert (january.channel, january.new_customers, january.cac_minor.value) == ("ads", 2, 20_000)
    assert (february.new_customers, february.cac_minor.value) == (1, 40_000)
    assert (fair.new_customers, fair.cac_minor.value) == (1, 0)


def test_value_is_contribution_so_far_and_what_the_model_expects(shop: Engine) -> None:
    january = _report(shop).rows[0]
    # Returns are taken off, the order of the very instant asked about is not known yet, and half is contribution.
    assert january.contribution_minor == (100_000 + 50_000 - 2_000) // 2
    assert (january.clv_minor, january.clv_known) == (january.contribution_minor + 60_000, 1)
    assert january.clv_to_cac.value == pytest.approx(january.clv_minor / 2 / 20_000)
    assert january.roi_to_date.value == pytest.approx((74_000 - 40_000) / 40_000)


def test_no_cost_and_no_customers_are_reasons_and_not_numbers(shop: Engine) -> None:
    fair = _report(shop).rows[2]
    assert (fair.roi_to_date.value, fair.roi_to_date.reason) == (None, Undefined.NO_COST)
    assert (fair.clv_to_cac.value, fair.clv_to_cac.reason) == (None, Undefined.NO_COST)
    later = _report(shop, lag=timedelta(days=45)).rows
    assert [row.cac_minor.reason for row in later] == [Undefined.NO_CUSTOMERS] * 3


def test_a_lag_holds_the_cost_against_later_customers(shop: Engine) -> None:
    january = _report(shop, lag=timedelta(days=30)).rows[0]
    # From 31 January to 2 March: A2 of 31 January and A3 of 1 February.
    assert january.new_customers == 2
    assert january.contribution_minor == (50_000 + 30_000 - 2_000) // 2


def test_the_total_counts_each_customer_once_and_tells_whom_it_leaves_out(shop: Engine) -> None:
    report = _report(shop)
    assert report.total is not None
    assert (report.total.new_customers, report.total.cost_minor) == (4, 80_000)
    assert any("1 new customers of these periods belong to no channel with spend" in note for note in report.notes)


def test_spend_in_another_currency_is_refused_and_so_is_none_at_all(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="import a source of kind spend"):
        _report(engine)
    with writing(engine) as connection:
        row = {"external_id": "x", "channel": "ads", "starts_at": JANUARY, "ends_at": FEBRUARY}
        connection.execute(spend.insert(), row | {"amount_minor": 1, "currency": "USD"})
    with pytest.raises(ConfigError, match="'ads' from 2026-01-01 is in USD, not EUR"):
        _report(engine)
