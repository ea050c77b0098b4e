"""F2, F4, F5: whole workers are killed, told to stop, or fall silent for longer than their lease."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from kernel.vocabulary import MessageState
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.stage import CONNECTIONS, Stage, still
from tests.seeding import seed_messages, states

MESSAGES = 400
SLOW_MS = 40


@pytest.mark.cell("F2", quick="postgresql")
def test_workers_killed_with_all_their_children_leave_little_in_doubt(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(delay_ms=SLOW_MS)
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(concurrency=2)
    stage.start_scheduler()
    chance = random.Random(2)
    kills = 3
    for number in range(kills):
        goal = int(MESSAGES * (number + chance.random()) / (kills + 1))
        stage.until(lambda g=goal: len(stage.accepted()) >= g, f"{goal} to be taken over")  # type: ignore[misc]
        stage.processes.kill("worker")
        stage.start_worker(concurrency=2)
    quiet(Facts(crashes=kills * 2, connections=CONNECTIONS))


@pytest.mark.cell("F4")
@pytest.mark.parametrize(
    ("signals", "when"),
    [
        *in_turn("F4", [("TERM", "sending"), ("QUIT", "committing")]),
        *(("TERM", "committing"), ("TERM+TERM", "sending"), ("TERM+TERM", "committing"), ("QUIT", "sending")),
    ],
)
def test_a_worker_told_to_stop_ends_in_time_and_loses_nothing(
    signals: str, when: str, stage: Stage, quiet: Callable[..., None], note: Callable[..., None]
) -> None:
    stage.start_sink(delay_ms=SLOW_MS)
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    faults = "before_outcomes_commit:delay=1500:1" if when == "committing" else ""
    stage.start_worker(faults=faults)
    stage.start_scheduler()
    if when == "committing":
        stage.until_injected("before_outcomes_commit")
    else:
        stage.until(lambda: len(stage.accepted()) >= 50, "some to be taken over")
    worker = stage.processes.running["worker"]
    told_at = time.monotonic()
    for name in signals.split("+"):
        worker.send_signal(getattr(signal, f"SIG{name}"))
        time.sleep(0.3)  # Two signals at the same instant are one.
    worker.wait(40)
    ended_s = time.monotonic() - told_at
    note(ended_s=round(ended_s, 1))
    left = set(states(stage.engine))
    if signals == "TERM":
        assert worker.returncode == 0
        assert left <= {MessageState.SENT, MessageState.PLANNED}
    stage.revive()
    # A warm stop explains no doubt at all; a cold one is a crash.
    quiet(Facts(crashes=0 if signals == "TERM" else 1, connections=CONNECTIONS))
    assert ended_s < 30


@pytest.mark.cell("F5", quick="postgresql")
def test_a_worker_that_was_stopped_past_its_lease_sends_and_writes_nothing_more(
    stage: Stage, quiet: Callable[..., None]
) -> None:
    stage.start_sink(delay_ms=SLOW_MS)
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(FAULTS_LEASE_S="3")
    stage.start_scheduler()
    stage.until(lambda: len(stage.accepted()) >= 40, "some to be taken over")
    (silent,) = stage.children("worker")
    os.kill(silent, signal.SIGSTOP)
    stage.until(lambda: still(silent), "the worker to stand still")
    stage.start_worker("other")
    stage.until(lambda: "chunk_recovered" in stage.told(), "its chunk to be taken over", seconds=60)
    stage.until_quiet()
    before = len(stage.accepted())
    os.kill(silent, signal.SIGCONT)
    stage.until(lambda: "chunk_done" in stage.processes.log("worker"), "the silent worker to see that it is late")
    quiet(Facts(crashes=1, connections=CONNECTIONS))
    assert len(stage.accepted()) - before <= CONNECTIONS
