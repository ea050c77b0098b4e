"""Orders in Parquet files, added up by DuckDB for every buyer: time and the peak of the process's memory.

Ten million orders of a million customers, made from a seed; CARILLON_BENCH_ORDERS=100000000 makes a hundred million of
ten million. Each reading is a process of its own, so that its peak is its own: DuckDB's memory is limited to 2 GB, what
is beyond it goes to disk, and the bound for the whole process is 4 GB. The totals must be those of one plain query.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kernel.settings import WarehouseSettings
from kernel.vocabulary import Subject
from segments.buyers import Extra, read_purchases
from segments.warehouse import Warehouse
from store.columns import insert_columns, reading_widely
from store.engine import open_database
from store.schema import migrate
from store.tables import accounts

ORDERS = int(os.environ.get("CARILLON_BENCH_ORDERS", "10000000"))
CUSTOMERS = ORDERS // 10
FILES = 10
MEMORY = "2GB"
BOUND_MB = 4096
NOW = datetime(2026, 9, 1, tzinfo=UTC)
COLUMNS = {name: name for name in ("ordered_at", "amount", "kind", "cancelled_at")} | {"subject": "customer"}
READINGS: dict[str, tuple[Extra, ...]] = {"purchases": (), "and median gaps": ("gaps",)}

# By hashes and not by random(), so that the same rows come out however many threads make them. Squared, because a few
# customers order often and many once.
MAKE = """
COPY (
  SELECT printf('C%09d', CAST(floor({customers} * pow(hash(i) / 18446744073709551616.0, 2)) AS BIGINT)) AS customer,
         to_timestamp(1693526400 + hash(i, 'at') % 94694400) AS ordered_at,
         CAST(CASE WHEN kind = 'return' THEN -1 ELSE 1 END * CAST(hash(i, 'net') % 5000000 AS BIGINT) / 100.0
              AS DECIMAL(12, 2)) AS amount,
         kind,
         CASE WHEN hash(i, 'gone') % 50 = 0 THEN to_timestamp(1788220800) END AS cancelled_at
  FROM (SELECT i, CASE WHEN hash(i, 'kind') % 20 = 0 THEN 'return' ELSE 'order' END AS kind
        FROM range({start}, {stop}) AS t(i))
) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
"""
PLAIN = """
SELECT count(DISTINCT customer) FILTER (WHERE kind = 'order'), count(*) FILTER (WHERE kind = 'order'),
       max(epoch_ms(ordered_at)) FILTER (WHERE kind = 'order')
FROM read_parquet('orders/*.parquet') WHERE ordered_at < TIMESTAMPTZ '2026-09-01 00:00:00+00'
  AND (cancelled_at IS NULL OR cancelled_at >= TIMESTAMPTZ '2026-09-01 00:00:00+00')
"""


def measure() -> dict[str, Any]:
    """Make the files, read them in each way in a process of its own, print a table, return every figure."""
    figures: dict[str, Any] = {"orders": ORDERS, "customers": CUSTOMERS, "duckdb_memory": MEMORY}
    with tempfile.TemporaryDirectory(prefix="carillon-bench-") as name:
        folder = Path(name)
        figures["plain"] = plain = _make(folder)
        figures["parquet_mb"] = round(sum(file.stat().st_size for file in folder.glob("orders/*")) / 1e6)
        print(f"{ORDERS:,} orders of up to {CUSTOMERS:,} customers in {figures['parquet_mb']} MB of Parquet")
        print(f"{'':18}{'seconds':>10}{'peak MB':>10}")
        for reading in READINGS:
            command = [sys.executable, "-m", "benchmarks.warehouse", str(folder), reading]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            if found.pop("totals") != plain:
                raise AssertionError(f"{reading}: the totals are not those of the plain query")
            if found["peak_mb"] > BOUND_MB:
                raise AssertionError(f"{reading}: {found['peak_mb']} MB, beyond {BOUND_MB} MB")
            figures[reading] = found
            print(f"{reading:18}{found['seconds']:10.1f}{found['peak_mb']:10}")
    return figures


def _make(folder: Path) -> list[int]:
    import duckdb

    (folder / "orders").mkdir()
    config = {"memory_limit": MEMORY, "file_search_path": str(folder)}
    with duckdb.connect(config=config) as there:
        there.execute("SET enable_progress_bar = false")
        step = ORDERS // FILES
        for part in range(FILES):
            path = folder / "orders" / f"{part}.parquet"
            there.execute(MAKE.format(customers=CUSTOMERS, start=part * step, stop=(part + 1) * step, path=path))
        plain = [int(value) for value in there.execute(PLAIN).fetchall()[0]]
    engine = open_database(f"sqlite:///{folder / 'carillon.db'}")
    migrate(engine)
    for start in range(0, CUSTOMERS, 500_000):
        ids = range(start, min(start + 500_000, CUSTOMERS))
        insert_columns(
            engine,
            accounts,
            {"id": np.arange(start + 1, ids.stop + 1), "external_id": [f"C{one:09}" for one in ids]},
            rows_per_commit=500_000,
        )
    engine.dispose()
    return plain


def _read(folder: Path, reading: str) -> dict[str, Any]:
    said = {"url": "duckdb:///:memory:", "query": "SELECT * FROM read_parquet('orders/*.parquet')", "columns": COLUMNS}
    source = Warehouse(WarehouseSettings.model_validate(said | {"memory": MEMORY}), currency="EUR", folder=folder)
    engine = open_database(f"sqlite:///{folder / 'carillon.db'}")
    started = time.perf_counter()
    with reading_widely(engine) as connection:
        bought = read_purchases(
            connection, Subject.ACCOUNT, as_of=NOW, source=source, extras=READINGS[reading], currency="EUR"
        )
    elapsed = time.perf_counter() - started
    source.close()
    engine.dispose()
    if bought.unknown:
        raise AssertionError(f"{bought.unknown} customers are unknown")
    purchases = bought.purchases
    return {
        "seconds": round(elapsed, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "totals": [len(purchases), int(purchases.orders.sum()), int(purchases.last_ms.max())],
    }


if __name__ == "__main__":
    print(json.dumps(_read(Path(sys.argv[1]), sys.argv[2])))
