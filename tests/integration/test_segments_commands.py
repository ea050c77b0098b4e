"""The commands about segments and pictures, as typed: tables, JSON with stable keys, and errors in words."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner, Result

from cli.main import app
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import RFM_SEGMENTS, Subject
from segments.pictures.facts import cluster_migration, cluster_profiles, flows, rfm_grid, rfm_migration
from segments.pictures.migration import NO_LONGER, NOT_YET
from segments.rfm_live import score
from segments.scoring import refresh_profiles
from store.engine import open_database, reading, writing
from store.schema import migrate
from store.tables import accounts, consents, contacts, orders, profiles

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
BIG = "description: Who ordered lately\nsubject: account\nwhere: {orders: {measure: days_since_last, lte: 30}}\n"
GERMAN = "subject: account\nwhere: {attribute: {name: country, eq: DE}}\n"
PEOPLE = "subject: contact\nwhere: {everyone: true}\n"


@pytest.fixture
def shop(workspace: Workspace) -> Workspace:
    """A workspace with its own database: sixty accounts with orders, and three segments."""
    for name, text in (("big", BIG), ("german", GERMAN), ("people", PEOPLE)):
        (workspace.root / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")
    engine = open_database(workspace.database_url)
    migrate(engine)
    seed(engine)
    engine.dispose()
    return workspace


def seed(engine: Engine, firms: int = 60) -> None:
    """Store accounts A1 …; A<n> ordered n % 7 + 1 times, last 5 n days ago, every second one is German."""
    numbers = range(1, firms + 1)
    firm = [{"id": n, "external_id": f"A{n}", "country": "DE" if n % 2 else "GB"} for n in numbers]
    people = [{"id": n, "external_id": f"C{n}", "account_id": n, "email": f"c{n}@a{n}.example"} for n in numbers]
    granted = {"channel": "email", "status": "granted", "at": NOW - 400 * DAY}
    bought = [
        {
            "external_id": f"O{n}-{turn}",
            "account_id": n,
            "kind": "order",
            "currency": "GBP",
            "net_minor": 1000 * n,
            "gross_minor": 1000 * n,
            "ordered_at": NOW - (5 * n + 20 * turn) * DAY,
        }
        for n in numbers
        for turn in range(n % 7 + 1)
    ]
    with writing(engine) as connection:
        connection.execute(accounts.insert(), firm)
        connection.execute(contacts.insert(), people)
        connection.execute(consents.insert(), [{"contact_id": n, **granted} for n in numbers])
        connection.execute(orders.insert(), bought)


def run(shop: Workspace, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*words, "--workspace", str(shop.root)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def answer(shop: Workspace, *words: str) -> Any:
    return json.loads(run(shop, *words, "--json").stdout)


def lines(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# --- one segment ---------------------------------------------------------------------------------------------


def test_list_show_preview_and_refresh_agree(shop: Workspace) -> None:
    assert [(row["name"], row["size"]) for row in answer(shop, "segments", "list")] == [
        ("big", None), ("german", None), ("people", None),
    ]  # fmt: skip
    preview = answer(shop, "segments", "preview", "german", "--sample", "2")
    assert (preview["size"], preview["sample"], preview["live"]) == (30, ["A1", "A11"], True)
    refreshed = {row["name"]: row for row in answer(shop, "segments", "refresh", "--full")}
    assert {name: (row["size"], row["joined"]) for name, row in refreshed.items()} == {
        "big": (6, 6), "german": (30, 30), "people": (60, 60),
    }  # fmt: skip
    shown = answer(shop, "segments", "show", "big")
    assert (shown["live"], shown["members"]) == (False, ["A1", "A2", "A3", "A4", "A5", "A6"])
    assert [row["size"] for row in answer(shop, "segments", "list")] == [6, 30, 60]
    assert "6 accounts" in run(shop, "segments", "show", "big").stdout
    assert "german" in run(shop, "segments", "refresh").stdout


def test_explain_says_leaf_by_leaf_and_when_time_will_change_it(shop: Workspace) -> None:
    said = answer(shop, "segments", "explain", "big", "A2")
    assert (said["name"], said["subject"], said["member"]) == ("big", "A2", True)
    assert said["next_change"]["enters"] is False
    at = datetime.fromisoformat(said["next_change"]["at"])
    assert NOW + 20 * DAY < at <= NOW + 21 * DAY
    assert said["conditions"][0]["holds"] is True
    text = run(shop, "segments", "explain", "big", "A2").stdout
    assert "A2 is in big" in text
    assert "leaves on" in text
    assert answer(shop, "segments", "explain", "german", "A2")["next_change"] is None
    assert "nothing changes by time alone" in run(shop, "segments", "explain", "german", "A2").stdout


def test_what_is_not_there_is_said_with_its_remedy(shop: Workspace) -> None:
    assert "there is no segment 'germna' (did you mean" in run(shop, "segments", "show", "germna", code=1).stderr
    assert "there is no layout 'x'" in run(
        shop, "segments", "export", "german", "--out", str(shop.root / "x.csv"), "--layout", "x", code=1
    ).stderr  # fmt: skip
    assert "say since when" in run(shop, "segments", "diff", "german", code=1).stderr
    assert "leave --from" in run(shop, "segments", "diff", "german", "big", "--from", "2026-01-01", code=1).stderr
    assert "is not a date" in run(shop, "segments", "diff", "german", "--from", "yesterday", code=1).stderr


def test_brackets_in_a_description_are_shown_as_they_are(shop: Workspace) -> None:
    for name, text in (("one", "ends [/bold] here"), ("two", "[red]a :warning: b")):
        (shop.root / "segments" / f"{name}.yaml").write_text(f"description: '{text}'\n{GERMAN}", encoding="utf-8")
        assert text in run(shop, "segments", "list").stdout


# --- sets ----------------------------------------------------------------------------------------------------


def test_diff_in_time_tells_who_came_and_went(shop: Workspace) -> None:
    run(shop, "segments", "refresh")
    before = NOW - DAY
    said = answer(shop, "segments", "diff", "german", "--from", before.isoformat(), "--by", "reason")
    assert (said["size_before"], said["size_after"], said["stayed"]) == (0, 30, 0)
    assert (len(said["entered"]), said["left"], said["reasons"]["entered"]) == (30, [], {"other": 30})
    text = run(shop, "segments", "diff", "german", "--from", before.isoformat(), "--sample", "3").stdout
    assert "from 0 to 30 accounts" in text
    assert "… and 27 more" in text


def test_diff_of_two_and_overlap_give_the_same_numbers(shop: Workspace) -> None:
    pair = answer(shop, "segments", "diff", "german", "big")
    assert (pair["both"], len(pair["only_first"]), pair["only_second"]) == (3, 27, ["A2", "A4", "A6"])
    whole = answer(shop, "segments", "overlap")
    assert (whole["segments"], whole["subject"], whole["in_any"]) == (["big", "german"], "account", 33)
    assert whole["counts"] == [[6, 3], [3, 30]]
    assert whole["jaccard"][0][1] == pair["jaccard"] == 3 / 33
    shares = run(shop, "segments", "overlap", "big", "german", "--show", "share").stdout
    assert "50.0%" in shares
    assert "10.0%" in shares
    assert "0.091" in run(shop, "segments", "overlap", "--show", "jaccard").stdout
    assert "only in german: 27" in run(shop, "segments", "diff", "german", "big").stdout
    assert "two segments or more" in run(shop, "segments", "overlap", "--subject", "contacts", code=1).stderr


def test_export_writes_counts_and_tells(shop: Workspace) -> None:
    out = shop.root / "german.csv"
    words = ("segments", "export", "german", "--out", str(out), "--layout", "meta")
    dry = answer(shop, *words, "--dry-run")
    assert (dry["written"], dry["exported"], out.exists()) == (False, 30, False)
    done = answer(shop, *words)
    assert (done["written"], done["members"], done["contacts"], done["exported"]) == (True, 30, 30, 30)
    assert len(lines(out)) == 31
    assert done["addresses"] == {"email": {"exported": 30}, "phone": {"no_address": 30}}
    (shop.root / "segments" / "german.yaml").write_text(GERMAN.replace("DE", "GB"), encoding="utf-8")
    text = run(shop, *words).stdout
    assert "30 of 30 contacts written to" in text.replace("\n", " ")
    assert "30 new addresses; 30 to remove" in text
    assert len(lines(Path(done["removals_file"]))) == 31
    assert answer(shop, *words, "--removals-done", "--consent", "strict")["removals"] == 0


# --- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "html"])
def test_pictures_are_drawn_from_the_database(shop: Workspace, ending: str) -> None:
    out = shop.root / f"picture.{ending}"
    start = b"\x89PNG" if ending == "png" else b"<!DOCTYPE html>"
    for words in (
        ("rfm", "--as-of", f"{NOW:%Y-%m-%d}"),
        ("migration", "--from", f"{NOW - 90 * DAY:%Y-%m-%d}"),
    ):
        told = run(shop, "picture", *words, "--out", str(out)).stdout
        assert "accounts" in told
        assert out.read_bytes().startswith(start)
        out.unlink()


def test_a_picture_that_could_not_be_written_is_refused_before_it_is_drawn(shop: Workspace) -> None:
    assert "neither in .png nor in .html" in run(shop, "picture", "rfm", "--out", "x.gif", code=1).stderr
    assert "there is no folder" in run(shop, "picture", "rfm", "--out", "nowhere/x.png", code=1).stderr
    out = str(shop.root / "x.png")
    assert "were never computed" in run(shop, "picture", "rfm", "--out", out, code=1).stderr
    assert "there are no clusters of accounts yet" in run(shop, "picture", "clusters", "--out", out, code=1).stderr
    assert (
        "must be before --to" in run(shop, "picture", "migration", "--out", out, "--from", "2999-01-01", code=1).stderr
    )


def test_the_grid_of_a_date_is_the_scoring_of_that_date(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    with reading(engine) as connection:
        found = rfm_grid(connection, workspace, subject=Subject.ACCOUNT, as_of=NOW)
        live = score(connection, workspace.settings.rfm, subject=Subject.ACCOUNT, as_of=NOW, currency="GBP")
    assert sum(cell.buyers for cell in found.cells) == 60
    assert sum(cell.money_minor for cell in found.cells) == int(live.behaviour.monetary.sum())
    by_group = {name: int((live.codes == code).sum()) for code, name in enumerate(live.names)}
    drawn = {name: sum(cell.buyers for cell in found.cells if cell.group == name) for name in found.groups}
    assert drawn == by_group
    assert (found.scores, found.groups) == (5, RFM_SEGMENTS)


def test_the_grid_of_now_is_what_segments_read(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    refresh_profiles(engine, workspace.settings, subject=Subject.ACCOUNT, now=NOW, kinds=["rfm"])
    with reading(engine) as connection:
        found = rfm_grid(connection, workspace, subject=Subject.ACCOUNT, as_of=None)
        kept = connection.execute(select(profiles.c.rfm_segment)).scalars().all()
    drawn = {cell.group: 0 for cell in found.cells}
    for cell in found.cells:
        drawn[cell.group] += cell.buyers
    assert drawn == {name: kept.count(name) for name in set(kept)}
    assert found.as_of == NOW
    assert "version 1" in found.notes[0]


def test_movement_is_by_one_set_of_cut_offs(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    since = NOW - 100 * DAY
    with reading(engine) as connection:
        found = rfm_migration(connection, workspace, subject=Subject.ACCOUNT, since=since, until=NOW)
        first = score(connection, workspace.settings.rfm, subject=Subject.ACCOUNT, as_of=since, currency="GBP")
    sides: list[dict[str, int]] = [{}, {}]
    for flow in found.flows:
        for side, group in zip(sides, (flow.before, flow.after), strict=True):
            side[group] = side.get(group, 0) + flow.subjects
    before = {name: int((first.codes == code).sum()) for code, name in enumerate(first.names)}
    assert {name: number for name, number in before.items() if number} == {
        name: number for name, number in sides[0].items() if name != NOT_YET
    }
    assert sum(sides[1].values()) == 60
    assert "fitted to" in found.notes[0]


def test_flows_count_everybody_of_either_date() -> None:
    import numpy as np

    before = (np.array([1, 2, 3, 9]), np.array([0, 0, 1, 1]))
    after = (np.array([2, 3, 4]), np.array([0, 0, 1]))
    found = {(flow.before, flow.after): flow.subjects for flow in flows(before, after, ("a", "b"))}
    assert found == {("a", "a"): 1, ("a", NO_LONGER): 1, ("b", "a"): 1, ("b", NO_LONGER): 1, (NOT_YET, "b"): 1}


def test_clusters_are_drawn_with_the_names_and_keys_of_their_model(engine: Engine, workspace: Workspace) -> None:
    path = workspace.root / "carillon.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "clusters: {k: 3}\n", encoding="utf-8")
    workspace = load_workspace(workspace.root, {"CARILLON_SECRET_KEY": "k" * 64})
    seed(engine)
    refresh_profiles(engine, workspace.settings, subject=Subject.ACCOUNT, now=NOW, kinds=["clusters"])
    with reading(engine) as connection:
        found = cluster_profiles(connection, workspace, subject=Subject.ACCOUNT, as_of=NOW)
        moved = cluster_migration(connection, workspace, subject=Subject.ACCOUNT, since=NOW - 60 * DAY, until=NOW)
        rows = connection.execute(select(profiles.c.cluster, profiles.c.net_minor)).all()
    sizes = {one.key: one.size for one in found.clusters}
    kept = [row.cluster for row in rows]
    assert sizes == {key: kept.count(key) for key in sizes}
    assert len(sizes) == 3
    whole = sum(row.net_minor for row in rows)
    for one in found.clusters:
        own = sum(row.net_minor for row in rows if row.cluster == one.key)
        assert one.revenue_share == pytest.approx(own / whole)
        median = one.medians[found.features.index("net")]
        assert median == pytest.approx(_median([row.net_minor for row in rows if row.cluster == one.key]))
    arrived: dict[str, int] = dict.fromkeys(sizes, 0)
    for flow in moved.flows:
        arrived[flow.after] += flow.subjects
    assert arrived == sizes
    assert not moved.ordered


def _median(numbers: list[int]) -> float:
    numbers = sorted(numbers)
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2
