"""`carillon suppressions`, as people and programs call it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from cli.main import app
from kernel.clock import system_clock
from kernel.settings import Workspace
from kernel.vocabulary import Channel, MessageEventKind, SuppressionReason
from store.engine import open_database, writing
from store.feedback import record_message_event
from store.schema import migrate
from store.suppressions import suppress
from store.tables import suppression_words, suppressions
from tests.integration.returning import make_workspace, rows, sent_messages

JO = "user1@customer.example"
WHAT_IT_MAY_BE = "an e-mail address nor a number with its country, as +447900000001"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Workspace, Engine]:
    monkeypatch.delenv("CARILLON_DATABASE_URL", raising=False)
    workspace = make_workspace(tmp_path / "shop")
    engine = open_database(workspace.database_url)
    migrate(engine)
    return workspace, engine


def run(workspace: Workspace, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["suppressions", *words, "--workspace", str(workspace.root)])
    assert result.exit_code == code, result.output
    return result


def data(workspace: Workspace, *words: str) -> Any:
    return json.loads(run(workspace, *words, "--json").stdout)


def test_an_address_is_added_shown_and_lifted_and_all_of_it_is_kept(shop: tuple[Workspace, Engine]) -> None:
    workspace, engine = shop
    [message] = sent_messages(engine)
    bounced_at = system_clock() - timedelta(days=3)
    with writing(engine) as connection:
        record_message_event(
            connection, key="k", message_id=message, kind=MessageEventKind.MAILBOX_FULL, at=bounced_at, detail="5.2.2"
        )
    run(workspace, "add", " User1@Customer.EXAMPLE", "--for", "90d", "--note", "asked by telephone")
    [listed] = data(workspace, "list")
    assert (listed["address"], listed["reason"], listed["age_days"]) == (JO, "manual", 0)
    assert listed["expires_at"] > listed["at"]
    assert "asked by telephone" in run(workspace, "show", JO).stdout
    assert "lifted manual" in run(workspace, "lift", JO, "--reason", "manual").stdout
    assert "nothing to lift" in run(workspace, "lift", JO).stdout
    found = data(workspace, "show", JO)
    assert found["standing"] == []
    assert [(line["what"], line["reason"]) for line in found["history"]] == [
        ("mailbox_full", None),
        ("added", "manual"),
        ("lifted", "manual"),
    ]
    assert all(line["by"].startswith("command") for line in found["history"][1:])
    assert data(workspace, "list") == []


def test_a_list_goes_out_and_comes_in_again_the_same(shop: tuple[Workspace, Engine], tmp_path: Path) -> None:
    workspace, engine = shop
    at = system_clock() - timedelta(days=9)
    with writing(engine) as connection:
        for channel, address, reason, until in (
            (Channel.EMAIL, JO, SuppressionReason.HARD_BOUNCE, None),
            (Channel.EMAIL, JO, SuppressionReason.COMPLAINT, None),
            (Channel.SMS, "+447900000001", SuppressionReason.STOP, None),
            (Channel.EMAIL, "=cmd@customer.example", SuppressionReason.MANUAL, at + timedelta(days=30)),
        ):
            suppress(
                connection, channel=channel, address=address, reason=reason, at=at, until=until, detail='=1+1, "x"'
            )
    file = tmp_path / "list.csv"
    assert data(workspace, "export", str(file))["lines"] == 4
    assert b"'+447900000001" in file.read_bytes()
    before = rows(engine, suppressions, "channel", "address", "reason", "at", "expires_at")
    with writing(engine) as connection:
        connection.execute(suppressions.delete())
        connection.execute(suppression_words.delete())
    for added in (3, 0):  # Addresses: one has two reasons.
        told = {"lines": 4, "added": added, "already": 3 - added, "ended": 0, "left_out": 0, "not_understood": []}
        assert data(workspace, "import", str(file)) == told
        assert rows(engine, suppressions, "channel", "address", "reason", "at", "expires_at") == before
        assert len(rows(engine, suppression_words, "id")) == 4


def test_what_a_list_changes_is_told_and_every_line_that_was_not_understood(
    shop: tuple[Workspace, Engine], tmp_path: Path
) -> None:
    workspace, _ = shop
    run(workspace, "add", "old@a.example")
    file = tmp_path / "list.csv"
    file.write_text(
        "Address,reason,at,expires_at\nok@a.example,,,\nnot an address,,,\n"
        "ok@a.example,dislike,,\nno@a.example,,soon,\n"
        "old@a.example,Unsubscribe,,\nOK@a.example,,,\npast@a.example,,2026-01-01,2026-02-01\n,manual,,\n",
        encoding="utf-8",
    )
    told = run(workspace, "import", str(file), code=3)
    assert told.stdout.splitlines() == [
        "1 added: they get nothing from now on",
        "1 suppressed already: nothing changes for them",
        "1 not suppressed: their time is over, or a later sign of life or lift counts more",
    ]
    assert told.stderr.splitlines() == [
        f"line 3 was not understood: 'not an address' is neither {WHAT_IT_MAY_BE}",
        f"line 4 was not understood: 'dislike' is no reason; write {', '.join(SuppressionReason)} or nothing",
        "line 5 was not understood: 'soon' is no date; write it as 2026-03-02 or 2026-03-02T10:00:00Z",
        "line 9 was not understood: no address",
    ]
    listed = {row["address"]: row["reason"] for row in data(workspace, "list")}
    assert listed.keys() == {"ok@a.example", "old@a.example"}
    file.write_text("mail\na@b.example\n", encoding="utf-8")
    assert "no column `address`" in run(workspace, "import", str(file), code=1).stderr


def test_counted_reasons_are_not_brought_in(shop: tuple[Workspace, Engine], tmp_path: Path) -> None:
    workspace, engine = shop
    file = tmp_path / "list.csv"
    file.write_text("address,reason\na@b.example,soft_bounce\nb@b.example,hard_bounce\n", encoding="utf-8")
    assert "1 left out" in run(workspace, "import", str(file)).stdout
    assert rows(engine, suppressions, "address") == [("b@b.example",)]


@pytest.mark.parametrize("words", [("add", "nobody"), ("show", "1234"), ("add", JO, "--for", "soon")])
def test_what_is_no_address_or_duration_is_told_in_words(shop: tuple[Workspace, Engine], words: tuple[str]) -> None:
    assert "error:" in run(shop[0], *words, code=1).stderr
