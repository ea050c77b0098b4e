"""The demo's stage: the example workspace is in order, as it stands and with the present time filled in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from campaigns.calendar import fire_times
from campaigns.loading import load_campaigns
from demo.commands import environment_of
from demo.stage import (
    EXAMPLE,
    Stage,
    clear,
    let_the_dates_come,
    let_the_weekly_time_come,
    set_stage,
    shorten_retries,
)
from kernel.errors import ConfigError
from kernel.settings import load_workspace
from store.ingest.sources import files_of, load_sources

NOW = datetime(2026, 11, 21, 17, 3, 41, tzinfo=UTC)
ENVIRONMENT = {
    "DEMO_SMTP_PORT": "2525",
    "DEMO_SMS_PORT": "2526",
    "DEMO_WEB_PORT": "8025",
    "DEMO_INBOUND_PORT": "2527",
    "DEMO_API_TOKEN": "token",
    "DEMO_SMS_CALLBACK_TOKEN": "token",
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return set_stage(tmp_path_factory.mktemp("stage") / "demo", seed=3, now=NOW)


def test_the_example_workspace_validates_as_it_stands() -> None:
    workspace = load_workspace(EXAMPLE, ENVIRONMENT)
    assert set(load_campaigns(workspace)) == {"champions-preview", "winback", "weekly-restock"}
    assert set(load_sources(workspace).by_name) >= {"accounts", "contacts", "orders", "order-lines"}


def test_its_environment_is_told_in_the_file_for_it() -> None:
    lines = (EXAMPLE / ".env.example").read_text(encoding="utf-8").splitlines()
    assert {line.partition("=")[0] for line in lines if line and not line.startswith("#")} == set(ENVIRONMENT)


def test_every_source_finds_its_file(stage: Stage) -> None:
    workspace = load_workspace(stage.root, environment_of(stage))
    for name, source in load_sources(workspace).by_name.items():
        (path,) = files_of(source, name, workspace)
        assert f"{path.name}" in stage.rows


def test_the_present_time_is_filled_in_and_validates(stage: Stage) -> None:
    slot = let_the_weekly_time_come(stage.root, NOW)
    let_the_dates_come(stage.root, NOW, sms_wait=timedelta(seconds=20))
    shorten_retries(stage.root)
    loaded = load_campaigns(load_workspace(stage.root, environment_of(stage)))
    long_ago = NOW - timedelta(days=30)
    for name in ("champions-preview", "winback"):
        assert fire_times(loaded[name].spec.schedule, "UTC", long_ago, NOW) == [NOW.replace(second=0)]
    assert loaded["winback"].spec.steps[1].wait == "20s"
    weekly = fire_times(loaded["weekly-restock"].spec.schedule, "UTC", NOW, NOW + timedelta(days=7))
    assert weekly == [slot]


@pytest.mark.parametrize("second", [0, 1, 30, 57, 58, 59])
def test_the_weekly_time_is_a_full_minute_soon_ahead(tmp_path: Path, second: int) -> None:
    now = datetime(2026, 7, 4, 23, 59, second, tzinfo=UTC)
    (tmp_path / "campaigns").mkdir()
    source = EXAMPLE / "campaigns" / "weekly-restock.yaml"
    (tmp_path / "campaigns" / "weekly-restock.yaml").write_bytes(source.read_bytes())
    slot = let_the_weekly_time_come(tmp_path, now)
    assert timedelta(seconds=2) <= slot - now <= timedelta(seconds=62)
    wall = slot.astimezone(ZoneInfo("Europe/London"))
    text = (tmp_path / "campaigns" / "weekly-restock.yaml").read_text(encoding="utf-8")
    assert f'cron: "{wall.minute} {wall.hour} * * {wall.strftime("%a").lower()}"' in text


def test_an_earlier_demo_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match="not an earlier demo's folder"):
        clear(mine)
    assert (mine / "thesis.txt").is_file()

    earlier = tmp_path / "demo"
    earlier.mkdir()
    (earlier / ".carillon-demo").touch()
    (earlier / "old.txt").touch()
    clear(earlier)
    assert list(earlier.iterdir()) == []
