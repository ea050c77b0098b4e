"""F33: a real older version of this program, under way when this one's scheduler comes, migrates and takes over.

The older version is this repository as it was before its newest schema revision, taken from its own history: its code,
its schema, its flight recorders. Without that history (a shallow clone, an archive) there is no older version here.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.engine import reading
from tests.acceptance.processes import REPOSITORY
from tests.faults.checker import Facts
from tests.faults.matrix import KINDS
from tests.faults.stage import CONNECTIONS, Stage
from tests.seeding import seed_messages

pytestmark = pytest.mark.cell("F33")

OLD, NEW = 300, 100
REVISIONS = "store/migrations/versions"


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database: the older version makes its own schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'carillon.db'}"
        return
    server = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A folder with the older version."""

    def git(*words: str) -> bytes:
        try:
            done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("no older version: git is not installed")
        return done.stdout if done.returncode == 0 else b""

    newest = git("log", "-1", "--format=%H", "--diff-filter=A", "--", REVISIONS).decode().strip()
    before = git("rev-parse", "--verify", "--quiet", f"{newest}~1").decode().strip() if newest else ""
    if not before:
        pytest.skip("no older version: this copy of the repository has no history before its newest schema revision")
    folder = tmp_path / "older"
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(git("archive", before))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _revisions(root: Path) -> int:
    return len(list((root / REVISIONS).glob("0*.py")))


def _revision(stage: Stage) -> int:
    with reading(stage.engine) as connection:
        return int(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


@pytest.mark.parametrize(
    "end",
    [
        "told to stop",
        pytest.param("killed", marks=pytest.mark.cell("F33", quick="postgresql")),
    ],
)
def test_an_older_version_under_way_is_joined_and_followed_by_this_one(
    end: str, older: Path, stage: Stage, quiet: Callable[..., None]
) -> None:
    stage.start_sink(delay_ms=40)
    stage.start_redis()

    def start_old(name: str, *words: str) -> None:
        usual = stage.processes.environment
        stage.processes.environment = {**usual, "PYTHONPATH": str(older)}
        stage.processes.start(name, *words)
        stage.processes.environment = usual

    start_old("old-worker", "worker", "--concurrency", "1")
    stage.until(lambda: "worker_ready" in stage.processes.log("old-worker"), "the older worker")
    assert _revision(stage) == _revisions(older) == _revisions(REPOSITORY) - 1
    seed = "import sys; from store.engine import open_database; from tests.seeding import seed_messages; "
    seed += f"seed_messages(open_database(sys.argv[1]), {OLD})"
    url = stage.environment["CARILLON_DATABASE_URL"]
    subprocess.run([sys.executable, "-c", seed, url], cwd=older, env={"PYTHONPATH": str(older)}, check=True)
    start_old("old-scheduler", "scheduler")
    stage.until(lambda: len(stage.accepted()) >= 40, "the older version to send")

    # The new scheduler migrates under the older worker's hands, and wakes it with hints of its own.
    stage.start_scheduler("new-scheduler")
    stage.until(lambda: "scheduler_ready" in stage.processes.log("new-scheduler"), "this version's scheduler")
    assert _revision(stage) == _revisions(REPOSITORY)
    assert stage.processes.terminate("old-scheduler") == 0
    seed_messages(stage.engine, NEW, name="more", address="more{n}@customer.example")
    before = len(stage.accepted())
    stage.until(lambda: len(stage.accepted()) >= before + 20, "the older worker to go on")
    stage.start_worker("new-worker")
    stage.until(lambda: "worker_ready" in stage.processes.log("new-worker"), "this version's worker")
    if end == "killed":
        # What it had in hand lies in a recorder of the older version.
        stage.processes.kill("old-worker")
    else:
        assert stage.processes.terminate("old-worker") == 0
    quiet(Facts(crashes=1 if end == "killed" else 0, connections=CONNECTIONS, runs=2))
    assert len(stage.accepted()) >= OLD + NEW - (CONNECTIONS if end == "killed" else 0)
