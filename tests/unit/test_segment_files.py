"""Segment files: what is refused, with its place and a hint, and what is kept."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel

from kernel.errors import ConfigError, InputError
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import Subject
from segments.conditions import BRANCHES, LEAVES, MAX_DEPTH, Condition
from segments.definitions import (
    SegmentFile,
    chosen,
    definition_digest,
    definition_from_json,
    definition_to_json,
    load_segments,
    needed,
    needs,
    subjects_scored,
)
from segments.scope import Scope, subjects

DOCS = Path(__file__).parents[2] / "docs" / "segments.md"
HEAD = "subject: account\nwhere:\n"


def write(workspace: Workspace, **files: str) -> None:
    for name, text in files.items():
        (workspace.root / "segments" / f"{name.replace('_', '-')}.yaml").write_text(text, encoding="utf-8")


def problems(workspace: Workspace, **files: str) -> list[str]:
    write(workspace, **files)
    with pytest.raises(InputError) as raised:
        load_segments(workspace)
    return [str(problem) for problem in raised.value.problems]


def test_a_segment_file_is_read_with_its_name_and_the_workspace_zone(workspace: Workspace) -> None:
    write(workspace, big_spenders="description: Many orders\nsubject: account\nwhere:\n  rfm: {segment: champions}\n")
    (definition,) = load_segments(workspace).values()
    assert (definition.name, definition.subject, definition.timezone) == (
        "big-spenders",
        Subject.ACCOUNT,
        "Europe/London",
    )
    assert definition_to_json(definition)["where"] == {"rfm": {"segment": ["champions"]}}


def test_a_workspace_without_segments_has_none(workspace: Workspace) -> None:
    assert load_segments(workspace) == {}


def test_a_definition_survives_its_json_form(workspace: Workspace) -> None:
    write(
        workspace,
        one=HEAD + "  all:\n    - segment: two\n    - not: {orders: {measure: sum, gte: '10.50', within: 30d}}\n"
        "    - any_contact: {any: [{consent: {channel: email}}, {events: {name: demo, within: 7d}}]}\n"
        "    - events: {name: demo, between: ['2026-01-01', '2026-02-01']}\n"
        "    - attribute: {name: attributes.tier, in: [1, gold, true, 2.5]}\n    - never_bought: true\n",
        two=HEAD + "  any: [{everyone: true}, {rfm: {r: {gte: 4}, m: {lte: 2}}}]\n",
    )
    for definition in load_segments(workspace).values():
        kept = json.loads(json.dumps(definition_to_json(definition)))
        assert definition_from_json(kept) == definition
        assert definition_digest(definition_from_json(kept)) == definition_digest(definition)


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        ("{atribute: {name: country, eq: GB}}", "4:8: unknown key 'atribute' (did you mean 'attribute'?)"),
        ("{orders: {measure: cuont, gte: 1}}", "4:26: measure: 'cuont' is not one of 'count'"),
        ("{orders: {measure: count, gte: 1, whithin: 1d}}", "4:41: unknown key 'whithin' (did you mean 'within'?)"),
        ("{orders: {measure: count, gte: 1, within: soon}}", "4:49: within: 'soon' is not a duration"),
        ("{orders: {measure: count, gte: 2.5}}", "4:38: gte: count is a whole number, got 2.5"),
        ("{orders: {measure: count, gte: '3'}}", "4:38: gte: count is a whole number, got '3'"),
        ("{orders: {measure: count, gte: 99999999999999999999}}", "4:38: gte: count is a whole number"),
        ("{orders: {measure: sum, gte: GBP 5}}", "4:36: gte: 'GBP 5' is not an amount of money"),
        ("{orders: {measure: sum}}", "4:8: nothing to compare with (add one of eq, gt, gte, lt, lte)"),
        ("{orders: {measure: count, gte: 1, of: contact}}", "4:45: of: in a segment of accounts write any_contact"),
        (
            "{orders: {measure: count, gte: 1, between: ['2026-02-01', '2026-01-01']}}",
            "4:8: orders: between must begin before it ends",
        ),
        ("{orders: {measure: count, gte: 1, between: ['2026-02-30', '2026-03-01']}}", "'2026-02-30' is not a date"),
        (
            "{orders: {measure: count, gte: 1, within: 1d, between: ['2026-01-01', '2026-01-02']}}",
            "either within or between",
        ),
        ("{rfm: {segment: [champion]}}", "4:24: 'champion' is not a group of the workspace's RFM map (did you mean"),
        ("{rfm: {previous: lost}}", "'lost' is not a group of the workspace's RFM map"),
        ("{rfm: {r: {gte: 6}}}", "4:23: gte: scores go from 1 to 5, got 6"),
        ("{rfm: {}}", "4:8: rfm asks nothing (add segment, r, f, m, previous, since or moved_by)"),
        (
            "{rfm: {segment: champions, of: contact}}",
            "4:38: of: in a segment of accounts write any_contact: {…: {of: contact}}",
        ),
        ("{consent: {channel: email}}", "4:8: consent is given by contacts, not by accounts (in a segment of accounts"),
        ("{any_contact: {consent: {channel: fax}}}", "4:41: channel: 'fax' is not one of 'email' or 'sms'"),
        (
            "{any_contact: {attribute: {name: rol, eq: buyer}}}",
            "4:40: contacts have no attribute 'rol' (did you mean 'role'?",
        ),
        ("{attribute: {name: contry, eq: GB}}", "4:26: accounts have no attribute 'contry' (did you mean 'country'?"),
        ("{attribute: {name: country, gt: GB}}", "4:39: gt: text has no order"),
        ("{attribute: {name: country, eq: 5}}", "4:39: eq: 5 is not text; put it in quotes"),
        ("{attribute: {name: country, in: [GB, NO]}}", "4:44: NO needs quotes"),
        ("{attribute: {name: country}}", "4:8: attribute country has no test"),
        ("{attribute: {name: created_at, gt: soon}}", "4:42: gt: 'soon' is not a date"),
        (
            "{attribute: {name: created_at, eq: '2026-01-01'}}",
            "a point in time is compared with gt, gte, lt, lte, within, older_than or in_next",
        ),
        ("{attribute: {name: parent, eq: A1}}", "only exists can be asked of it"),
        ("{attribute: {name: attributes.tier, gt: gold}}", "'gold' is neither a number nor a date"),
        ("{attribute: {name: 'attributes.a\"b', eq: 1}}", "is not a path into attributes"),
        ("{attribute: {name: country, contains: ''}}", "4:35: contains: is empty"),
        ("{everyone: false}", "4:18: everyone: can only be true"),
        ("{events: {name: demo, gte: '2'}}", "gte: a count is a whole number, got '2'"),
        ("{segment: nobody}", "4:17: unknown segment 'nobody'"),
        (
            "{segment: eu-buyers}",
            "4:17: segment 'eu-buyers' is about contacts, this one about accounts (write any_contact:",
        ),
        ("{membership: {segment: nobody}}", "4:30: unknown segment 'nobody'"),
        (
            "{membership: {segment: eu-buyers}}",
            "is about contacts, this one about accounts (write any_contact: {membership",
        ),
        (
            "{membership: {segment: asked, on: '2026-01-01', for_at_least: 3d}}",
            "give either on or for_at_least: one asks about then",
        ),
        ("{any_colleague: {everyone: true}}", "4:8: accounts have no colleagues, contacts have (for some contact"),
        ("{parent: {role: buyer}}", "4:23: contacts have roles, accounts have none (in a segment of accounts write"),
        ("{at_least: {n: 3, of: [{everyone: true}]}}", "at_least 3 of 1 condition(s) can never hold"),
        ("{at_least: {n: 0, of: [{everyone: true}]}}", "4:22: n: expected at least 1, got 0"),
        ("{at_least: {n: 1, of: []}}", "4:25: of: "),
        ("{cluster: {of: account}}", "4:8: cluster asks nothing (add key, previous or since)"),
        ("{cluster: {since: {}}}", "4:18: since: nothing to compare with; add within or older_than"),
        ("{lifetime: {}}", "4:8: lifetime asks nothing (add clv, p_alive,"),
        ("{lifetime: {p_alive: {lt: 30}}}", "4:33: lt: a probability lies between 0 and 1, got 30"),
        ("{lifetime: {clv: {gte: much}}}", "4:30: gte: 'much' is not an amount of money"),
        ("{lifetime: {next_order: {}}}", "'in_next' is missing"),
        ("{cadence: {gte: often}}", "4:23: gte: cadence is a number of usual gaps, 0 or more, got 'often'"),
        ("{cadence: {}}", "4:8: nothing to compare with"),
        ("{bucket: {salt: a, share: 120%}}", "4:33: share: '120%' is outside 0% to 100%"),
        ("{bucket: {salt: a, share: 60%, from: 50%}}", "4:33: share: 50% and 60% are more than 100% together"),
        ("{engagement: {did: openned}}", "4:26: did: 'openned' is not one of"),
        ("{engagement: {did: sent, machines: true}}", "machines: sent is never a machine's doing; take it out"),
        ("{engagement: {did: sent, gte: 0.5}}", "4:37: gte: a count is a whole number, got 0.5"),
        ("{engagement: {did: sent, campaign: A B}}", "'A B' is not a name"),
        ("{opportunities: {days_in_stage: {}}}", "4:24: nothing to compare with"),
        ("{opportunities: {value: {gte: 1e999}}}", "is not an amount of money"),
        ("{opportunities: {measure: sum}}", "4:8: nothing to compare with"),
        ("{stock: {bought_within: 30d}}", "4:8: stock asks nothing about stock (add on_hand, days_of_stock, turnover"),
        ("{stock: {on_hand: {lt: few}}}", "4:30: lt: on_hand is a number, got 'few'"),
        ("{stock: {days_of_stock: {lt: 7}, sales_over: 0d}}", "no sales can be measured over no time at all"),
        ("{orders: {measure: quantity, gte: '3'}}", "4:41: gte: a quantity is a number, got '3'"),
        ("{orders: {measure: count, gte: 1, kind: gift}}", "kind: 'gift' is not one of"),
        ("{orders: {measure: count, gte: 1, product: []}}", "4:41: product: "),
        ("{events: {name: demo, where: [{property: a}]}}", "4:37: property a has no test (add eq, in"),
        ("{events: {name: demo, where: [{property: 'a\"b', eq: 1}]}}", "is not a path into properties"),
        ("{events: {name: demo, measure: sum}}", "4:8: nothing to compare with"),
        ('{attribute: {name: country, eq: "G\\0B"}}', "holds a NUL character, which no database keeps"),
        ("{attribute: {name: country, within: 3d}}", "4:43: within: this is text, not a date"),
        ("{attribute: {name: attributes.n, gt: .inf}}", "4:44: gt: "),
        ("{not: }", "not says nothing"),
        ("{}", "item 1: a condition has one key, this one has none"),
        (
            "{everyone: true, never_bought: true}",
            "item 1: a condition has one key, this one has everyone, never_bought",
        ),
        ("everyone", "item 1: expected keys with values, got 'everyone'"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_hint(workspace: Workspace, leaf: str, said: str) -> None:
    (problem,) = problems(
        workspace,
        asked=f"{HEAD}  all:\n    - {leaf}\n",
        eu_buyers="subject: contact\nwhere: {attribute: {name: role, eq: buyer}}\n",
    )
    assert problem.startswith("segments/asked.yaml:4:")
    assert said in problem


FAR = "lies outside the years 1900 to 2200 (name a day in them, or leave this border out)"


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (
            '{orders: {measure: count, gte: 1, between: ["2026-01-01", "9999-12-31"]}}',
            f"4:65: between: '9999-12-31' {FAR}",
        ),
        (
            '{orders: {measure: count, gte: 1, between: ["0001-01-01", "2026-12-31"]}}',
            f"4:51: between: '0001-01-01' {FAR}",
        ),
        ('{attribute: {name: created_at, lte: "9999-12-31"}}', f"4:43: lte: '9999-12-31' {FAR}"),
        ('{attribute: {name: created_at, lt: "1899-12-31"}}', f"4:42: lt: '1899-12-31' {FAR}"),
        ('{membership: {segment: asked, on: "9999-12-31"}}', f"4:41: on: '9999-12-31' {FAR}"),
        ("{orders: {measure: count, gt: 5, lt: 3}}", "4:44: gt: 5 and lt: 3 exclude each other (correct one"),
        ("{orders: {measure: sum, eq: '5.00', gt: 9}}", "4:35: gt: 9 and eq: 5.00 exclude each other"),
        ("{orders: {measure: count, gt: 5, lte: 5}}", "4:45: gt: 5 and lte: 5 exclude each other"),
        ("{orders: {measure: count, eq: 5, lt: 5}}", "4:44: eq: 5 and lt: 5 exclude each other"),
        ("{orders: {measure: count, eq: 5, gt: 7}}", "4:37: gt: 7 and eq: 5 exclude each other"),
        ("{rfm: {r: {gte: 4, lte: 2}}}", "4:31: gte: 4 and lte: 2 exclude each other"),
        ('{attribute: {name: attributes.a, gt: "2026-02-01", lt: "2026-01-01"}}', "exclude each other"),
        ("{events: {name: a, where: [{property: pieces, gt: 5, lt: 3}]}}", "gt: 5 and lt: 3 exclude each other"),
        ("{events: {name: a, within: 0d}}", "4:34: within: 0d is no time at all"),
        ("{attribute: {name: created_at, within: 0d}}", "4:46: within: 0d is no time at all"),
        ("{cluster: {since: {within: 30d, older_than: 90d}}}", "within: 30d and older_than: 90d exclude each other"),
        ("{bucket: {salt: a, share: 0%}}", "4:33: share: 0% is nobody at all (write a larger share"),
    ],
)
def test_what_nobody_can_ever_satisfy_is_told_at_its_place(workspace: Workspace, leaf: str, said: str) -> None:
    found = problems(workspace, asked=f"{HEAD}  all:\n    - {leaf}\n")
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "leaf",
    [
        "{orders: {measure: count, gte: 5, lte: 5}}",
        "{orders: {measure: sum, gt: '-5', lt: '10.50'}}",
        "{attribute: {name: attributes.ends_on, within: 0d}}",
        '{attribute: {name: attributes.ends_on, lt: "9999-12-31"}}',
        '{orders: {measure: count, gte: 1, between: ["1900-01-01", "2200-12-31"]}}',
        "{rfm: {since: {within: 90d, older_than: 30d}}}",
    ],
)
def test_what_somebody_can_satisfy_is_no_flaw(workspace: Workspace, leaf: str) -> None:
    write(workspace, asked=f"{HEAD}  all:\n    - {leaf}\n")
    assert set(load_segments(workspace)) == {"asked"}


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
@pytest.mark.parametrize("day", [date.min, date.max])
def test_the_last_days_of_the_calendar_have_instants_too(zone: str, day: date) -> None:
    scope = Scope(
        subject=Subject.ACCOUNT, table=subjects(Subject.ACCOUNT), as_of=datetime(2026, 6, 1, tzinfo=UTC),
        currency="GBP", zone=ZoneInfo(zone), find=pytest.fail,
    )  # fmt: skip
    assert scope.midnight(day).astimezone(UTC) < scope.after(day).astimezone(UTC)


def test_a_folder_or_a_dangling_link_is_an_error_that_names_it(workspace: Workspace) -> None:
    folder = workspace.root / "segments"
    (folder / "old.yaml").mkdir()
    (folder / "gone.yaml").symlink_to(folder / "nowhere.yaml")
    (folder / "real.txt").write_text(HEAD + "  everyone: true\n", encoding="utf-8")
    (folder / "link.yaml").symlink_to(folder / "real.txt")
    assert problems(workspace) == [
        "segments/gone.yaml: is a link to a file that is not there (correct the link, or delete it)",
        "segments/old.yaml: is a folder, not a file (put its files into segments/ itself, or rename it)",
    ]


def test_all_problems_of_all_files_are_told_at_once(workspace: Workspace) -> None:
    (workspace.root / "segments" / "Big One.yaml").write_text("subject: account\nwhere: {everyone: true}\n")
    (workspace.root / "segments" / "old.yml").write_text("subject: account\nwhere: {everyone: true}\n")
    found = problems(
        workspace,
        a="subject: acount\nwhere:\n  consent: {channel: fax}\n",
        b=HEAD + "  all:\n    - attribute: {name: contry, eq: GB}\n    - segment: a\n    - segment: nobody\n",
        c="subject: account\n",
        d="where: [\n",
    )
    places = [problem.split(": ")[0] for problem in found]
    assert places == [
        "segments/Big One.yaml",
        "segments/a.yaml:1:10",
        "segments/a.yaml:3:22",
        "segments/b.yaml:4:25",
        "segments/b.yaml:6:16",
        "segments/c.yaml:1:1",
        *[place for place in places if place.startswith("segments/d.yaml")],
        "segments/old.yml",
    ]
    assert any(place.startswith("segments/d.yaml") for place in places)


def test_a_circle_of_references_is_told_in_every_file_of_it(workspace: Workspace) -> None:
    first, second = problems(
        workspace,
        a=HEAD + "  all: [{everyone: true}, {segment: b}]\n",
        b=HEAD + "  not: {segment: a}\n",
        c=HEAD + "  segment: a\n",
    )
    assert first.startswith("segments/a.yaml:3:37: segments refer to each other in a circle: a → b → a")
    assert second.startswith("segments/b.yaml:3:18: segments refer to each other in a circle: b → a → b")


def test_a_contact_segment_may_refer_to_an_account_segment(workspace: Workspace) -> None:
    write(
        workspace,
        good=HEAD + "  everyone: true\n",
        people="subject: contact\nwhere: {segment: good}\n",
        back=HEAD + "  any_contact: {segment: people}\n",
        alone=HEAD + "  never_bought: true\n",
    )
    definitions = load_segments(workspace)
    assert set(needed(definitions, "back")) == {"back", "people", "good"}


def test_whose_scores_are_read_is_known(workspace: Workspace) -> None:
    write(
        workspace,
        none=HEAD + "  everyone: true\n",
        theirs="subject: contact\nwhere: {rfm: {segment: champions}}\n",
        own="subject: contact\nwhere: {not: {rfm: {r: {gte: 4}, of: contact}}}\n",
    )
    definitions = load_segments(workspace)
    assert subjects_scored({"none": definitions["none"]}) == set()
    assert subjects_scored({"theirs": definitions["theirs"]}) == {Subject.ACCOUNT}
    assert subjects_scored(definitions) == {Subject.ACCOUNT, Subject.CONTACT}


def test_which_models_are_read_is_known(workspace: Workspace) -> None:
    write(
        workspace,
        worth="subject: contact\nwhere: {any_colleague: {lifetime: {clv: {gte: 5}, of: contact}}}\n",
        alike=HEAD + "  at_least: {n: 1, of: [{parent: {cluster: {key: c1}}}, {cadence: {gte: 2}}]}\n",
        groups=HEAD + "  segment: alike\n",
    )
    definitions = load_segments(workspace)
    assert needs({"worth": definitions["worth"]}) == {(Subject.CONTACT, "lifetime")}
    assert needs(needed(definitions, "groups")) == {(Subject.ACCOUNT, "clusters"), (Subject.ACCOUNT, "rfm")}


def test_groups_of_the_shops_own_map_are_known(workspace: Workspace) -> None:
    settings = workspace.root / "carillon.yaml"
    own = "rfm: {map: {groups: [{name: keys, r: [4, 5]}, {name: others, r: [1, 2, 3]}]}}\n"
    settings.write_text(settings.read_text(encoding="utf-8") + own, encoding="utf-8")
    ours = load_workspace(workspace.root, {"CARILLON_SECRET_KEY": "k" * 64})
    write(ours, keys=HEAD + "  rfm: {segment: keys, previous: [others]}\n")
    assert set(load_segments(ours)) == {"keys"}
    (problem,) = problems(ours, champions=HEAD + "  rfm: {segment: [keys, champions]}\n")
    assert problem.startswith("segments/champions.yaml:3:25: 'champions' is not a group of the workspace's RFM map")


@pytest.mark.parametrize("levels", [60, 200, 2000])
def test_a_rule_of_many_levels_is_refused_at_its_place(workspace: Workspace, levels: int) -> None:
    (problem,) = problems(
        workspace, deep="subject: account\nwhere: " + "{not: " * levels + "{everyone: true}" + "}" * levels
    )
    assert "segments/deep.yaml:2:" in problem
    assert "nested deeper than" in problem
    rule: dict[str, object] = {"everyone": True}
    for _ in range(levels * 10):
        rule = {"not": rule}
    with pytest.raises(ConfigError, match=f"segment 'deep': conditions nest deeper than {MAX_DEPTH} levels"):
        definition_from_json({"name": "deep", "subject": "account", "where": rule})


def test_a_chain_of_references_may_not_be_too_deep_either(workspace: Workspace) -> None:
    links = {f"s{n}": f"{HEAD}  all: [{{not: {{segment: s{n + 1}}}}}]\n" for n in range(MAX_DEPTH // 3 + 2)}
    last = f"s{len(links)}"
    found = problems(workspace, **links, **{last: HEAD + "  everyone: true\n"})
    assert len(found) < len(links)
    assert found[0].startswith("segments/s0.yaml:3:25: conditions nest deeper than 50 levels here, those of the segm")


def test_segments_read_by_snapshot_are_pinned_and_may_go_in_a_circle(workspace: Workspace) -> None:
    write(
        workspace,
        loyal=HEAD + "  any: [{membership: {segment: loyal, for_at_least: 90d}}, {segment: fresh}]\n",
        fresh=HEAD + "  not: {membership: {segment: past, left_within: 7d}}\n",
        past=HEAD + "  everyone: true\n",
    )
    definitions = load_segments(workspace)
    assert set(needed(definitions, "loyal")) == {"loyal", "fresh", "past"}
    assert [name for _, name in definitions["loyal"].where.snapshots()] == ["loyal"]


def test_an_unknown_name_is_answered_with_the_nearest(workspace: Workspace) -> None:
    write(workspace, champions=HEAD + "  everyone: true\n")
    definitions = load_segments(workspace)
    assert chosen(definitions, None) == ["champions"]
    with pytest.raises(ConfigError, match="no segment 'champion' \\(did you mean 'champions'"):
        chosen(definitions, ["champion"])


def test_every_leaf_and_every_key_of_it_is_documented_with_an_example() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for leaf in LEAVES:
        _, _, section = text.partition(f"\n### `{leaf}`")
        assert section, f"docs/segments.md has no section on {leaf}"
        section = section.split("\n### ")[0]
        assert f"{leaf}:" in section, f"docs/segments.md has no example of {leaf}"
        for key in _keys(_model(leaf)):
            assert f"`{key}`" in section, f"docs/segments.md does not say what {leaf}.{key} is"
    for branch in BRANCHES:
        assert f"| `{branch}` |" in text


def _model(leaf: str) -> type[BaseModel]:
    (model,) = (part for part in Condition.model_fields[leaf].annotation.__args__ if part is not type(None))
    return model


def _keys(model: type[BaseModel]) -> set[str]:
    """Return every key of a leaf, and of what stands inside it."""
    found = set()
    for name, field in model.model_fields.items():
        found |= {field.alias or name} - {"root"}
        for inner in _models(field.annotation):
            found |= _keys(inner)
    return found


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]


def test_every_example_of_the_docs_is_valid(workspace: Workspace) -> None:
    examples = DOCS.read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert len(examples) > len(LEAVES)
    for number, block in enumerate(examples):
        name, _, text = block.split("```")[0].partition("\n")
        assert name.startswith("# segments/"), f"example {number} does not say its file"
        (workspace.root / name.removeprefix("# ")).write_text(text, encoding="utf-8")
    assert len(load_segments(workspace)) == len(examples)


def test_the_json_schema_of_a_segment_file_knows_every_leaf() -> None:
    schema = SegmentFile.model_json_schema(by_alias=True)
    assert set(LEAVES) | set(BRANCHES) == set(schema["$defs"]["Condition"]["properties"])
