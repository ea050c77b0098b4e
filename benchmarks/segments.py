"""A full refresh, an incremental one and previews, on both databases and three sizes, against the usual notebook.

Each measured step is a process of its own, so that its peak memory is its own. The full refresh is the first one on a
fresh database: it fits every model (k of the clusters given), scores everybody, answers twenty varied segments and
writes all of it. The notebook (benchmarks/notebook.py) reads the same database and writes nothing.

SIZES=10000,100000 in the environment measures other sizes than 10,000, 100,000 and 1,000,000 accounts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, text

from benchmarks.shop import NOW_MS, Shop, fill, order_rows, simulated
from kernel.clock import from_ms
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import Subject
from segments.answers import preview
from segments.definitions import load_segments
from segments.refresh import refresh
from segments.scoring import refresh_profiles
from store.changes import touch
from store.columns import reading_widely
from store.engine import open_database, writing
from store.ingest.bulk import insert_rows
from store.schema import migrate
from store.tables import models, orders, profiles
from tests.servers.postgres import start_postgres

SIZES = tuple(int(size) for size in os.environ.get("SIZES", "10000,100000,1000000").split(","))
NEW_ORDERS_SHARE = 0.01
"""New orders before the incremental refresh, as a share of the accounts: 10,000 of a million."""
NOW = from_ms(NOW_MS)
LATER = NOW + timedelta(minutes=1)

CARILLON = """\
brand: {name: Acme, postal_address: "1 Dock Road"}
senders:
  default: {name: Acme, email: hello@acme.example}
clusters: {k: 5}
"""
SEGMENTS = {
    "champions": "rfm: {segment: champions}",
    "slipping-away": "rfm: {segment: [at_risk, cant_lose], m: {gte: 4}}",
    "good-and-recent": "{all: [{rfm: {r: {gte: 4}, m: {gte: 4}}}, {attribute: {name: country, in: [GB, DE]}}]}",
    "spent-500-in-a-year": "orders: {measure: sum, gt: 500, within: 365d}",
    "three-in-a-quarter": "orders: {measure: count, gte: 3, within: 90d}",
    "silent-half-a-year": "orders: {measure: days_since_last, gte: 180}",
    "large-orders": "orders: {measure: average, gte: 250}",
    "lapsed": "{all: [{orders: {measure: count, eq: 0, within: 180d}}, {orders: {measure: count, gte: 5}}]}",
    "german": "attribute: {name: country, eq: DE}",
    "third-tier": "attribute: {name: attributes.tier, gte: 3}",
    "prospects": "never_bought: true",
    "probably-lost": "lifetime: {p_alive: {lt: 0.3}}",
    "worth-keeping": "{all: [{lifetime: {clv: {gte: 500}}}, {lifetime: {p_alive: {gte: 0.5}}}]}",
    "second-cluster": "cluster: {key: c2}",
    "reachable": "any_contact: {all: [{role: [buyer, owner]}, {consent: {channel: email}}]}",
    "asked-for-a-demo": "events: {name: demo_requested, within: 60d}",
    "quiet-and-reachable": "{all: [{segment: silent-half-a-year}, {segment: reachable}]}",
    "two-good-signs": (
        "at_least: {n: 2, of: [{segment: champions}, {segment: large-orders}, {segment: asked-for-a-demo}]}"
    ),
    "a-tenth": "bucket: {salt: spring, share: 10%}",
}
CONTACT_SEGMENT = "{all: [{consent: {channel: email}}, {segment: champions}]}"
PREVIEWED = ("champions", "spent-500-in-a-year", "silent-half-a-year", "third-tier", "worth-keeping", "reachable")


def measure() -> dict[str, Any]:
    """Measure every size on both databases, print tables, return every figure."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        postgres = start_postgres(durable=True)
        stack.callback(postgres.stop)
        for size in SIZES:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carillon-bench-")))
            shop = simulated(size)
            print(f"{size:,} accounts, {shop.orders:,} orders", flush=True)
            for name, url in (
                ("SQLite", f"sqlite:///{folder / 'shop.db'}"),
                ("PostgreSQL", postgres.new_database()),
            ):
                found[f"{name} {size}"] = figures = _measured(url, shop, folder)
                print(f"  {name}: {json.dumps(figures)}", flush=True)
    _tables(found)
    return {"sizes": list(SIZES), "segments": len(SEGMENTS) + 1, "new_orders_share": NEW_ORDERS_SHARE, **found}


def _measured(url: str, shop: Shop, folder: Path) -> dict[str, Any]:
    engine = open_database(url)
    migrate(engine)
    fill(engine, shop)
    _make_workspace(folder / "workspace")
    steps = {"notebook": _step("benchmarks.notebook", url)}
    ours = ("benchmarks.segments", url, str(folder / "workspace"))
    steps["models"] = _step(*ours, "models")
    _forget(engine)
    steps["full"] = _step(*ours, "full")
    _new_orders(engine, shop)
    steps["incremental"] = _step(*ours, "incremental")
    steps["preview"] = _step(*ours, "preview")
    steps["orders"] = {"count": shop.orders}
    engine.dispose()
    return steps


def _forget(engine: Engine) -> None:
    """Take models and profiles away again, so that the full refresh begins with nothing."""
    with writing(engine) as connection:
        connection.execute(profiles.delete())
        connection.execute(models.delete())
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE profiles" if engine.dialect.name == "postgresql" else "ANALYZE"))


def _step(module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise AssertionError(f"{module} {' '.join(arguments)} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _make_workspace(root: Path) -> None:
    (root / "segments").mkdir(parents=True, exist_ok=True)
    (root / "carillon.yaml").write_text(CARILLON, encoding="utf-8")
    for name, where in SEGMENTS.items():
        subject = "account"
        (root / "segments" / f"{name}.yaml").write_text(
            f"subject: {subject}\nwhere: {_block(where)}\n", encoding="utf-8"
        )
    content = f"subject: contact\nwhere: {_block(CONTACT_SEGMENT)}\n"
    (root / "segments" / "champions-people.yaml").write_text(content, encoding="utf-8")


def _block(where: str) -> str:
    return where if where.startswith("{") else f"{{{where}}}"


def _new_orders(engine: Engine, shop: Shop) -> None:
    """Store orders of the minute before LATER, as an import would: with a note of whom they touch."""
    chance = np.random.default_rng(3)
    count = round(NEW_ORDERS_SHARE * shop.accounts)
    account = chance.integers(1, shop.accounts + 1, count)
    fresh = Shop(
        accounts=shop.accounts,
        account=account,
        at_ms=NOW_MS + chance.integers(0, 50_000, count),
        is_return=np.zeros(count, dtype=bool),
        net_minor=chance.integers(1_000, 90_000, count),
    )
    columns = ("external_id", "account_id", "ordered_at", "kind", "net_minor", "gross_minor", "currency")
    rows = [(f"N{row[0]}", *row[1:]) for row in order_rows(fresh, range(count))]
    with writing(engine) as connection:
        insert_rows(connection, orders, columns, rows)
        touch(connection, Subject.ACCOUNT, np.unique(account))


# --- the measured processes --------------------------------------------------------------------------------


def main() -> None:
    """Run one step in this process; print its seconds and the peak memory as JSON."""
    url, root, step = sys.argv[1:]
    workspace = load_workspace(Path(root), {"CARILLON_DATABASE_URL": url})
    engine = open_database(url)
    started = time.perf_counter()
    figures = STEPS[step](engine, workspace)
    figures["total_s"] = round(time.perf_counter() - started, 2)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures))


def _models(engine: Engine, workspace: Workspace) -> dict[str, Any]:
    """Read, fit and apply the three models and write the profiles: what the notebook does, and keeps."""
    laps = _Laps()
    kinds = ("rfm", "clusters", "lifetime")
    run = refresh_profiles(
        engine, workspace.settings, subject=Subject.ACCOUNT, now=NOW, kinds=kinds, progress=laps.told
    )
    states = {kind: model.state for kind, model in run.models.items()}
    return {"scored": run.scored, "written": run.written, "states": states, "seconds": laps.seconds}


def _full(engine: Engine, workspace: Workspace) -> dict[str, Any]:
    laps = _Laps()
    done = refresh(engine, workspace, now=NOW, progress=laps.told)
    return {"sizes": {one.name: one.size for one in done}, "seconds": laps.seconds}


def _incremental(engine: Engine, workspace: Workspace) -> dict[str, Any]:
    laps = _Laps()
    done = refresh(engine, workspace, now=LATER, progress=laps.told)
    everyone = [one.name for one in done if one.asked is None]
    if everyone:
        raise AssertionError(f"asked of everyone: {everyone}")
    return {"moved": sum(one.joined + one.left for one in done), "seconds": laps.seconds}


def _preview(engine: Engine, workspace: Workspace) -> dict[str, Any]:
    definitions = load_segments(workspace)
    seconds: dict[str, float] = {}
    for name in PREVIEWED:
        started = time.perf_counter()
        with reading_widely(engine) as connection:
            preview(connection, definitions, name, now=LATER, currency="EUR", sample=10)
        seconds[name] = round(time.perf_counter() - started, 2)
    return {"seconds": seconds}


class _Laps:
    """Seconds between what a progress function is told."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._what, self._since = "start", time.perf_counter()

    def told(self, what: str, _done: int, _total: int) -> None:
        now = time.perf_counter()
        self.seconds[self._what] = round(self.seconds.get(self._what, 0) + now - self._since, 2)
        self._what, self._since = what, now


STEPS = {"models": _models, "full": _full, "incremental": _incremental, "preview": _preview}


def _tables(found: dict[str, Any]) -> None:
    """Print the figures side by side."""
    head = ("", "orders", "notebook s", "models s", "ratio", "full s", "peak MB", "incremental s", "slowest preview s")
    print(" | ".join(head))
    for name, steps in found.items():
        notebook = steps["notebook"]["total_s"]
        models = steps["models"]["total_s"]
        cells = (
            name,
            f"{steps['orders']['count']:,}",
            notebook,
            models,
            round(notebook / models, 1),
            steps["full"]["total_s"],
            steps["full"]["peak_mb"],
            steps["incremental"]["total_s"],
            max(steps["preview"]["seconds"].values()),
        )
        print(" | ".join(str(cell) for cell in cells))


if __name__ == "__main__":
    main()
