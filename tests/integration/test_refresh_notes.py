"""What refreshes leave to each other: instants that never go back, notes of moved profiles, and notes that stay few."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from kernel.settings import Workspace
from kernel.vocabulary import Subject
from segments import models
from segments.definitions import load_segments
from segments.evaluation import evaluate
from segments.models import ModelKind
from segments.refresh import Refreshed, refresh
from segments.scoring import ensure_scores, refresh_profiles
from store.changes import MERGED_EVERY, forget_changes, keep_used, read_changes, touch
from store.engine import reading, writing
from store.tables import accounts, changes, orders, segments
from tests.integration.test_segments_incremental import snapshots

NOW = datetime(2026, 6, 15, 10, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FIRMS = 300


@pytest.fixture
def shop(engine: Engine, workspace: Workspace) -> Workspace:
    """Firms whose last orders are spread over 300 days, scored by fixed thresholds."""
    with writing(engine) as connection:
        connection.execute(
            accounts.insert(), [{"id": n, "external_id": f"A{n}", "attributes": {}} for n in range(1, FIRMS + 1)]
        )
        bought = {"kind": "order", "gross_minor": 0, "currency": "GBP"}
        rows = [
            {"external_id": f"O{n}", "account_id": n, "ordered_at": NOW - n * DAY + n * 4 * MINUTE, "net_minor": 3000}
            for n in range(1, FIRMS + 1)
        ]
        connection.execute(orders.insert(), [{**bought, **row} for row in rows])
    return with_rfm(workspace)


def with_rfm(workspace: Workspace, **rfm: Any) -> Workspace:
    borders = {"recency_days": [30, 60, 120, 200], "orders": [10, 5, 3, 2], "money": [500, 200, 100, 50]}
    update = {"scheme": "thresholds", **borders, "refit_every": "9999d", **rfm}
    settings = workspace.settings.model_copy(update={"rfm": workspace.settings.rfm.model_copy(update=update)})
    return Workspace(root=workspace.root, settings=settings, environment=workspace.environment)


def put(shop: Workspace, name: str, where: Any) -> None:
    path = shop.root / "segments" / f"{name}.yaml"
    path.write_text(json.dumps({"subject": "account", "where": where}), encoding="utf-8")


def put_scores(shop: Workspace) -> None:
    for r in range(1, 6):
        put(shop, f"r{r}", {"rfm": {"r": {"eq": r}}})


def check(engine: Engine, shop: Workspace, at: datetime) -> None:
    definitions = load_segments(shop)
    with reading(engine) as connection:
        every = evaluate(connection, definitions, list(definitions), as_of=at, currency="GBP")
        assert snapshots(connection) == {name: set(ids.tolist()) for name, ids in every.items()}


def moves(refreshed: list[Refreshed]) -> int:
    return sum(one.joined + one.left for one in refreshed)


def notes(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(changes)).scalar_one())


# --- instants ------------------------------------------------------------------------------------------------


def test_a_clock_that_is_behind_brings_nothing_back_to_an_earlier_instant(engine: Engine, shop: Workspace) -> None:
    for days in (3, 30, 60, 90, 120):
        put(shop, f"d{days}", {"orders": {"measure": "days_since_last", "gte": days}})
    put_scores(shop)
    refresh(engine, shop, now=NOW)
    assert moves(refresh(engine, shop, now=NOW + 20 * HOUR)) > 0
    assert moves(refresh(engine, shop, now=NOW)) == 0
    with reading(engine) as connection:
        assert set(connection.execute(select(segments.c.refreshed_at)).scalars()) == {NOW + 20 * HOUR}
    assert moves(refresh(engine, shop, now=NOW + 20 * HOUR + MINUTE)) == 0
    check(engine, shop, NOW + 20 * HOUR + MINUTE)


def test_scoring_by_a_clock_that_is_behind_keeps_to_the_last_refreshs_instant(engine: Engine, shop: Workspace) -> None:
    put_scores(shop)
    refresh(engine, shop, now=NOW)
    refresh(engine, shop, now=NOW + 20 * HOUR)
    run = refresh_profiles(engine, shop.settings, subject=Subject.ACCOUNT, now=NOW, kinds=["rfm"])
    assert (run.as_of, run.written) == (NOW + 20 * HOUR, 0)


def test_segments_are_asked_at_the_instant_of_profiles_that_were_scored_ahead(engine: Engine, shop: Workspace) -> None:
    put_scores(shop)
    put(shop, "d30", {"orders": {"measure": "days_since_last", "gte": 30}})
    refresh(engine, shop, now=NOW)
    ensure_scores(engine, shop.settings, now=NOW + 2 * DAY, max_age=DAY, asked=[(Subject.ACCOUNT, "rfm")])
    refresh(engine, shop, now=NOW + MINUTE)
    check(engine, shop, NOW + 2 * DAY)


# --- moves of profiles -----------------------------------------------------------------------------------------


def test_what_a_refresh_of_one_segment_moves_reaches_the_others(engine: Engine, shop: Workspace) -> None:
    put_scores(shop)
    refresh(engine, shop, now=NOW)
    refresh(engine, shop, ["r5"], now=NOW + 20 * HOUR)
    refresh(engine, shop, now=NOW + 20 * HOUR + MINUTE)
    check(engine, shop, NOW + 20 * HOUR + MINUTE)
    assert notes(engine) == 0


def test_a_refresh_killed_after_the_profiles_is_made_good_by_the_next(
    engine: Engine, shop: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_scores(shop)
    refresh(engine, shop, now=NOW)

    def killed(*_args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("segments.refresh._Run._wave", killed)
        with pytest.raises(KeyboardInterrupt):
            refresh(engine, shop, now=NOW + 20 * HOUR)
    assert notes(engine) > 0
    refresh(engine, shop, now=NOW + 20 * HOUR + MINUTE)
    check(engine, shop, NOW + 20 * HOUR + MINUTE)


# --- what is applied without being fitted ------------------------------------------------------------------------


def test_an_edited_band_reaches_everyone_at_the_next_refresh(engine: Engine, shop: Workspace) -> None:
    wide = with_rfm(shop, band=0.4)
    put_scores(wide)
    refresh(engine, wide, now=NOW)
    refresh(engine, wide, now=NOW + 10 * DAY)
    none = with_rfm(shop, band=0.0)
    assert moves(refresh(engine, none, now=NOW + 10 * DAY + MINUTE)) > 0
    assert moves(refresh(engine, none, now=NOW + 10 * DAY + MINUTE, full=True)) == 0


def test_edited_rates_reach_everyone_at_the_next_refresh_and_only_once(engine: Engine, shop: Workspace) -> None:
    rates = shop.root / "rates.csv"
    rates.write_text("from,currency,rate\n2020-01-01,USD,0.1\n", encoding="utf-8")
    settings = shop.settings.model_copy(update={"rates": "rates.csv"})
    shop = Workspace(root=shop.root, settings=settings, environment=shop.environment)
    with writing(engine) as connection:
        connection.execute(orders.update().values(currency="USD", net_minor=30_000))
    put(shop, "m", {"rfm": {"m": {"gte": 3}}})
    assert moves(refresh(engine, shop, now=NOW)) == 0
    rates.write_text("from,currency,rate\n2020-01-01,USD,0.9\n", encoding="utf-8")
    assert moves(refresh(engine, shop, now=NOW + MINUTE)) == FIRMS
    applied: list[datetime | None] = []
    for minutes in (2, 3):
        refresh(engine, shop, now=NOW + minutes * MINUTE)
        with reading(engine) as connection:
            model = models.standing(connection, ModelKind.RFM, Subject.ACCOUNT)
            applied.append(model.applied_at if model else None)
    assert applied == [NOW + MINUTE] * 2


# --- few notes ---------------------------------------------------------------------------------------------------


def test_notes_that_nobody_uses_are_merged_and_lose_nobody(engine: Engine) -> None:
    for n in range(2 * MERGED_EVERY + 50):
        with writing(engine) as connection:
            touch(connection, Subject.ACCOUNT, [n % 70, n])
    assert notes(engine) <= MERGED_EVERY
    with reading(engine) as connection:
        assert read_changes(connection).accounts.tolist() == list(range(2 * MERGED_EVERY + 50))


def test_merging_keeps_what_a_segment_has_used_apart_from_what_is_new_to_it(engine: Engine) -> None:
    with writing(engine) as connection:
        old = [row for n in (1, 2, 3) for row in touch(connection, Subject.ACCOUNT, [n])]
        keep_used(connection, [7], old)
        touch(connection, Subject.ACCOUNT, [3])
        newer = touch(connection, Subject.ACCOUNT, [4])
        keep_used(connection, [8], newer)
        found = read_changes(connection)
        assert found.accounts.tolist() == [1, 2, 3, 4]
        assert found.but(found.used[7]).accounts.tolist() == [3, 4]
        assert found.but(found.used[8]).accounts.tolist() == [1, 2, 3]
        forget_changes(connection, found.rows)
    assert notes(engine) == 0


def test_named_refreshes_alone_ask_only_whom_something_new_touched(engine: Engine, shop: Workspace) -> None:
    put_scores(shop)
    refresh(engine, shop, now=NOW)
    with writing(engine) as connection:
        touch(connection, Subject.ACCOUNT, range(1, FIRMS + 1))
    seen = []
    for n in range(1, 8):
        (one,) = refresh(engine, shop, ["r5"], now=NOW + n * MINUTE)
        seen.append(one.asked)
    assert seen[0] is None  # All were touched.
    assert None not in seen[1:]
    assert max(asked or 0 for asked in seen[1:]) <= 3
    assert notes(engine) <= 3
    assert {one.asked for one in refresh(engine, shop, now=NOW + 9 * MINUTE) if one.name != "r5"} == {None}
    assert notes(engine) == 0
