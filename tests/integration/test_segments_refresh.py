"""Snapshots of segments, answers about them, and the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from sqlalchemy.dialects import postgresql, sqlite
from typer.testing import CliRunner

from cli.main import app
from kernel.errors import ConfigError
from kernel.settings import Workspace
from kernel.vocabulary import RFM_SEGMENTS
from segments import answers
from segments.compiler import members
from segments.definitions import definition_from_json, load_segments
from segments.refresh import refresh
from store.engine import open_database, reading, writing
from store.schema import migrate
from store.tables import accounts, contacts, orders, rfm_runs, rfm_scores, segment_members, segments

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
GERMAN = "description: From Germany\nsubject: account\nwhere: {attribute: {name: country, eq: DE}}\n"
BUYERS = """\
subject: account
where:
  all:
    - orders: {measure: sum, gte: 20}
    - not: {segment: german}
    - any_contact: {attribute: {name: role, eq: buyer}}
"""
CHAMPIONS = "subject: contact\nwhere: {rfm: {r: {gte: 1}}}\n"


def seed(engine: Engine, *, now: datetime = NOW) -> None:
    with writing(engine) as connection:
        for n, country in enumerate(["DE", "DE", "GB", "GB"], start=1):
            connection.execute(accounts.insert().values(id=n, external_id=f"A{n}", country=country))
            connection.execute(contacts.insert().values(id=n, external_id=f"C{n}", account_id=n, role="buyer"))
            connection.execute(
                orders.insert().values(
                    external_id=f"O{n}",
                    account_id=n,
                    ordered_at=now - n * DAY,
                    kind="order",
                    net_minor=n * 600,
                    gross_minor=n * 600,
                    currency="GBP",
                )
            )


def write(workspace: Workspace, **files: str) -> None:
    for name, text in files.items():
        (workspace.root / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")


def snapshot(engine: Engine, name: str) -> dict[int, datetime]:
    query = select(segment_members.c.subject_id, segment_members.c.since).join(segments)
    with reading(engine) as connection:
        return {row.subject_id: row.since for row in connection.execute(query.where(segments.c.name == name))}


def test_a_refresh_saves_members_and_scores(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN, buyers=BUYERS, scored=CHAMPIONS)
    told: list[tuple[str, int, int]] = []
    done = refresh(engine, workspace, now=NOW, progress=lambda *step: told.append(step))
    assert {one.name: (one.size, one.joined, one.left) for one in done} == {
        "buyers": (1, 1, 0),
        "german": (2, 2, 0),
        "scored": (4, 4, 0),
    }
    assert snapshot(engine, "buyers") == {4: NOW}
    assert told == [
        ("RFM scores of accounts", 0, 4),
        ("buyers", 1, 4),
        ("german", 2, 4),
        ("scored", 3, 4),
        ("done", 4, 4),
    ]


def test_who_stays_keeps_the_date_of_joining(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    refresh(engine, workspace, now=NOW)
    with writing(engine) as connection:
        connection.execute(accounts.update().where(accounts.c.id == 1).values(country="FR"))
        connection.execute(accounts.update().where(accounts.c.id == 3).values(country="DE"))
    (one,) = refresh(engine, workspace, ["german"], now=NOW + DAY)
    assert (one.size, one.joined, one.left, one.changed) == (2, 1, 1, False)
    assert snapshot(engine, "german") == {2: NOW, 3: NOW + DAY}


def test_a_refresh_of_all_forgets_segments_without_a_file(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN, british=GERMAN.replace("DE", "GB"))
    refresh(engine, workspace, now=NOW)
    (workspace.root / "segments" / "british.yaml").unlink()
    refresh(engine, workspace, ["german"], now=NOW)
    assert set(snapshot(engine, "british")) == {3, 4}
    refresh(engine, workspace, now=NOW)
    assert snapshot(engine, "british") == {}
    with reading(engine) as connection:
        assert connection.execute(select(segments.c.name)).scalars().all() == ["german"]


def test_show_gives_the_snapshot_and_preview_the_present(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    definitions = load_segments(workspace)
    with reading(engine) as connection:
        live = answers.show(connection, definitions, "german", now=NOW, currency="GBP")
    assert (live.live, live.as_of, live.members) == (True, NOW, ["A1", "A2"])
    refresh(engine, workspace, now=NOW)
    with writing(engine) as connection:
        connection.execute(accounts.update().where(accounts.c.id == 3).values(country="DE"))
    with reading(engine) as connection:
        shown = answers.show(connection, definitions, "german", now=NOW + DAY, currency="GBP")
        present = answers.preview(connection, definitions, "german", now=NOW + DAY, currency="GBP", sample=2)
    assert (shown.live, shown.as_of, shown.size, shown.members) == (False, NOW, 2, ["A1", "A2"])
    assert (present.size, present.members) == (3, ["A1", "A2"])


def test_an_edited_file_and_missing_scores_are_told(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN, scored=CHAMPIONS)
    with reading(engine) as connection:
        before = answers.preview(connection, load_segments(workspace), "scored", now=NOW, currency="GBP")
    assert "never computed" in before.notes[0]
    refresh(engine, workspace, now=NOW)
    write(workspace, german=GERMAN.replace("DE", "GB"))
    definitions = load_segments(workspace)
    with reading(engine) as connection:
        shown = answers.show(connection, definitions, "german", now=NOW, currency="GBP")
        scored = answers.preview(connection, definitions, "scored", now=NOW + 3 * DAY, currency="GBP")
    assert shown.notes == ["its file was edited after this snapshot: refresh it"]
    assert "as of 2026-06-15 12:00 UTC" in scored.notes[0]


def test_explain_answers_leaf_by_leaf_with_actual_values(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN, buyers=BUYERS)
    definitions = load_segments(workspace)
    with reading(engine) as connection:
        found = answers.explain(connection, definitions, "buyers", "A3", now=NOW, currency="GBP")
        with pytest.raises(ConfigError, match="no account with the external id 'A9'"):
            answers.explain(connection, definitions, "buyers", "A9", now=NOW, currency="GBP")
    assert [(answer.depth, answer.key, answer.holds) for answer in found] == [
        (0, "all", False),
        (1, "orders", False),
        (1, "not", True),
        (2, "segment", False),
        (1, "any_contact", True),
    ]
    assert found[1].values == {"sum_minor": 1800}
    assert found[1].text == 'orders: {"gte": 20, "measure": "sum"}'


@pytest.fixture(scope="module")
def known_sql() -> dict[str, str]:
    return {}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_no_text_of_a_file_ever_enters_the_sql(known_sql: dict[str, str], dialect: str, text: str) -> None:
    where: dict[str, Any] = {
        "all": [
            {"attribute": {"name": "name", "eq": text, "contains": text, "starts_with": text, "in": [text]}},
            {"attribute": {"name": "attributes.x.y", "eq": text, "contains": text, "not_in": [text, 1, True]}},
            {"events": {"name": text, "gte": 2}},
        ]
    }
    definition = definition_from_json({"name": "asked", "subject": "account", "where": where})
    query = members({"asked": definition}, "asked", as_of=NOW, currency="GBP")
    sql = str(query.compile(dialect=sqlite.dialect() if dialect == "sqlite" else postgresql.dialect()))
    assert known_sql.setdefault(dialect, sql) == sql


def test_keys_of_attributes_are_bound_too(sqlite_engine: Engine) -> None:
    where = {"attribute": {"name": "attributes.needle-key", "exists": True}}
    definition = definition_from_json({"name": "asked", "subject": "account", "where": where})
    query = members({"asked": definition}, "asked", as_of=NOW, currency="GBP")
    for engine_dialect in (sqlite.dialect(), postgresql.dialect()):
        assert "needle" not in str(query.compile(dialect=engine_dialect))


# --- the command line --------------------------------------------------------------------------------------


@pytest.fixture
def shop(workspace: Workspace) -> Workspace:
    engine = open_database(workspace.database_url)
    migrate(engine)
    seed(engine, now=LONG_AGO)
    engine.dispose()
    write(workspace, german=GERMAN, buyers=BUYERS, scored=CHAMPIONS)
    return workspace


def carillon(workspace: Workspace, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--workspace", str(workspace.root)])


def carillon_json(workspace: Workspace, *arguments: str) -> Any:
    result = carillon(workspace, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_commands_have_stable_keys(shop: Workspace) -> None:
    assert set(carillon_json(shop, "segments", "preview", "german", "--sample", "1")) == {
        "name", "subject", "description", "as_of", "live", "size", "sample", "notes",
    }  # fmt: skip
    done = carillon_json(shop, "segments", "refresh")
    assert {row["name"]: row["size"] for row in done} == {"buyers": 1, "german": 2, "scored": 4}
    assert set(done[0]) == {"name", "subject", "size", "joined", "left", "changed"}
    shown = carillon_json(shop, "segments", "show", "german")
    assert list(shown) == ["name", "subject", "description", "as_of", "live", "size", "members", "notes"]
    assert (shown["subject"], shown["size"], shown["members"]) == ("account", 2, ["A1", "A2"])
    listed = carillon_json(shop, "segments", "list")
    assert [set(row) for row in listed] == [{"name", "subject", "description", "size", "refreshed_at"}] * 3
    explained = carillon_json(shop, "segments", "explain", "german", "A3")
    assert explained["member"] is False
    assert explained["conditions"][0]["values"] == {"country": "GB"}


def test_the_rfm_table_is_computed_live_and_writes_nothing(shop: Workspace) -> None:
    report = carillon_json(shop, "rfm", "--as-of", "2020-06-14", "--subject", "accounts", "--ties", "first")
    assert report["as_of"] == "2020-06-14T00:00:00+01:00"
    assert list(report["groups"]) == list(RFM_SEGMENTS)
    rows = [row for row in report["groups"].values() if row["n"]]
    assert report["scored"] == sum(row["n"] for row in rows) == 3
    assert sum(row["monetary_mean"] * row["n"] for row in rows) == pytest.approx(12 + 18 + 24)
    engine = open_database(shop.database_url)
    with reading(engine) as connection:
        assert connection.execute(select(rfm_runs)).all() == connection.execute(select(rfm_scores)).all() == []
    engine.dispose()


@pytest.mark.parametrize(
    "arguments",
    [
        ["segments", "list"],
        ["segments", "show", "german"],
        ["segments", "preview", "german", "--sample", "1"],
        ["segments", "refresh"],
        ["segments", "explain", "buyers", "A3"],
        ["rfm"],
        ["rfm", "--as-of", "2020-06-15T09:00", "--subject", "contacts"],
    ],
)
def test_every_command_speaks_to_people_too(shop: Workspace, arguments: list[str]) -> None:
    result = carillon(shop, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segments", "show", "germans"], "there is no segment 'germans' (did you mean 'german'?)"),
        (["segments", "refresh", "germans"], "did you mean 'german'?"),
        (["segments", "explain", "german", "A9"], "there is no account with the external id 'A9'"),
        (["rfm", "--as-of", "yesterday"], "'yesterday' is not a date; write it as 2026-01-31"),
    ],
)
def test_mistakes_on_the_command_line_are_told_in_words(shop: Workspace, arguments: list[str], said: str) -> None:
    result = carillon(shop, *arguments)
    assert result.exit_code == 1
    assert said in result.stderr


def test_a_wrong_file_is_told_with_its_place(shop: Workspace) -> None:
    write(shop, broken="subject: account\nwhere: {atribute: {}}\n")
    result = carillon(shop, "segments", "list")
    assert result.exit_code == 1
    assert "segments/broken.yaml:2:9: unknown key 'atribute' (did you mean 'attribute'?)" in result.stderr
