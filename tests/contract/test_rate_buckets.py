"""One suite over every place where token buckets are kept: Redis, SQLite, PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from kernel.quantities import parse_rate
from store.engine import open_database, reading, writing
from tests.servers.redis import RedisServer
from workers.limits import database_buckets
from workers.limits.buckets import Ask, Flow, Level, Turn, flow_of, share_out
from workers.limits.rates import Rates
from workers.limits.redis_buckets import RedisBuckets

Take = Callable[[Mapping[str, Flow], Sequence[Ask]], list[Turn]]
SLOW = flow_of(parse_rate("1000/day"))
"""A token every 86 s: the instants of a test make no difference."""


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["redis", "sqlite", "postgresql"])
def take(request: pytest.FixtureRequest) -> Iterator[Take]:
    if request.param == "redis":
        yield RedisBuckets(request.getfixturevalue("redis_server").url, f"test:{uuid4()}:").take
        return
    if request.param == "sqlite":
        engine: Engine = request.getfixturevalue("sqlite_engine")
    else:
        server = request.getfixturevalue("postgres")
        engine = open_database(server.new_database(server.template))

    def in_database(flows: Mapping[str, Flow], asks: Sequence[Ask]) -> list[Turn]:
        with writing(engine) as connection:
            return database_buckets.take(connection, flows, asks, since_ms=None)

    yield in_database
    url = engine.url.render_as_string(hide_password=False)
    engine.dispose()
    if request.param == "postgresql":
        request.getfixturevalue("postgres").drop_database(url)


def flow(burst: float, per_ms: float = SLOW.per_ms) -> Flow:
    return Flow(per_ms=per_ms, burst=burst)


groups = st.lists(
    st.tuples(st.integers(0, 40), st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)), max_size=4
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(groups, min_size=1, max_size=4), bursts=st.tuples(*[st.integers(1, 60)] * 3))
def test_they_all_do_the_same_sums(
    take: Take, calls: list[list[tuple[int, list[int]]]], bursts: tuple[int, ...]
) -> None:
    flows = {f"{uuid4()}": flow(burst, SLOW.per_ms * (number + 1)) for number, burst in enumerate(bursts)}
    levels: list[Level | None] = [None] * 3
    for call in calls:
        asks = [Ask(count=count, buckets=tuple(at)) for count, at in call]
        expected, after = share_out(list(flows.values()), levels, asks, 0.0)
        levels = list(after)
        got = take(flows, asks)
        assert [turn.granted for turn in got] == [turn.granted for turn in expected]
        for mine, theirs in zip(got, expected, strict=True):
            # Real time has passed: some seconds of a wait that lasts minutes.
            assert mine.wait_ms == pytest.approx(theirs.wait_ms, abs=20_000)
            assert mine.step_ms == pytest.approx(theirs.step_ms, rel=1e-5)


def test_many_workers_together_get_no_more_than_one_would(take: Take) -> None:
    got: list[int] = []

    def work() -> None:
        mine = [take({"shared": flow(100)}, [Ask(count=7, buckets=(0,))])[0].granted for _ in range(10)]
        got.extend(mine)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(got) == 80
    assert sum(got) == 100


def test_a_bucket_fills_again_with_time(take: Take) -> None:
    quick = {"quick": flow_of(parse_rate("50/second"))}
    assert take(quick, [Ask(count=80, buckets=(0,))])[0].granted == 50
    late = 0
    ends = time.monotonic() + 10
    while late < 30 and time.monotonic() < ends:
        late += take(quick, [Ask(count=30 - late, buckets=(0,))])[0].granted
    assert late == 30


# --- Redis that goes away ------------------------------------------------------------------------------------


def rates(engine: Engine, url: str) -> tuple[Rates, list[float]]:
    clock = [1_000.0]
    return Rates(engine, RedisBuckets(url, "test:"), monotonic=lambda: clock[0]), clock


def granted(one: Rates, count: int = 100) -> int:
    return one.take({"lane:relay": flow(20)}, [Ask(count=count, buckets=(0,))])[0].granted


def test_losing_redis_lets_through_no_more_than_one_bucket_beyond(engine: Engine) -> None:
    with RedisServer() as server:
        first, _ = rates(engine, server.url)
        assert [granted(first, 5), granted(first)] == [5, 15]
        server.stop()
        assert [granted(first) for _ in range(3)] == [0, 0, 0]
        server.start()
        other, _ = rates(engine, server.url)
        # The other worker reaches Redis, which has forgotten everything; it takes from the database all the same.
        assert [granted(other) for _ in range(3)] == [0, 0, 0]


def test_workers_go_back_to_redis_together(sqlite_engine: Engine) -> None:
    with RedisServer() as server:
        first, clock = rates(sqlite_engine, server.url)
        server.stop()
        assert granted(first) == 0
        server.start()
        clock[0] += 6
        assert granted(first) == 0  # Redis answers, but the word in the database still stands.
        with writing(sqlite_engine) as connection:
            connection.exec_driver_sql("UPDATE rate_buckets SET booked = 0 WHERE key = 'redis is away'")
        clock[0] += 6
        assert granted(first) == 20
        assert granted(first) == 0


def test_the_word_that_redis_is_away_is_renewed_while_it_is(sqlite_engine: Engine) -> None:
    with RedisServer() as server:
        first, clock = rates(sqlite_engine, server.url)
        server.stop()
        granted(first)
        with reading(sqlite_engine) as connection:
            before = database_buckets.away_since(connection)
        with writing(sqlite_engine) as connection:
            connection.exec_driver_sql("UPDATE rate_buckets SET booked = booked - 5000 WHERE key = 'redis is away'")
        clock[0] += 6
        granted(first)
        with reading(sqlite_engine) as connection:
            after = database_buckets.away_since(connection)
    assert before is not None
    assert after is not None
    assert after[0] == before[0]
    assert after[1] > 5_000


def test_looking_takes_nothing(engine: Engine, redis_server: RedisServer) -> None:
    with_redis, _ = rates(engine, redis_server.url)
    without = Rates(engine, None)
    for one in (with_redis, without):
        flows = {f"lane:{uuid4()}": flow(20)}
        assert one.held(flows) == [pytest.approx(20)]
        one.take(flows, [Ask(count=15, buckets=(0,))])
        assert one.held(flows) == [pytest.approx(5, abs=0.1)]
