"""I6 where it is hardest to keep: rates and windows hold at the server's clock while workers and Redis are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from campaigns.control import cancel
from tests.faults.checker import Facts
from tests.faults.stage import CONNECTIONS, Stage, hold_for, still
from tests.seeding import SPEC, seed_messages

PER_S = 20
WITHIN_S = 4.0
MESSAGES = 300
RATE = (round(PER_S * WITHIN_S) + PER_S, WITHIN_S)
"""In any four seconds four seconds' worth and one more, which may have waited in a slow worker or left twice."""


@pytest.fixture
def limited(stage: Stage) -> Stage:
    """A stage whose gateway takes so many messages a second."""
    stage.more = f", rate: {PER_S}/second"
    stage.start_sink()
    stage.start_redis()
    return stage


@pytest.mark.cell("F2", quick="sqlite")
def test_a_rate_holds_while_workers_that_share_it_are_killed(limited: Stage, quiet: Callable[..., None]) -> None:
    seed_messages(limited.engine, MESSAGES)
    names = ("worker-0", "worker-1")
    for name in names:
        limited.start_worker(name)
    limited.start_scheduler()
    for name, goal in zip(names, (MESSAGES // 4, MESSAGES // 2), strict=True):
        limited.until(lambda g=goal: len(limited.accepted()) >= g, f"{goal} to be taken over")  # type: ignore[misc]
        limited.processes.kill(name)
        limited.start_worker(name)
    quiet(Facts(crashes=2, connections=CONNECTIONS, rate=RATE))


@pytest.mark.cell("F7")
@pytest.mark.parametrize("way", ["killed", "flushed"])
def test_a_rate_holds_when_the_redis_that_counts_it_is(way: str, limited: Stage, quiet: Callable[..., None]) -> None:
    seed_messages(limited.engine, MESSAGES)
    for name in ("worker-0", "worker-1"):
        limited.start_worker(name)
    limited.start_scheduler()
    limited.until(lambda: len(limited.accepted()) >= MESSAGES // 4, "a quarter to be taken over")
    if way == "flushed":
        limited.redis().flushall()
    else:
        limited.processes.kill("redis")
        hold_for(3.0)
        limited.start_redis()
    quiet(Facts(connections=CONNECTIONS, rate=RATE))
    assert len(limited.accepted()) == MESSAGES


@pytest.mark.cell("F5")
def test_a_worker_stopped_as_a_window_closes_sends_nothing_after_it(limited: Stage, quiet: Callable[..., None]) -> None:
    lead_s, chunk_s = 12, 10.0
    closes = (datetime.now(UTC) + timedelta(seconds=lead_s, minutes=1)).replace(second=0, microsecond=0)
    # More than can leave until then, and in a zone where it is about noon: a window does not go past midnight.
    seed_messages(limited.engine, 90 * PER_S, spec=_until(closes))
    limited.start_worker(FAULTS_LEASE_S="3")
    limited.start_worker("other")
    limited.start_scheduler()
    limited.until(lambda: len(limited.accepted()) >= PER_S, "some to be taken over")
    hold_for((closes - datetime.now(UTC)).total_seconds() - 2)
    stopped = limited.children("worker")
    for child in stopped:
        os.kill(child, signal.SIGSTOP)
    limited.until(lambda: all(still(child) for child in stopped), "the worker to stand still")
    # A chunk in flight as the window closes has its ten seconds (docs/operations.md); then nothing more.
    shut = closes.timestamp() + chunk_s
    hold_for(shut - datetime.now(UTC).timestamp() + 1)
    before = len(limited.accepted())
    for child in stopped:
        os.kill(child, signal.SIGCONT)
    hold_for(4.0)
    assert len(limited.accepted()) == before
    assert limited.pending() > 0
    cancel(limited.engine, "hello", now=datetime.now(UTC))
    quiet(Facts(crashes=1, connections=CONNECTIONS, rate=RATE, shut=shut))


def _until(closes: datetime) -> dict[str, Any]:
    east = 12 - closes.hour
    zone = f"Etc/GMT{-east:+d}"
    window = {"hours": f"00:00-12:{closes.minute:02d}"}
    schedule: dict[str, Any] = {**SPEC["schedule"], "default_zone": zone, "window": window}
    return {**SPEC, "schedule": schedule}
