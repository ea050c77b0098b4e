"""How long it takes until everybody of a large run stands in the ledger: the audience with consent, roles, places per
account, exclusions and holdout, as enrollments and planned messages, in one transaction.

BENCH_CONTACTS (1,000,000) chooses how many; five belong to each account, every hundredth has withdrawn consent. On a
machine that other work shares, the processor time tells more than the clock.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select

from campaigns.applying import apply
from campaigns.firing import fire_due
from kernel.settings import load_workspace
from store.engine import open_database, reading, writing
from store.ingest.bulk import insert_rows
from store.schema import migrate
from store.tables import accounts, consents, contacts, messages
from tests.servers.postgres import start_postgres

CONTACTS = int(os.environ.get("BENCH_CONTACTS", "1000000"))
_NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
_LONG_AGO_MS = 1_700_000_000_000
_SLICE = 100_000
_ROLES = ("buyer", "owner", "finance", "buyer", "warehouse")
_SETTINGS = """\
brand: {name: Acme, postal_address: "1 Dock Road, Leeds"}
senders:
  default: {name: Acme, email: hello@acme.example}
gateways:
  relay: {type: smtp, host: 127.0.0.1, port: 1, tls: none}
limits: {caps: [{channel: email, messages: 2, within: 7d}]}
"""
_SEGMENT = "subject: account\nwhere: {attribute: {name: country, eq: DE}}\n"
_CAMPAIGN = """\
audience: {segment: germans, roles: [buyer, owner, finance, warehouse], per_account: 5, holdout: "10%"}
schedule: {at: "2026-12-01 12:00", window: {hours: "08:00-18:00"}}
steps:
  - email: hello
"""


def measure() -> dict[str, Any]:
    """Fire one run on each database; print and return the seconds, and those of processors: ours and the server's."""
    figures: dict[str, Any] = {"contacts": CONTACTS}
    postgres = start_postgres(durable=True)
    try:
        for name in ("SQLite", "PostgreSQL"):
            with tempfile.TemporaryDirectory(prefix="carillon-bench-") as folder:
                root = Path(folder)
                url = f"sqlite:///{root / 'bench.db'}" if name == "SQLite" else postgres.new_database()
                figures[name] = _one(root, url)
                print(f"{name:12}{figures[name]}", flush=True)
    finally:
        postgres.stop()
    return figures


def _one(root: Path, url: str) -> dict[str, Any]:
    files = {
        "carillon.yaml": _SETTINGS,
        "segments/germans.yaml": _SEGMENT,
        "campaigns/hello.yaml": _CAMPAIGN,
        "templates/hello/subject.txt": "Hello {{ contact.first_name }}",
        "templates/hello/body.html": "<p>Hello {{ contact.first_name }}</p>",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    workspace = load_workspace(root, {"CARILLON_DATABASE_URL": url, "CARILLON_SECRET_KEY": "k" * 64})
    engine = open_database(url)
    migrate(engine)
    _fill(engine)
    apply(engine, workspace, None, now=_NOW - timedelta(days=1))
    server = _server_of(engine)
    started, used = time.perf_counter(), _used_s(server)
    fired = fire_due(engine, workspace, now=_NOW)
    seconds, processor_s = time.perf_counter() - started, _used_s(server) - used
    with reading(engine) as connection:
        query = select(messages.c.state, func.count()).group_by(messages.c.state)
        states = {row[0]: row[1] for row in connection.execute(query)}
    engine.dispose()
    return {
        "seconds": round(seconds, 1),
        "processor_s": round(processor_s, 1),
        "places": sum(run.places for run in fired),
        "states": states,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _server_of(engine: Engine) -> int | None:
    """Return the process all of a PostgreSQL server's processes come from; the server is on this machine."""
    if engine.dialect.name != "postgresql":
        return None
    with reading(engine) as connection:
        backend = connection.execute(select(func.pg_backend_pid())).scalar_one()
    return int(_stat(Path(f"/proc/{backend}/stat"))[1])


def _used_s(server: int | None) -> float:
    """Return the processor time of this process and of all that there are of a server's, in seconds."""
    ticks = 0
    if server is not None:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            fields = _stat(stat)
            if fields and int(fields[1]) == server:
                ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _stat(path: Path) -> list[str]:
    """Return a process's accounts from its state on; nothing where it has ended."""
    try:
        return path.read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _fill(engine: Engine) -> None:
    companies = CONTACTS // 5
    with writing(engine) as connection:
        for start in range(0, companies, _SLICE):
            part = range(start, min(start + _SLICE, companies))
            rows = [(n + 1, f"A{n:07d}", f"Account {n}", "DE", "Europe/Berlin", "{}") for n in part]
            names = ("id", "external_id", "name", "country", "timezone", "attributes")
            insert_rows(connection, accounts, names, rows)
        for start in range(0, CONTACTS, _SLICE):
            part = range(start, min(start + _SLICE, CONTACTS))
            rows = [
                (n + 1, f"C{n:07d}", n // 5 + 1, f"c{n}@a{n // 5}.example", _ROLES[n % 5], f"Ann {n}") for n in part
            ]
            names = ("id", "external_id", "account_id", "email", "role", "first_name")
            insert_rows(connection, contacts, names, rows)
            agreed = [(n + 1, "email", "granted" if n % 100 else "withdrawn", _LONG_AGO_MS) for n in part]
            insert_rows(connection, consents, ("contact_id", "channel", "status", "at"), agreed)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
