"""F12 to F14: PostgreSQL dies, is cut off at the worst instant, or refuses for a while."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from kernel.faultpoints import arm
from store.engine import open_database
from store.schema import migrate
from tests.faults.bench import Bench
from tests.faults.checker import Facts
from tests.faults.stage import Stage, hold_for
from tests.seeding import seed_messages
from tests.servers.chaos_proxy import ChaosProxy
from tests.servers.mortal_postgres import MortalPostgres

MESSAGES = 100
COMMITS = 14
"""More commits than one chunk's way from the first look at abandoned claims to its outcomes has."""
POINTS = ["before_claim_commit", "before_sending_commit", "before_outcomes_commit"]
AWAY_S = 2.0
SHORT_LEASE = timedelta(seconds=4)
"""A claim whose commit went unheard belongs to nobody until its lease is over."""
_made = iter(range(10_000))


@pytest.fixture(scope="module")
def server() -> Iterator[MortalPostgres]:
    made = MortalPostgres(max_connections="30")
    yield made
    made.close()


@pytest.fixture
def url(server: MortalPostgres) -> str:
    """The URL of an empty, migrated database of the server that may die."""
    name = f"f{os.getpid()}_{next(_made)}"
    server.wait()
    maintenance = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with maintenance.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    maintenance.dispose()
    made = make_url(server.url).set(database=name).render_as_string(hide_password=False)
    engine = open_database(made)
    migrate(engine)
    engine.dispose()
    return made


@pytest.fixture
def pg_stage(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(tmp_path / "shop", url)
    failed = request.session.testsfailed
    yield stage
    told = stage.told()
    stage.close()
    if request.session.testsfailed > failed:
        print(told)


@pytest.fixture
def pg_bench(url: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "shop", url)
    bench.lease = SHORT_LEASE
    yield bench
    arm({})
    bench.close()


def _kill_backend(stage: Stage, server: MortalPostgres) -> None:
    """Kill the backend in whose transaction the worker dawdles: the server ends all others with it and recovers."""
    with stage.engine.connect() as connection:
        query = text(
            "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
        )
        pids = connection.execute(query).scalars().all()
    assert pids, "no backend is within a transaction"
    os.kill(pids[0], signal.SIGKILL)


def _crash(stage: Stage, server: MortalPostgres) -> None:
    server.stop(immediate=True)
    hold_for(AWAY_S)
    server.start()


def _restart(stage: Stage, server: MortalPostgres) -> None:
    server.stop(immediate=False)
    server.start()


FAULTS = {"backend killed": _kill_backend, "crashed": _crash, "restarted": _restart}
WORST = [("backend killed", "before_outcomes_commit"), ("crashed", "before_sending_commit")]


@pytest.mark.cell("F12")
@pytest.mark.parametrize(
    ("fault", "point"),
    [
        pytest.param(fault, point, id=f"{name}-{point}", marks=pytest.mark.cell("F12", quick=(name, point) in WORST))
        for point in POINTS
        for name, fault in FAULTS.items()
    ],
)
def test_a_server_that_dies_under_a_chunk_costs_no_message_postgresql(
    fault: Callable[[Stage, MortalPostgres], None],
    point: str,
    pg_stage: Stage,
    server: MortalPostgres,
    note: Callable[..., None],
) -> None:
    stage = pg_stage
    stage.start_sink()
    seed_messages(stage.engine, MESSAGES)
    stage.start_redis()
    stage.start_worker(faults=f"{point}:delay=1500:1")
    stage.start_scheduler()
    stage.until_injected(point)
    fault(stage, server)
    stage.engine.dispose()
    stage.until(lambda: _answers(stage.engine), "the database")
    stage.until_quiet()
    judgement = stage.judge(Facts(crashes=0))
    note(messages=judgement.planned, accepted=judgement.accepted, in_doubt=judgement.in_doubt)
    assert judgement.broken == []
    assert judgement.accepted == MESSAGES


def _answers(engine: Engine) -> bool:
    try:
        with engine.connect():
            return True
    except DBAPIError:
        return False


@pytest.mark.cell("F13")
@pytest.mark.parametrize(
    "nth",
    [pytest.param(nth, marks=pytest.mark.cell("F13", quick=nth <= COMMITS // 2)) for nth in range(1, COMMITS + 1)],
)
def test_a_commit_whose_reply_is_cut_off_is_neither_lost_nor_done_twice_postgresql(
    nth: int, url: str, pg_bench: Bench, server: MortalPostgres, note: Callable[..., None]
) -> None:
    seed_messages(pg_bench.engine, MESSAGES)
    pg_bench.sink()
    with ChaosProxy(server.port) as proxy:
        through = make_url(url).set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        pg_bench.workers = open_database(through)
        pg_bench.drain()
        done = proxy.cut_after(b"COMMIT\x00", nth)
        pg_bench.drive()
        pg_bench.drain().close()
        pg_bench.workers.dispose()
    judgement = pg_bench.judge(Facts(crashes=0))
    note(
        messages=judgement.planned, accepted=judgement.accepted, in_doubt=judgement.in_doubt, cut=done.is_set(),
        failures=len(pg_bench.failures),
    )  # fmt: skip
    assert judgement.broken == []
    assert judgement.accepted == MESSAGES


@pytest.mark.cell("F14", quick=True)
@pytest.mark.parametrize("way", ["table locked", "statement timeout", "deadlock", "no connection left", "idle ended"])
def test_a_server_that_refuses_for_a_while_is_asked_again_postgresql(
    way: str, url: str, pg_bench: Bench, note: Callable[..., None]
) -> None:
    seed_messages(pg_bench.engine, MESSAGES)
    pg_bench.sink()
    pg_bench.workers = open_database(
        make_url(url).set(query=_OPTIONS.get(way, {})).render_as_string(hide_password=False)
    )
    if way == "idle ended":
        arm({"CARILLON_FAULTS": "before_outcomes_commit:delay=600:1"})
    trouble = threading.Thread(target=_TROUBLE.get(way, lambda _: None), args=(url,), daemon=True)
    trouble.start()
    hold_for(0.3)
    pg_bench.drive()
    trouble.join(20)
    judgement = pg_bench.judge(Facts(crashes=0))
    note(
        messages=judgement.planned, accepted=judgement.accepted, in_doubt=judgement.in_doubt,
        failures=len(pg_bench.failures),
    )  # fmt: skip
    assert judgement.broken == []
    assert judgement.accepted == MESSAGES


def _locked(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        hold_for(AWAY_S)
    engine.dispose()


def _deadlock(url: str) -> None:
    """Lock rows from the last to the first while the worker goes from the first to the last, again and again."""
    engine = create_engine(url)
    for _ in range(30):
        try:
            with engine.begin() as connection:
                connection.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
                ids = connection.execute(text("SELECT id FROM messages ORDER BY id DESC")).scalars().all()
                for number in ids:
                    connection.execute(text("SELECT 1 FROM messages WHERE id = :id FOR UPDATE"), {"id": number})
        except DBAPIError:
            continue
    engine.dispose()


def _crowded(url: str) -> None:
    """Take every connection there is."""
    held = []
    engine = create_engine(url, pool_size=50)
    try:
        while len(held) < 50:
            held.append(engine.connect())
    except DBAPIError:
        pass
    hold_for(AWAY_S)
    for connection in held:
        connection.close()
    engine.dispose()


_OPTIONS = {
    "statement timeout": {"options": "-c statement_timeout=400ms"},
    "idle ended": {"options": "-c idle_in_transaction_session_timeout=300ms"},
}
_TROUBLE: dict[str, Callable[[str], None]] = {
    "table locked": _locked,
    "statement timeout": _locked,
    "deadlock": _deadlock,
    "no connection left": _crowded,
}
