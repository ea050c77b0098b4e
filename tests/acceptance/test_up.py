"""`carillon up`: everything on one machine, revived when it dies, drained when it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import requests

from kernel.settings import load_workspace
from store.engine import open_database
from store.schema import migrate
from tests.acceptance.processes import Processes, wait_for
from tests.seeding import seed_messages, states
from tests.servers.smtp_sink import Sink, SinkServer
from workers.app import ready_file

WORKSPACE = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  relay: {{type: smtp, host: 127.0.0.1, port: {relay}, tls: none}}
web: {{port: {web}, public_url: "http://127.0.0.1:{web}"}}
inbound: {{smtp_port: {inbound}}}
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def pid_of(root: Path, name: str) -> int:
    path = ready_file(root, name)
    return int(path.read_text() or 0) if path.exists() else 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_up_sends_revives_a_killed_worker_and_ends_clean(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    web, inbound = free_ports(2)
    with SinkServer(Sink()) as relay:
        (root / "carillon.yaml").write_text(
            WORKSPACE.format(relay=relay.port, web=web, inbound=inbound), encoding="utf-8"
        )
        workspace = load_workspace(root, {})
        engine = open_database(workspace.database_url)
        migrate(engine)
        processes = Processes(root, {})
        try:
            up = processes.start("up", "up", "--concurrency", "1")
            wait_for(lambda: "ready:" in processes.log("up"), "everything to be up", seconds=90)
            assert requests.get(f"http://127.0.0.1:{web}/healthz", timeout=5).status_code == 200
            with socket.create_connection(("127.0.0.1", inbound), timeout=5) as door:
                assert door.recv(4) == b"220 "
            seed_messages(engine, 20)
            wait_for(lambda: states(engine) == {"sent": 20}, "the first messages", seconds=60)

            first = pid_of(root, "worker")
            os.killpg(first, signal.SIGKILL)
            wait_for(lambda: pid_of(root, "worker") not in (0, first), "a new worker", seconds=60)
            seed_messages(engine, 20, name="again", address="other{n}@customer.example")
            wait_for(lambda: states(engine) == {"sent": 40}, "the messages after the kill", seconds=60)

            children = [pid_of(root, name) for name in ("worker", "scheduler")]
            assert processes.terminate("up") == 0
            assert up.returncode == 0
            assert not any(alive(pid) for pid in children)
            assert len(relay.sink.accepted) == len({message for message, _, _ in relay.sink.accepted}) == 40
        except BaseException:
            print(processes.log("up"))
            raise
        finally:
            processes.stop_all()
            engine.dispose()
