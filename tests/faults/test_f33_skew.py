"""F33: a deploy half done: hints for tasks nobody knows, a migration in mid-run, a worker of the version before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.processes import REPOSITORY
from tests.faults.checker import Facts
from tests.faults.people import CAMPAIGN, add_people, apply_campaigns, fired
from tests.faults.stage import CONNECTIONS, Stage
from tests.seeding import seed_messages

pytestmark = pytest.mark.cell("F33")

MESSAGES = 300


@pytest.mark.cell("F33", quick="sqlite")
def test_hints_for_tasks_nobody_knows_lose_no_message(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(delay_ms=10)
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_scheduler()
    client = stage.redis()
    stage.until(lambda: client.llen("email") >= 1, "hints to be published")
    hint = client.lrange("email", 0, 0)[0]
    for name in ("carillon.drain_v2", "carillon.gone"):
        client.rpush("email", _renamed(hint, name))
    client.close()
    stage.start_worker()
    quiet(Facts())
    assert len(stage.accepted()) == MESSAGES
    assert stage.processes.running["worker"].poll() is None


def _renamed(hint: bytes, name: str) -> bytes:
    message = json.loads(hint)
    message["headers"]["task"] = name
    message["headers"]["expires"] = None
    return json.dumps(message).encode()


def test_a_migration_that_comes_by_in_mid_run_changes_nothing(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(delay_ms=20)
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker()
    stage.start_scheduler()
    stage.until(lambda: len(stage.accepted()) >= 50, "some to be taken over")
    for _ in range(3):
        # Every command looks after the schema first, whatever runs meanwhile.
        assert stage.processes.run("status").returncode == 0
    quiet(Facts(connections=CONNECTIONS))
    assert len(stage.accepted()) == MESSAGES


def test_a_worker_is_replaced_by_the_next_version_in_mid_run(stage: Stage, quiet: Callable[..., None]) -> None:
    """The documented way: SIGTERM to the old one, then start the new one; the scheduler is still the old one."""
    stage.start_sink(delay_ms=20)
    add_people(stage, MESSAGES)
    apply_campaigns(stage, news=CAMPAIGN)
    stage.start_redis()
    stage.start_scheduler()
    stage.start_worker("old")
    stage.until(lambda: fired(stage) == 1, "the run to fire")
    stage.until(lambda: len(stage.accepted()) >= 50, "some to be taken over")
    assert stage.processes.terminate("old") == 0
    stage.start_worker("new")
    quiet(Facts(runs=1))
    assert len(stage.accepted()) == MESSAGES


@pytest.mark.cell("F33", quick="sqlite")
def test_a_database_of_a_later_version_is_left_alone(stage: Stage) -> None:
    stage.use_port(1)
    with stage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    said = subprocess.run(
        [sys.executable, "-m", "cli.main", "worker", "--workspace", str(stage.root)],
        env={**os.environ, **stage.environment, "PYTHONPATH": str(REPOSITORY)},
        cwd=Path(stage.root),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode != 0
    assert "9999" in said.stdout + said.stderr
