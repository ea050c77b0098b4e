"""`carillon ledger …` as typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from cli.main import build
from kernel.clock import system_clock
from kernel.settings import Workspace
from store.engine import open_database, reading
from store.schema import installation, migrate
from store.tables import message_events, messages
from tests.integration.test_doubts import come_into_doubt, sent
from tests.seeding import seed_messages, states

NOW = system_clock()
AN_HOUR_AGO = NOW - timedelta(hours=1)


@pytest.fixture
def engine(workspace: Workspace) -> Iterator[Engine]:
    """The workspace's embedded database: four messages to one another's neighbours."""
    engine = open_database(f"sqlite:///{workspace.data_dir / 'carillon.db'}")
    migrate(engine)
    seed_messages(engine, 4)
    yield engine
    engine.dispose()


def run(workspace: Workspace, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(build(), ["ledger", *arguments, "--workspace", str(workspace.root)])
    assert result.exit_code == code, result.output
    return result.output


def test_doubts_are_told_with_what_can_settle_them(workspace: Workspace, engine: Engine) -> None:
    assert "nothing is in doubt" in run(workspace, "doubts")
    come_into_doubt(engine, 2, since=AN_HOUR_AGO)
    told = run(workspace, "doubts")
    assert "connection lost after the final dot" in " ".join(told.split())
    assert "carillon ledger settle --mail-log FILE --gateway relay" in told
    [doubt] = json.loads(run(workspace, "doubts", "--json"))
    assert (doubt["message"], doubt["campaign"], doubt["gateway"]) == (2, "hello", "relay")
    assert json.loads(run(workspace, "doubts", "--campaign", "other", "--json")) == []


def test_a_life_is_told_in_lines_and_as_json(workspace: Workspace, engine: Engine) -> None:
    sent(engine, 1, at=AN_HOUR_AGO)
    told = run(workspace, "show", "1")
    assert "hello, run 1 (version 1), step 1" in told
    assert f"{AN_HOUR_AGO:%Y-%m-%d %H:%M:%S}  accepted" in told
    life = json.loads(run(workspace, "show", "1", "--json"))
    assert (life["message"], life["state"], life["contact"]) == (1, "sent", "C-hello-1")
    assert [event["what"] for event in life["events"]].count("accepted") == 1
    assert run(workspace, "show", life["message_id_header"]) == told


def test_a_persons_address_lists_what_went_to_it(workspace: Workspace, engine: Engine) -> None:
    seed_messages(engine, 1, address="user1@customer.example", name="again")
    listed = run(workspace, "show", "user1@customer.example")
    assert "again" in listed
    assert "hello" in listed
    assert [life["message"] for life in json.loads(run(workspace, "show", "user1@customer.example", "--json"))] == [
        5,
        1,
    ]


def test_what_the_ledger_does_not_know_is_told_with_what_one_may_give(workspace: Workspace, engine: Engine) -> None:
    for word in ("999", "<m1.000000000000@acme.example>", "nobody@customer.example", "4ZxYkL0Qb2"):
        assert "the ledger knows no message" in run(workspace, "show", word, code=1)


def test_an_audit_says_what_holds_and_fails_where_something_does_not(
    workspace: Workspace, engine: Engine, tmp_path: Path
) -> None:
    sent(engine, 1, at=AN_HOUR_AGO)
    told = run(workspace, "audit")
    assert "holds  1. nobody is lost" in told
    assert "every promise holds" in told
    log = tmp_path / "mail.log"
    log.write_text(mail_log(engine, 1, 3), encoding="utf-8")
    told = run(workspace, "audit", "--mail-log", str(log), code=1)
    assert "BROKEN +  ledger and log of relay agree" in told
    assert "1 were accepted, and the ledger says they were not sent" in told
    assert "ids: 3" in told
    # What is shown on the way goes to stderr, so that a program may read stdout.
    result = CliRunner().invoke(
        build(), ["ledger", "audit", "--mail-log", str(log), "--json", "--workspace", str(workspace.root)]
    )
    found = json.loads(result.stdout)
    assert [one["holds"] for one in found["promises"]] == [True] * 6 + [False]
    assert found["promises"][6]["breaches"][0]["ids"] == [3]


def test_a_doubt_is_settled_by_a_word_and_the_reason_is_kept(workspace: Workspace, engine: Engine) -> None:
    come_into_doubt(engine, 2)
    assert "message 2 counts as sent" in run(workspace, "settle", "2", "--sent", "--because", "she says she has it")
    with reading(engine) as connection:
        detail = connection.execute(select(message_events.c.detail)).scalar_one()
    assert detail.startswith("sent: by ")
    assert detail.endswith(": she says she has it")
    assert "not in doubt" in run(workspace, "settle", "2", "--sent", code=1)
    assert states(engine) == {"planned": 3, "sent": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        ["settle"],
        ["settle", "2"],
        ["settle", "2", "--sent", "--resend"],
        ["settle", "2", "--mail-log", "x"],
        ["settle", "--sent", "--mail-log", "x"],
    ],
)
def test_a_settlement_says_one_thing(workspace: Workspace, engine: Engine, arguments: list[str]) -> None:
    come_into_doubt(engine, 2)
    assert "error:" in run(workspace, *arguments, code=1)
    assert states(engine)["in_doubt"] == 1


def test_the_relays_log_settles_and_says_so(workspace: Workspace, engine: Engine, tmp_path: Path) -> None:
    come_into_doubt(engine, 2, 3, since=AN_HOUR_AGO)
    sent(engine, 1, at=AN_HOUR_AGO)
    log = tmp_path / "mail.log"
    log.write_text(mail_log(engine, 1, 2), encoding="utf-8")
    told = json.loads(run(workspace, "settle", "--mail-log", str(log), "--json"))
    assert (list(told["sent"]), list(told["not_sent"]), told["left"]) == (["2"], ["3"], {})
    assert states(engine) == {"planned": 2, "sent": 2}
    assert "nothing was in doubt" in run(workspace, "settle", "--mail-log", str(log))
    with reading(engine) as connection:
        row = connection.execute(select(messages).where(messages.c.id == 3)).one()
    assert (row.state, row.resends) == ("planned", 0)


def mail_log(engine: Engine, *ids: int) -> str:
    """Return what Postfix would log of these messages an hour ago, with other things around."""
    with reading(engine) as connection:
        name = installation(connection)

    def line(at_minutes: int, words: str) -> str:
        at = (AN_HOUR_AGO + timedelta(minutes=at_minutes)).isoformat()
        return f"{at} mx postfix/{words}\n"

    text = line(-30, "smtpd[1]: connect from localhost[127.0.0.1]")
    for number in ids:
        text += line(0, f"cleanup[2]: ABCDEF{number:04}: message-id=<m{number}.{name}@acme.example>")
        text += line(0, f"qmgr[3]: ABCDEF{number:04}: from=<x@acme.example>, size=303, nrcpt=1 (queue active)")
    return text + line(30, "smtpd[1]: disconnect from localhost[127.0.0.1]")
