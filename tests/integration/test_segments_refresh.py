"""Refreshing segments: snapshots with stays, what leads to asking everyone, two at once, and a kill in the middle."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from sqlalchemy.dialects import postgresql, sqlite

from kernel.errors import InputError
from kernel.settings import Workspace
from kernel.vocabulary import Subject
from segments import snapshots
from segments.compiler import members
from segments.definitions import definition_from_json
from segments.refresh import SHARED_EVERY, RefreshRunning, refresh
from store.changes import read_changes, touch
from store.engine import reading, writing
from store.guard import alone
from store.tables import accounts, changes, contacts, orders, profiles, segment_members, segments
from workers.apart import refresh_apart
from workers.refreshing import refresh_segments

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
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
SCORED = "subject: contact\nwhere: {rfm: {r: {gte: 1}}}\n"

Stay = tuple[int, datetime, datetime | None]


def seed(engine: Engine, *, now: datetime = NOW) -> None:
    with writing(engine) as connection:
        for n, country in enumerate(["DE", "DE", "GB", "GB"], start=1):
            connection.execute(accounts.insert().values(id=n, external_id=f"A{n}", country=country))
            connection.execute(contacts.insert().values(id=n, external_id=f"C{n}", account_id=n, role="buyer"))
            values = {"ordered_at": now - n * DAY, "kind": "order", "net_minor": n * 600, "gross_minor": n * 600}
            connection.execute(orders.insert().values(external_id=f"O{n}", account_id=n, currency="GBP", **values))


def write(workspace: Workspace, **files: str) -> None:
    for name, text in files.items():
        (workspace.root / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")


def stays(engine: Engine, name: str) -> list[Stay]:
    """Every stay in a segment, past ones too."""
    columns = segment_members.c
    query = select(columns.subject_id, columns.valid_from, columns.valid_to).where(segments.c.name == name)
    query = query.join(segments, segments.c.id == columns.segment_id).order_by(columns.subject_id, columns.valid_from)
    with reading(engine) as connection:
        return [tuple(row) for row in connection.execute(query)]


def inside(engine: Engine, name: str) -> set[int]:
    return {subject for subject, _, valid_to in stays(engine, name) if valid_to is None}


def move(engine: Engine, account: int, country: str) -> None:
    """Change a country as an import does: with its note."""
    with writing(engine) as connection:
        connection.execute(accounts.update().where(accounts.c.id == account).values(country=country))
        touch(connection, Subject.ACCOUNT, [account])


def notes(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(changes)).scalar_one())


# --- snapshots -----------------------------------------------------------------------------------------------


def test_a_refresh_saves_members_and_scores(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN, buyers=BUYERS, scored=SCORED)
    told: list[tuple[str, int, int]] = []
    done = refresh(engine, workspace, now=NOW, progress=lambda *step: told.append(step))
    assert [(one.name, one.size, one.joined, one.left, one.asked) for one in done] == [
        ("buyers", 1, 1, 0, None),
        ("german", 2, 2, 0, None),
        ("scored", 4, 4, 0, None),
    ]
    assert stays(engine, "buyers") == [(4, NOW, None)]
    assert told == [
        ("profiles of accounts", 0, 5),
        ("asking 3 segments", 1, 5),
        ("buyers", 2, 5),
        ("german", 3, 5),
        ("scored", 4, 5),
        ("done", 5, 5),
    ]
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(profiles)).scalar_one() == 4


def test_who_stays_keeps_the_date_who_leaves_gets_one_who_returns_gets_a_new_stay(
    engine: Engine, workspace: Workspace
) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    refresh(engine, workspace, now=NOW)
    move(engine, 1, "FR")
    move(engine, 3, "DE")
    (one,) = refresh(engine, workspace, now=NOW + DAY)
    assert (one.size, one.joined, one.left, one.changed) == (2, 1, 1, False)
    move(engine, 1, "DE")
    (one,) = refresh(engine, workspace, now=NOW + 2 * DAY)
    assert (one.size, one.joined, one.left) == (3, 1, 0)
    assert stays(engine, "german") == [
        (1, NOW, NOW + DAY),
        (1, NOW + 2 * DAY, None),
        (2, NOW, None),
        (3, NOW + DAY, None),
    ]


def test_the_snapshot_of_any_past_instant_can_be_read(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    refresh(engine, workspace, now=NOW)
    move(engine, 1, "FR")
    refresh(engine, workspace, now=NOW + DAY)
    with reading(engine) as connection:
        number = connection.execute(select(segments.c.id)).scalar_one()
        asked = [NOW - MINUTE, NOW, NOW + DAY - MINUTE, NOW + DAY]
        found = [set(connection.execute(snapshots.members_at(number, at)).scalars()) for at in asked]
    assert found == [set(), {1, 2}, {1, 2}, {2}]


def test_leaving_and_returning_at_one_instant_is_no_second_stay(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    for country in ("DE", "FR", "DE"):
        move(engine, 1, country)
        refresh(engine, workspace, now=NOW)
    assert stays(engine, "german") == [(1, NOW, None), (2, NOW, None)]


def test_a_clock_that_went_back_ends_no_stay_before_it_began(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    refresh(engine, workspace, now=NOW)
    move(engine, 1, "FR")
    refresh(engine, workspace, now=NOW - DAY)
    assert stays(engine, "german") == [(1, NOW, NOW), (2, NOW, None)]


def test_a_refresh_of_all_ends_the_stays_in_segments_without_a_file(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN, british=GERMAN.replace("DE", "GB"))
    refresh(engine, workspace, now=NOW)
    (workspace.root / "segments" / "british.yaml").unlink()
    refresh(engine, workspace, ["german"], now=NOW + DAY)
    assert inside(engine, "british") == {3, 4}
    refresh(engine, workspace, now=NOW + 2 * DAY)
    refresh(engine, workspace, now=NOW + 3 * DAY)
    assert stays(engine, "british") == [(3, NOW, NOW + 2 * DAY), (4, NOW, NOW + 2 * DAY)]
    write(workspace, british=GERMAN.replace("DE", "GB"))
    refresh(engine, workspace, now=NOW + 4 * DAY)
    assert [stay for stay in stays(engine, "british") if stay[2] is None] == [
        (3, NOW + 4 * DAY, None),
        (4, NOW + 4 * DAY, None),
    ]


def test_a_segment_that_is_now_about_others_starts_anew(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    refresh(engine, workspace, now=NOW)
    write(workspace, german="subject: contact\nwhere: {attribute: {name: account.country, eq: GB}}\n")
    (one,) = refresh(engine, workspace, now=NOW + DAY)
    assert (one.subject, one.size) == ("contact", 2)
    assert stays(engine, "german") == [(3, NOW + DAY, None), (4, NOW + DAY, None)]


# --- whom to ask ---------------------------------------------------------------------------------------------


@pytest.fixture
def many(engine: Engine, workspace: Workspace) -> Workspace:
    """A shop large enough that a few are few, refreshed, with nothing noted since."""
    seed(engine)
    with writing(engine) as connection:
        rows = [{"id": n, "external_id": f"A{n}", "country": "FR"} for n in range(5, 205)]
        connection.execute(accounts.insert(), rows)
    write(workspace, german=GERMAN, buyers=BUYERS)
    refresh(engine, workspace, now=NOW)
    return workspace


def asked(engine: Engine, workspace: Workspace, **options: Any) -> dict[str, int | None]:
    return {one.name: one.asked for one in refresh(engine, workspace, **{"now": NOW + MINUTE, **options})}


def test_a_few_are_asked_by_themselves_and_many_with_everyone(engine: Engine, many: Workspace) -> None:
    assert asked(engine, many) == {"buyers": 0, "german": 0}
    move(engine, 7, "DE")
    assert asked(engine, many) == {"buyers": 1, "german": 1}
    for account in range(10, 60):
        move(engine, account, "DE")
    assert asked(engine, many) == {"buyers": None, "german": None}
    assert len(inside(engine, "german")) == 53


def test_a_long_pause_and_a_wish_ask_everyone(engine: Engine, many: Workspace) -> None:
    assert asked(engine, many, full=True) == {"buyers": None, "german": None}
    assert asked(engine, many, now=NOW + 4 * DAY) == {"buyers": None, "german": None}


def test_a_changed_file_asks_everyone_and_so_do_those_that_refer_to_it(engine: Engine, many: Workspace) -> None:
    write(many, other=GERMAN.replace("DE", "FR"))
    assert asked(engine, many) == {"buyers": 0, "german": 0, "other": None}
    write(many, german=GERMAN.replace("DE", "GB"))
    done = {one.name: (one.asked, one.changed) for one in refresh(engine, many, now=NOW + 2 * MINUTE)}
    assert done == {"buyers": (None, True), "german": (None, True), "other": (0, False)}
    assert inside(engine, "buyers") == set()


def test_a_refresh_of_some_leaves_the_notes_for_the_others(engine: Engine, many: Workspace) -> None:
    move(engine, 4, "DE")
    refresh(engine, many, ["german"], now=NOW + MINUTE)
    with reading(engine) as connection:
        assert read_changes(connection).accounts.tolist() == [4]
    assert asked(engine, many, now=NOW + 2 * MINUTE) == {"buyers": 1, "german": 0}
    assert (notes(engine), inside(engine, "buyers")) == (0, set())


def test_a_fact_of_a_contact_reaches_the_accounts_that_ask_about_it(engine: Engine, many: Workspace) -> None:
    with writing(engine) as connection:
        connection.execute(contacts.update().where(contacts.c.id == 4).values(role="owner"))
        touch(connection, Subject.CONTACT, [4])
    assert asked(engine, many) == {"buyers": 1, "german": 1}
    assert inside(engine, "buyers") == set()


def test_who_asks_for_membership_sees_the_snapshot_of_the_same_refresh(engine: Engine, many: Workspace) -> None:
    write(many, aged="subject: account\nwhere: {membership: {segment: german, for_at_least: 2d}}\n")
    write(many, left="subject: account\nwhere: {membership: {segment: german, left_within: 1d}}\n")
    refresh(engine, many, now=NOW + DAY)
    assert (inside(engine, "aged"), inside(engine, "left")) == (set(), set())
    move(engine, 2, "FR")
    refresh(engine, many, now=NOW + 2 * DAY)
    assert (inside(engine, "aged"), inside(engine, "left")) == ({1}, {2})
    refresh(engine, many, now=NOW + 3 * DAY + MINUTE)
    assert inside(engine, "left") == set()


def test_segments_that_must_ask_everyone_are_left_for_a_while_where_there_is_no_hurry(
    engine: Engine, many: Workspace
) -> None:
    write(many, low="subject: account\nwhere: {stock: {days_of_stock: {lt: 30}}}\n")
    assert asked(engine, many, unhurried=True)["low"] is None
    later = NOW + MINUTE + SHARED_EVERY
    assert "low" not in asked(engine, many, now=later - MINUTE, unhurried=True)
    assert asked(engine, many, now=later - MINUTE)["low"] is None
    assert asked(engine, many, now=later + SHARED_EVERY, unhurried=True)["low"] is None


# --- two at once, and killed ones ----------------------------------------------------------------------------


def test_one_refresh_waits_for_the_other_or_gives_up(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    with alone(engine, "segments", patience_s=0) as writer:
        assert writer is not None
        with pytest.raises(RefreshRunning):
            refresh(engine, workspace, now=NOW, patience_s=0.3)
        assert refresh_segments(engine, workspace, now=NOW) is False
    assert refresh_segments(engine, workspace, now=NOW) is True
    assert inside(engine, "german") == {1, 2}


def test_many_at_once_neither_double_nor_lose_a_stay(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN)
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(6):
                move(engine, 1 + (number + turn) % 4, "DE" if turn % 2 else "FR")
                refresh(engine, workspace, now=NOW + (turn * 4 + number) * MINUTE)
        except Exception as error:  # noqa: BLE001 - told by the test below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refresh(engine, workspace, now=NOW + 2 * DAY)
    assert failures == []
    with reading(engine) as connection:
        german = set(connection.execute(select(accounts.c.id).where(accounts.c.country == "DE")).scalars())
        size = connection.execute(select(segments.c.size)).scalar_one()
    every = stays(engine, "german")
    assert {subject for subject, _, end in every if end is None} == german
    assert len([stay for stay in every if stay[2] is None]) == len(german) == size
    for subject in range(1, 5):
        mine = [stay for stay in every if stay[0] == subject]
        assert all(one[2] is not None and one[2] <= two[1] for one, two in itertools.pairwise(mine))


class Killed(BaseException):
    """As abrupt as a kill: no `except Exception` catches it."""


@pytest.mark.parametrize("survives", [0, 1, 2, 3])
def test_a_kill_in_the_middle_is_mended_by_the_next_refresh(
    engine: Engine, many: Workspace, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """Killed after so many transactions of a segment's stays; the size is the number of open stays throughout."""
    monkeypatch.setattr(snapshots, "ROWS_PER_COMMIT", 3)
    for account in (1, *range(10, 18)):
        move(engine, account, "FR" if account == 1 else "DE")
    written = 0
    grow = snapshots._grow

    def dying(*arguments: Any) -> None:
        nonlocal written
        if written == survives:
            raise Killed
        written += 1
        grow(*arguments)

    monkeypatch.setattr(snapshots, "_grow", dying)
    with pytest.raises(Killed):
        refresh(engine, many, now=NOW + MINUTE)
    monkeypatch.setattr(snapshots, "_grow", grow)
    with reading(engine) as connection:
        size = connection.execute(select(segments.c.size).where(segments.c.name == "german")).scalar_one()
        assert size == len(inside(engine, "german"))
        assert len(read_changes(connection).rows) == 9
    done = {one.name: one.asked for one in refresh(engine, many, now=NOW + 2 * MINUTE)}
    assert done["german"] == 9
    assert inside(engine, "german") == {2, *range(10, 18)}
    assert notes(engine) == 0


def test_profiles_moved_by_a_refresh_that_was_killed_are_asked_about_by_the_next(
    engine: Engine, many: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(many, scored="subject: account\nwhere: {rfm: {f: {gte: 1}}}\n")
    monkeypatch.setattr(snapshots, "_grow", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        refresh(engine, many, now=NOW + MINUTE)
    monkeypatch.undo()
    refresh(engine, many, now=NOW + 2 * MINUTE)
    assert inside(engine, "scored") == {1, 2, 3, 4}


# --- while the service runs ----------------------------------------------------------------------------------


def test_a_file_being_edited_stops_no_worker_and_changes_no_snapshot(engine: Engine, many: Workspace) -> None:
    write(many, german="subject: account\nwhere: {atribute: {}}\n")
    with pytest.raises(InputError):
        refresh(engine, many, now=NOW + MINUTE)
    assert refresh_segments(engine, many, now=NOW + MINUTE) is False
    assert inside(engine, "german") == {1, 2}


def test_a_worker_has_segments_refreshed_by_a_process_of_its_own_and_a_wrong_file_is_told_once(
    engine: Engine,
    database_url: str,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CARILLON_DATABASE_URL", database_url)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    seed(engine)
    write(workspace, german=GERMAN)
    refresh_apart(engine, workspace)
    assert inside(engine, "german") == {1, 2}
    write(workspace, german="subject: account\nwhere: {atribute: {}}\n")
    for _ in range(2):
        refresh_apart(engine, workspace)
    assert capfd.readouterr().err.count("segments_not_refreshed") == 1


def test_a_workspace_without_segments_and_notes_is_spared_the_process(
    engine: Engine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    refresh_apart(engine, workspace)


def test_a_workspace_without_segments_has_nothing_to_refresh_and_keeps_no_notes(
    engine: Engine, workspace: Workspace
) -> None:
    seed(engine)
    move(engine, 1, "FR")
    assert refresh(engine, workspace, now=NOW) == []
    assert notes(engine) == 0


# --- no text of a file enters the SQL ------------------------------------------------------------------------


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
