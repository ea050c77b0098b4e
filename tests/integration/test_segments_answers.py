"""Answers about segments: list, show, preview, explain, and when time alone will change something."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from kernel.errors import ConfigError
from kernel.settings import Settings, Workspace
from kernel.vocabulary import Subject
from segments import answers, explaining
from segments.compiler import members
from segments.definitions import Definition, definition_from_json, load_segments
from segments.refresh import refresh
from segments.scoring import refresh_profiles
from store.changes import touch
from store.engine import reading, writing
from store.tables import accounts, contacts, events, opportunities, orders, profiles
from tests.integration.segment_rules import random_leaf, random_rule
from tests.integration.segment_worlds import FIRMS, PEOPLE, SNAPSHOTS, random_world, store_world
from tests.integration.segment_worlds import NOW as WORLD_NOW

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
GERMAN = "description: From Germany\nsubject: account\nwhere: {attribute: {name: country, eq: DE}}\n"
BUYERS = """\
subject: account
where:
  all:
    - orders: {measure: sum, gte: 20}
    - not: {segment: german}
    - any_contact: {role: buyer}
"""
PEOPLE_OF = "subject: contact\nwhere: {segment: german}\n"
SCORED = "subject: contact\nwhere: {rfm: {r: {gte: 1}}}\n"


def seed(engine: Engine, *, now: datetime = NOW) -> None:
    with writing(engine) as connection:
        for n, country in enumerate(["DE", "DE", "GB", "GB"], start=1):
            connection.execute(accounts.insert().values(id=n, external_id=f"A{n}", country=country))
            connection.execute(contacts.insert().values(id=n, external_id=f"C{n}", account_id=n, role="buyer"))
            values = {"ordered_at": now - n * DAY, "kind": "order", "net_minor": n * 600, "gross_minor": n * 600}
            connection.execute(orders.insert().values(external_id=f"O{n}", account_id=n, currency="GBP", **values))
        extra = [{"id": n, "external_id": f"C{n}", "account_id": 3, "role": "owner"} for n in range(5, 13)]
        connection.execute(contacts.insert(), extra)


def write(workspace: Workspace, **files: str) -> None:
    for name, text in files.items():
        (workspace.root / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def shop(engine: Engine, workspace: Workspace) -> Workspace:
    seed(engine)
    write(workspace, german=GERMAN, buyers=BUYERS, people=PEOPLE_OF)
    return workspace


def explained(engine: Engine, workspace: Workspace, name: str, who: str) -> list[answers.Answer]:
    with reading(engine) as connection:
        return answers.explain(connection, load_segments(workspace), name, who, now=NOW, currency="GBP")


# --- list, show, preview -------------------------------------------------------------------------------------


def test_show_gives_the_snapshot_and_preview_the_present(engine: Engine, shop: Workspace) -> None:
    definitions = load_segments(shop)
    with reading(engine) as connection:
        live = answers.show(connection, definitions, "german", now=NOW, currency="GBP")
    assert (live.live, live.as_of, live.members) == (True, NOW, ["A1", "A2"])
    refresh(engine, shop, now=NOW)
    with writing(engine) as connection:
        connection.execute(accounts.update().where(accounts.c.id == 3).values(country="DE"))
        touch(connection, Subject.ACCOUNT, [3])
    with reading(engine) as connection:
        shown = answers.show(connection, definitions, "german", now=NOW + DAY, currency="GBP")
        present = answers.preview(connection, definitions, "german", now=NOW + DAY, currency="GBP", sample=2)
        whole = answers.preview(connection, definitions, "german", now=NOW + DAY, currency="GBP")
    assert (shown.live, shown.as_of, shown.size, shown.members) == (False, NOW, 2, ["A1", "A2"])
    assert (present.size, present.members) == (3, ["A1", "A2"])
    assert whole.members == ["A1", "A2", "A3"]


def test_a_preview_of_the_past_knows_no_later_orders(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, early="subject: account\nwhere: {orders: {measure: count, gte: 1}}\n")
    definitions = load_segments(workspace)
    with reading(engine) as connection:
        found = [
            answers.preview(connection, definitions, "early", now=NOW - days * DAY, currency="GBP").members
            for days in (0, 1, 2, 4)
        ]
    assert found == [["A1", "A2", "A3", "A4"], ["A2", "A3", "A4"], ["A3", "A4"], []]


def test_a_large_sample_is_as_one_of_few(engine: Engine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(engine) as connection:
        connection.execute(accounts.insert(), [{"id": n, "external_id": f"A{n:04}"} for n in range(1, 301)])
    write(workspace, odd="subject: account\nwhere: {bucket: {salt: x, share: 50%}}\n")
    definitions = load_segments(workspace)
    found = []
    for few in (20_000, 7):
        monkeypatch.setattr(answers, "_FEW", few)
        with reading(engine) as connection:
            found.append(answers.preview(connection, definitions, "odd", now=NOW, currency="GBP", sample=20))
    assert found[0] == found[1]
    assert len(found[0].members) == 20 < found[0].size
    assert found[0].members == sorted(found[0].members)


def test_an_edited_file_and_missing_scores_are_told(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(workspace, german=GERMAN, scored=SCORED)
    with reading(engine) as connection:
        before = answers.preview(connection, load_segments(workspace), "scored", now=NOW, currency="GBP")
    assert before.notes == ["RFM scores of accounts were never computed: run `carillon segments refresh`"]
    refresh(engine, workspace, now=NOW)
    write(workspace, german=GERMAN.replace("DE", "GB"))
    definitions = load_segments(workspace)
    with reading(engine) as connection:
        shown = answers.show(connection, definitions, "german", now=NOW, currency="GBP")
        late = answers.preview(connection, definitions, "scored", now=NOW + 3 * DAY, currency="GBP")
        past = answers.preview(connection, definitions, "scored", now=NOW - 3 * DAY, currency="GBP")
    assert shown.notes == ["its file was edited after this snapshot: refresh it"]
    assert late.notes == ["RFM scores of accounts are as of 2026-06-15 12:00 UTC: run `carillon segments refresh`"]
    assert "scores are kept of the present only" in past.notes[0]


def test_a_list_tells_sizes_of_what_was_refreshed(engine: Engine, shop: Workspace) -> None:
    refresh(engine, shop, ["german"], now=NOW)
    with reading(engine) as connection:
        rows = answers.listed(connection, load_segments(shop))
    assert [(row.name, row.size, row.refreshed_at) for row in rows] == [
        ("buyers", None, None),
        ("german", 2, NOW),
        ("people", None, None),
    ]


# --- explain -------------------------------------------------------------------------------------------------


def test_explain_answers_leaf_by_leaf_with_actual_values(engine: Engine, shop: Workspace) -> None:
    found = explained(engine, shop, "buyers", "A4")
    assert [(one.depth, one.about, one.key, one.holds) for one in found] == [
        (0, "A4", "all", True),
        (1, "A4", "orders", True),
        (1, "A4", "not", True),
        (2, "A4", "segment", False),
        (3, "A4", "attribute", False),
        (1, "A4", "any_contact", True),
        (2, "C4", "role", True),
    ]
    assert found[1].values == {"sum_minor": 2400}
    assert found[1].text == 'orders: {"gte": 20, "measure": "sum"}'
    assert found[4].values == {"country": "GB"}
    assert found[5].values == {"asked": 1, "true_of": 1}
    assert found[6].values == {"role": "buyer"}


def test_of_many_relatives_a_few_are_explained_those_of_whom_it_is_true_first(engine: Engine, shop: Workspace) -> None:
    found = explained(engine, shop, "buyers", "A3")
    (relation,) = [one for one in found if one.key == "any_contact"]
    assert relation.values == {"asked": 9, "true_of": 1}
    people = [one.about for one in found if one.key == "role"]
    assert people == ["C3", "C10", "C11", "C12", "C5"]
    assert len(people) == explaining.MOST_RELATIVES


def test_a_contact_is_in_a_segment_of_accounts_through_its_account(engine: Engine, shop: Workspace) -> None:
    found = explained(engine, shop, "people", "C1")
    assert [(one.depth, one.about, one.key, one.holds) for one in found] == [
        (0, "C1", "segment", True),
        (1, "A1", "attribute", True),
    ]
    assert found[0].text == 'segment: "german"'


def test_explain_is_plain_data_under_stable_keys(engine: Engine, shop: Workspace) -> None:
    rows = [answers.as_json(one) for one in explained(engine, shop, "buyers", "A4")]
    assert [list(row) for row in rows] == [["depth", "about", "key", "text", "holds", "values"]] * len(rows)
    assert json.loads(json.dumps(rows, default=str)) == rows


def test_who_does_not_exist_is_told(engine: Engine, shop: Workspace) -> None:
    with pytest.raises(ConfigError, match="no account with the external id 'A9'"):
        explained(engine, shop, "buyers", "A9")


def _base(rng: random.Random, subject: str) -> Any:
    return random_leaf(rng, subject, references=False)


@pytest.mark.parametrize("seed_", range(3))
def test_explain_agrees_with_membership_on_random_rules(engine: Engine, seed_: int) -> None:
    rng = random.Random(seed_)
    store_world(engine, random_world(rng))
    bases = {name: define(name, subject, _base(rng, subject)) for name, subject in SNAPSHOTS.items()}
    with reading(engine) as connection:
        for n in range(25):
            subject = rng.choice(["account", "contact"])
            rule = random_rule(rng, subject, 3)
            definitions = {**bases, "s": define("s", subject, rule)}
            inside = set(connection.execute(members(definitions, "s", as_of=WORLD_NOW, currency="GBP")).scalars())
            number = rng.choice(FIRMS if subject == "account" else PEOPLE)
            who = f"{'A' if subject == 'account' else 'C'}{number}"
            found = answers.explain(connection, definitions, "s", who, now=WORLD_NOW, currency="GBP")
            assert found[0].holds == (number in inside), (n, rule)


# --- the next change by time ---------------------------------------------------------------------------------


def define(name: str, subject: str, where: Any) -> Definition:
    return definition_from_json({"name": name, "subject": subject, "where": where})


BASES = {name: define(name, subject, {"everyone": True}) for name, subject in SNAPSHOTS.items()}


def change(engine: Engine, where: dict[str, Any], who: str, now: datetime = NOW) -> answers.NextChange:
    definitions = {"s": define("s", "account" if who.startswith("A") else "contact", where), **BASES}
    with reading(engine) as connection:
        return answers.next_change(connection, definitions, "s", who, now=now, currency="GBP")


def test_the_next_change_by_time_is_named_to_the_millisecond(engine: Engine) -> None:
    seed(engine)
    recent = {"orders": {"measure": "count", "gte": 1, "within": "30d"}}
    leaves = change(engine, recent, "A1")
    assert (leaves.at, leaves.enters, leaves.exact) == (NOW + 29 * DAY + timedelta(milliseconds=1), False, True)
    silent = {"orders": {"measure": "days_since_last", "gte": 10}}
    enters = change(engine, silent, "A1")
    assert (enters.at, enters.enters) == (NOW + 9 * DAY, True)
    through = change(engine, {"parent": silent}, "A1")
    assert through.at is None
    by_account = change(engine, {"orders": {**silent["orders"], "of": "account"}}, "C1")
    assert by_account.at == NOW + 9 * DAY


def test_what_time_does_not_change_has_no_next_change(engine: Engine) -> None:
    seed(engine)
    found = change(engine, {"attribute": {"name": "country", "eq": "DE"}}, "A1")
    assert (found.at, found.enters, found.exact) == (None, False, True)


def test_what_reads_scores_says_how_old_they_are_and_when_r_is_due_to_fall(
    engine: Engine, workspace: Workspace
) -> None:
    seed(engine)
    scored = {"rfm": {"r": {"gte": 1}}}
    assert "RFM scores of accounts were never computed" in change(engine, scored, "A1").note
    fixed = {"scheme": "thresholds", "recency_days": [3, 6, 9, 12], "orders": [9, 5, 3, 2], "money": [4, 3, 2, 1]}
    own = Settings.model_validate({**workspace.settings.model_dump(), "rfm": fixed})
    refresh_profiles(engine, own, subject=Subject.ACCOUNT, now=NOW, kinds=["rfm", "clusters", "lifetime"])
    found = change(engine, scored, "A2")
    assert found.at is None
    assert found.note == (
        "The RFM scores of accounts are as of the last refresh (2026-06-15 12:00 UTC) and may change at the next one. "
        "Without a new order the account passes the next border of R on 2026-06-17 12:00 UTC; the refresh after that "
        "may lower R."
    )
    # The day named is the first on which a refresh would score R lower.
    r = {}
    for later in (2 * DAY - timedelta(milliseconds=1), 2 * DAY):
        refresh_profiles(engine, own, subject=Subject.ACCOUNT, now=NOW + later, kinds=["rfm"])
        with reading(engine) as connection:
            r[later] = connection.execute(select(profiles.c.r).where(profiles.c.subject_id == 2)).scalar_one()
    assert list(r.values()) == [5, 4]
    assert "2026-06-17 12:00" in change(engine, {"not": scored}, "C2").note
    assert "passes the next border" not in change(engine, {"parent": scored}, "A2").note
    assert "falls no further" in change(engine, scored, "A2", NOW + 20 * DAY).note
    for leaf, words in (({"cluster": {"key": "c1"}}, "clusters"), ({"lifetime": {"p_alive": {"gte": 0}}}, "lifetime")):
        assert f"The {words}" in change(engine, leaf, "A1").note


def test_money_in_other_currencies_is_told_where_money_is_measured(engine: Engine, workspace: Workspace) -> None:
    seed(engine)
    write(
        workspace,
        spent="subject: account\nwhere: {orders: {measure: sum, gte: 1}}\n",
        often="subject: account\nwhere: {orders: {measure: count, gte: 1}}\n",
        deals="subject: account\nwhere: {opportunities: {measure: sum, gte: 1}}\n",
        seen="subject: account\nwhere: {events: {name: visit, measure: sum, gte: 1}}\n",
        above="subject: account\nwhere: {segment: spent}\n",
    )
    with writing(engine) as connection:
        connection.execute(orders.update().where(orders.c.id.in_([1, 2])).values(currency="USD"))
        deal = {
            "external_id": "D",
            "account_id": 1,
            "stage": "won",
            "stage_at": NOW,
            "value_minor": 1,
            "currency": "CHF",
        }
        connection.execute(opportunities.insert().values(**deal))
        seen = {"external_id": "E", "name": "visit", "account_id": 1, "at": NOW, "value_minor": 1, "currency": "CHF"}
        connection.execute(events.insert().values(**seen))
    told = {
        "spent": ["2 orders in USD are left out of money measures; convert them at import"],
        "often": [],
        "deals": ["1 opportunities in CHF are left out of money measures; convert them at import"],
        "seen": ["1 events in CHF are left out of money measures; convert them at import"],
    }
    told["above"] = told["spent"]
    refresh(engine, workspace, now=NOW)
    definitions = load_segments(workspace)
    with reading(engine) as connection:
        for name, notes in told.items():
            assert answers.show(connection, definitions, name, now=NOW, currency="GBP").notes == notes, name


def test_values_are_told_to_people_without_microseconds_and_no_scores_as_such() -> None:
    def told(key: str, **values: Any) -> str:
        answer = answers.Answer(depth=0, about="A1", key=key, text="", holds=False, values=values)
        return answers.values_in_words(answer)

    assert told("rfm", segment=None, r=None) == "no scores"
    assert told("rfm", segment="champions", since=NOW.replace(microsecond=7000)) == (
        "segment = champions, since = 2026-06-15 12:00:00+00:00"
    )
    assert told("orders", average=None) == "average = None"


def test_too_many_instants_are_not_all_tried_and_that_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(engine)
    monkeypatch.setattr(explaining, "MOST_INSTANTS", 2)
    rule = {"all": [{"orders": {"measure": "count", "lte": 9, "within": f"{days}d"}} for days in range(10, 20)]}
    found = change(engine, rule, "A1")
    assert found.exact is False
    assert found.at is not None
    assert NOW < found.at < NOW + 11 * DAY


@pytest.mark.parametrize("seed_", range(2))
def test_nothing_changes_before_the_next_change_and_then_it_does(engine: Engine, seed_: int) -> None:
    rng = random.Random(40 + seed_)
    store_world(engine, random_world(rng))
    tried = 0
    while tried < 4:
        subject = rng.choice(["account", "contact"])
        rule = random_leaf(rng, subject, references=False)
        number = rng.choice(FIRMS if subject == "account" else PEOPLE)
        definition = define("s", subject, rule)
        found = change(engine, rule, f"{'A' if subject == 'account' else 'C'}{number}", WORLD_NOW)

        def inside(at: datetime, definition: Any = definition, number: int = number) -> bool:
            with reading(engine) as connection:
                query = members({"s": definition, **BASES}, "s", as_of=at, currency="GBP")
                return number in set(connection.execute(query).scalars())

        now_in = inside(WORLD_NOW)
        end = found.at or WORLD_NOW + 900 * DAY
        for _ in range(6):
            between = WORLD_NOW + (end - WORLD_NOW) * rng.random()
            assert between >= end or inside(between) == now_in, (rule, between, found)
        if found.at is not None:
            tried += 1
            assert inside(found.at) != now_in, (rule, found)
            assert inside(found.at - timedelta(milliseconds=1)) == now_in or found.at == WORLD_NOW, (rule, found)
