"""F1: a worker process dies at every named point of its way; what it had in hand is recovered by what it wrote down."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from kernel.faultpoints import FaultPoint
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.stage import CONNECTIONS, Stage, still
from tests.seeding import seed_messages

pytestmark = pytest.mark.cell("F1")

MESSAGES = 200
CHUNK = [
    *(FaultPoint.BEFORE_CLAIM_COMMIT, FaultPoint.AFTER_CLAIM_COMMIT, FaultPoint.AFTER_RECORDER_CREATED),
    *(FaultPoint.AFTER_PREPARING, FaultPoint.BEFORE_SENDING_COMMIT, FaultPoint.AFTER_SENDING_COMMIT),
    *(FaultPoint.AFTER_DELIVERY, FaultPoint.BEFORE_OUTCOMES_COMMIT, FaultPoint.AFTER_OUTCOMES_COMMIT),
    FaultPoint.AFTER_RECORDER_REMOVED,
]
MESSAGE = [
    *(FaultPoint.BEFORE_FLIGHT_COMMIT, FaultPoint.AFTER_FLIGHT_COMMIT),
    *(FaultPoint.BEFORE_ACCEPTED_RECORDED, FaultPoint.AFTER_ACCEPTED_RECORDED),
]
REFUSAL = {
    FaultPoint.AFTER_REFUSED_RECORDED: "rcpt:=550 5.1.1 no such user;3",
    FaultPoint.AFTER_DEFERRED_RECORDED: "rcpt:=450 4.2.1 try later;3",
}
LEASE = [FaultPoint.BEFORE_LEASE_RENEWED, FaultPoint.AFTER_LEASE_RENEWED]
RECOVERY = {
    FaultPoint.BEFORE_RECOVERY_COMMIT: "after_flight_commit:kill:37",
    FaultPoint.AFTER_RECOVERY_COMMIT: "after_flight_commit:kill:37",
    FaultPoint.BEFORE_BLIND_COMMIT: "after_claim_commit:kill:1",
}
FENCE = [FaultPoint.BEFORE_FENCE_RAISED, FaultPoint.AFTER_FENCE_RAISED]
WORST = FaultPoint.BEFORE_ACCEPTED_RECORDED


@pytest.mark.cell("F1", quick=True)
def test_workers_die_at_one_point_after_the_other(stage: Stage, quiet: Callable[..., None]) -> None:
    """All points of one run's way; each has variants of its own below, where it comes first."""
    points = [*CHUNK, *MESSAGE, *REFUSAL]
    # A chunk is no more than a moment's worth of the rate: there is one for each point to meet.
    stage.more = ", rate: 200/second"
    stage.start_sink("rcpt:=550 5.1.1 no such user;1:30", "rcpt:=450 4.2.1 try later;1:60")
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(faults=",".join(f"{point}:kill:1" for point in points), FAULTS_LEASE_S="6")
    stage.start_scheduler()
    stage.until(lambda: set(stage.injected()) == set(points), "every point to be reached", seconds=120)
    quiet(Facts(crashes=len(points), connections=CONNECTIONS))
    assert len(stage.accepted()) >= MESSAGES - 1 - len(points) * CONNECTIONS


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.cell("F1", quick="postgresql" if point is WORST else False))
        for point in [*CHUNK, *MESSAGE]
    ],
)
def test_a_worker_dies_at(point: FaultPoint, stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(faults=f"{point}:kill:{37 if point in MESSAGE else 1}", FAULTS_LEASE_S="6")
    stage.start_scheduler()
    stage.until_injected(point)
    quiet(Facts(crashes=1, connections=CONNECTIONS))


@pytest.mark.parametrize("point", list(REFUSAL))
def test_a_worker_dies_as_a_refusal_is_written(point: FaultPoint, stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(REFUSAL[point])
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(faults=f"{point}:kill:2")
    stage.start_scheduler()
    stage.until_injected(point)
    quiet(Facts(crashes=1, connections=CONNECTIONS))
    refused = MESSAGES - len(stage.accepted())
    assert refused == (3 if point is FaultPoint.AFTER_REFUSED_RECORDED else 0) or refused <= CONNECTIONS


@pytest.mark.parametrize("point", in_turn("F1", LEASE))
def test_a_worker_dies_as_its_lease_is_renewed(point: FaultPoint, stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink("dot:held:1:20")
    seed_messages(stage.engine, 60)
    stage.start_redis()
    stage.start_worker(faults=f"{point}:kill:1", FAULTS_LEASE_S="3")
    stage.start_scheduler()
    stage.until_injected(point)
    quiet(Facts(crashes=1, connections=CONNECTIONS, doubtful=1))


@pytest.mark.parametrize("point", in_turn("F1", RECOVERY))
def test_whoever_recovers_a_chunk_dies_too(point: FaultPoint, stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_scheduler(faults=f"{point}:kill:1")
    stage.start_worker(faults=f"{RECOVERY[point]},{point}:kill:1", FAULTS_LEASE_S="3")
    stage.until_injected(point)
    stage.until_quiet()
    # Scheduler and worker look after lost chunks alike: one of them or both have died of it.
    quiet(Facts(crashes=len(stage.injected()), connections=CONNECTIONS))
    assert len(stage.accepted()) >= MESSAGES - CONNECTIONS


@pytest.mark.parametrize("point", in_turn("F1", FENCE))
def test_whoever_fences_a_silent_worker_off_dies(point: FaultPoint, stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(faults="after_flight_commit:stop:37", FAULTS_LEASE_S="3")
    stage.start_scheduler(faults=f"{point}:kill:1")
    stage.until_injected(FaultPoint.AFTER_FLIGHT_COMMIT)
    stage.until_injected(point)
    stage.start_worker("other")
    stage.until_quiet()
    (silent,) = [child for child in stage.children("worker") if still(child)]
    os.kill(silent, signal.SIGCONT)
    stage.until(lambda: "chunk_done" in stage.processes.log("worker"), "the silent worker to see that it is late")
    quiet(Facts(crashes=2, connections=CONNECTIONS))
