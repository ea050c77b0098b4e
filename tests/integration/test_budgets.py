"""Quotas and budgets over a real SMS gateway: eight workers, killed at random, never spend more than there is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, func, select, update

from campaigns.books import books
from campaigns.versions import spec_from_json
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import ACCEPTED_STATES
from store.engine import reading, writing
from store.lanes import lanes_now, wake
from store.ledger import due_in_lane
from store.tables import allowances, campaign_versions, campaigns, claims, messages, reservations, runs
from tests.seeding import LONG_AGO, SPEC, seed_messages, states
from tests.servers.sms_stub import JSON_ANSWERS, SmsStub
from workers.drain import Drain

YAML = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
currency: GBP
timezone: Europe/London
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  texts:
    type: http
    url: http://127.0.0.1:{port}/send
    json_body: {{to: "{{to}}", text: "{{text}}"}}
    price: "0.05"
    {more}
"""
SMS = {**SPEC, "steps": [{"sms": "nudge", "gateway": "texts"}]}
PRICE = 50_000


def make_workspace(tmp_path: Path, port: int, more: str, database_url: str = "") -> Workspace:
    root = tmp_path / "shop"
    root.mkdir(exist_ok=True)
    (root / "carillon.yaml").write_text(YAML.format(port=port, more=more), encoding="utf-8")
    environment = {"CARILLON_SECRET_KEY": "k" * 64, "CARILLON_BROKER_URL": "amqp://nobody@127.0.0.1:9//"}
    return load_workspace(root, {**environment, "CARILLON_DATABASE_URL": database_url})


def seed(engine: Engine, name: str, count: int, text: str = "accept", **spec: Any) -> None:
    seed_messages(engine, count, name=name, lane="texts", spec={**SMS, **spec})
    with writing(engine) as connection:
        connection.execute(update(messages).values(channel="sms"))
        mine = select(campaigns.c.id).where(campaigns.c.name == name).scalar_subquery()
        version = update(campaign_versions).where(campaign_versions.c.campaign_id == mine)
        connection.execute(version.values(files={"nudge.txt": text}))
        applied = select(campaign_versions.c.id).where(campaign_versions.c.campaign_id == mine).scalar_subquery()
        connection.execute(update(campaigns).where(campaigns.c.name == name).values(version_id=applied))


def send(engine: Engine, workspace: Workspace) -> int:
    drain = Drain(engine, workspace)
    try:
        return drain.run("texts", budget=timedelta(seconds=20), stopping=lambda: False)
    finally:
        drain.close()


def used(engine: Engine) -> dict[str, int]:
    """Return what is used of quotas and budgets; their periods left out of the names."""
    with reading(engine) as connection:
        return {":".join(row.key.split(":")[:2]): row.used for row in connection.execute(select(allowances))}


def reserved(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(reservations)).scalar_one()


def test_a_quota_lets_so_many_through_and_the_rest_waits_for_midnight(engine: Engine, tmp_path: Path) -> None:
    seed(engine, "a", 30)
    with SmsStub(JSON_ANSWERS) as stub:
        made = make_workspace(tmp_path, stub.port, "quota: 20/day")
        assert send(engine, made) == 20
    assert states(engine) == {"sent": 20, "planned": 10}
    midnight = datetime.combine(
        datetime.now(ZoneInfo("Europe/London")).date() + timedelta(days=1),
        datetime.min.time(),
        ZoneInfo("Europe/London"),
    )
    with reading(engine) as connection:
        waiting = set(connection.execute(select(messages.c.due_at).where(messages.c.state == "planned")).scalars())
        (lane,) = lanes_now(connection, now=datetime.now(UTC))
        assert set(connection.execute(select(messages.c.attempts)).scalars()) == {0}
    assert waiting == {midnight.astimezone(UTC)}
    assert (lane["waits_for"], lane["waits_until"]) == ("quota of 20 a day is used up", midnight.astimezone(UTC))
    assert reserved(engine) == 0
    with SmsStub(JSON_ANSWERS) as stub:
        raised = make_workspace(tmp_path, stub.port, "quota: 25/day")
        with writing(engine) as connection:
            assert wake(connection, "texts") == 10
        assert send(engine, raised) == 5


def test_what_is_refused_or_put_off_costs_nothing(engine: Engine, tmp_path: Path) -> None:
    seed(engine, "refused", 5, text="refuse")
    seed(engine, "late", 5, text="busy")
    seed(engine, "fine", 5)
    with SmsStub(JSON_ANSWERS) as stub:
        made = make_workspace(tmp_path, stub.port, "quota: 1000/day\n    budget: {amount: '1.00', per: month}")
        send(engine, made)
    with reading(engine) as connection:
        accepted = connection.execute(select(func.count()).where(messages.c.state == "sent")).scalar_one()
    assert used(engine) == {"quota:texts": accepted, "budget:texts": accepted * PRICE}
    assert reserved(engine) == 0


def test_what_is_in_doubt_counts_as_spent(engine: Engine, tmp_path: Path) -> None:
    seed(engine, "a", 3, text="drop")
    with SmsStub(JSON_ANSWERS) as stub:
        send(engine, make_workspace(tmp_path, stub.port, "budget: {amount: '1.00', per: day}"))
    assert states(engine) == {"in_doubt": 3}
    assert used(engine) == {"budget:texts": 3 * PRICE}


def test_a_campaign_without_money_is_paused_and_goes_on_when_there_is_more(engine: Engine, tmp_path: Path) -> None:
    seed(engine, "a", 10, budget={"amount": "0.25"})
    with SmsStub(JSON_ANSWERS) as stub:
        made = make_workspace(tmp_path, stub.port, "")
        assert send(engine, made) == 5
        with reading(engine) as connection:
            row = connection.execute(select(campaigns)).one()
        assert (row.state, row.state_reason) == (
            "paused", "budget of GBP 0.25 is used up; raise it, apply, and resume",
        )  # fmt: skip
        assert send(engine, made) == 0
        with writing(engine) as connection:
            spec = connection.execute(select(campaign_versions.c.spec)).scalar_one()
            more = {**spec, "budget": {"amount": "0.40"}}
            assert spec_from_json(more).budget is not None
            version = campaign_versions.insert().values(
                campaign_id=row.id, number=2, digest="e", spec=more, files={}, segments={}, applied_at=LONG_AGO
            )
            new = connection.execute(version.returning(campaign_versions.c.id)).scalar_one()
            connection.execute(update(campaigns).values(state="active", version_id=new))
        # The run is pinned to the version without more money; the budget is the one applied now.
        assert send(engine, made) == 3
    assert states(engine) == {"sent": 8, "planned": 2}


def test_a_warm_up_that_has_not_begun_lets_nothing_leave(sqlite_engine: Engine, tmp_path: Path) -> None:
    seed(sqlite_engine, "a", 3)
    warmup = "warmup: {start: '2999-01-01', first_day: 200, until: 50000}"
    with SmsStub(JSON_ANSWERS) as stub:
        assert send(sqlite_engine, make_workspace(tmp_path, stub.port, warmup)) == 0
    with reading(sqlite_engine) as connection:
        (lane,) = lanes_now(connection, now=datetime.now(UTC))
    assert lane["waits_for"] == "warm-up begins on 2999-01-01"


# --- eight workers -------------------------------------------------------------------------------------------


@contextmanager
def fleet(workspace: Workspace, folder: Path) -> Iterator[Callable[[], list[int]]]:
    """Run eight workers, a killed one followed by another; yields a function that returns their pids."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.integration.fleet", str(workspace.root), "texts", "8", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, **workspace.environment})
    try:
        yield lambda: [int(path.name) for path in folder.iterdir()]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


def quiet(engine: Engine) -> bool:
    """Tell whether nothing is in anybody's hands and nothing that may be claimed is due."""
    with reading(engine) as connection:
        held = connection.execute(select(claims.c.id).limit(1)).first()
        waiting = due_in_lane(connection, "texts", most=1)
    return held is None and not waiting


def nudge(engine: Engine) -> int:
    """Make due what only waits until other chunks are settled; return how many that were."""
    soon = (messages.c.state == "planned") & (messages.c.due_at < datetime.now(UTC) + timedelta(minutes=2))
    active = (
        select(runs.c.id).join(campaigns, campaigns.c.id == runs.c.campaign_id).where(campaigns.c.state == "active")
    )
    with writing(engine) as connection:
        waiting = update(messages).where(soon, messages.c.run_id.in_(active))
        return connection.execute(waiting.values(due_at=datetime.now(UTC))).rowcount


@pytest.mark.timeout(120)
def test_eight_workers_killed_at_random_never_spend_more_than_there_is(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    seed(engine, "tight", 150, budget={"amount": "3.00"})
    seed(engine, "wide", 150)
    lot = random.Random(20)
    with SmsStub(JSON_ANSWERS, delay_s=0.02) as stub:
        made = make_workspace(tmp_path, stub.port, "budget: {amount: '5.00', per: month}", database_url)
        with fleet(made, tmp_path / "pids") as pids:
            for kill in range(10):
                wait_for(lambda: len(pids()) == 8, "eight workers")
                wait_for(lambda kill=kill: len(stub.requests) > kill * 8 or quiet(engine), "some messages")
                os.kill(lot.choice(pids()), signal.SIGKILL)
            wait_for(lambda: quiet(engine) and not nudge(engine), "everything sent, waiting or paused")
        out = len(stub.requests)
    with reading(engine) as connection:
        perhaps = messages.c.state.in_((*ACCEPTED_STATES, "in_doubt"))
        spent = connection.execute(select(func.count()).where(perhaps)).scalar_one()
        assert books(connection).balanced
    assert out * PRICE <= 5_000_000
    # Nothing was lost on the way either: it is all used, and each bit of it is a message.
    assert used(engine)["budget:texts"] == spent * PRICE == 5_000_000
    assert used(engine)["budget:campaign 1"] <= 3_000_000
    assert reserved(engine) == 0
