"""Segment files: what is refused, with its place and a hint, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel.errors import ConfigError, InputError
from kernel.settings import Workspace
from kernel.vocabulary import RFM_SEGMENTS, Subject
from segments.conditions import LEAVES, Condition
from segments.definitions import (
    SegmentFile,
    chosen,
    definition_digest,
    definition_from_json,
    definition_to_json,
    load_segments,
    needed,
    subjects_scored,
)

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
        ("{rfm: {segment: [champion]}}", "'champion' is not one of"),
        ("{rfm: {r: {gte: 6}}}", "4:23: gte: scores go from 1 to 5, got 6"),
        ("{rfm: {}}", "4:8: rfm asks nothing (add segment, r, f or m)"),
        ("{rfm: {segment: champions, of: contact}}", "4:38: of: a segment of accounts has no contact's scores"),
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
        ("{attribute: {name: created_at, eq: '2026-01-01'}}", "a point in time is compared with gt, gte, lt or lte"),
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


def test_all_problems_of_all_files_are_told_at_once(workspace: Workspace) -> None:
    (workspace.root / "segments" / "Big One.yaml").write_text("subject: account\nwhere: {everyone: true}\n")
    (workspace.root / "segments" / "old.yml").write_text("subject: account\nwhere: {everyone: true}\n")
    found = problems(
        workspace,
        a="subject: acount\nwhere:\n  rfm: {segment: champion}\n",
        b=HEAD + "  all:\n    - attribute: {name: contry, eq: GB}\n    - segment: a\n    - segment: nobody\n",
        c="subject: account\n",
        d="where: [\n",
    )
    places = [problem.split(": ")[0] for problem in found]
    assert places == [
        "segments/Big One.yaml",
        "segments/a.yaml:1:10",
        "segments/a.yaml:3:18",
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
        model = _model(leaf)
        for name, field in model.model_fields.items():
            key = field.alias or name
            assert key == "root" or f"`{key}`" in section, f"docs/segments.md does not say what {leaf}.{key} is"
    for word in RFM_SEGMENTS:
        assert f"`{word}`" in text


def _model(leaf: str) -> type:
    (model,) = (part for part in Condition.model_fields[leaf].annotation.__args__ if part is not type(None))
    return model


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
    assert set(LEAVES) | {"all", "any", "not", "any_contact"} == set(schema["$defs"]["Condition"]["properties"])
