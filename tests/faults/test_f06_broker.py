"""F6 to F10: hints are lost, doubled, late; Redis dies, sleeps, fills up. The ledger owns the work: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import RedisError

from tests.faults.checker import Facts
from tests.faults.people import CAMPAIGN, add_people, apply_campaigns, fired
from tests.faults.stage import CONNECTIONS, Stage, hold_for
from tests.seeding import seed_messages

MESSAGES = 200
AWAY_S = 4.0
LONG_STOP_S = 35.0
"""Longer than the 30 s after which Redis' clients give a silent socket up."""


@pytest.mark.cell("F6", quick="sqlite")
def test_a_hint_lost_in_a_killed_worker_costs_nothing(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    stage.start_redis()
    stage.start_worker()
    stage.until(lambda: "worker_ready" in stage.processes.log("worker"), "the worker")
    os.killpg(stage.processes.running["worker"].pid, signal.SIGSTOP)
    seed_messages(stage.engine, MESSAGES)
    stage.start_scheduler()
    # The worker's pop was waiting: Redis hands it the hint, and it never reads it.
    stage.until(lambda: _commands(stage, "lpush") >= 1, "a hint to be published")
    stage.processes.kill("worker")
    stage.start_worker()
    quiet(Facts())
    assert len(stage.accepted()) == MESSAGES


@pytest.mark.cell("F7")
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("killed", marks=pytest.mark.cell("F7", quick="postgresql")),
        *("killed with its file", "flushed", "asleep", "stopped", "full"),
        pytest.param("read-only", marks=pytest.mark.cell("F7", quick="sqlite")),
    ],
)
def test_redis_in_trouble_holds_nothing_up_for_good(way: str, stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    options = ("--appendonly", "yes") if "file" in way else ()
    stage.start_redis(*options)
    stage.start_worker()
    stage.start_scheduler()
    stage.until(lambda: "worker_ready" in stage.processes.log("worker"), "the worker")
    stage.until(lambda: "scheduler_ready" in stage.processes.log("scheduler"), "the scheduler")
    mend = _trouble(stage, way, options)
    seed_messages(stage.engine, MESSAGES)
    hold_for(LONG_STOP_S if way == "stopped" else AWAY_S)
    mend()
    quiet(Facts())
    assert len(stage.accepted()) == MESSAGES
    for name in ("worker", "scheduler"):
        assert stage.processes.running[name].poll() is None
        assert stage.processes.log(name).count(f"{name}_ready") == 1


def _trouble(stage: Stage, way: str, options: tuple[str, ...]) -> Callable[[], None]:
    """Make Redis' trouble, and return what ends it."""
    client = stage.redis()
    process = stage.processes.running["redis"]
    if way.startswith("killed"):
        stage.processes.kill("redis")
        return lambda: stage.start_redis(*options)
    if way == "flushed":
        return client.flushall
    if way == "asleep":
        sleeper = stage.redis()
        _send_only(sleeper, "DEBUG", "SLEEP", str(AWAY_S))
        return sleeper.close
    if way == "stopped":
        process.send_signal(signal.SIGSTOP)
        return lambda: process.send_signal(signal.SIGCONT)
    if way == "full":
        client.config_set("maxmemory", 1)
        return lambda: client.config_set("maxmemory", 0)
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    return lambda: client.execute_command("REPLICAOF", "NO", "ONE")


def _send_only(client: Any, *command: str) -> None:
    """Send a command without waiting for its answer."""
    connection = client.connection_pool.get_connection()
    connection.send_command(*command)


def _commands(stage: Stage, name: str) -> int:
    """Return how often Redis was given a command."""
    client = stage.redis()
    try:
        return int(client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0))
    except RedisError:
        return 0
    finally:
        client.close()


@pytest.mark.cell("F8", quick="sqlite")
def test_runs_fire_while_redis_is_away_and_are_sent_once_it_is_back(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    add_people(stage, MESSAGES)
    stage.start_scheduler()
    stage.start_worker()
    stage.until(lambda: "scheduler_ready" in stage.processes.log("scheduler"), "the scheduler")
    for number in (1, 2):
        # Publishing is bounded in time: the next run fires on time although every hint fails.
        apply_campaigns(stage, **{f"c{number}": CAMPAIGN})
        stage.until(lambda n=number: fired(stage) == n, f"run {number} to fire without a broker", seconds=15)  # type: ignore[misc]
    stage.until(lambda: "broker_unreachable" in stage.processes.log("scheduler"), "the trouble to be told")
    assert stage.pending() == 2 * MESSAGES
    stage.start_redis()
    quiet(Facts(runs=2))
    assert len(stage.accepted()) == 2 * MESSAGES


@pytest.mark.cell("F9", quick="postgresql")
def test_hints_thrice_in_any_order_and_hours_late_send_nobody_twice(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(delay_ms=20)
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_scheduler()
    client = stage.redis()
    stage.until(lambda: client.llen("email") >= 3, "hints to be published")
    hints = client.lrange("email", 0, -1)
    late = [_hours_late(hint) for hint in hints]
    everything = [*hints, *late] * 3
    random.Random(9).shuffle(everything)
    client.rpush("email", *everything)
    stage.start_worker("worker-0", concurrency=2)
    stage.start_worker("worker-1", concurrency=2)
    stage.until_quiet()
    client.rpush("email", *everything)
    stage.until(lambda: client.llen("email") == 0, "the late hints to be taken")
    client.close()
    quiet(Facts())
    assert len(stage.accepted()) == MESSAGES


def _hours_late(hint: bytes) -> bytes:
    """Return a hint as it would be after two hours in a broker that forgets no time: past its end, or without one."""
    message = json.loads(hint)
    message["headers"]["expires"] = None
    return json.dumps(message).encode()


@pytest.mark.cell("F10", quick="sqlite")
def test_a_task_longer_than_the_visibility_timeout_sends_nobody_twice(stage: Stage, quiet: Callable[..., None]) -> None:
    # 60 messages over 4 connections at 1 s each: 15 s, three times the timeout.
    stage.start_sink(delay_ms=1000)
    seed_messages(stage.engine, 60)
    stage.start_redis()
    for name in ("worker-0", "worker-1"):
        stage.start_worker(name, FAULTS_VISIBILITY_S="5")
    stage.start_scheduler(FAULTS_VISIBILITY_S="5")
    quiet(Facts(connections=CONNECTIONS))
    assert len(stage.accepted()) == 60
