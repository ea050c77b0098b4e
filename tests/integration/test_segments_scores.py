"""RFM from orders in the database to profiles: what counts as of a date, and what a refresh keeps."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from kernel.clock import to_ms
from kernel.errors import ConfigError
from kernel.settings import RfmSettings
from kernel.vocabulary import Subject
from segments import models
from segments.profiles import write
from segments.rfm_live import score
from segments.scoring import ProfileRun, compute, ensure_scores, last_scored_at, refresh_profiles
from store.engine import reading, writing
from store.tables import accounts, order_lines, orders, products, profiles
from tests.integration.buying import DAY, NOW, add, kept, seed, settings, versions

FIXED: dict[str, Any] = {
    "scheme": "thresholds",
    "recency_days": [30, 60, 85, 180],
    "orders": [9, 5, 3, 2],
    "money": [999.0, 500.0, 200.0, 100.0],
}
"""Borders that nobody else moves."""


def did(engine: Engine, *, as_of: datetime = NOW, subject: Subject = Subject.ACCOUNT, **options: Any) -> Any:
    """Return {id: (recency_days, frequency, monetary_minor)}."""
    with reading(engine) as connection:
        found = score(connection, RfmSettings(**options), subject=subject, as_of=as_of, currency="GBP")
    columns = (found.behaviour.recency_days, found.behaviour.frequency, found.behaviour.monetary)
    return dict(zip(found.ids.tolist(), zip(*(column.tolist() for column in columns), strict=True), strict=True))


def test_only_orders_strictly_before_the_date_count(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 0}, {"account": 1, "days": 3}, {"account": 2, "days": -1})
    assert did(engine) == {1: (3, 1, 1000)}
    assert did(engine, as_of=NOW + timedelta(milliseconds=1)) == {1: (0, 2, 2000)}


def test_recency_is_whole_days_rounded_down(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1.9999}, {"account": 2, "days": 2})
    assert did(engine) == {1: (1, 1, 1000), 2: (2, 1, 1000)}


@pytest.mark.parametrize("kind", ["return", "cancellation", "adjustment"])
def test_what_is_no_order_lowers_money_and_nothing_else(engine: Engine, kind: str) -> None:
    seed(
        engine,
        {"account": 1, "days": 9, "net": 5000, "gross": 5000},
        {"account": 1, "days": 1, "kind": kind, "net": -2000, "gross": 0},
        {"account": 2, "days": 1, "kind": kind, "net": -2000, "gross": 0},
    )
    assert did(engine) == {1: (9, 1, 3000)}
    assert did(engine, monetary="gross") == {1: (9, 1, 5000)}


def test_a_later_cancellation_does_not_leak_into_the_past(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 9}, {"account": 1, "days": 5, "cancelled_at": NOW - 2 * DAY})
    assert did(engine, as_of=NOW - 2 * DAY) == {1: (3, 2, 2000)}
    assert did(engine, as_of=NOW - 2 * DAY + timedelta(milliseconds=1)) == {1: (7, 1, 1000)}


def test_a_window_leaves_out_who_bought_only_before_it(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 10}, {"account": 1, "days": 40}, {"account": 2, "days": 40})
    assert did(engine, window="30d") == {1: (10, 1, 1000)}
    assert did(engine, window="40d") == {1: (10, 2, 2000), 2: (40, 1, 1000)}


def test_contacts_are_scored_by_the_orders_that_name_them(engine: Engine) -> None:
    seed(engine, {"account": 1, "contact": 101, "days": 4}, {"account": 1, "days": 1})
    assert did(engine, subject=Subject.CONTACT) == {101: (4, 1, 1000)}


def test_orders_without_a_customer_are_nobodys(engine: Engine) -> None:
    seed(engine, {"account": None, "days": 4, "currency": "USD"})
    assert did(engine) == {}


def test_another_currency_is_refused_and_never_added(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 4}, {"account": 2, "days": 4, "currency": "USD"})
    with pytest.raises(ConfigError, match=r"1 order\(s\) are not in GBP, among them 'O2' \(USD"):
        did(engine)
    with reading(engine) as connection, pytest.raises(ConfigError, match="different currencies are never added"):
        score(connection, RfmSettings(), subject=Subject.ACCOUNT, as_of=NOW)
    assert did(engine, as_of=NOW - 5 * DAY) == {}


def test_ties_first_follow_the_external_ids_and_not_the_keys(engine: Engine) -> None:
    seed(engine, *[{"account": n, "days": n} for n in range(1, 11)], firms=11)
    with reading(engine) as connection:
        found = score(connection, RfmSettings(ties="first"), subject=Subject.ACCOUNT, as_of=NOW)
    assert found.ids.tolist() == [1, 10, *range(2, 10)]
    assert found.axes.f.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_thresholds_from_the_settings_are_in_major_units(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 31, "net": 100_00}, {"account": 2, "days": 400, "net": 99_99})
    settings = RfmSettings(
        scheme="thresholds", recency_days=[30, 60, 90, 180], orders=[9, 5, 3, 2], money=[1000.0, 500.0, 200.0, 100.0]
    )
    with reading(engine) as connection:
        found = score(connection, settings, subject=Subject.ACCOUNT, as_of=NOW, currency="GBP")
    assert (found.axes.r.tolist(), found.axes.f.tolist(), found.axes.m.tolist()) == ([4, 1], [1, 1], [2, 1])
    assert found.warnings == [
        "rfm.orders: all 2 accounts score 1, so this axis tells nobody apart; move its thresholds"
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"recency_days": None}, "rfm.recency_days must list 4 borders"),
        ({"orders": [5, 3, 2]}, "rfm.orders must list 4 borders"),
        ({"recency_days": [180, 90, 60, 30]}, "rfm.recency_days must rise"),
        ({"money": [1.0, 2.0, 3.0, 4.0]}, "rfm.money must fall"),
    ],
)
def test_wrong_thresholds_are_told(sqlite_engine: Engine, wrong: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"recency_days": [30, 60, 90, 180], "orders": [9, 5, 3, 2], "money": [9.0, 5.0, 2.0, 1.0]}
    settings = RfmSettings(scheme="thresholds", **{**good, **wrong})
    with reading(sqlite_engine) as connection, pytest.raises(ConfigError, match=said):
        score(connection, settings, subject=Subject.ACCOUNT, as_of=NOW)


# --- what a refresh keeps ------------------------------------------------------------------------------------


def refresh(engine: Engine, rfm: dict[str, Any], now: datetime = NOW, **options: Any) -> ProfileRun:
    chosen = {"subject": Subject.ACCOUNT, "kinds": ["rfm"], **options}
    return refresh_profiles(engine, settings(rfm=rfm), now=now, **chosen)


def test_a_refresh_keeps_profiles_and_the_model_with_its_cut_offs(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 1, "days": 2}, {"account": 2, "days": 90})
    run = refresh(engine, {})
    assert (run.scored, run.written, run.removed, run.changed.tolist()) == (2, 2, 0, [1, 2])
    rows = kept(engine)
    assert set(rows) == {1, 2}
    row = rows[1]
    assert (row.orders, row.days, row.net_minor, row.returned_minor, row.scored_as) == (2, 2, 2000, 0, 1)
    assert (row.first_order_at, row.last_order_at) == (NOW - 2 * DAY, NOW - DAY)
    assert (row.frequency, row.monetary_minor, row.median_gap_days, row.products) == (2, 2000, None, None)
    assert (row.rfm_since, row.previous_rfm_segment, row.rfm_moved_by, row.scored_at) == (NOW, None, "new", NOW)
    assert (row.cluster, row.clv_minor, row.p_alive) == (None, None, None)
    (model,) = versions(engine)
    assert (model.id, model.kind, model.subject, model.version) == (row.rfm_model_id, "rfm", "account", 1)
    assert (model.as_of, model.fitted_on, model.state) == (NOW, 2, "active")
    assert model.options["ties"] == "stable"
    assert model.parameters["cutoffs"]["orders"] == [None, None, 2, None]
    assert "only 2 accounts have bought" in run.warnings[0]


def test_who_changes_groups_keeps_the_old_one_and_who_stays_keeps_the_date(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 90})
    refresh(engine, FIXED)
    assert {n: row.rfm_segment for n, row in kept(engine).items()} == {1: "new_customers", 2: "hibernating"}
    add(engine, {"account": 2, "days": -1}, {"account": 2, "days": -1.5})
    later = NOW + 2 * DAY
    refresh(engine, FIXED, later)
    after = kept(engine)
    assert (after[1].rfm_segment, after[1].previous_rfm_segment, after[1].rfm_since) == ("new_customers", None, NOW)
    row = after[2]
    assert (row.rfm_segment, row.previous_rfm_segment, row.rfm_since, row.rfm_moved_by) == (
        "potential_loyalists",
        "hibernating",
        later,
        "own_action",
    )


def test_who_waits_is_moved_by_time_and_who_sends_all_back_by_own_action(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 20}, {"account": 2, "days": 20}, {"account": 3, "days": 20})
    add(engine, {"account": 2, "days": 10})
    refresh(engine, FIXED)
    with writing(engine) as connection:
        connection.execute(orders.update().where(orders.c.external_id == "O4").values(cancelled_at=NOW))
    refresh(engine, FIXED, NOW + 15 * DAY)
    rows = kept(engine)
    assert {n: (row.rfm_segment, row.rfm_moved_by) for n, row in rows.items()} == {
        1: ("promising", "time"),
        2: ("promising", "own_action"),
        3: ("promising", "time"),
    }
    assert rows[2].previous_rfm_segment == "potential_loyalists"


def test_between_fits_others_move_nobody_and_a_fit_anew_says_that_it_was_the_cut_offs(engine: Engine) -> None:
    seed(engine, *[{"account": n, "days": n, "net": 100 * n} for n in range(1, 61)], firms=119)
    first = refresh(engine, {})
    before = {n: (row.r, row.f, row.m, row.rfm_segment) for n, row in kept(engine).items()}
    crowd = [{"account": n, "days": 0.5, "net": 90_000} for n in range(61, 120) for _ in range(2)]
    add(engine, *crowd)
    later = NOW + timedelta(hours=1)
    assert refresh(engine, {}, later).models[models.ModelKind.RFM].id == first.models[models.ModelKind.RFM].id
    after = kept(engine)
    assert {n: (row.r, row.f, row.m, row.rfm_segment) for n, row in after.items() if n <= 60} == before
    run = refresh(engine, {}, later, refit=["rfm"])
    assert run.refitted == {"rfm"}
    assert run.models[models.ModelKind.RFM].version == 2
    moved = {n: row for n, row in kept(engine).items() if n <= 60 and row.rfm_segment != before[n][3]}
    assert moved
    assert {row.rfm_moved_by for row in moved.values()} == {"cutoff"}


def test_cut_offs_are_fitted_anew_when_old_or_when_the_settings_change(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 90})

    def version_after(rfm: dict[str, Any], now: datetime) -> int:
        return refresh(engine, rfm, now).models[models.ModelKind.RFM].version

    assert version_after({"refit_every": "7d"}, NOW) == 1
    assert version_after({"refit_every": "7d"}, NOW + 7 * DAY - timedelta(seconds=1)) == 1
    assert version_after({"refit_every": "7d"}, NOW + 7 * DAY) == 2
    assert version_after({"refit_every": "7d", "monetary": "gross"}, NOW + 7 * DAY) == 3
    assert version_after({"refit_every": "9d", "monetary": "gross", "band": 0.1}, NOW + 7 * DAY) == 3
    assert version_after(FIXED, NOW + 7 * DAY) == 4
    assert version_after(FIXED, NOW + 700 * DAY) == 4
    assert [model.state for model in versions(engine)] == ["retired", "retired", "retired", "active"]


def test_a_band_holds_a_score_that_is_barely_past_its_border(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 29}, {"account": 2, "days": 29})
    banded = {**FIXED, "band": 0.1}
    refresh(engine, banded)
    assert {row.r for row in kept(engine).values()} == {5}
    refresh(engine, banded, NOW + 4 * DAY)
    assert {row.r for row in kept(engine).values()} == {5}
    refresh(engine, banded, NOW + 5 * DAY)
    assert {row.r for row in kept(engine).values()} == {4}


def test_a_refresh_that_finds_nothing_new_writes_nothing(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 90})
    refresh(engine, {})
    again = refresh(engine, {})
    assert (again.written, again.removed, again.changed.tolist()) == (0, 0, [])
    assert len(versions(engine)) == 1


def test_who_no_longer_bought_anything_loses_the_profile(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 30})
    refresh(engine, FIXED)
    with writing(engine) as connection:
        connection.execute(orders.update().where(orders.c.account_id == 2).values(cancelled_at=NOW))
    run = refresh(engine, FIXED, NOW + DAY)
    assert (run.removed, run.changed.tolist()) == (1, [2])
    assert set(kept(engine)) == {1}


def test_who_bought_only_before_the_window_keeps_the_profile_and_loses_the_group(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 25}, {"account": 2, "days": 5}, {"account": 3, "days": 90})
    windowed = {**FIXED, "window": "30d"}
    refresh(engine, windowed)
    rows = kept(engine)
    assert (rows[3].rfm_segment, rows[3].r, rows[3].frequency, rows[3].orders) == (None, None, 0, 1)
    assert (rows[3].rfm_since, rows[3].rfm_moved_by) == (None, None)
    later = NOW + 10 * DAY
    refresh(engine, windowed, later)
    row = kept(engine)[1]
    assert (row.rfm_segment, row.previous_rfm_segment, row.rfm_since) == (None, "new_customers", later)
    assert row.rfm_moved_by == "time"
    add(engine, {"account": 1, "days": -19})
    refresh(engine, windowed, NOW + 20 * DAY)
    row = kept(engine)[1]
    assert (row.rfm_segment, row.previous_rfm_segment, row.rfm_moved_by) == ("new_customers", None, "new")


def test_only_some_are_scored_by_the_frozen_model(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 2}, {"account": 3, "days": 90})
    refresh(engine, {"refit_every": "1d"})
    add(engine, {"account": 1, "days": -0.5}, {"account": 2, "days": -0.5})
    with writing(engine) as connection:
        connection.execute(orders.update().where(orders.c.account_id == 3).values(cancelled_at=NOW))
    later = NOW + 2 * DAY
    run = refresh(engine, {"refit_every": "1d"}, later, only=np.array([1, 3]))
    assert (run.scored, run.written, run.removed, run.changed.tolist()) == (1, 1, 1, [1, 3])
    assert run.models[models.ModelKind.RFM].version == 1
    assert {n: row.orders for n, row in kept(engine).items()} == {1: 2, 2: 1}
    with reading(engine) as connection:
        assert last_scored_at(connection, Subject.ACCOUNT) == NOW


def test_only_some_are_everybody_where_no_model_stands_yet(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 2})
    assert refresh(engine, {}, only=np.array([1])).scored == 2
    assert refresh(engine, {"monetary": "gross"}, only=np.array([1])).scored == 2


def test_accounts_and_contacts_are_kept_apart(engine: Engine) -> None:
    seed(engine, {"account": 1, "contact": 101, "days": 1})
    for subject in Subject:
        refresh(engine, {}, subject=subject)
    assert {(row.subject, row.subject_id) for row in kept(engine).values()} == {("account", 1), ("contact", 101)}


def test_scores_are_made_once_and_then_only_when_old_or_otherwise_made(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1})

    def applied_after(now: datetime, **rfm: Any) -> datetime | None:
        asked = {(Subject.ACCOUNT, "rfm")}
        ensure_scores(engine, settings(rfm=rfm), now=now, max_age=DAY, asked=asked)
        with reading(engine) as connection:
            return last_scored_at(connection, Subject.ACCOUNT)

    assert applied_after(NOW) == NOW
    assert applied_after(NOW + timedelta(hours=23)) == NOW
    assert applied_after(NOW + DAY) == NOW + DAY
    assert len(versions(engine)) == 1
    assert applied_after(NOW + DAY + timedelta(hours=1), monetary="gross") == NOW + DAY + timedelta(hours=1)
    assert len(versions(engine)) == 2


def test_facts_alone_are_kept_where_no_model_is_asked_for(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 1, "days": 5}, {"account": 1, "days": 7})
    assert refresh(engine, {}, kinds=[]).written == 1
    row = kept(engine)[1]
    assert (row.orders, row.median_gap_days, row.rfm_segment, row.rfm_model_id) == (3, 3.0, None, None)
    assert versions(engine) == []


def test_two_first_scorings_at_once_end_as_one(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 2})
    chosen: dict[str, Any] = {"subject": Subject.ACCOUNT, "now": NOW, "kinds": ["rfm"]}
    with reading(engine) as connection:
        other = compute(connection, settings(), **chosen)
    refresh(engine, {})
    once = kept(engine)
    with writing(engine) as connection:
        connection.execute(profiles.delete().where(profiles.c.subject_id == 1))
    assert other.difference.first
    write(engine, Subject.ACCOUNT, other.difference, other.words, now_ms=to_ms(NOW))
    assert {n: (row.rfm_segment, row.orders) for n, row in kept(engine).items()} == {
        n: (row.rfm_segment, row.orders) for n, row in once.items()
    }


# --- values, roll-up, maps -----------------------------------------------------------------------------------


def test_an_average_is_rounded_to_the_nearest_minor_unit(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1, "net": 101}, {"account": 1, "days": 2, "net": 100})
    assert did(engine, monetary="average") == {1: (1, 2, 101)}


def test_margin_takes_the_cost_of_the_lines_off(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1, "net": 1000}, {"account": 2, "days": 1, "net": 1000})
    with writing(engine) as connection:
        connection.execute(products.insert().values(id=1, external_id="P1", cost_minor=999))
        line = {"order_id": 1, "line": 1, "product_id": 1, "quantity": 1, "net_minor": 1000, "cost_minor": 700}
        connection.execute(order_lines.insert().values(**line))
    assert did(engine, monetary="margin")[1] == (1, 1, 300)
    # What is left out is counted beside it, whoever else's cost is known.
    with writing(engine) as connection:
        connection.execute(order_lines.insert().values(**{**line, "order_id": 2, "cost_minor": None}))
    with reading(engine) as connection:
        found = score(connection, RfmSettings(monetary="margin"), subject=Subject.ACCOUNT, as_of=NOW, currency="GBP")
    assert "1 order lines have no cost and are left out of the margin; import their cost" in found.warnings


@pytest.mark.parametrize("lines", [0, 1])
def test_margins_of_which_no_cost_is_known_are_refused(engine: Engine, lines: int) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 1})
    with writing(engine) as connection:
        connection.execute(products.insert().values(id=1, external_id="P1"))
        line = {"line": 1, "product_id": 1, "quantity": 1, "net_minor": 1000, "cost_minor": None}
        for order_id in range(1, lines + 1):
            connection.execute(order_lines.insert().values(order_id=order_id, **line))
    for attempt in (lambda: did(engine, monetary="margin"), lambda: refresh(engine, {"monetary": "margin"})):
        with pytest.raises(ConfigError, match=r"no order line has a known cost.*import order lines with `unit_cost`"):
            attempt()


def test_a_margin_of_exactly_nothing_is_a_margin(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1})
    with writing(engine) as connection:
        connection.execute(products.insert().values(id=1, external_id="P1"))
        line = {"order_id": 1, "line": 1, "product_id": 1, "quantity": 1, "net_minor": 1000, "cost_minor": 1000}
        connection.execute(order_lines.insert().values(**line))
    assert did(engine, monetary="margin") == {1: (1, 1, 0)}


def test_relative_recency_counts_own_gaps_and_the_usual_gap_below_three_days(engine: Engine) -> None:
    weekly = [{"account": 1, "days": days} for days in (14, 21, 28)]
    quarterly = [{"account": 2, "days": days} for days in (90, 180, 270)]
    seed(engine, *weekly, *quarterly, {"account": 3, "days": 97})
    found = did(engine, recency="relative")
    usual = (7 + 90) / 2
    assert {n: values[0] for n, values in found.items()} == {1: 2000, 2: 1000, 3: int(97 / usual * 1000)}


def test_relative_thresholds_are_counted_in_own_gaps(engine: Engine) -> None:
    weekly = [{"account": 1, "days": days} for days in (14, 21, 28)]
    quarterly = [{"account": 2, "days": days} for days in (90, 180, 270)]
    seed(engine, *weekly, *quarterly)
    relative = {**FIXED, "recency": "relative", "recency_days": [1, 2, 3, 4]}
    refresh(engine, relative)
    assert {n: row.r for n, row in kept(engine).items()} == {1: 4, 2: 5}
    refresh(engine, relative, NOW + 8 * DAY)
    assert {n: row.r for n, row in kept(engine).items()} == {1: 2, 2: 4}


def test_children_share_the_profile_of_the_account_they_are_scored_as(engine: Engine) -> None:
    seed(engine, {"account": 2, "days": 3}, {"account": 3, "days": 9}, {"account": 4, "days": 1}, firms=5)
    with writing(engine) as connection:
        connection.execute(accounts.update().where(accounts.c.id.in_([2, 3])).values(parent_id=1))
        connection.execute(accounts.update().where(accounts.c.id == 5).values(parent_id=2))
    refresh(engine, {**FIXED, "rollup": "top"})
    rows = kept(engine)
    assert {n: (row.scored_as, row.orders, row.last_order_at) for n, row in rows.items()} == {
        **dict.fromkeys((1, 2, 3, 5), (1, 2, NOW - 3 * DAY)),
        4: (4, 1, NOW - DAY),
    }
    assert versions(engine)[0].fitted_on == 2
    add(engine, {"account": 3, "days": -0.5})
    run = refresh(engine, {**FIXED, "rollup": "top"}, NOW + DAY, only=np.array([3]))
    assert run.changed.tolist() == [1, 2, 3, 5]
    assert {n: row.orders for n, row in kept(engine).items()} == {1: 3, 2: 3, 3: 3, 4: 1, 5: 3}
    refresh(engine, {**FIXED, "rollup": "none"}, NOW + DAY)
    assert {n: row.orders for n, row in kept(engine).items()} == {2: 1, 3: 2, 4: 1}


@pytest.mark.parametrize(
    ("rfm", "groups"),
    [
        ({"scheme": "thirds"}, {"champions", "loyal_customers", "recent", "need_attention", "at_risk", "inactive"}),
        ({"scheme": "quintiles", "map": "eleven"}, None),
        ({"scheme": "equal_behaviour"}, None),
        (
            {
                "scheme": "quantiles",
                "scores": 4,
                "map": {"groups": [{"name": "good", "r": [3, 4]}, {"name": "poor", "r": [1, 2]}]},
            },
            {"good", "poor"},
        ),
    ],
)
def test_every_scheme_and_map_is_kept_and_applied_again(
    engine: Engine, rfm: dict[str, Any], groups: set[str] | None
) -> None:
    rows = [{"account": n, "days": n * k, "net": 100 * n * k} for n in range(1, 41) for k in range(1, 1 + n % 5)]
    seed(engine, *rows, firms=40)
    refresh(engine, rfm)
    (model,) = versions(engine)
    found = {row.rfm_segment for row in kept(engine).values()}
    assert found <= set(model.parameters["groups"])
    assert len(found) > 1
    assert groups is None or set(model.parameters["groups"]) == groups
    assert refresh(engine, rfm).written == 0


def test_another_map_moves_by_cut_off_and_remembers_the_group_of_the_old_map(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 300})
    refresh(engine, {})
    before = {n: row.rfm_segment for n, row in kept(engine).items()}
    refresh(engine, {"map": {"ordered": True, "groups": [{"name": "fresh", "r": [5]}, {"name": "rest"}]}})
    rows = kept(engine)
    assert {row.rfm_moved_by for row in rows.values()} == {"cutoff"}
    assert {n: row.previous_rfm_segment for n, row in rows.items()} == before


def test_other_currencies_are_converted_by_the_workspaces_rates(engine: Engine, tmp_path: Path) -> None:
    seed(engine, {"account": 1, "days": 4, "net": 1000}, {"account": 1, "days": 2, "net": 1000, "currency": "USD"})
    (tmp_path / "rates.csv").write_text("from,currency,rate\n2026-01-01,USD,0.8\n", encoding="utf-8")
    own = settings(rfm=FIXED, rates="rates.csv")
    refresh_profiles(engine, own, subject=Subject.ACCOUNT, now=NOW, kinds=["rfm"], root=tmp_path)
    assert (kept(engine)[1].net_minor, kept(engine)[1].monetary_minor) == (1800, 1800)
    with pytest.raises(ConfigError, match=r"rates\.csv: the rates cannot be read"):
        refresh_profiles(engine, own, subject=Subject.ACCOUNT, now=NOW, kinds=["rfm"], root=tmp_path / "elsewhere")


# --- hardly any data -----------------------------------------------------------------------------------------


def test_nobody_gives_no_profiles_and_a_refusal_that_is_made_once(engine: Engine) -> None:
    run = refresh(engine, {})
    assert (run.scored, run.written) == (0, 0)
    (warning,) = run.warnings
    assert warning.startswith("rfm of accounts, version 1: refused: no account has bought: import orders; cut-offs")
    refresh(engine, {}, NOW + DAY)
    assert [(row.state, row.fitted_on, row.parameters) for row in versions(engine)] == [("refused", 0, {})]


@pytest.mark.parametrize("how", [{}, {"only": np.array([7])}, {"frozen": True}])
def test_the_first_buyers_are_scored_by_cut_offs_of_their_own(engine: Engine, how: dict[str, Any]) -> None:
    refresh(engine, {})
    seed(engine, *[{"account": n, "days": 9 * n, "net": 100 * n} for n in range(1, 11)], firms=10)
    run = refresh(engine, {}, NOW + timedelta(hours=1), **how)
    model = run.models[models.ModelKind.RFM]
    assert (model.version, model.state, model.fitted_on) == (2, "active", 10)
    assert {row.r for row in kept(engine).values()} == {1, 2, 3, 4, 5}


def test_fixed_thresholds_need_no_buyers(engine: Engine) -> None:
    assert refresh(engine, FIXED).models[models.ModelKind.RFM].state == "active"
    seed(engine, {"account": 1, "days": 3})
    run = refresh(engine, FIXED, NOW + timedelta(hours=1), only=np.array([1]))
    assert (run.models[models.ModelKind.RFM].version, kept(engine)[1].r) == (1, 5)


def test_who_bought_only_before_the_window_has_no_score_of_a_refused_model(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 90})
    run = refresh(engine, {"window": "30d"})
    assert (run.scored, run.models[models.ModelKind.RFM].state) == (1, "refused")
    row = kept(engine)[1]
    assert (row.r, row.rfm_segment, row.frequency) == (None, None, 0)


@pytest.mark.parametrize(("first", "more", "version"), [(60, 59, 1), (60, 60, 2), (49, 1, 2), (50, 1, 1)])
@pytest.mark.parametrize("some", [False, True])
def test_many_more_buyers_than_at_the_fit_have_the_cut_offs_fitted_anew(
    engine: Engine, first: int, more: int, version: int, *, some: bool
) -> None:
    seed(engine, *[{"account": n, "days": n} for n in range(1, first + 1)], firms=first + more)
    refresh(engine, {})
    add(engine, *[{"account": n, "days": 0.5} for n in range(first + 1, first + more + 1)])
    only = np.array([first + 1]) if some else None
    run = refresh(engine, {}, NOW + timedelta(hours=1), only=only)
    assert run.models[models.ModelKind.RFM].version == version
    told = f"rfm of accounts, version 2: fitted anew: {first + more} have bought, and version 1 was fitted on {first}"
    assert (told in run.warnings) == (version == 2)


def test_orders_to_come_and_returns_without_orders_make_no_buyer(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": -3}, {"account": 2, "days": 3, "kind": "return", "net": -100})
    assert refresh(engine, {}).scored == 0


def test_one_buyer_has_a_group_and_a_warning(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 3})
    run = refresh(engine, {})
    assert kept(engine)[1].rfm_segment is not None
    assert "only 1 accounts have bought" in run.warnings[0]


def test_equal_buyers_have_equal_scores_whatever_the_scheme(engine: Engine) -> None:
    seed(engine, *[{"account": n, "days": 3} for n in range(1, 31)], firms=30)
    for scheme in ("quintiles", "equal_behaviour", "thirds"):
        refresh(engine, {"scheme": scheme})
        assert len({(row.r, row.f, row.m, row.rfm_segment) for row in kept(engine).values()}) == 1


def test_money_below_nothing_is_scored_like_any_other(engine: Engine) -> None:
    seed(engine, *[{"account": n, "days": n} for n in range(1, 11)], firms=10)
    add(engine, {"account": 5, "days": 1, "kind": "return", "net": -5000})
    refresh(engine, {})
    rows = kept(engine)
    assert (rows[5].monetary_minor, rows[5].m, rows[5].returned_minor) == (-4000, 1, 5000)
