from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from kernel.settings import Workspace
from store.engine import open_database
from store.schema import migrate
from tests.reporting import ORDERS_FROM_100, World, days, spec


@pytest.fixture
def root(workspace: Workspace) -> Path:
    """A workspace whose campaign `winback` was sent to one account that ordered."""
    engine = open_database(workspace.database_url)
    migrate(engine)
    world = World(engine)
    run = world.run(world.campaign("winback", spec(goal=ORDERS_FROM_100, cost={"fixed": "10.00"})))
    account = world.account("Acme")
    world.touch(world.mailed(run, account), days(1))
    world.order(account, days(2), net_minor=20_000)
    engine.dispose()
    return workspace.root


def run(root: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--workspace", str(root)])
    return result.exit_code, result.output


def test_report_prints_figures_that_are_up_to_date(root: Path) -> None:
    code, said = run(root, "report", "winback")
    assert code == 0
    assert "1 message went out and led to 1 order worth £200.00" in said


def test_report_as_json_has_the_funnel_and_its_breakdowns(root: Path) -> None:
    code, said = run(root, "report", "winback", "--json")
    found = json.loads(said)
    assert code == 0
    assert (found["campaign"], found["sent"], found["revenue"], found["cost"]) == (
        "winback", 1, {"GBP": 20_000}, {"GBP": 1_000}
    )  # fmt: skip
    assert [row["converted"] for row in found["steps"]] == [1]
    assert {"runs", "steps", "variants", "segments", "rfm_segments", "days"} <= set(found)


def test_report_is_written_as_a_mail_or_a_page_and_nothing_else(root: Path, tmp_path: Path) -> None:
    mail, page = tmp_path / "r.eml", tmp_path / "r.html"
    assert run(root, "report", "winback", "--out", str(mail))[0] == 0
    assert run(root, "report", "winback", "--out", str(page), "--label", "simulated")[0] == 0
    assert mail.read_bytes().startswith(b"From: Acme Wholesale <hello@acme.example>\r\n")
    assert "SIMULATED" in page.read_text(encoding="utf-8")
    code, said = run(root, "report", "winback", "--out", str(tmp_path / "r.pdf"))
    assert code == 1
    assert "neither .eml nor .html" in said


def test_a_misspelt_campaign_is_answered_with_the_nearest(root: Path) -> None:
    code, said = run(root, "report", "winbak")
    assert code == 1
    assert "did you mean 'winback'?" in said


def test_funnel_counts_a_campaign_or_a_run_and_breaks_it_down(root: Path) -> None:
    code, said = run(root, "funnel", "winback", "--by", "segment", "--json")
    assert code == 0
    assert [(row["key"], row["clicked"]) for row in json.loads(said)["segments"]] == [("at-risk", 1)]
    assert json.loads(run(root, "funnel", "--run", "1", "--json")[1])["balanced"] is True
    assert "By step" in run(root, "funnel", "winback")[1]
    assert run(root, "funnel", "--run", "99")[0] == 1
    assert run(root, "funnel")[0] == 2


def test_attribute_says_what_it_changed(root: Path) -> None:
    assert json.loads(run(root, "attribute", "--json")[1]) == {"changed": 1}
    assert "0 conversion(s)" in run(root, "attribute")[1]
