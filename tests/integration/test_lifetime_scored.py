"""Lifetime value on profiles: predicted, tested against the past, refused with reasons."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments.lifetime_answers import of_subjects, shown, textbook
from segments.models import ModelKind
from segments.scoring import HERE, ProfileRun, refresh_profiles
from store.engine import reading, writing
from store.tables import accounts, orders
from tests.integration.buying import DAY, NOW, add, kept, open_shop, seed, settings, versions

KIND = ModelKind.LIFETIME
HALF = {"margin": 0.5, "horizon": "365d", "annual_discount": 0.1}


def refresh(engine: Engine, now: datetime = NOW, lifetime: dict[str, Any] | None = None, **options: Any) -> ProfileRun:
    own = settings(lifetime=lifetime or {})
    return refresh_profiles(engine, own, subject=Subject.ACCOUNT, now=now, kinds=[KIND], **options)


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """A shop of 800 buyers, with lifetime values."""
    open_shop(engine, buyers=800)
    refresh(engine)
    return engine


def test_every_buyer_has_predictions_that_make_sense(shop: Engine) -> None:
    rows = kept(shop).values()
    (model,) = versions(shop)
    assert {row.lifetime_model_id for row in rows} == {model.id}
    assert all(0 < row.p_alive <= 1 for row in rows)
    assert all(row.expected_orders >= 0 and row.order_value_minor > 0 and row.clv_minor >= 0 for row in rows)
    assert all(row.clv_minor <= row.expected_orders * row.order_value_minor + 1 for row in rows)
    assert all(row.next_order_at > NOW for row in rows)
    recent = [row.p_alive for row in rows if NOW - row.last_order_at < 30 * DAY]
    silent = [row.p_alive for row in rows if NOW - row.last_order_at > 365 * DAY and row.orders > 3]
    assert np.mean(recent) > 0.7 > 0.1 > np.mean(silent)


def test_half_the_margin_is_half_the_value(shop: Engine) -> None:
    whole = {n: row.clv_minor for n, row in kept(shop).items()}
    refresh(shop, lifetime={"margin": 0.5})
    assert all(abs(row.clv_minor - whole[n] / 2) <= 1 for n, row in kept(shop).items())


def test_time_alone_lowers_the_probability_to_be_there(shop: Engine) -> None:
    before = {n: row.p_alive for n, row in kept(shop).items() if row.days > 1}
    run = refresh(shop, NOW + 3 * DAY)
    assert not run.refitted
    after = kept(shop)
    assert all(after[n].p_alive < value for n, value in before.items())


def test_only_some_are_predicted_anew_by_the_frozen_model(shop: Engine) -> None:
    before = {n: row.p_alive for n, row in kept(shop).items()}
    add(shop, {"account": 7, "days": -0.5})
    run = refresh(shop, NOW + DAY, only=np.array([7]))
    assert run.changed.tolist() == [7]
    after = kept(shop)
    assert {n for n in before if after[n].p_alive != before[n]} == {7}


def test_the_model_is_tested_against_the_past_it_did_not_see(shop: Engine) -> None:
    with reading(shop) as connection:
        found = shown(connection, Subject.ACCOUNT)
    tested = found["calibration"]
    assert tested["sampled"] == 800
    assert 200 < tested["orders"]["length"] < 250
    assert abs(tested["orders"]["error"]) < 0.2
    assert tested["orders"]["mae"] < tested["orders"]["naive_mae"] * 1.2
    assert sum(group["customers"] for group in tested["orders"]["groups"]) == tested["orders"]["customers"]
    assert found["totals"]["subjects"] == 800
    assert found["report"]["correlation"] == pytest.approx(0, abs=0.2)


def test_single_subjects_come_with_intervals_of_the_estimate_and_of_the_outcome(shop: Engine) -> None:
    with writing(shop) as connection:
        connection.execute(accounts.insert().values(id=9_000, external_id="prospect"))
    rows = kept(shop)
    chosen = max(rows, key=lambda n: rows[n].days)
    with reading(shop) as connection:
        many, prospect = of_subjects(
            connection, settings(), HERE, [f"A{chosen}", "prospect"], subject=Subject.ACCOUNT, now=NOW, level=0.8
        )
        with pytest.raises(ConfigError, match="there is no account 'X'"):
            of_subjects(connection, settings(), HERE, ["X"], subject=Subject.ACCOUNT, now=NOW)
    row = rows[chosen]
    assert prospect == {"subject": "prospect", "bought": False}
    assert (many["p_alive"], many["clv_minor"]) == (row.p_alive, row.clv_minor)
    low, high = many["intervals"]["estimate"]["p_alive"]
    assert low < row.p_alive < high
    low, high = many["intervals"]["outcome"]["orders"]
    assert low <= row.expected_orders <= high + 1


def test_too_few_repeat_buyers_are_refused_with_the_reason_and_nobody_has_a_value(engine: Engine) -> None:
    seed(engine, *[{"account": n, "days": n} for n in range(1, 9)], firms=9)
    run = refresh(engine)
    assert run.models[KIND].state == "refused"
    assert "only 0 buyers ordered on more than one day" in run.models[KIND].note
    rows = kept(engine).values()
    assert {(row.p_alive, row.expected_orders, row.clv_minor, row.next_order_at) for row in rows} == {(None,) * 4}
    assert {row.orders for row in rows} == {1}
    assert not refresh(engine, NOW + DAY).refitted
    assert refresh(engine, NOW + 8 * DAY).refitted == {KIND}
    with reading(engine) as connection:
        assert shown(connection, Subject.ACCOUNT)["report"]["reasons"]
        with pytest.raises(ConfigError, match="was refused: only 0 buyers"):
            of_subjects(connection, settings(), HERE, ["A1"], subject=Subject.ACCOUNT, now=NOW)


def test_a_model_that_stood_is_replaced_by_a_refusal_and_its_values_go(shop: Engine) -> None:
    with writing(shop) as connection:
        connection.execute(orders.delete().where(orders.c.account_id > 100))
    run = refresh(shop, NOW + DAY, refit=[KIND])
    assert run.models[KIND].state == "refused"
    assert {row.clv_minor for row in kept(shop).values()} == {None}
    assert [row.state for row in versions(shop)] == ["retired", "refused"]


def test_nobody_one_buyer_equal_amounts_and_money_below_nothing_are_refused_or_valued(engine: Engine) -> None:
    assert refresh(engine).models[KIND].state == "refused"
    equal = [{"account": n, "days": 3 + (1 + n % 40) * k, "net": 1000} for n in range(1, 301) for k in range(1, 4)]
    seed(engine, *equal, firms=300)
    run = refresh(engine, refit=[KIND])
    assert "all buyers spend exactly the same on an order" in run.models[KIND].note


def test_who_sent_all_back_is_worth_the_mean_of_unknown_means_at_most(engine: Engine) -> None:
    open_shop(engine, buyers=400)
    add(engine, {"account": 5, "days": 0.5, "kind": "return", "net": -90_000_000})
    refresh(engine)
    row = kept(engine)[5]
    assert row.net_minor < 0
    assert row.order_value_minor >= 0
    assert row.clv_minor >= 0


# --- the textbook --------------------------------------------------------------------------------------------


def test_the_textbook_formulas_are_computed_from_the_year_before(engine: Engine) -> None:
    seed(engine, firms=4)
    old = [{"account": n, "days": 500, "net": 5_000} for n in (1, 2, 3, 4)]
    new = [{"account": n, "days": days, "net": 10_000} for n in (1, 2) for days in (10, 100, 200, 300)]
    add(engine, *old, *new)
    with reading(engine) as connection:
        found = textbook(
            connection, settings(lifetime={"margin": 0.3}), HERE, subject=Subject.ACCOUNT, as_of=NOW, years=3
        )
    assert (found["active"], found["order_value_minor"], found["orders_per_year"]) == (2, 10_000, 4)
    assert (found["retention"], found["retention_measured"]) == (0.5, 0.5)
    assert found["simple_minor"] == 36_000
    assert found["discounted_minor"] == {
        "end_of_period": round(12_000 * 0.5 / 0.6),
        "now": round(12_000 * 1.1 / 0.6),
    }
    assert found["value_to_cost"] is None
    assert found["predicted_minor"] is None


def test_the_textbook_says_what_it_lacks(engine: Engine) -> None:
    with reading(engine) as connection, pytest.raises(ConfigError, match="no account ordered within the 365 days"):
        textbook(connection, settings(), HERE, subject=Subject.ACCOUNT, as_of=NOW)
    seed(engine, {"account": 1, "days": 3})
    with reading(engine) as connection:
        with pytest.raises(ConfigError, match="give --retention"):
            textbook(connection, settings(), HERE, subject=Subject.ACCOUNT, as_of=NOW)
        with pytest.raises(ConfigError, match="give --years"):
            textbook(connection, settings(), HERE, subject=Subject.ACCOUNT, as_of=NOW, retention=1.0)
        found = textbook(
            connection, settings(), HERE, subject=Subject.ACCOUNT, as_of=NOW, retention=0.5, acquisition_cost_minor=500
        )
    assert found["simple_minor"] == 1000 * 2 - 500
    assert found["value_to_cost"] == 4.0
