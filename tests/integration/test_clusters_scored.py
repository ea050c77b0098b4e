"""Clusters on profiles: fitted, assigned daily, held, approved, imported."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from kernel.errors import ConfigError, InputError
from kernel.vocabulary import Subject
from segments import models
from segments.cluster_answers import explained, shown
from segments.cluster_labels import import_labels
from segments.models import ModelKind
from segments.scoring import ProfileRun, refresh_profiles
from store.engine import reading, writing
from store.tables import orders
from tests.integration.buying import DAY, NOW, add, kept, open_shop, seed, settings, versions

KIND = ModelKind.CLUSTERS


def refresh(engine: Engine, now: datetime = NOW, clusters: dict[str, Any] | None = None, **options: Any) -> ProfileRun:
    own = settings(clusters={"k": 4, **(clusters or {})})
    return refresh_profiles(engine, own, subject=Subject.ACCOUNT, now=now, kinds=[KIND], **options)


def labels(engine: Engine) -> dict[int, str]:
    return {n: row.cluster for n, row in kept(engine).items()}


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """A shop of 600 buyers, clustered."""
    open_shop(engine, buyers=600)
    refresh(engine)
    return engine


def test_every_buyer_has_a_cluster_and_its_model(shop: Engine) -> None:
    rows = kept(shop)
    (model,) = versions(shop)
    assert len(rows) == 600
    assert {row.cluster for row in rows.values()} == {"c1", "c2", "c3", "c4"}
    assert {row.cluster_model_id for row in rows.values()} == {model.id}
    assert {(row.previous_cluster, row.cluster_since) for row in rows.values()} == {(None, NOW)}
    assert model.report["fit"]["k"] == 4
    assert model.fitted_on == 600


def test_between_fits_centroids_are_frozen_and_who_changes_is_remembered(shop: Engine) -> None:
    before = labels(shop)
    mover = next(n for n, key in before.items() if key == min(before.values()))
    refresh(shop, NOW, clusters={"refit_every": "1d"})
    assert labels(shop) == before
    add(shop, *[{"account": n, "days": -0.1 * k, "net": 900_000} for n in range(1, 30) for k in range(1, 9)])
    run = refresh(shop, NOW + DAY / 2 * 2, only=np.arange(1, 30))
    assert not run.refitted
    after = labels(shop)
    moved = {n for n in before if after[n] != before[n]}
    assert moved
    assert moved <= set(range(1, 30))
    rows = kept(shop)
    assert {rows[n].previous_cluster == before[n] for n in moved} == {True}
    assert {rows[n].cluster_since for n in moved} == {NOW + DAY}
    assert mover in rows


def test_a_refit_on_the_same_facts_moves_nobody(shop: Engine) -> None:
    before = labels(shop)
    run = refresh(shop, refit=[KIND])
    assert run.refitted == {KIND}
    assert [row.state for row in versions(shop)] == ["retired", "active"]
    assert labels(shop) == before
    assert {row.cluster_model_id for row in kept(shop).values()} == {versions(shop)[1].id}


def test_a_fit_that_changes_the_picture_is_held_until_it_is_approved(shop: Engine) -> None:
    before = labels(shop)
    run = refresh(shop, clusters={"k": 6})
    assert run.held[KIND].state == "held"
    assert "there were 4 clusters and are 6 now" in run.held[KIND].note
    assert any("held until approved" in warning for warning in run.warnings)
    assert labels(shop) == before
    again = refresh(shop, NOW + DAY, clusters={"k": 6})
    assert not again.refitted
    assert [row.state for row in versions(shop)] == ["active", "held"]
    with reading(shop) as connection:
        seen = shown(connection, Subject.ACCOUNT)
    assert (seen["version"], seen["held"]["version"]) == (1, 2)
    with writing(shop) as connection:
        models.approve(connection, KIND, Subject.ACCOUNT, now=NOW + DAY)
    refresh(shop, NOW + DAY, clusters={"k": 6}, frozen=True)
    after = labels(shop)
    assert len(set(after.values())) == 6
    rows = kept(shop)
    assert {rows[n].previous_cluster for n in rows if after[n] != before[n]} <= {"c1", "c2", "c3", "c4"}


def test_clusters_are_fitted_anew_when_old_when_set_otherwise_and_when_the_buyers_have_drifted(shop: Engine) -> None:
    month = {"refit_every": "30d"}
    assert not refresh(shop, NOW + 2 * DAY, clusters=month).refitted
    assert refresh(shop, NOW + 30 * DAY, clusters=month).refitted == {KIND}
    assert refresh(shop, NOW + 30 * DAY, clusters={**month, "seed": 2}).refitted == {KIND}
    with writing(shop) as connection:
        connection.execute(orders.delete().where(orders.c.account_id > 100))
    assert not refresh(shop, NOW + 30 * DAY, clusters={**month, "seed": 2}).refitted or len(versions(shop)) > 3


def test_sizes_that_are_far_from_those_of_the_fit_are_drift(engine: Engine) -> None:
    open_shop(engine, buyers=300)
    refresh(engine)
    first = labels(engine)
    largest = max(set(first.values()), key=list(first.values()).count)
    gone = [n for n, key in first.items() if key == largest]
    with writing(engine) as connection:
        connection.execute(orders.delete().where(orders.c.account_id.in_(gone)))
    run = refresh(engine, NOW + DAY)
    assert run.refitted == {KIND}


def test_explanations_are_kept_with_the_model(shop: Engine) -> None:
    with reading(shop) as connection:
        found = explained(connection, Subject.ACCOUNT)
    assert [one["key"] for one in found["profiles"]] == ["c1", "c2", "c3", "c4"]
    assert sum(one["size"] for one in found["profiles"]) == 600
    assert sum(one["revenue_share"] for one in found["profiles"]) == pytest.approx(1)
    assert len({one["name"] for one in found["profiles"]}) == 4
    assert found["profiles"][0]["examples"][0].startswith("A")
    assert 0.5 < found["tree"]["fidelity"] <= 1
    assert (found["migration"], found["moved_since"]) == (None, [])
    assert any("products" in warning for warning in found["warnings"])


def test_contacts_and_accounts_have_clusters_of_their_own(engine: Engine) -> None:
    seed(engine, *[{"account": n, "contact": n + 100, "days": n * 3, "net": n * 500} for n in range(1, 30)], firms=30)
    for subject in Subject:
        refresh_profiles(engine, settings(clusters={"k": 3}), subject=subject, now=NOW, kinds=[KIND])
    assert {(row.subject, row.cluster is None) for row in kept(engine).values()} == {
        ("account", False),
        ("contact", False),
    }
    assert [(row.subject, row.version) for row in versions(engine)] == [("account", 1), ("contact", 1)]


# --- hardly any data -----------------------------------------------------------------------------------------


def test_too_few_or_equal_buyers_are_a_refused_model_and_nobody_has_a_cluster(engine: Engine) -> None:
    run = refresh(engine)
    assert "nobody has bought yet" in run.models[KIND].note
    seed(engine, *[{"account": n, "days": 3} for n in range(1, 9)], firms=9)
    run = refresh(engine, NOW + DAY, refit=[KIND])
    assert run.models[KIND].state == "refused"
    assert any("refused" in warning for warning in run.warnings)
    assert set(labels(engine).values()) == {None}
    assert {row.orders for row in kept(engine).values()} == {1}
    assert not refresh(engine, NOW + 2 * DAY).refitted


def test_keys_go_on_after_a_refusal(shop: Engine) -> None:
    before = labels(shop)
    small = {"k": 20, "features": ["return_share"]}
    with writing(shop) as connection:
        connection.execute(orders.delete().where(orders.c.kind == "return"))
    assert refresh(shop, clusters=small).models[KIND].state == "refused"
    assert set(labels(shop).values()) == {None}
    refresh(shop, NOW + DAY, refit=[KIND])
    if versions(shop)[-1].state == "held":
        with writing(shop) as connection:
            models.approve(connection, KIND, Subject.ACCOUNT, now=NOW)
        refresh(shop, NOW + DAY, frozen=True)
    after = labels(shop)
    same = sum(after[n] == before[n] for n in before)
    assert same > 400


# --- labels from elsewhere -----------------------------------------------------------------------------------


def file_of(tmp_path: Path, rows: dict[str, str], head: str = "external_id,cluster") -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([head, *(f"{name},{label}" for name, label in rows.items())]) + "\n", encoding="utf-8")
    return path


def take_over(engine: Engine, path: Path, named: str = "churn/7", now: datetime = NOW, **options: Any) -> Any:
    own = settings(clusters={"k": 4})
    return import_labels(engine, own, path, named=named, subject=Subject.ACCOUNT, now=now, **options)


def test_imported_labels_stay_with_whom_they_were_given_to(engine: Engine, tmp_path: Path) -> None:
    open_shop(engine, buyers=300)
    wanted = {f"A{n}": "gold" if n % 3 else "lead" for n in range(1, 251)}
    done = take_over(engine, file_of(tmp_path, {**wanted, "nobody": "gold"}))
    assert (done.rows, done.unknown, done.without_orders) == (251, 1, 0)
    found = labels(engine)
    assert all(found[n] == wanted[f"A{n}"] for n in range(1, 251))
    assert {found[n] for n in range(251, 301)} <= {"gold", "lead"}
    (model,) = versions(engine)
    assert model.options["imported"] == "churn/7"
    add(engine, *[{"account": n, "days": -1, "net": 999_999} for n in range(1, 40)])
    later = refresh(engine, NOW + 90 * DAY)
    assert not later.refitted
    assert {n: key for n, key in labels(engine).items() if n <= 250} == {n: wanted[f"A{n}"] for n in range(1, 251)}


def test_new_labels_that_move_too_many_are_taken_over_only_when_approved(engine: Engine, tmp_path: Path) -> None:
    open_shop(engine, buyers=100)
    take_over(engine, file_of(tmp_path, {f"A{n}": "gold" if n <= 50 else "lead" for n in range(1, 101)}))
    turned = file_of(tmp_path, {f"A{n}": "lead" if n <= 50 else "gold" for n in range(1, 101)})
    with pytest.raises(ConfigError, match=r"100% of the buyers would change their cluster.*--approve"):
        take_over(engine, turned, "churn/8", NOW + DAY)
    assert len(versions(engine)) == 1
    take_over(engine, turned, "churn/8", NOW + DAY, approved=True)
    rows = kept(engine)
    assert (rows[1].cluster, rows[1].previous_cluster, rows[1].cluster_since) == ("lead", "gold", NOW + DAY)
    assert [row.state for row in versions(engine)] == ["retired", "active"]


def test_a_fit_of_our_own_replaces_imported_labels(engine: Engine, tmp_path: Path) -> None:
    open_shop(engine, buyers=200)
    take_over(engine, file_of(tmp_path, {f"A{n}": f"g{n % 4}" for n in range(1, 201)}))
    refresh(engine, refit=[KIND])
    with writing(engine) as connection:
        models.approve(connection, KIND, Subject.ACCOUNT, now=NOW)
    refresh(engine, frozen=True)
    assert versions(engine)[-1].options.get("imported") is None
    assert {row.previous_cluster for row in kept(engine).values()} <= {"g0", "g1", "g2", "g3", None}


def test_a_wrong_file_of_labels_is_told_by_line(sqlite_engine: Engine, tmp_path: Path) -> None:
    seed(sqlite_engine, {"account": 1, "days": 1})
    path = tmp_path / "labels.csv"
    path.write_text("external_id,cluster\nA1,gold\nA1,lead\n,gold\nA2,\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        take_over(sqlite_engine, path)
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (3, "'A1' is 'lead' here and 'gold' before"),
        (4, "the external_id is empty"),
        (5, "'A2' has no cluster"),
    ]
    with pytest.raises(InputError, match="the columns external_id and cluster are missing"):
        take_over(sqlite_engine, file_of(tmp_path, {"A1": "gold"}, head="id,label"))
    with pytest.raises(ConfigError, match="write NAME/VERSION"):
        take_over(sqlite_engine, file_of(tmp_path, {"A1": "gold"}), named="churn")
    with pytest.raises(ConfigError, match="none of its 1 external ids is a known account"):
        take_over(sqlite_engine, file_of(tmp_path, {"X": "gold"}))
    with pytest.raises(ConfigError, match="needs from 2 to 100"):
        take_over(sqlite_engine, file_of(tmp_path, {"A1": "gold"}))
    with pytest.raises(ConfigError, match="cannot be read"):
        take_over(sqlite_engine, tmp_path / "none.csv")
