"""Rates at the moment of sending: by gateway, campaign and recipient domain, over real servers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update

from campaigns.schema import CampaignSpec
from kernel.settings import Workspace, load_workspace
from store.engine import reading, writing
from store.lanes import PROBE, close_lane
from store.ledger import Claim, claim
from store.tables import lanes, messages
from tests.seeding import SPEC, seed_messages, states
from tests.servers.redis import RedisServer
from tests.servers.smtp_sink import Sink, SinkServer
from workers.drain import Drain
from workers.limits.gate import Gate

YAML = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, timeout: 5s, final_timeout: 5s{more}}}
"""


QUIET = ["quiet.example"] * 3


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis: databases copied from one template share an installation's name, and so their keys."""
    redis_server.empty()
    return redis_server.url


@pytest.fixture
def server() -> Iterator[SinkServer]:
    with SinkServer(Sink()) as running:
        yield running


def workspace(tmp_path: Path, port: int, redis_url: str, more: str) -> Workspace:
    (tmp_path / "shop").mkdir(exist_ok=True)
    (tmp_path / "shop" / "carillon.yaml").write_text(YAML.format(port=port, more=more), encoding="utf-8")
    return load_workspace(tmp_path / "shop", {"CARILLON_SECRET_KEY": "k" * 64, "CARILLON_BROKER_URL": redis_url})


def send(engine: Engine, made: Workspace) -> int:
    drain = Drain(engine, made)
    try:
        return drain.run("relay", budget=timedelta(seconds=20), stopping=lambda: False)
    finally:
        drain.close()


def waiting(engine: Engine) -> list[datetime]:
    with reading(engine) as connection:
        query = select(messages.c.due_at).where(messages.c.state == "planned").order_by(messages.c.id)
        return list(connection.execute(query).scalars())


def test_a_domain_over_its_rate_waits_by_turns_and_holds_nobody_else_up(
    engine: Engine, tmp_path: Path, server: SinkServer, redis_url: str
) -> None:
    seed_messages(engine, 6, name="a", address="user{n}@crowded.example")
    seed_messages(engine, 3, name="b", address="user{n}@quiet.example")
    made = workspace(tmp_path, server.port, redis_url, ", domains: {crowded.example: {rate: 4/minute}}")
    before = datetime.now(UTC)
    assert send(engine, made) == 4
    assert sorted(to.rpartition("@")[2] for _, _, to in server.sink.accepted) == ["crowded.example", *QUIET]
    turns = [(at - before).total_seconds() for at in waiting(engine)]
    assert turns == pytest.approx([15, 30, 45, 60, 75], abs=5)
    with reading(engine) as connection:
        assert set(connection.execute(select(messages.c.attempts)).scalars()) == {0}


def test_every_other_domain_has_a_bucket_of_its_own(
    engine: Engine, tmp_path: Path, server: SinkServer, redis_url: str
) -> None:
    seed_messages(engine, 12, address="user{n}@domain{n}.example")
    assert send(engine, workspace(tmp_path, server.port, redis_url, ', domains: {"*": {rate: 1/hour}}')) == 12


def test_only_so_many_to_a_domain_are_in_one_hand(
    sqlite_engine: Engine, tmp_path: Path, server: SinkServer, redis_url: str
) -> None:
    seed_messages(sqlite_engine, 5, address="user{n}@slow.example")
    made = workspace(tmp_path, server.port, redis_url, ", domains: {slow.example: {concurrency: 2}}")
    assert send(sqlite_engine, made) == 2
    assert states(sqlite_engine) == {"sent": 2, "planned": 3}


def test_no_more_is_claimed_than_the_gateways_rate_allows(
    engine: Engine, tmp_path: Path, server: SinkServer, redis_url: str
) -> None:
    seed_messages(engine, 8)
    due = waiting(engine)
    assert send(engine, workspace(tmp_path, server.port, redis_url, ", rate: 4/minute")) == 1
    # What was not claimed is due as before: nothing was written for it.
    assert waiting(engine) == due[1:]


def test_a_campaign_over_its_rate_leaves_the_lane_to_the_others(
    engine: Engine, tmp_path: Path, server: SinkServer, redis_url: str
) -> None:
    seed_messages(engine, 4, name="slow", spec={**SPEC, "rate": "2/hour"})
    seed_messages(engine, 4, name="fast")
    assert send(engine, workspace(tmp_path, server.port, redis_url, "")) == 5
    again = [(at - datetime.now(UTC)).total_seconds() for at in waiting(engine)]
    assert again == pytest.approx([1800, 3600, 5400], abs=20)


def test_rates_hold_where_the_broker_is_no_redis(engine: Engine, tmp_path: Path, server: SinkServer) -> None:
    seed_messages(engine, 8)
    made = workspace(tmp_path, server.port, "amqp://nobody@127.0.0.1:9//", ", rate: 4/minute")
    assert [send(engine, made) for _ in range(3)] == [1, 0, 0]


def test_several_limits_at_once_lose_no_tokens(
    engine: Engine, tmp_path: Path, server: SinkServer, redis_url: str
) -> None:
    seed_messages(engine, 20, name="a", spec={**SPEC, "rate": "1000/second"}, address="user{n}@crowded.example")
    seed_messages(engine, 6, name="b", address="user{n}@quiet.example")
    limits = ", rate: 10/second, domains: {crowded.example: {rate: 3/hour}}"
    made = workspace(tmp_path, server.port, redis_url, limits)
    # The crowd's turns are given once; after that none of it is due and the others have the lane to themselves.
    total = 0
    ends = datetime.now(UTC) + timedelta(seconds=10)
    while total < 7 and datetime.now(UTC) < ends:
        total += send(engine, made)
    assert states(engine) == {"sent": 7, "planned": 19}


def claimed(engine: Engine) -> Claim | None:
    with writing(engine) as connection:
        return claim(connection, lane="relay", limit=500, lease=timedelta(minutes=1), host="h", boot="b", recorder="r")


def test_without_limits_a_chunk_asks_nothing(sqlite_engine: Engine, tmp_path: Path) -> None:
    made = workspace(tmp_path, 9, "redis+socket:///nowhere/redis.sock", "")
    gate = Gate(sqlite_engine, made, "i")
    spec = CampaignSpec.model_validate(SPEC)
    seed_messages(sqlite_engine, 50)
    found = claimed(sqlite_engine)
    assert found is not None
    now = datetime.now(UTC)
    with writing(sqlite_engine) as connection:
        asked: list[Any] = []
        event.listen(sqlite_engine, "before_cursor_execute", lambda *words: asked.append(words[2]))
        assert gate.room("relay", 500) == 500
        waits = gate.admit("relay", found.messages, spec_of=lambda _: spec, address_of=lambda _: "a@b.example", now=now)
        assert waits == {}
        assert gate.reserve(connection, found, [], spec_of=lambda _: spec, now=now) is None
    assert asked == []


def test_a_half_open_lane_is_tried_with_a_few_messages_by_one_worker(
    engine: Engine, tmp_path: Path, server: SinkServer, redis_url: str
) -> None:
    seed_messages(engine, 20)
    with writing(engine) as connection:
        close_lane(connection, "relay", reason="421 busy", first_wait=timedelta(hours=1), longest=timedelta(hours=1))
        connection.execute(update(lanes).values(closed_until=datetime.now(UTC) - timedelta(seconds=1)))

    def take() -> int:
        found = claimed(engine)
        return len(found.messages) if found else 0

    assert [take(), take()] == [PROBE, 0]
    with writing(engine) as connection:  # The one who had it died; another tries.
        connection.execute(update(lanes).values(closed_until=datetime.now(UTC) - timedelta(seconds=1)))
    assert send(engine, workspace(tmp_path, server.port, redis_url, "")) == 20 - PROBE
    assert len(server.sink.accepted) == 20 - PROBE
