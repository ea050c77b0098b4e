"""Messages a second, end to end, on both databases, beside Postfix's own load generator and the usual Celery task.

End to end is: claim, eligibility, rendering (HTML and text of about 4 kB, eight tracked links), MIME, SMTP, record, by
the real worker with two processes, woken by the real scheduler through a real Redis. The clock starts when the messages
are due and stops when the last is recorded. All of it, and Postfix's smtp-sink, on the cores of this machine.

Peers: `smtp-source -d` sends one fixed body of the size ours have on the wire, over the sessions that suit it best; a
Celery task per message renders the same templates (nothing tracked, nothing recorded), builds an EmailMessage and sends
it over an smtplib connection of its own; the plain loop does the same in one process over one connection.

BENCH_MESSAGES (100,000), BENCH_ROUNDS (3) and BENCH_PARTS (near, far, dkim) choose how much.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, update

from benchmarks import peers
from benchmarks.smtp_engine import far_away, sink
from kernel.settings import load_workspace
from kernel.vocabulary import MessageState
from store.engine import open_database, reading, writing
from store.schema import migrate
from store.states import is_pending
from store.tables import messages
from tests import seeding
from tests.acceptance.processes import Processes, wait_for
from tests.servers.postgres import start_postgres
from workers.app import ready_file
from workers.embedded import answers

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "100000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
PARTS = os.environ.get("BENCH_PARTS", "near far dkim").split()
WIRE_OCTETS = 6_500
"""What a message of ours has on the wire, to a few octets."""
FAR_S = 0.05
_WARMUP = 2_000
_PARAGRAPH = "<p>Our prices for {{ account.name }} hold until the end of the month, and delivery stays free.</p>"
_LINK = '<p><a href="https://shop.example/offers/%d">Offer %d</a></p>'
HTML = (
    "<html><body><h1>Hello {{ contact.first_name }}</h1>"
    + "".join(_LINK % (i, i) + _PARAGRAPH for i in range(8))
    + _PARAGRAPH * 24
    + "</body></html>"
)
TEXT = "Dear {{ contact.first_name }},\n" + "".join(
    f"Offer {i} for {{{{ account.name }}}}: https://shop.example/offers/{i}\n" for i in range(8)
)
FILES = {"hello/subject.txt": "Hello {{ contact.first_name }}", "hello/body.txt": TEXT, "hello/body.html": HTML}


def measure() -> dict[str, Any]:
    """Run every part, print a table, return every figure."""
    seeding.FILES.clear()
    seeding.FILES.update(FILES)
    figures: dict[str, Any] = {"messages": MESSAGES, "rounds": ROUNDS, "wire_octets": WIRE_OCTETS}
    rates: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    with ExitStack() as stack:
        port = stack.enter_context(sink())
        postgres = start_postgres(durable=True)
        stack.callback(postgres.stop)

        def noted(name: str, found: tuple[float, int]) -> None:
            rates.setdefault(name, []).append(found[0])
            memory[name] = max(memory.get(name, 0), found[1])
            print(f"  {name:42}{found[0]:9.0f}/s", flush=True)

        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory(prefix="carillon-bench-") as folder:
                _round(Path(folder), port, postgres, noted)
    base = statistics.median(rates["smtp-source -d"])
    task = statistics.median(rates["Celery task per message"])
    print(f"{MESSAGES:,} messages, {ROUNDS} rounds, two worker processes, medians")
    print(f"{'':42}{'msg/s':>9}{'min':>9}{'max':>9}{'to smtp-source':>16}{'to task':>9}{'MB/worker':>11}")
    for name, values in rates.items():
        median = statistics.median(values)
        figures[name] = {
            "per_second": round(median),
            "min": round(min(values)),
            "max": round(max(values)),
            "ratio_to_smtp_source": round(median / base, 2),
            "ratio_to_celery_task": round(median / task, 1),
            "peak_worker_mb": round(memory[name] / 1024) or None,
        }
        shown = figures[name]["peak_worker_mb"] or ""
        spread = f"{median:9.0f}{min(values):9.0f}{max(values):9.0f}"
        print(f"{name:42}{spread}{median / base:16.2f}{median / task:9.1f}{shown:>11}")
    return figures


def _round(folder: Path, port: int, postgres: Any, noted: Any) -> None:
    rate, _sessions = peers.smtp_source(port, messages=MESSAGES, octets=WIRE_OCTETS)
    noted("smtp-source -d", (rate, 0))
    few = max(MESSAGES // 50, 500)
    noted("plain loop, one process", (peers.plain_loop(port, messages=few, html=HTML, text=TEXT), 0))
    with sending_shop(folder / "peer", f"sqlite:///{folder / 'peer.db'}", port) as shop:
        (folder / "tasks").mkdir()
        broker = shop.workspace.broker_url
        found = peers.celery_tasks(folder / "tasks", broker, port, messages=few, html=HTML, text=TEXT)
        noted("Celery task per message", (found, 0))
    for name in ("SQLite", "PostgreSQL"):
        for part in PARTS:
            url = f"sqlite:///{folder / part}.db" if name == "SQLite" else postgres.new_database()
            with ExitStack() as stack:
                to = stack.enter_context(far_away(port, FAR_S)) if part == "far" else port
                count = MESSAGES // 5 if part == "far" else MESSAGES
                shop = stack.enter_context(sending_shop(folder / f"{part}-{name}", url, to, dkim=part == "dkim"))
                words = {"near": "", "far": ", 50 ms away, 100 connections", "dkim": ", DKIM RSA-2048 and Ed25519"}
                noted(f"Carillon on {name}{words[part]}", shop.send(count))


class SendingShop:
    """A workspace with its processes, ready to send."""

    def __init__(self, folder: Path, url: str, port: int, settings: str) -> None:
        folder.mkdir()
        self._folder = folder
        (folder / "carillon.yaml").write_text(settings.format(port=port), encoding="utf-8")
        environment = {"CARILLON_DATABASE_URL": url, "CARILLON_SECRET_KEY": "k" * 64}
        self.workspace = load_workspace(folder, environment)
        self._engine: Engine = open_database(url)
        migrate(self._engine)
        self._processes = Processes(folder, environment)
        self._worker = 0

    def start(self) -> None:
        self._processes.start("redis", "redis")
        wait_for(lambda: answers(self.workspace), "Redis")
        self._worker = self._processes.start("worker", "worker", "--concurrency", "2").pid
        self._processes.start("scheduler", "scheduler")
        for name in ("worker", "scheduler"):
            wait_for(ready_file(self._folder, name).exists, f"the {name}")

    def send(self, count: int, watch: Callable[[], None] = lambda: None) -> tuple[float, int]:
        """Return messages a second, and a process's largest resident set in KiB; call `watch` meanwhile."""
        try:
            # Some messages first, so that processes are forked, templates compiled and connections open.
            seeding.seed_messages(self._engine, _WARMUP, name="warmup")
            self._wait()
            later = datetime.now(UTC) + timedelta(days=1)
            seeding.seed_messages(self._engine, count, due_at=later, name="measured")
            started = self._make_due()
            self._wait(watch)
            seconds = time.perf_counter() - started
            assert seeding.states(self._engine) == {MessageState.SENT: count + _WARMUP}, "not everything was sent"
        except BaseException:
            print(self._processes.log("worker")[-3000:], self._processes.log("scheduler")[-2000:], file=sys.stderr)
            raise
        return count / seconds, max((size["VmHWM"] for size in self.worker_sizes().values()), default=0)

    def _make_due(self) -> float:
        with writing(self._engine) as connection:
            connection.execute(
                update(messages).where(messages.c.state == MessageState.PLANNED).values(due_at=datetime.now(UTC))
            )
        return time.perf_counter()

    def _wait(self, watch: Callable[[], None] = lambda: None) -> None:
        """Wait until nothing is pending.

        The message that is claimed last is asked about first, by its key: to look for anything pending, PostgreSQL
        walks past all that no longer is, which cost its server 20 µs a message.
        """
        with reading(self._engine) as connection:
            last = connection.execute(select(func.max(messages.c.id))).scalar_one()
        last_one = select(messages.c.id).where(messages.c.id == last, is_pending())
        anything = select(messages.c.run_id).where(is_pending()).limit(1)

        def over() -> bool:
            watch()
            with reading(self._engine) as connection:
                return all(connection.execute(query).first() is None for query in (last_one, anything))

        wait_for(over, "all messages", seconds=3600, every_s=0.1)

    def pending(self) -> int:
        """Return how many messages have still to be sent."""
        with reading(self._engine) as connection:
            return connection.execute(select(func.count()).select_from(messages).where(is_pending())).scalar_one()

    def worker_sizes(self) -> dict[int, dict[str, int]]:
        """Return what /proc tells of each sending process's memory in KiB, by its id.

        VmHWM is the largest resident set it has had, VmRSS the present one, Pss the same with shared pages divided
        among those that share them.
        """
        sizes = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = _kib(folder / "status")
                if status.get("PPid") == self._worker:
                    sizes[int(folder.name)] = status | _kib(folder / "smaps_rollup")
            except OSError:
                continue  # It has ended meanwhile.
        return sizes

    def stop(self) -> None:
        self._processes.stop_all()
        self._engine.dispose()


def _kib(path: Path) -> dict[str, int]:
    """Return the numbers of a file of /proc by their names."""
    words = (line.split() for line in path.read_text().splitlines())
    return {name.rstrip(":"): int(values[0]) for name, *values in words if values and values[0].isdigit()}


_SETTINGS = (
    'brand: {{name: Acme, postal_address: "1 Dock Road"}}\n'
    "senders:\n  default: {{name: Acme, email: hello@acme.example%s}}\n"
    "gateways:\n"
    "  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none,\n"
    "          messages_per_connection: 1000, connections: 50}}\n"
)


@contextmanager
def sending_shop(folder: Path, url: str, port: int, *, dkim: bool = False) -> Iterator[SendingShop]:
    key = "{{domain: acme.example, selector: %s, key_file: %s}}"
    keys = ", ".join(key % (path.stem, path) for path in _keys(folder.parent)) if dkim else ""
    settings = _SETTINGS % (f", dkim: [{keys}]" if dkim else "")
    shop = SendingShop(folder, url, port, settings)
    try:
        shop.start()
        yield shop
    finally:
        shop.stop()


def _keys(folder: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    made = {
        "rsa.pem": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ed25519.pem": ed25519.Ed25519PrivateKey.generate(),
    }
    paths = []
    for name, key in made.items():
        path = folder / name
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        paths.append(path)
    return paths[0], paths[1]
