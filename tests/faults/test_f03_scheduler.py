"""F3: the scheduler dies around the firing of a run: each slot fires once, a run stands whole, its mail leaves once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kernel.faultpoints import FaultPoint
from tests.faults.checker import Facts
from tests.faults.people import CAMPAIGN, add_people, apply_campaigns, fired
from tests.faults.stage import Stage

pytestmark = pytest.mark.cell("F3")

PEOPLE = 150
POINTS = [
    *(FaultPoint.BEFORE_RUN_INSERT, FaultPoint.AFTER_RUN_INSERT, FaultPoint.AFTER_ENROLLING),
    *(FaultPoint.BEFORE_RUN_COMMIT, FaultPoint.AFTER_RUN_COMMIT, FaultPoint.BEFORE_PUBLISH, FaultPoint.AFTER_PUBLISH),
]
PUBLISHING = {FaultPoint.BEFORE_PUBLISH, FaultPoint.AFTER_PUBLISH}


@pytest.mark.cell("F3", quick="postgresql")
def test_schedulers_die_at_one_point_after_the_other(stage: Stage, quiet: Callable[..., None]) -> None:
    """A campaign for each point; each point has variants of its own below, at the second of two runs."""
    stage.start_sink()
    add_people(stage, PEOPLE // 5)
    stage.start_redis()
    stage.start_worker()
    for number, point in enumerate(POINTS):
        apply_campaigns(stage, **{f"campaign-{number}": CAMPAIGN})
        stage.start_scheduler(faults=f"{point}:kill:1")
        stage.until_injected(point)
        stage.processes.running["scheduler"].wait(20)
    stage.start_scheduler()
    stage.until(lambda: fired(stage) == len(POINTS), "every run to fire")
    quiet(Facts(crashes=0, runs=len(POINTS)))
    assert len(stage.accepted()) == len(POINTS) * (PEOPLE // 5)


@pytest.mark.parametrize("point", POINTS)
def test_a_scheduler_dies_at(point: FaultPoint, stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    add_people(stage, PEOPLE)
    apply_campaigns(stage, first=CAMPAIGN, second=CAMPAIGN)
    stage.start_redis()
    # At the second run: one stands already when the scheduler dies of the other.
    stage.start_scheduler(faults=f"{point}:kill:{1 if point in PUBLISHING else 2}")
    stage.start_worker()
    stage.until_injected(point)

    def both_fired() -> bool:
        stage.revive()
        return fired(stage) == 2

    stage.until(both_fired, "both runs to fire")
    quiet(Facts(crashes=0, runs=2))
    assert len(stage.accepted()) == 2 * PEOPLE


@pytest.mark.cell("F3", quick="sqlite")
def test_two_schedulers_of_which_one_dies_fire_each_slot_once(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    add_people(stage, PEOPLE)
    apply_campaigns(stage, first=CAMPAIGN, second=CAMPAIGN)
    stage.start_redis()
    stage.start_scheduler("scheduler-0", faults="before_run_commit:kill:1")
    stage.start_scheduler("scheduler-1")
    stage.start_worker()
    stage.until(lambda: fired(stage) == 2, "both runs to fire")
    quiet(Facts(crashes=0, runs=2))
    assert len(stage.accepted()) == 2 * PEOPLE
