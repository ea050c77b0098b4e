"""RFM scores from orders in the database: what counts as of a date, and what a refresh keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from kernel.errors import ConfigError
from kernel.settings import RfmSettings
from kernel.vocabulary import Subject
from segments.refresh import ensure_scores
from segments.scoring import refresh_scores, score
from store.engine import reading, writing
from store.tables import accounts, contacts, orders, rfm_runs, rfm_scores

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def seed(engine: Engine, *rows: dict[str, Any], firms: int = 3) -> None:
    """Store accounts A1, A2, … with one contact each, and orders; a row needs `account` and `days` before NOW."""
    with writing(engine) as connection:
        connection.execute(accounts.insert(), [{"id": n, "external_id": f"A{n}"} for n in range(1, firms + 1)])
        connection.execute(
            contacts.insert(), [{"id": n + 100, "external_id": f"C{n}", "account_id": n} for n in range(1, firms + 1)]
        )
    add(engine, *rows)


def add(engine: Engine, *rows: dict[str, Any]) -> None:
    with writing(engine) as connection:
        known = connection.execute(select(func.count()).select_from(orders)).scalar_one()
        for number, row in enumerate(rows, start=known + 1):
            connection.execute(
                orders.insert().values(
                    external_id=f"O{number}",
                    account_id=row["account"],
                    contact_id=row.get("contact"),
                    ordered_at=NOW - row["days"] * DAY,
                    kind=row.get("kind", "order"),
                    net_minor=row.get("net", 1000),
                    gross_minor=row.get("gross", 1000),
                    currency=row.get("currency", "GBP"),
                    cancelled_at=row.get("cancelled_at"),
                )
            )


def did(engine: Engine, *, as_of: datetime = NOW, subject: Subject = Subject.ACCOUNT, **options: Any) -> Any:
    """Return {id: (recency_days, frequency, monetary_minor)}."""
    with reading(engine) as connection:
        found = score(connection, RfmSettings(**options), subject=subject, as_of=as_of, currency="GBP")
    columns = (found.behaviour.recency_days, found.behaviour.frequency, found.behaviour.monetary)
    return dict(zip(found.ids.tolist(), zip(*(column.tolist() for column in columns), strict=True), strict=True))


def kept(engine: Engine) -> dict[int, Any]:
    with reading(engine) as connection:
        return {row.subject_id: row for row in connection.execute(select(rfm_scores))}


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
    with reading(engine) as connection, pytest.raises(ConfigError, match="never adds different currencies"):
        score(connection, RfmSettings(), subject=Subject.ACCOUNT, as_of=NOW)
    assert did(engine, as_of=NOW - 5 * DAY) == {}


def test_ties_first_follow_the_external_ids_and_not_the_keys(engine: Engine) -> None:
    seed(engine, *[{"account": n, "days": n} for n in range(1, 11)], firms=11)
    with reading(engine) as connection:
        found = score(connection, RfmSettings(ties="first"), subject=Subject.ACCOUNT, as_of=NOW)
    assert found.ids.tolist() == [1, 10, *range(2, 10)]
    assert found.scores.f.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_thresholds_from_the_settings_are_in_major_units(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 31, "net": 100_00}, {"account": 2, "days": 400, "net": 99_99})
    settings = RfmSettings(
        scheme="thresholds", recency_days=[30, 60, 90, 180], orders=[9, 5, 3, 2], money=[1000.0, 500.0, 200.0, 100.0]
    )
    with reading(engine) as connection:
        found = score(connection, settings, subject=Subject.ACCOUNT, as_of=NOW, currency="GBP")
    assert (found.scores.r.tolist(), found.scores.f.tolist(), found.scores.m.tolist()) == ([4, 1], [1, 1], [2, 1])
    assert found.warnings == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"recency_days": None}, "rfm.recency_days must list four borders"),
        ({"orders": [5, 3, 2]}, "rfm.orders must list four borders"),
        ({"recency_days": [180, 90, 60, 30]}, "rfm.recency_days must rise"),
        ({"money": [1.0, 2.0, 3.0, 4.0]}, "rfm.money must fall"),
    ],
)
def test_wrong_thresholds_are_told(sqlite_engine: Engine, wrong: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"recency_days": [30, 60, 90, 180], "orders": [9, 5, 3, 2], "money": [9.0, 5.0, 2.0, 1.0]}
    settings = RfmSettings(scheme="thresholds", **{**good, **wrong})
    with reading(sqlite_engine) as connection, pytest.raises(ConfigError, match=said):
        score(connection, settings, subject=Subject.ACCOUNT, as_of=NOW)


def test_a_refresh_keeps_scores_and_the_record_of_the_run(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 1, "days": 2}, {"account": 2, "days": 90})
    run = refresh_scores(engine, RfmSettings(), subject=Subject.ACCOUNT, now=NOW)
    assert (run.scored, run.written, run.removed) == (2, 2, 0)
    rows = kept(engine)
    assert set(rows) == {1, 2}
    assert (rows[1].recency_days, rows[1].frequency, rows[1].monetary_minor) == (1, 2, 2000)
    assert rows[1].since == NOW
    assert rows[1].previous_segment is None
    with reading(engine) as connection:
        record = connection.execute(select(rfm_runs)).one()
    assert (record.id, record.as_of, record.scored) == (run.run_id, NOW, 2)
    assert record.options["ties"] == "stable"
    assert record.cutoffs["orders"] == [None, None, 2, None]
    assert "only 2 accounts have bought" in record.warnings[0]


def test_who_changes_groups_keeps_the_old_one_and_who_stays_keeps_the_date(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 90})
    fixed = RfmSettings(
        scheme="thresholds", recency_days=[30, 60, 85, 180], orders=[9, 5, 3, 2], money=[999.0, 500.0, 200.0, 100.0]
    )
    refresh_scores(engine, fixed, subject=Subject.ACCOUNT, now=NOW)
    assert {n: row.segment for n, row in kept(engine).items()} == {1: "new_customers", 2: "hibernating"}
    add(engine, {"account": 2, "days": -1}, {"account": 2, "days": -1.5})
    later = NOW + 2 * DAY
    refresh_scores(engine, fixed, subject=Subject.ACCOUNT, now=later)
    after = kept(engine)
    assert {n: row.recency_days for n, row in after.items()} == {1: 3, 2: 0}
    assert (after[1].segment, after[1].previous_segment, after[1].since) == ("new_customers", None, NOW)
    assert (after[2].segment, after[2].previous_segment, after[2].since) == (
        "potential_loyalists",
        "hibernating",
        later,
    )


def test_a_refresh_that_finds_nothing_new_writes_no_scores(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 90})
    first = refresh_scores(engine, RfmSettings(), subject=Subject.ACCOUNT, now=NOW)
    second = refresh_scores(engine, RfmSettings(), subject=Subject.ACCOUNT, now=NOW)
    assert (second.written, second.removed) == (0, 0)
    assert {row.run_id for row in kept(engine).values()} == {first.run_id}


def test_who_no_longer_bought_anything_loses_the_score(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1}, {"account": 2, "days": 90})
    refresh_scores(engine, RfmSettings(), subject=Subject.ACCOUNT, now=NOW)
    with writing(engine) as connection:
        connection.execute(orders.update().where(orders.c.account_id == 2).values(cancelled_at=NOW))
    run = refresh_scores(engine, RfmSettings(), subject=Subject.ACCOUNT, now=NOW + DAY)
    assert run.removed == 1
    assert set(kept(engine)) == {1}


def test_accounts_and_contacts_are_kept_apart(engine: Engine) -> None:
    seed(engine, {"account": 1, "contact": 101, "days": 1})
    for subject in Subject:
        refresh_scores(engine, RfmSettings(), subject=subject, now=NOW)
    assert {(row.subject, row.subject_id) for row in kept(engine).values()} == {("account", 1), ("contact", 101)}


def test_scores_are_made_once_and_then_only_when_old_or_otherwise_made(engine: Engine) -> None:
    seed(engine, {"account": 1, "days": 1})

    def runs_after(settings: RfmSettings, now: datetime) -> int:
        ensure_scores(engine, settings, now=now, max_age=DAY)
        with reading(engine) as connection:
            return connection.execute(select(func.count()).select_from(rfm_runs)).scalar_one()

    assert runs_after(RfmSettings(), NOW) == 1
    assert runs_after(RfmSettings(), NOW + timedelta(hours=23)) == 1
    assert runs_after(RfmSettings(), NOW + DAY) == 2
    assert runs_after(RfmSettings(monetary="gross"), NOW + DAY) == 3
