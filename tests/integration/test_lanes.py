"""Lanes: closing with a growing wait that differs from place to place, by command, and what a success may open."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update
from typer.testing import CliRunner

from cli.main import app
from kernel.settings import load_workspace
from store.engine import reading, writing
from store.lanes import close_lane, hold_lane, lanes_now, note_wait, open_lane
from store.ledger import claim, due_by_lane
from store.tables import campaigns, lanes, messages, runs
from tests.integration.campaigning import NOW, make_workspace
from tests.seeding import SPEC, seed_messages
from workers.scheduler import Ticker

runner = CliRunner()
FIRST, LONGEST = timedelta(seconds=5), timedelta(minutes=30)


def refuse(engine: Engine, spread: float) -> timedelta:
    with writing(engine) as connection:
        return close_lane(connection, "relay", reason="421", first_wait=FIRST, longest=LONGEST, spread=spread)


def test_each_refusal_in_a_row_doubles_the_wait_of_which_half_is_drawn_by_lot(engine: Engine) -> None:
    assert [refuse(engine, 1.0).total_seconds() for _ in range(4)] == [5, 10, 20, 40]
    assert [refuse(engine, 0.0).total_seconds() for _ in range(6)] == [40, 80, 160, 320, 640, 900]
    with reading(engine) as connection:
        row = connection.execute(select(lanes)).one()
    assert row.closed_since < row.closed_until
    assert row.failures == 10


def test_a_success_under_way_does_not_open_what_was_closed_by_hand(engine: Engine) -> None:
    seed_messages(engine, 3)
    with writing(engine) as connection:
        hold_lane(connection, "relay", reason="moving")
        assert not open_lane(connection, "relay")
        assert due_by_lane(connection) == {}
        assert claim(connection, lane="relay", limit=5, lease=FIRST, host="h", boot="b", recorder="r") is None
    # A refusal of a chunk under way changes neither the reason nor that only a command opens it.
    refuse(engine, 1.0)
    with writing(engine) as connection:
        (row,) = lanes_now(connection, now=datetime.now(UTC))
        assert (row["held"], row["reason"]) == (True, "moving")
        assert not open_lane(connection, "relay")
        assert open_lane(connection, "relay", by_command=True)
        assert lanes_now(connection, now=datetime.now(UTC)) == []
        assert due_by_lane(connection) == {"relay": 3}


def test_a_lane_whose_waiting_is_over_is_not_listed(engine: Engine) -> None:
    with writing(engine) as connection:
        note_wait(connection, "relay", until=NOW, reason="quota of 5 a day is used up")
        assert [row["waits_for"] for row in lanes_now(connection, now=NOW - FIRST)] == ["quota of 5 a day is used up"]
        assert lanes_now(connection, now=NOW) == []


def test_a_lane_is_closed_and_opened_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "shop"
    make_workspace(root)
    monkeypatch.setenv("CARILLON_SECRET_KEY", "k" * 64)

    def run(*words: str) -> str:
        result = runner.invoke(app, ["lanes", *words, "--workspace", str(root)])
        assert result.exit_code == 0, result.output
        return result.output

    assert "closed until" in run("close", "relay", "--reason", "moving house")
    (row,) = json.loads(run("list", "--json"))
    assert (row["name"], row["held"], row["reason"], row["closed_until"]) == ("relay", True, "moving house", None)
    assert "closed by command" in run("list")
    assert "is open again" in run("open", "relay")
    assert json.loads(run("list", "--json")) == []
    assert json.loads(run("close", "relay", "--json")) == {"name": "relay", "held": True, "reason": "closed by command"}
    assert json.loads(run("open", "relay", "--json")) == {"name": "relay", "opened": True, "woken": 0}
    result = runner.invoke(app, ["lanes", "close", "rely", "--workspace", str(root)])
    assert result.exit_code == 1
    assert "did you mean 'relay'" in result.output


def test_the_ticker_looks_at_guardrails_and_says_when_it_looks_again(engine: Engine, tmp_path: Path) -> None:
    workspace = load_workspace(make_workspace(tmp_path / "shop").root, {"CARILLON_SECRET_KEY": "k" * 64})
    seed_messages(engine, 10, spec={**SPEC, "guardrails": {"bounces": "10%", "after": 5}})
    with writing(engine) as connection:
        connection.execute(update(runs).values(fired_at=NOW))
        bounced = {"state": "bounced", "sent_at": NOW, "ended_at": NOW}
        connection.execute(update(messages).where(messages.c.id < 4).values(**bounced))
        connection.execute(update(messages).where(messages.c.id >= 4).values(state="sent", sent_at=NOW, ended_at=NOW))
    ticker = Ticker(engine, workspace, clock=lambda: NOW)
    assert "guard" in ticker.jobs()
    ticker.guard()
    with reading(engine) as connection:
        row = connection.execute(select(campaigns)).one()
    assert row.state == "paused"
    assert row.state_reason.startswith("guardrail: bounces 30.00% of 10 sent, over 10%")
