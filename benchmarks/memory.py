"""Resident memory of sending worker processes while a million messages leave, looked at every 100,000.

The same messages, worker and relay as in `send`. Peak is VmHWM: the largest resident set a process has had, with every
page it shares with others, such as those of the interpreter's and libraries' code. Share is Pss: shared pages divided
among those that share them, so that a machine needs the sum of it.

BENCH_MESSAGES (1,000,000) and BENCH_DATABASES (SQLite PostgreSQL) choose how much.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.send import FILES, SendingShop, sending_shop
from benchmarks.smtp_engine import sink
from tests import seeding
from tests.servers.postgres import start_postgres

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "1000000"))
DATABASES = os.environ.get("BENCH_DATABASES", "SQLite PostgreSQL").split()
EVERY = 100_000
_LOOK_S = 0.5


def measure() -> dict[str, Any]:
    """Send to every database, print a table as it goes, return every figure."""
    seeding.FILES.clear()
    seeding.FILES.update(FILES)
    figures: dict[str, Any] = {"messages": MESSAGES}
    with ExitStack() as stack:
        port = stack.enter_context(sink())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carillon-bench-")))
        for name in DATABASES:
            url = f"sqlite:///{folder / 'memory.db'}" if name == "SQLite" else _postgres(stack)
            with sending_shop(folder / name, url, port) as shop:
                print(f"{name:12}{'messages':>10}   MB of each process: peak, now, share")
                looks: list[dict[str, Any]] = []
                look = _looking(shop, looks)
                rate, peak_kib = shop.send(MESSAGES, look)
                time.sleep(_LOOK_S)
                look()
            print(f"{name:12}{rate:10.0f} messages/s, at most {peak_kib / 1024:.0f} MB")
            figures[name] = {"per_second": round(rate), "peak_worker_mb": round(peak_kib / 1024), "looks": looks}
    return figures


def _postgres(stack: ExitStack) -> str:
    server = start_postgres(durable=True)
    stack.callback(server.stop)
    return server.new_database()


def _looking(shop: SendingShop, looks: list[dict[str, Any]]) -> Callable[[], None]:
    """Return what looks at the processes whenever so many more messages have been sent, and notes what it sees."""
    last = 0.0

    def look() -> None:
        nonlocal last
        if time.monotonic() - last < _LOOK_S:
            return
        last = time.monotonic()
        sent = MESSAGES - shop.pending()
        if sent >= len(looks) * EVERY:
            sizes = [
                {"peak": size["VmHWM"], "now": size["VmRSS"], "share": size["Pss"]}
                for _, size in sorted(shop.worker_sizes().items())
            ]
            looks.append({"sent": sent, "kib": sizes})
            shown = "   ".join(" ".join(f"{kib / 1024:6.1f}" for kib in size.values()) for size in sizes)
            print(f"{'':12}{sent:10,}   {shown}", flush=True)

    return look
