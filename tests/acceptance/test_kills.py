"""Twenty thousand messages while workers and Redis are killed: nobody lost, nobody twice, few in doubt."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from campaigns.books import books
from kernel.ids import message_id_header
from kernel.settings import load_workspace
from kernel.vocabulary import MessageState
from store.engine import open_database, reading
from store.schema import installation
from store.tables import messages
from tests.acceptance.processes import Processes, wait_for
from tests.seeding import seed_messages, states
from workers.audit.auditing import audit, promises
from workers.embedded import answers

MESSAGES = 20_000
KILLS = 10
CONNECTIONS = 5
WORKSPACE = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, connections: {connections}}}
"""


@pytest.mark.timeout(400)
def test_ten_killed_workers_and_a_killed_redis_lose_nobody_and_send_nobody_twice(
    database_url: str, tmp_path: Path
) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    sink_log, port_file = tmp_path / "sink.log", tmp_path / "sink.port"
    environment = {"CARILLON_DATABASE_URL": database_url, "CARILLON_SECRET_KEY": "k" * 64}
    processes = Processes(root, environment)
    engine = open_database(database_url)
    try:
        processes.start(
            "sink",
            *("--log", str(sink_log), "--port-file", str(port_file)),
            module="tests.servers.smtp_sink",
            workspace=False,
        )
        wait_for(port_file.exists, "the sink")
        (root / "carillon.yaml").write_text(
            WORKSPACE.format(port=port_file.read_text(), connections=CONNECTIONS), encoding="utf-8"
        )
        workspace = load_workspace(root, environment)
        seed_messages(engine, MESSAGES)
        processes.start("redis", "redis")
        wait_for(lambda: answers(workspace), "Redis")
        for name in ("worker-0", "worker-1"):
            processes.start(name, "worker", "--concurrency", "1")
        processes.start("scheduler", "scheduler")
        _kill_along_the_way(processes, sink_log)
        wait_for(
            lambda: not {MessageState.PLANNED, MessageState.CLAIMED, MessageState.SENDING} & set(states(engine)),
            "every message to reach its end",
            seconds=240,
            every_s=0.5,
        )
        _check(engine, sink_log)
        assert [one.breaches for one in audit(engine, workspace, promises()) if not one.holds] == []
        assert processes.terminate("worker-0") == 0
        assert processes.terminate("scheduler") == 0
    except BaseException:
        print(
            *(f"--- {name}\n{processes.log(name)[-3000:]}" for name in ("worker-0", "worker-1", "scheduler")), sep="\n"
        )
        raise
    finally:
        processes.stop_all()
        engine.dispose()


def _kill_along_the_way(processes: Processes, sink_log: Path) -> None:
    """Kill a worker at ten random points of progress, and Redis in the middle."""
    chance = random.Random(20261121)
    points = sorted(chance.uniform(0.02, 0.9) for _ in range(KILLS))
    for number, point in enumerate(points):
        wait_for(lambda p=point: _accepted(sink_log) >= p * MESSAGES, f"{point:.0%} to be accepted", seconds=180)  # type: ignore[misc]
        victim = f"worker-{chance.randrange(2)}"
        processes.kill(victim)
        processes.start(victim, "worker", "--concurrency", "1")
        if number == KILLS // 2:
            processes.kill("redis")
            processes.start("redis", "redis")


def _accepted(sink_log: Path) -> int:
    return sink_log.read_bytes().count(b"\n") if sink_log.exists() else 0


def _check(engine, sink_log: Path) -> None:  # type: ignore[no-untyped-def]
    accepted = Counter(line.split("\t")[0] for line in sink_log.read_text().splitlines())
    with reading(engine) as connection:
        name = installation(connection)
        by_state: dict[str, set[str]] = {}
        for message_id, state in connection.execute(select(messages.c.id, messages.c.state)):
            by_state.setdefault(state, set()).add(message_id_header(message_id, name, "acme.example"))
        account = books(connection)
    sent, in_doubt = by_state.get("sent", set()), by_state.get("in_doubt", set())
    assert [m for m, count in accepted.items() if count > 1] == []
    assert sent <= set(accepted)
    assert set(accepted) <= sent | in_doubt
    assert len(sent) + len(in_doubt) == MESSAGES
    assert len(in_doubt) <= KILLS * CONNECTIONS
    assert account.balanced
    assert (account.audience, account.pending, account.sent) == (MESSAGES, 0, len(sent))
