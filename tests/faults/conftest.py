"""Stages for cells, the choice of cells, and one verdict for each."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bench import SMS_SETTINGS, Bench
from tests.faults.checker import Facts, Judgement
from tests.faults.matrix import CELLS, KINDS
from tests.faults.stage import Stage

ROOT = Path(__file__).parents[2]
_NOTES = pytest.StashKey[dict[str, Any]]()


def _cell(item: pytest.Item) -> tuple[str, bool]:
    """Return a test's cell, and whether it is in the subset of CI: `quick` is True, or names one kind of database."""
    marker = item.get_closest_marker("cell")
    if marker is None:
        raise pytest.UsageError(f"{item.nodeid} names no cell")
    quick = [mark.kwargs.get("quick", False) for mark in item.iter_markers("cell")]
    kind = next((kind for kind in KINDS if kind in item.name), "")
    return str(marker.args[0]), True in quick or kind in quick


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the cells asked for: FAULTS_ONLY names some, FAULTS_QUICK takes the subset of CI."""
    only = {name for name in os.environ.get("FAULTS_ONLY", "").replace(" ", ",").split(",") if name}
    if only - set(CELLS):
        raise pytest.UsageError(f"no cell {', '.join(sorted(only - set(CELLS)))}; there are {', '.join(CELLS)}")
    quick = os.environ.get("FAULTS_QUICK", "") not in ("", "0")
    kept, dropped = [], []
    for item in items:
        if not _is_ours(item):
            kept.append(item)
            continue
        item.add_marker("faults")
        cell, is_quick = _cell(item)
        chosen = (not only or cell in only) and (not quick or is_quick)
        (kept if chosen else dropped).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


def pytest_report_collectionfinish(items: list[pytest.Item]) -> str:
    """Say which cells will be run."""
    return "cells: " + ", ".join(name for name in CELLS if name in {_cell(item)[0] for item in items if _is_ours(item)})


def _is_ours(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents


def pytest_configure(config: pytest.Config) -> None:
    """Gather verdicts in one process alone: the one that hears of all tests, wherever they run."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Gathering(config), "fault-verdicts")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Give the report of each test of a cell its verdict, which travels with it from process to process."""
    report = yield
    if call.when == "call" or not report.passed:
        cell, _ = _cell(item)
        verdict = {"passed": "holds", "failed": "broken", "skipped": "impossible here"}[report.outcome]
        words = str(call.excinfo.value).splitlines()[0][:300] if call.excinfo and str(call.excinfo.value) else ""
        report.fault_verdict = {
            "cell": cell,
            "variant": item.name,
            "verdict": verdict,
            "seconds": round(report.duration, 1),
            **item.stash.get(_NOTES, {}),
            **({"words": words} if words else {}),
        }
    return report


class _Gathering:
    """Takes the verdicts as they come, and writes them at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._verdicts: list[dict[str, Any]] = []
        self._began = time.monotonic()
        self._stamp = {"at": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": _commit()}
        # Part of a cell, or a subset of all, says nothing of the variants that were left out.
        self._in_part = bool(config.option.keyword) or os.environ.get("FAULTS_QUICK", "") not in ("", "0")
        self._only = {name for name in os.environ.get("FAULTS_ONLY", "").replace(" ", ",").split(",") if name}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        verdict = getattr(report, "fault_verdict", None)
        if verdict is not None:
            self._verdicts.append(verdict)
        elif report.failed:
            # The process that ran it died and took the verdict along.
            self._verdicts.append(_unfinished(report))

    def pytest_sessionfinish(self) -> None:
        """Write the verdicts, beside those of variants that were not run this time."""
        target = os.environ.get("FAULTS_RESULTS")
        if not target or not self._verdicts:
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"verdicts": []}
        now = {(verdict["cell"], verdict["variant"]): {**verdict, **self._stamp} for verdict in self._verdicts}
        merged = [verdict for verdict in before["verdicts"] if self._stands(verdict, now)] + list(now.values())
        order = list(CELLS)
        merged.sort(key=lambda verdict: (order.index(verdict["cell"]), verdict["variant"]))
        body: dict[str, Any] = {"machine": {"cores": os.cpu_count(), "python": platform.python_version()}}
        if not self._in_part and not self._only:
            minutes = round((time.monotonic() - self._began) / 60, 1)
            body["whole"] = {**self._stamp, "variants": len(now), "minutes": minutes}
        elif "whole" in before:
            body["whole"] = before["whole"]
        path.write_text(json.dumps({**body, "verdicts": merged}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _stands(self, old: dict[str, Any], now: dict[tuple[str, str], Any]) -> bool:
        """Tell whether an earlier verdict says something yet: not where its cell was run whole without it."""
        if self._in_part:
            return (old["cell"], old["variant"]) not in now
        return bool(self._only) and old["cell"] not in self._only


def _unfinished(report: pytest.TestReport) -> dict[str, Any]:
    file, _, name = report.nodeid.rpartition("::")
    number = re.search(r"test_f(\d+)", file)
    return {
        "cell": f"F{int(number[1])}" if number else "F1",
        "variant": name,
        "verdict": "broken",
        "seconds": round(report.duration, 1),
        "words": f"{report.when}: {report.longreprtext.splitlines()[-1][:250]}",
    }


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep figures with the cell's verdict."""
    request.node.stash[_NOTES] = {}

    def keep(**figures: Any) -> None:
        request.node.stash[_NOTES].update(figures)

    return keep


@pytest.fixture
def stage(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    """A stage over each kind of database; tells what its processes said where the cell fails."""
    made = Stage(tmp_path / "shop", database_url)
    failed = request.session.testsfailed
    try:
        yield made
    finally:
        told = made.told()
        made.close()
        if request.session.testsfailed > failed:
            print(told)


@pytest.fixture
def quiet(stage: Stage, note: Callable[..., None]) -> Callable[..., None]:
    """Wait until all is quiet, judge, keep the figures, and fail on any invariant that does not hold."""

    def finish(facts: Facts, seconds: float = 120.0) -> None:
        started = time.monotonic()
        stage.until_quiet(seconds)
        judgement = stage.judge(facts)
        note(
            messages=judgement.planned,
            accepted=judgement.accepted,
            in_doubt=judgement.in_doubt,
            crashes=facts.crashes,
            drained_s=round(time.monotonic() - started, 1),
        )
        assert judgement.broken == []

    return finish


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    """A worker's core in this process, for e-mail, over each kind of database."""
    made = Bench(tmp_path / "shop", database_url)
    yield made
    made.close()


@pytest.fixture
def sms_bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    """A worker's core in this process, for SMS over HTTP, over each kind of database."""
    made = Bench(tmp_path / "shop", database_url, settings=SMS_SETTINGS)
    yield made
    made.close()


@pytest.fixture
def weigh(note: Callable[..., None]) -> Callable[..., Judgement]:
    """Judge a bench, keep the figures, and fail on any invariant that does not hold."""

    def finish(bench: Bench, facts: Facts) -> Judgement:
        judgement = bench.judge(facts)
        note(messages=judgement.planned, accepted=judgement.accepted, in_doubt=judgement.in_doubt, crashes=0)
        assert judgement.broken == []
        return judgement

    return finish
