"""The house keeps its own rules: names, rooms, and docs that tell all there is."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import packages_distributions
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel

import kernel.vocabulary
from cli.main import app
from kernel.settings import Settings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = PROJECT["tool"]["importlinter"]["root_packages"]
MARKDOWN = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


# --- rooms ---------------------------------------------------------------------------------------------------


def test_no_other_distribution_owns_the_names_of_our_rooms() -> None:
    owners = packages_distributions()
    assert {room: set(owners.get(room, [])) for room in ROOMS} == {room: {"carillon"} for room in ROOMS}


def test_every_room_stands_in_the_order_and_is_type_checked_and_installed() -> None:
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    assert {name.strip() for layer in contract["layers"] for name in layer.split("|")} == set(ROOMS)
    assert set(PROJECT["tool"]["mypy"]["packages"]) == set(ROOMS)
    assert {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_an_init_file_holds_a_docstring_and_nothing_else(room: str) -> None:
    for path in (ROOT / room).rglob("__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert len(tree.body) == 1, path
        assert ast.get_docstring(tree), path


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_on_the_map(room: str) -> None:
    assert f"[`{room}/`]({room})" in read("README.md")
    assert f"`{room}`" in read("docs/architecture.md")


# --- commands ------------------------------------------------------------------------------------------------


def _commands() -> Iterator[tuple[str, Any]]:
    """Every command by its full name, as typed."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
            return
        for word, child in sorted(inner.items()):
            yield from walk(child, f"{name} {word}".strip())

    yield from walk(typer.main.get_command(app), "")


COMMANDS = dict(_commands())


def _sections(path: str) -> dict[str, str]:
    """The text under each heading of a page."""
    parts = re.split(r"^#+ (.+)$", read(path), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_docs_with_every_option(name: str) -> None:
    sections = _sections("docs/commands.md")
    title = next((title for title in sections if re.match(rf"`carillon {re.escape(name)}[ `]", title)), None)
    assert title, f"docs/commands.md has no section `carillon {name}`"
    for parameter in COMMANDS[name].params:
        if parameter.name in ("help", "root"):
            continue
        told = (
            parameter.opts[0]
            if parameter.param_type_name == "option"
            else (parameter.metavar or parameter.name).upper()
        )
        where = sections[title] + title
        assert re.search(rf"(?<![\w-]){re.escape(told)}(?![\w-])", where), f"{name}: {told}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_an_example_and_takes_a_workspace(name: str) -> None:
    command = COMMANDS[name]
    assert "Example: carillon" in " ".join((command.help or "").split())
    options = {option for parameter in command.params for option in parameter.opts}
    assert name in ("init", "schema") or "--workspace" in options


SILENT = {"init", "schema", "up", "worker", "scheduler", "web", "inbound", "redis"}
"""Commands that run until they are stopped, or whose whole answer is a file."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SILENT and not name.startswith("picture ")])
def test_every_command_that_answers_answers_programs_too(name: str) -> None:
    assert "--json" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


def test_the_docs_tell_of_no_command_that_is_not_there() -> None:
    told = re.findall(r"^#+ `carillon ([a-z -]+?)(?: [^a-z`].*| \[.*)?`", read("docs/commands.md"), flags=re.MULTILINE)
    assert set(told) == set(COMMANDS)


# --- settings ------------------------------------------------------------------------------------------------


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        for part in get_args(annotation):
            yield from _models(part)


def _settings() -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}

    def walk(model: type[BaseModel]) -> None:
        if model.__name__ not in found:
            found[model.__name__] = model
            for field in model.model_fields.values():
                for inner in _models(field.annotation):
                    walk(inner)

    walk(Settings)
    return found


HEADINGS = {
    "Settings": "Top level",
    "Brand": "brand",
    "Sender": "senders",
    "DkimKeySettings": "dkim",
    "Region": "regions",
    "SmtpGateway": "gateways, `type: smtp`",
    "HttpGateway": "gateways, `type: http`",
    "HttpReply": "reply",
    "HttpReceipt": "receipt",
    "KannelGateway": "gateways, `type: kannel`",
    "SmppGateway": "gateways, `type: smpp`",
    "TwilioGateway": "gateways, `type: twilio`",
    "VonageGateway": "gateways, `type: vonage`",
    "AliyunGateway": "gateways, `type: aliyun`",
    "TencentGateway": "gateways, `type: tencent`",
    "Limits": "limits",
    "Warmup": "warmup",
    "DomainLimits": "domains",
    "Budget": "budget",
    "Route": "routes",
    "WindowSpec": "window",
    "FrequencyCap": "caps",
    "RfmSettings": "rfm",
    "RfmMapSettings": "map",
    "RfmGroupRule": "groups",
    "ClusterSettings": "clusters",
    "LifetimeSettings": "lifetime",
    "WarehouseSettings": "warehouse",
    "WarehouseColumns": "columns",
    "WebSettings": "web",
    "SesWebhook": "webhook, `type: ses`",
    "SendgridWebhook": "webhook, `type: sendgrid`",
    "MailgunWebhook": "webhook, `type: mailgun`",
    "PostmarkWebhook": "webhook, `type: postmark`",
    "InboundSettings": "inbound",
    "ImapBox": "imap",
    "SuppressionSettings": "suppression",
    "BounceRule": "soft and full",
}


@pytest.mark.parametrize("name", _settings())
def test_every_setting_is_in_the_docs_and_no_other(name: str) -> None:
    told = re.findall(r"^\| `([a-z_]+)` \|", _sections("docs/settings.md")[HEADINGS[name]], flags=re.MULTILINE)
    assert sorted(told) == sorted(_settings()[name].model_fields)


def test_every_variable_of_the_environment_is_in_the_docs() -> None:
    used = {
        name
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r'"(CARILLON_[A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    told = set(re.findall(r"`(CARILLON_[A-Z_]+)`", read("docs/operations.md")))
    assert used <= told


# --- words ---------------------------------------------------------------------------------------------------

ENUMS = [item for item in vars(kernel.vocabulary).values() if isinstance(item, type) and issubclass(item, StrEnum)]


@pytest.mark.parametrize("enum", [item for item in ENUMS if item is not StrEnum], ids=lambda item: item.__name__)
def test_every_word_of_the_vocabulary_is_in_the_glossary(enum: type[StrEnum]) -> None:
    glossary = read("docs/glossary.md")
    assert [word for word in enum if f"`{word}`" not in glossary and f"| {word} |" not in glossary] == []


def test_the_groups_of_rfm_are_in_the_glossary() -> None:
    glossary = read("docs/glossary.md")
    assert [name for name in kernel.vocabulary.RFM_SEGMENTS if f"`{name}`" not in glossary] == []


# --- pages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        path = path or page.name
        assert (page.parent / path).exists(), target
        if anchor and (page.parent / path).suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", (page.parent / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in headings}


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name.split("-")[0]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_make_help_lists_every_target() -> None:
    makefile = read("Makefile")
    shown = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)
    assert [target for target in phony.split() if f"make {target} " not in shown] == []


def test_ci_calls_what_the_readme_says() -> None:
    ci = read(".ci/run")
    for command in ("make demo", "make test", "make check", "make test-data"):
        assert re.search(rf"^{command}$", ci, flags=re.MULTILINE), command
    for command in ("make demo", "make test"):
        assert re.search(rf"^{command} ", read("README.md"), flags=re.MULTILINE), command
