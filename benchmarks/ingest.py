"""Invoice lines a second into the store, on both databases, against a plain reader with executemany in the same run.

The file is made from a seed: 200,000 lines of 10,000 invoices, as a CSV. Ours checks every value, makes accounts,
products and orders, nets returns, is idempotent and keeps rejects aside. The plain loop does none of that: csv.reader,
four conversions, one INSERT statement by executemany into one table of the same SQLite settings.
"""

from __future__ import annotations

import csv
import random
import sqlite3
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kernel.settings import Workspace, load_workspace
from store.engine import open_database
from store.ingest.importing import run_import
from store.schema import migrate
from tests.importing import HEADER, LINES
from tests.servers.postgres import start_postgres

ROWS = 200_000
ROUNDS = 3


def measure() -> dict[str, Any]:
    """Run the plain loop and both databases in turn, print a table, return every figure."""
    rates: dict[str, list[float]] = {"plain loop": [], "SQLite": [], "SQLite again": [], "PostgreSQL": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carillon-bench-")))
        file = _file(folder)
        workspace = _workspace(folder)
        postgres = start_postgres(durable=True)
        stack.callback(postgres.stop)
        for number in range(ROUNDS):
            rates["plain loop"].append(_plain(file, folder / f"plain{number}.db"))
            url = f"sqlite:///{folder / f'ours{number}.db'}"
            rates["SQLite"].append(_ours(url, workspace, file))
            rates["SQLite again"].append(_ours(url, workspace, file))
            rates["PostgreSQL"].append(_ours(postgres.new_database(), workspace, file))
    base = statistics.median(rates["plain loop"])
    figures: dict[str, Any] = {"rows": ROWS, "rounds": ROUNDS}
    print(f"{ROWS:,} invoice lines, {ROUNDS} rounds; 'again' is the same file a second time: nothing changes")
    print(f"{'':14}{'rows/s':>10}{'min':>10}{'max':>10}{'ratio':>8}")
    for name, values in rates.items():
        median = statistics.median(values)
        figures[name] = {
            "per_second": round(median),
            "min": round(min(values)),
            "max": round(max(values)),
            "ratio_to_plain_loop": round(median / base, 2),
        }
        print(f"{name:14}{median:10.0f}{min(values):10.0f}{max(values):10.0f}{median / base:8.2f}")
    return figures


def _file(folder: Path) -> Path:
    chance = random.Random(7)
    start = datetime(2025, 1, 1, 8, tzinfo=UTC)
    path = folder / "lines.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER)
        out = csv.writer(file)
        for invoice in range(ROWS // 20):
            customer = int(chance.paretovariate(1.2)) % 5000 + 10_000
            back = chance.random() < 0.03
            at = (start + timedelta(minutes=37 * invoice)).strftime("%Y-%m-%d %H:%M:%S")
            for _ in range(20):
                item = chance.randrange(4000)
                quantity = -chance.randrange(1, 5) if back else chance.randrange(1, 40)
                number = f"{'C' if back else ''}{500_000 + invoice}"
                out.writerow(
                    [
                        number,
                        f"P{item:05d}",
                        f"Thing {item}",
                        quantity,
                        at,
                        f"{item % 977 / 100 + 0.5:.2f}",
                        customer,
                        "DE",
                    ]
                )
    return path


def _workspace(folder: Path) -> Workspace:
    root = folder / "shop"
    root.mkdir()
    (root / "carillon.yaml").write_text(
        'brand: {name: Acme, postal_address: "1 Dock Road"}\n'
        "senders:\n  default: {name: Acme, email: hello@acme.example}\n",
        encoding="utf-8",
    )
    (root / "sources.yaml").write_text(LINES, encoding="utf-8")
    return load_workspace(root, {})


def _ours(url: str, workspace: Workspace, file: Path) -> float:
    engine = open_database(url)
    migrate(engine)
    started = time.perf_counter()
    result = run_import(engine, workspace, "invoices", file, now=datetime(2026, 11, 20, tzinfo=UTC))
    elapsed = time.perf_counter() - started
    engine.dispose()
    if result.tally.rows != ROWS or result.tally.rejected:
        raise AssertionError(f"the import went wrong: {result.as_json()}")
    return ROWS / elapsed


def _plain(file: Path, database: Path) -> float:
    started = time.perf_counter()
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE lines(invoice TEXT, product TEXT, quantity INT, at TEXT, price REAL, customer TEXT)"
    )
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        rows = (
            (invoice, product, int(quantity), datetime.fromisoformat(at).isoformat(), float(price), customer)
            for invoice, product, _, quantity, at, price, customer, _ in reader
        )
        connection.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return ROWS / (time.perf_counter() - started)
