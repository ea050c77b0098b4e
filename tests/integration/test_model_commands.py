"""Commands about models: what they print, and their JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from cli.main import app
from kernel.settings import Workspace
from kernel.vocabulary import Subject
from segments.scoring import refresh_profiles
from store.engine import open_database, reading, writing
from store.schema import migrate
from store.tables import orders, profiles
from tests.integration.buying import NOW, open_shop

AGE = datetime.now(UTC) - NOW
"""Commands read the clock: orders are moved to end now."""


def run(workspace: Workspace, *words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*words, "--workspace", str(workspace.root)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def data(workspace: Workspace, *words: str) -> Any:
    return json.loads(run(workspace, *words, "--json").stdout)


@pytest.fixture
def shop(workspace: Workspace) -> Workspace:
    """A workspace with a shop of 500 buyers."""
    text = (workspace.root / "carillon.yaml").read_text(encoding="utf-8")
    (workspace.root / "carillon.yaml").write_text(text + "clusters: {k: 3}\n", encoding="utf-8")
    engine = open_database(workspace.database_url)
    migrate(engine)
    open_shop(engine, buyers=500)
    shift = int(AGE / timedelta(milliseconds=1)) - 3_600_000
    with writing(engine) as connection:
        moved = orders.c.ordered_at + shift
        connection.execute(update(orders).values(ordered_at=moved))
    engine.dispose()
    return workspace


def test_rfm_takes_another_scheme_map_and_roll_up(shop: Workspace) -> None:
    plain = data(shop, "rfm")
    assert (plain["scheme"], plain["scored"], len(plain["groups"])) == ("quintiles", 500, 10)
    thirds = data(shop, "rfm", "--scheme", "thirds")
    assert list(thirds["groups"])[-1] == "inactive"
    assert sum(row["n"] for row in thirds["groups"].values()) == 500
    assert "lost" in data(shop, "rfm", "--map", "eleven", "--rollup", "top")["groups"]
    refused = run(shop, "rfm", "--scheme", "thirds", "--map", "grid", code=1)
    assert "grid reads scores from 1 to 5" in refused.output
    said = run(shop, "rfm").output
    assert "RFM of accounts as of" in said
    assert "500 have bought" in said


def test_rfm_is_fitted_anew_when_asked(shop: Workspace) -> None:
    fitted = data(shop, "rfm", "fit")
    assert (fitted["version"], fitted["state"], fitted["fitted_on"], fitted["scored"]) == (1, "active", 500, 500)
    assert len(fitted["cutoffs"]["recency_days"]) == 4
    assert data(shop, "rfm", "fit")["version"] == 2
    assert "rfm of accounts, version 3: active, fitted on 500 buyers" in run(shop, "rfm", "fit").output
    assert data(shop, "rfm", "fit", "--subject", "contacts")["state"] == "refused"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--since", "2026-01-01"), "`carillon rfm` does not read --since"),
        (("moves", "--since", "2026-01-01", "--as-of", "2026-01-01"), "`carillon rfm moves` does not read --as-of"),
        (("moves", "--since", "2026-01-01", "--scheme", "thirds"), "does not read --scheme"),
        (("fit", "--map", "six", "--as-of", "2026-01-01"), "`carillon rfm fit` does not read --as-of, --map"),
    ],
)
def test_options_that_a_view_of_rfm_does_not_read_are_refused(shop: Workspace, words: Any, said: str) -> None:
    assert said in run(shop, "rfm", *words, code=1).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("economics", "--lag", "x"), "--lag x: 'x' is not a duration"),
        (("economics", "--lag", "-5d"), "--lag -5d: '-5d' is not a duration"),
        (("stock", "--window", "5x"), "--window 5x: '5x' is not a duration"),
        (("stock", "--window", "-5d"), "--window -5d: '-5d' is not a duration"),
        (("stock", "--window", "0d"), "the window is from 1 to 3650 days long"),
        (("stock", "--window", "100000d"), "--window 100000d: '100000d' is longer than"),
        (("stock", "--window", "9999d"), "stock over 9999 days: the window is from 1 to 3650 days long"),
        (("stock", "--as-of", "0001-01-01"), "--as-of 0001-01-01 is outside the years 1900 to 2200"),
        (("economics", "--as-of", "0001-01-01"), "--as-of 0001-01-01 is outside the years"),
        (("rfm", "--as-of", "9999-12-31"), "--as-of 9999-12-31 is outside the years"),
        (("lifetime", "formulas", "--as-of", "0001-01-01"), "--as-of 0001-01-01 is outside the years"),
    ],
)
def test_spans_and_dates_that_cannot_be_are_told_in_words(shop: Workspace, words: Any, said: str) -> None:
    assert said in run(shop, *words, code=1).output


def test_rfm_moves_tells_who_changed_groups_and_why(shop: Workspace) -> None:
    assert "needs --since" in run(shop, "rfm", "moves", code=1).output
    engine = open_database(shop.database_url)
    start = datetime.now(UTC)
    for now in (start, start + timedelta(days=10)):
        refresh_profiles(engine, shop.settings, subject=Subject.ACCOUNT, now=now, kinds=["rfm"])
    engine.dispose()
    since = f"{start + timedelta(days=1):%Y-%m-%d}"
    found = data(shop, "rfm", "moves", "--since", since)
    assert set(found["by"]) == {"time"}
    assert sum(one["n"] for one in found["moves"]) == sum(found["by"].values()) > 0
    assert all(one["previous"] != one["group"] for one in found["moves"])
    assert set(data(shop, "rfm", "moves", "--since", "2020-01-01")["by"]) == {"time", "new"}
    assert "by time" in run(shop, "rfm", "moves", "--since", since).output


def test_clusters_are_fitted_shown_and_explained(shop: Workspace) -> None:
    assert "there are no clusters of accounts yet" in run(shop, "clusters", "show", code=1).output
    fitted = data(shop, "clusters", "fit")
    assert (fitted["version"], fitted["state"], fitted["scored"]) == (1, "active", 500)
    shown = data(shop, "clusters", "show")
    assert sum(one["size"] for one in shown["clusters"]) == 500
    assert shown["held"] is None
    assert all(one["name"] for one in shown["clusters"])
    explained = data(shop, "clusters", "explain")
    assert explained["tree"]["rules"]
    assert data(shop, "clusters", "explain", "--version", "1") == explained
    assert "no version 9" in run(shop, "clusters", "explain", "--version", "9", code=1).output
    for words in (("fit",), ("show",), ("explain",)):
        assert "c1" in run(shop, "clusters", *words).output
    assert "no clusters of accounts wait" in run(shop, "clusters", "approve", code=1).output


def test_clusters_are_explained_within_80_columns(shop: Workspace) -> None:
    data(shop, "clusters", "fit")
    told = data(shop, "clusters", "explain")
    words = ["clusters", "explain", "--workspace", str(shop.root)]
    text = CliRunner().invoke(app, words, env={"COLUMNS": "80"}).stdout.partition("\nRules that put")[0]
    assert max(len(line) for line in text.splitlines()) <= 80
    for one in told["profiles"]:
        block = text.partition(f"\n{one['key']}: ")[2].partition("\n\n")[0]
        assert " ".join(block.split()).startswith(f"{one['name']} {one['size']:,} accounts, {one['share']:.1%} of all")
        figures = [line.split() for line in block.splitlines()[-len(told["fit"]["features"]) :]]
        gaps = {name: f"{one['gaps'][name]:+.1f}" for name in told["fit"]["features"]}
        assert {name: gap for name, _median, gap in figures} == gaps


def test_brackets_in_a_label_are_shown_as_they_are(shop: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = [f"A{n},{'[/bold]' if n % 2 else '[red]a'}" for n in range(1, 501)]
    path.write_text("\n".join(["external_id,cluster", *rows]) + "\n", encoding="utf-8")
    run(shop, "clusters", "import", str(path), "--model", "[b]/7")
    for words in (("show",), ("explain",)):
        output = run(shop, "clusters", *words).output
        assert "[/bold]" in output
        assert "[red]a" in output
        assert "from [b]/7" in output


def test_a_held_fit_is_shown_and_approved(shop: Workspace) -> None:
    data(shop, "clusters", "fit")
    path = shop.root / "carillon.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("k: 3", "k: 5"), encoding="utf-8")
    assert data(shop, "clusters", "fit")["state"] == "held"
    shown = data(shop, "clusters", "show")
    assert (len(shown["clusters"]), shown["held"]["version"]) == (3, 2)
    assert "version 2 waits for approval" in run(shop, "clusters", "show").output
    approved = data(shop, "clusters", "approve")
    assert (approved["version"], approved["state"], approved["scored"]) == (2, "active", 500)
    shown = data(shop, "clusters", "show")
    assert (len(shown["clusters"]), shown["held"]) == (5, None)
    listed = data(shop, "models", "--kind", "clusters", "--subject", "accounts")
    assert [(row["version"], row["state"]) for row in listed] == [(2, "active"), (1, "retired")]
    assert "clusters" in run(shop, "models").output


def test_labels_are_imported_under_the_name_of_their_model(shop: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = [f"A{n},{'gold' if n % 2 else 'lead'}" for n in range(1, 501)]
    path.write_text("\n".join(["external_id,cluster", *rows, "X9,gold"]) + "\n", encoding="utf-8")
    done = data(shop, "clusters", "import", str(path), "--model", "churn/7")
    assert (done["imported"], done["rows"], done["unknown"], done["written"]) == ("churn/7", 501, 1, 500)
    turned = [row.replace("gold", "x").replace("lead", "gold").replace("x", "lead") for row in rows]
    path.write_text("\n".join(["external_id,cluster", *turned]) + "\n", encoding="utf-8")
    assert "--approve" in run(shop, "clusters", "import", str(path), "--model", "churn/8", code=1).output
    output = run(shop, "clusters", "import", str(path), "--model", "churn/8", "--approve").output
    assert "version 2, from churn/8: 500 labels" in output
    assert "churn/8" in run(shop, "clusters", "show").output


def test_lifetime_is_fitted_and_shown_with_its_test_against_the_past(shop: Workspace) -> None:
    assert "were never fitted" in run(shop, "lifetime", "show", code=1).output
    fitted = data(shop, "lifetime", "fit")
    assert (fitted["state"], fitted["totals"]["subjects"]) == ("active", 500)
    shown = data(shop, "lifetime", "show")
    assert shown == fitted
    assert shown["calibration"]["orders"]["groups"]
    output = run(shop, "lifetime", "show").output
    assert "log-likelihood" in output
    assert "Held out: the last" in output
    (row,) = data(shop, "lifetime", "show", "A7")
    assert set(row["intervals"]) == {"level", "estimate", "outcome"}
    assert "80% intervals" in run(shop, "lifetime", "show", "A7", "A8", "--level", "0.8").output
    assert "there is no account 'nobody'" in run(shop, "lifetime", "show", "nobody", code=1).output


def test_a_refused_lifetime_model_says_why(workspace: Workspace) -> None:
    fitted = data(workspace, "lifetime", "fit")
    assert fitted["state"] == "refused"
    assert "refused: only 0 buyers ordered on more than one day" in run(workspace, "lifetime", "show").output


def test_the_textbook_formulas_stand_beside_the_model(shop: Workspace) -> None:
    data(shop, "lifetime", "fit")
    found = data(shop, "lifetime", "formulas", "--retention", "0.5", "--acquisition-cost", "20")
    assert (found["years"], found["retention"], found["acquisition_cost_minor"]) == (2.0, 0.5, 2000)
    engine = open_database(shop.database_url)
    with reading(engine) as connection:
        values = [row.clv_minor for row in connection.execute(profiles.select())]
    engine.dispose()
    assert found["predicted_minor"] == round(sum(values) / len(values))
    assert data(shop, "lifetime", "formulas", "--years", "3", "--as-of", f"{datetime.now(UTC):%Y-%m-%d}")["years"] == 3
    assert "discounted, first margin now" in run(shop, "lifetime", "formulas").output
