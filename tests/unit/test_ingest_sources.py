"""sources.yaml: what is wrong in it is said with line, column and the nearest right word."""

import re
from pathlib import Path

import pytest

from kernel.errors import ConfigError, InputError
from kernel.fields import Strict
from kernel.settings import Workspace
from store.ingest.fields import Fields, Kind
from store.ingest.sources import SOURCE_MODELS, SourcesFile, files_of, load_sources
from tests.importing import LINES, give_sources

DOCS = Path(__file__).resolve().parents[2] / "docs" / "importing.md"


def problems(workspace: Workspace, text: str) -> list[str]:
    give_sources(workspace, text)
    with pytest.raises(InputError) as caught:
        load_sources(workspace)
    return [str(problem) for problem in caught.value.problems]


def source(body: str) -> str:
    return "sources:\n  s:\n" + "\n".join(f"    {line}" for line in body.strip().splitlines()) + "\n"


def test_a_good_file_is_read(workspace: Workspace) -> None:
    give_sources(workspace, LINES)
    assert load_sources(workspace).get("invoices").columns.given()["order"] == "Invoice"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "kind: acounts\ncolumns: {account: Nr}",
            r"sources\.yaml:3:11: kind: 'acounts' is not one of .*did you mean 'accounts'",
        ),
        ("columns: {account: Nr}", r"sources\.yaml:\d+:\d+: 'kind' is missing"),
        (
            "kind: accounts\ncolumns: {acount: Nr}",
            r"sources\.yaml:4:15: unknown key 'acount' \(did you mean 'account'\?\)",
        ),
        ("kind: accounts\ncolumns: {name: Company}", r"columns has no 'account'"),
        ("kind: accounts\ncolumns: {account: Nr}\ncolour: red", r"sources\.yaml:5:5: unknown key 'colour'"),
        ("kind: accounts\ncolumns: {account: 2020}", r"account: expected text, got 2020 \(put it in quotes"),
        ("kind: accounts\ncolumns: {account: Nr}\ntimezone: Mars/Base", r"5:15: .*'Mars/Base' is not a time zone"),
        ("kind: accounts\ncolumns: {account: Nr}\ndate_format: dd.mm.yyyy", r"is not a date format"),
        ("kind: contacts\ncolumns: {contact: Nr}\nphone_region: UK", r"'UK' is not a country code"),
        ("kind: accounts\ncolumns: {account: Nr}\nvalues: {country: {UK: GB}}", r"values are given for 'country'"),
        (
            "kind: accounts\ncolumns: {account: Nr}\nconstants: {account: x}",
            r"'account' stands under columns and under const",
        ),
        ("kind: order_lines\ncolumns: {order: A, product: B, quantity: C}", r"needs either 'unit_price' or 'amount'"),
        (
            "kind: accounts\ncolumns: {account: Nr}\ncreate: [orders]",
            r"'orders' is not one of 'accounts' or 'products'",
        ),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(workspace: Workspace, body: str, expected: str) -> None:
    assert re.search(expected, "\n".join(problems(workspace, source(body))))


def test_all_problems_come_at_once(workspace: Workspace) -> None:
    text = source("kind: accounts\ncolumns: {acount: Nr}\ncolour: red") + "  t: {kind: stock, columns: {sku: A}}\n"
    assert len(problems(workspace, text)) >= 3


def test_an_unknown_source_names_the_nearest(workspace: Workspace) -> None:
    give_sources(workspace, LINES)
    with pytest.raises(ConfigError, match="did you mean 'invoices'"):
        load_sources(workspace).get("invoice")


def test_a_workspace_without_sources_says_what_is_missing(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"has no sources\.yaml"):
        load_sources(workspace)


def test_the_default_file_may_hold_stars_and_variables(workspace: Workspace) -> None:
    text = source('kind: accounts\ncolumns: {account: Nr}\nfile: "${SHOP_EXPORTS:-exports}/a-*.csv"')
    give_sources(workspace, text)
    (workspace.root / "exports").mkdir()
    for name in ("a-2.csv", "a-1.csv", "b.csv"):
        (workspace.root / "exports" / name).touch()
    found = files_of(load_sources(workspace).get("s"), "s", workspace)
    assert [path.name for path in found] == ["a-1.csv", "a-2.csv"]


def test_a_missing_variable_or_file_is_named(workspace: Workspace) -> None:
    give_sources(workspace, source('kind: accounts\ncolumns: {account: Nr}\nfile: "${SHOP_EXPORTS}/a.csv"'))
    with pytest.raises(ConfigError, match="the environment has no SHOP_EXPORTS"):
        files_of(load_sources(workspace).get("s"), "s", workspace)
    give_sources(workspace, source("kind: accounts\ncolumns: {account: Nr}\nfile: a.csv"))
    with pytest.raises(ConfigError, match=r"there is no file a\.csv"):
        files_of(load_sources(workspace).get("s"), "s", workspace)


def test_every_kind_has_a_model_and_a_schema() -> None:
    assert set(SOURCE_MODELS) == set(Kind)
    assert "sources" in SourcesFile.model_json_schema()["properties"]


def test_the_docs_name_every_kind_every_column_and_every_setting() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for kind, model in SOURCE_MODELS.items():
        chapter = text.split(f"### `{kind}`")[1].split("\n### ")[0]
        fields: type[Fields] = model.model_fields["columns"].annotation  # type: ignore[assignment]  # the annotation is the class
        assert [name for name in fields.model_fields if f"| `{name}`" not in chapter] == []
        settings: type[Strict] = model
        assert [name for name in settings.model_fields if f"`{name}`" not in text] == []
