"""Fault points: each stands where its name says, costs nothing unarmed, and does once what was ordered."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel import faultpoints
from kernel.errors import ConfigError
from kernel.faultpoints import Action, FaultPoint, InjectedFault, Order, arm, faultpoint

ROOT = Path(__file__).parents[2]
CODE = {
    path: path.read_text(encoding="utf-8")
    for room in ("workers", "campaigns", "store")
    for path in (ROOT / room).rglob("*.py")
}


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm({})


def test_every_point_stands_in_the_code_exactly_once() -> None:
    placed = Counter(
        name for text in CODE.values() for name in re.findall(r"faultpoint\(FaultPoint\.([A-Z_]+)\)", text)
    )
    assert placed == Counter(point.name for point in FaultPoint)


def test_nothing_happens_unarmed() -> None:
    assert arm({}) == ()
    assert faultpoints.armed is None
    for point in FaultPoint:
        faultpoint(point)


def test_an_order_is_carried_out_at_its_pass_and_never_again() -> None:
    arm({"CARILLON_FAULTS": "after_preparing:raise:2"})
    faultpoint(FaultPoint.AFTER_PREPARING)
    faultpoint(FaultPoint.AFTER_DELIVERY)
    with pytest.raises(InjectedFault, match="after_preparing"):
        faultpoint(FaultPoint.AFTER_PREPARING)
    faultpoint(FaultPoint.AFTER_PREPARING)


def test_a_star_means_every_pass_and_several_orders_stand_side_by_side() -> None:
    orders = arm({"CARILLON_FAULTS": "after_preparing:delay=1:*, after_delivery:raise:*"})
    assert orders == (
        Order(point=FaultPoint.AFTER_PREPARING, action=Action.DELAY, hit=None, delay_s=0.001),
        Order(point=FaultPoint.AFTER_DELIVERY, action=Action.RAISE, hit=None),
    )
    for _ in range(2):
        faultpoint(FaultPoint.AFTER_PREPARING)
        with pytest.raises(InjectedFault):
            faultpoint(FaultPoint.AFTER_DELIVERY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere:kill", "no place is called 'nowhere'"),
        ("after_delivery", "orders none of"),
        ("after_delivery:explode", "orders none of"),
        ("after_delivery:delay", "orders none of"),
        ("after_delivery:kill=3", "orders none of"),
        ("after_delivery:kill:0", "number of the pass"),
        ("after_delivery:kill:x", "number of the pass"),
    ],
)
def test_a_malformed_order_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        arm({"CARILLON_FAULTS": text})


def test_a_forked_child_counts_on_where_the_last_one_died() -> None:
    script = (
        "import os, sys\n"
        "from kernel.faultpoints import FaultPoint, arm, faultpoint\n"
        "arm(os.environ)\n"
        "for _ in range(2):\n"
        "    if not (pid := os.fork()):\n"
        "        faultpoint(FaultPoint.AFTER_DELIVERY); faultpoint(FaultPoint.AFTER_DELIVERY); os._exit(0)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CARILLON_FAULTS": "after_delivery:kill:2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [str(-signal.SIGKILL), "0"]


def test_every_point_is_died_at_by_some_cell_of_the_matrix() -> None:
    cells = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "faults").glob("test_f*.py"))
    assert [point for point in FaultPoint if point.name not in cells and f"{point}:kill" not in cells] == []
