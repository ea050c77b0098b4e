"""The commands about campaigns, as people and programs call them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update
from typer.testing import CliRunner, Result

from campaigns.applying import apply
from campaigns.firing import fire_due
from cli.main import app
from kernel.settings import Workspace
from store.engine import open_database, writing
from store.schema import migrate
from store.tables import messages
from tests.integration.campaigning import CAMPAIGN, NOW, add_account, add_contact, make_workspace, put

PAST = CAMPAIGN.replace("2026-12-01", "2026-01-05")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Workspace, Engine]:
    monkeypatch.delenv("CARILLON_DATABASE_URL", raising=False)
    monkeypatch.setenv("CARILLON_SECRET_KEY", "k" * 64)
    workspace = make_workspace(tmp_path / "shop", hello=PAST)
    engine = open_database(workspace.database_url)
    migrate(engine)
    account = add_account(engine, "A1")
    for name in ("anna", "bert"):
        add_contact(engine, name, account)
    add_contact(engine, "carl", account, consent=())
    return workspace, engine


def run(workspace: Workspace, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*words, "--workspace", str(workspace.root)])
    assert result.exit_code == code, result.output
    return result


def data(workspace: Workspace, *words: str, code: int = 0) -> Any:
    return json.loads(run(workspace, *words, "--json", code=code).stdout)


def test_validate_is_silent_about_good_files_and_loud_about_wrong_ones(shop: tuple[Workspace, Engine]) -> None:
    workspace, _ = shop
    assert data(workspace, "validate")["valid"] is True
    assert "is past" in run(workspace, "validate").stderr
    put(workspace.root, "campaigns/hello.yaml", CAMPAIGN.replace("- email: hello", "- email: helo"))
    wrong = run(workspace, "validate", code=1)
    assert "campaigns/hello.yaml:4:12: unknown e-mail template 'helo' (did you mean 'hello'?)" in wrong.stderr
    found = data(workspace, "validate", "hello", code=1)
    assert (found["valid"], found["problems"][0]["line"]) == (False, 4)


def test_plan_has_its_stable_keys(shop: tuple[Workspace, Engine]) -> None:
    workspace, _ = shop
    (planned,) = data(workspace, "plan", "hello")
    keys = (
        "name state audience people messages skipped held_out per_day first_send_at last_send_at cost_estimate warnings"
    )
    assert set(keys.split()) | {"sample"} <= planned.keys()
    assert (planned["state"], planned["audience"], planned["messages"]) == ("new", 3, {"email": 2})
    assert planned["skipped"] == {"no_consent": 1}
    assert planned["sample"]["subject"] == "Hello anna"
    assert "2 email" in run(workspace, "plan").stdout


def test_apply_says_what_it_did_and_when_the_next_run_is(shop: tuple[Workspace, Engine]) -> None:
    workspace, _ = shop
    assert "hello: new, now version 1\n    next run: at once" in run(workspace, "apply").stdout
    assert "hello: unchanged (version 1)" in run(workspace, "apply").stdout
    put(workspace.root, "campaigns/hello.yaml", PAST + "rate: 60/hour\n")
    (applied,) = data(workspace, "apply")
    assert (applied["state"], applied["version"], applied["changes"]) == ("changed", 2, ["rate: nothing → 60/hour"])


def test_apply_changes_nothing_if_one_file_is_wrong(shop: tuple[Workspace, Engine]) -> None:
    workspace, _ = shop
    put(workspace.root, "campaigns/other.yaml", "audience: {}\n")
    assert "nothing was changed" in run(workspace, "apply", code=1).stderr
    assert data(workspace, "campaigns", "list") == []


def test_runs_show_accounts_for_everybody(shop: tuple[Workspace, Engine]) -> None:
    workspace, engine = shop
    apply(engine, workspace, None, now=NOW)
    (fired,) = fire_due(engine, workspace, now=NOW)
    with writing(engine) as connection:
        sent = update(messages).where(messages.c.contact_id == 1).values(state="sent", sent_at=NOW)
        connection.execute(sent)

    names = (str(fired.run_id), "hello", "hello@2026-01-05T09:00:00Z", "hello@2026-01-05T09:00:00+00:00")
    figures = [data(workspace, "runs", "show", name) for name in names]

    assert all(one == figures[0] for one in figures)
    (shown, *_) = figures
    keys = "run campaign scheduled_for state people audience sent failed skipped held_out pending in_doubt delivered"
    assert set(keys.split()) | {"opened", "clicked", "converted", "revenue", "steps"} <= shown.keys()
    assert (shown["audience"], shown["people"], shown["sent"], shown["pending"]) == (3, 3, 1, 2)
    assert shown["revenue"] == {}
    assert shown["scheduled_for"] == "2026-01-05T09:00:00+00:00"
    assert [step["sent"] for step in shown["steps"]] == [1]
    assert "hello@2026-01-05T09:00:00Z" in run(workspace, "runs", "list", "hello").stdout
    assert "audience" in run(workspace, "runs", "show", "hello").stdout


def test_campaigns_can_be_paused_resumed_and_cancelled(shop: tuple[Workspace, Engine]) -> None:
    workspace, engine = shop
    apply(engine, workspace, None, now=NOW - timedelta(days=1))
    paused = data(workspace, "campaigns", "pause", "hello", "--reason", "wrong price")
    assert (paused["state"], paused["state_reason"]) == ("paused", "wrong price")
    assert data(workspace, "campaigns", "show", "hello")["spec"]["audience"]["segment"] == ["everybody"]
    assert "paused wrong price" in run(workspace, "campaigns", "show", "hello").stdout
    assert data(workspace, "campaigns", "resume", "hello")["state"] == "active"
    fire_due(engine, workspace, now=NOW)
    assert data(workspace, "campaigns", "cancel", "hello")["skipped"] == 3
    assert data(workspace, "runs", "show", "hello")["skipped"] == {"cancelled": 3}
    assert "resume it first" in run(workspace, "campaigns", "pause", "hello", code=1).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["campaigns", "pause", "helo"], "no campaign 'helo' is applied (did you mean 'hello'?)"),
        (["runs", "show", "helo"], "there is no run 'helo' (did you mean 'hello'?)"),
        (["runs", "show", "hello@tuesday"], "'hello@tuesday' names no run"),
        (["runs", "show", "99"], "there is no run '99'"),
        (["plan", "helo"], "there is no helo.yaml (did you mean 'hello'?)"),
        (["preview", "hello", "--step", "2"], "campaign hello has 1 step(s), no step 2"),
        (["preview", "hello", "--contact", "nobody"], "there is no contact 'nobody'"),
    ],
)
def test_mistakes_are_told_in_words(shop: tuple[Workspace, Engine], words: list[str], message: str) -> None:
    workspace, engine = shop
    apply(engine, workspace, None, now=NOW)
    assert message in run(workspace, *words, code=1).stderr


def test_preview_shows_a_message_as_somebody_would_get_it(shop: tuple[Workspace, Engine]) -> None:
    workspace, _ = shop
    assert "Subject: Hello bert" in run(workspace, "preview", "hello", "--contact", "bert").stdout
    out = workspace.root / "preview.html"
    run(workspace, "preview", "hello", "--out", str(out))
    assert "<p>Hello anna</p>" in out.read_text(encoding="utf-8")


def test_the_schema_is_json_schema_for_editors() -> None:
    for kind in ("campaign", "segment"):
        result = CliRunner().invoke(app, ["schema", kind])
        assert json.loads(result.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert CliRunner().invoke(app, ["schema", "poem"]).exit_code == 2
