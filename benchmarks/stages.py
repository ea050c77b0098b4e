"""Where each microsecond of a message goes: processor time by stage, of one worker's way from claim to record.

The way is the worker's own, in one process, into Postfix's smtp-sink over 20 connections; each stage is timed by the
processor time of its thread. SMTP is what the process uses beside that: the engine's thread and the flight recorder.
What the database server and the sink use is read from the kernel's accounts of their processes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import workers.chunk
import workers.preparing
from benchmarks.send import FILES
from benchmarks.smtp_engine import sink
from kernel.settings import load_workspace
from store.engine import open_database
from store.schema import migrate
from tests import seeding
from tests.servers.postgres import start_postgres
from workers.app import settle_memory
from workers.drain import Drain

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "20000"))
_STAGES: tuple[tuple[str, Any, str], ...] = (
    ("claim", workers.chunk, "claim"),
    ("eligibility", workers.preparing, "clear"),
    ("template data", workers.preparing, "contexts_of"),
    ("render, links, MIME", workers.preparing.Preparer, "_compose_all"),
    ("say that it is sent", workers.chunk.Chunk, "_settle_harmless"),
    ("record", workers.chunk.Chunk, "_write"),
)


def measure() -> dict[str, Any]:
    """Send on both databases; print and return microseconds a message by stage."""
    seeding.FILES.clear()
    seeding.FILES.update(FILES)
    figures: dict[str, Any] = {"messages": MESSAGES}
    postgres = start_postgres(durable=True)
    try:
        with sink() as port:
            for name in ("SQLite", "PostgreSQL"):
                with tempfile.TemporaryDirectory(prefix="carillon-bench-") as folder:
                    url = f"sqlite:///{folder}/bench.db" if name == "SQLite" else postgres.new_database()
                    figures[name] = _one(Path(folder), url, port)
    finally:
        postgres.stop()
    names = list(figures["SQLite"])
    print(f"{'µs of processor a message':28}{'SQLite':>10}{'PostgreSQL':>12}")
    for stage in names:
        print(f"{stage:28}{figures['SQLite'][stage]:10.1f}{figures['PostgreSQL'][stage]:12.1f}")
    return figures


def _one(folder: Path, url: str, port: int) -> dict[str, float]:
    (folder / "carillon.yaml").write_text(
        'brand: {name: Acme, postal_address: "1 Dock Road"}\n'
        "senders:\n  default: {name: Acme, email: hello@acme.example}\n"
        "gateways:\n"
        f"  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, messages_per_connection: 1000}}\n",
        encoding="utf-8",
    )
    workspace = load_workspace(folder, {"CARILLON_DATABASE_URL": url, "CARILLON_SECRET_KEY": "k" * 64})
    engine = open_database(url, cache_mb=4)
    migrate(engine)
    drain = Drain(engine, workspace)

    def run() -> int:
        return drain.run("relay", budget=timedelta(minutes=10), stopping=lambda: False)

    seeding.seed_messages(engine, 1_000, name="warmup")
    run()
    seeding.seed_messages(engine, MESSAGES, name="measured")
    settle_memory()
    spent: dict[str, float] = {}
    with _timed(spent):
        before, own = {name: _used_s(name) for name in ("postgres", "smtp-sink")}, time.process_time()
        sent = run()
        own = time.process_time() - own
        others = {name: _used_s(name) - before[name] for name in before}
    drain.close()
    engine.dispose()
    if sent != MESSAGES:
        raise SystemExit(f"only {sent} of {MESSAGES} were sent")
    stages = {**spent, "SMTP and flight recorder": own - sum(spent.values())}
    stages |= {"worker, in all": own, "database server": others["postgres"], "smtp-sink": others["smtp-sink"]}
    return {name: seconds / MESSAGES * 1e6 for name, seconds in stages.items()}


@contextmanager
def _timed(spent: dict[str, float]) -> Iterator[None]:
    originals = [(owner, name, getattr(owner, name)) for _, owner, name in _STAGES]
    for stage, owner, name in _STAGES:
        spent[stage] = 0.0
        setattr(owner, name, _counting(stage, getattr(owner, name), spent))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _counting(stage: str, function: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        started = time.thread_time()
        try:
            return function(*arguments, **named)
        finally:
            spent[stage] += time.thread_time() - started

    return counted


def _used_s(program: str) -> float:
    """Return the processor time of all processes of a program, in seconds."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if name == program:
            fields = rest.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
