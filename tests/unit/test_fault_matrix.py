"""The subset of the fault matrix that CI runs leaves out no cell and no fault point."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from kernel.faultpoints import FaultPoint
from tests.faults.matrix import CELLS
from tests.faults.test_f01_crash_points import CHUNK, FENCE, LEASE, MESSAGE, RECOVERY, REFUSAL
from tests.faults.test_f03_scheduler import POINTS

ROOT = Path(__file__).parents[2]
ONE_AFTER_THE_OTHER = {
    "test_workers_die_at_one_point_after_the_other": [*CHUNK, *MESSAGE, *REFUSAL],
    "test_schedulers_die_at_one_point_after_the_other": POINTS,
}
"""Tests of many points, each of which must be reached for the test to pass."""


def test_the_subset_of_ci_meets_every_cell_and_every_fault_point() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/faults", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "FAULTS_QUICK": "1", "FAULTS_ONLY": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    cells = re.search(r"^cells: (.*)$", told, re.MULTILINE)
    assert cells is not None, told
    assert cells[1].split(", ") == list(CELLS)
    met = {point for point in FaultPoint if re.search(rf"\[[^\]]*\b{point}\b", told)}
    for name, points in ONE_AFTER_THE_OTHER.items():
        assert f"{name}[postgresql]" in told
        met |= set(points)
    assert met == set(FaultPoint)
    assert {*LEASE, *RECOVERY, *FENCE} <= met
