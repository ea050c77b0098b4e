"""F15: SQLite is locked, has no room, is killed in mid-transaction, loses the files beside it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.checker import Facts
from tests.faults.stage import CONNECTIONS, Stage, hold_for
from tests.seeding import seed_messages

pytestmark = pytest.mark.cell("F15")

MESSAGES = 200
LOCKED_S = 5.0


@pytest.fixture
def file(tmp_path: Path, migrated_sqlite: Path) -> Path:
    path = tmp_path / "carillon.db"
    shutil.copy(migrated_sqlite, path)
    return path


@pytest.fixture
def lite(file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(tmp_path / "shop", f"sqlite:///{file}")
    failed = request.session.testsfailed
    yield stage
    told = stage.told()
    stage.close()
    if request.session.testsfailed > failed:
        print(told)


def _finish(stage: Stage, file: Path, note: Callable[..., None], facts: Facts) -> None:
    stage.until_quiet()
    judgement = stage.judge(facts)
    note(
        messages=judgement.planned,
        accepted=judgement.accepted,
        in_doubt=judgement.in_doubt,
        crashes=facts.crashes,
    )
    assert judgement.broken == []
    assert sound(file)


def sound(file: Path) -> bool:
    """Tell whether SQLite itself finds the file whole."""
    connection = sqlite3.connect(file, timeout=30)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
    finally:
        connection.close()


@pytest.mark.cell("F15", quick=True)
def test_a_database_locked_for_seconds_sqlite(lite: Stage, file: Path, note: Callable[..., None]) -> None:
    lite.start_sink()
    seed_messages(lite.engine, MESSAGES)
    lite.start_redis()
    lite.start_worker(faults="before_claim_commit:delay=1:1")
    lite.start_scheduler()
    lite.until_injected("before_claim_commit")
    other = sqlite3.connect(file, timeout=30, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    hold_for(LOCKED_S)
    other.execute("ROLLBACK")
    other.close()
    _finish(lite, file, note, Facts())


@pytest.mark.parametrize(
    "point",
    [
        *("before_claim_commit", "before_sending_commit"),
        pytest.param("before_outcomes_commit", marks=pytest.mark.cell("F15", quick=True)),
    ],
)
def test_a_worker_killed_in_mid_transaction_leaves_a_whole_file_sqlite(
    point: str, lite: Stage, file: Path, note: Callable[..., None]
) -> None:
    lite.start_sink()
    seed_messages(lite.engine, MESSAGES)
    lite.start_redis()
    lite.start_worker(faults=f"{point}:kill:1", FAULTS_LEASE_S="3")
    lite.start_scheduler()
    lite.until_injected(point)
    assert sound(file)
    _finish(lite, file, note, Facts(crashes=1, connections=CONNECTIONS))


@pytest.mark.skipif(os.getuid() != 0, reason="a file system of a few megabytes needs root to be mounted")
def test_a_full_disk_stops_sending_and_nothing_else_sqlite(
    tmp_path: Path, migrated_sqlite: Path, note: Callable[..., None]
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", mount], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {made.stderr.decode().strip()}")
    file = mount / "carillon.db"
    shutil.copy(migrated_sqlite, file)
    stage = Stage(tmp_path / "shop", f"sqlite:///{file}")
    try:
        stage.start_sink(delay_ms=20)
        seed_messages(stage.engine, MESSAGES)
        stage.start_redis()
        stage.start_worker()
        stage.start_scheduler()
        stage.until(lambda: len(stage.accepted()) >= 20, "some to be taken over")
        stage.processes.kill("worker")
        (mount / "ballast").write_bytes(b"")
        with (mount / "ballast").open("ab") as ballast:
            _fill(ballast.fileno())
        before = len(stage.accepted())
        stage.start_worker()
        stage.until(lambda: "disk is full" in stage.told(), "the trouble to be told", seconds=60)
        hold_for(3.0)
        # Nothing leaves that could not be written down first.
        assert len(stage.accepted()) == before
        (mount / "ballast").unlink()
        _finish(stage, file, note, Facts(crashes=1, connections=CONNECTIONS))
    finally:
        stage.close()
        subprocess.run(["umount", "-l", mount], check=True)


def _fill(descriptor: int) -> None:
    for size in (65536, 4096, 512, 1):
        try:
            while True:
                os.write(descriptor, b"\0" * size)
        except OSError:
            continue


@pytest.mark.parametrize("which", ["-shm after a kill", "both after a clean end"])
def test_the_files_beside_it_are_deleted_sqlite(which: str, lite: Stage, file: Path, note: Callable[..., None]) -> None:
    lite.start_sink(delay_ms=20)
    seed_messages(lite.engine, MESSAGES)
    lite.start_redis()
    lite.start_worker()
    lite.start_scheduler()
    lite.until(lambda: len(lite.accepted()) >= 60, "some to be taken over")
    crashed = "kill" in which
    for name in ("worker", "scheduler"):
        if crashed:
            lite.processes.kill(name)
        else:
            assert lite.processes.terminate(name) == 0
    lite.engine.dispose()
    # The log itself holds what was committed since the last checkpoint: who deletes it after a crash deletes facts.
    for end in ("-shm",) if crashed else ("-shm", "-wal"):
        Path(f"{file}{end}").unlink(missing_ok=True)
    lite.start_worker()
    lite.start_scheduler()
    _finish(lite, file, note, Facts(crashes=1 if crashed else 0, connections=CONNECTIONS))
