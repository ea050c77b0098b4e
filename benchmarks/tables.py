"""Writes the tables of README.md and docs/performance.md from what was measured, between marks that name the benchmark.

python -m benchmarks.tables      # `make bench` does it at its end
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.run import RESULTS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "performance.md")
_MARKED = re.compile(r"(<!-- bench:([a-z_]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def main() -> None:
    """Rewrite every table of which there are figures."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        document.write_text(_MARKED.sub(_filled, text), encoding="utf-8")


def _filled(found: re.Match[str]) -> str:
    path = RESULTS / f"{found[2]}.json"
    if not path.exists():
        return found[0]
    figures = json.loads(path.read_text(encoding="utf-8"))
    return f"{found[1]}{_TABLES[found[2]](figures)}\n{_where(figures['machine'])}\n{found[3]}"


def _where(machine: dict[str, Any]) -> str:
    versions = machine["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("sqlalchemy", "celery", "jinja2") if name in versions)
    return f"\n{machine['cores']} cores of {machine['processor']}, Python {machine['python']}, {named}."


def _send(figures: dict[str, Any]) -> str:
    rows = ["| | messages/s | to `smtp-source` | to a Celery task | memory of a worker |", "|---|---|---|---|---|"]
    for name, row in figures.items():
        if isinstance(row, dict) and "per_second" in row:
            memory = f"{row['peak_worker_mb']} MB" if row["peak_worker_mb"] else ""
            ratios = f"{row['ratio_to_smtp_source']:.2f} | {row['ratio_to_celery_task']:.1f}"
            rows.append(f"| {name} | {row['per_second']:,} | {ratios} | {memory} |")
    rows.append("")
    rounds = figures["rounds"]
    far = " (a fifth as many 50 ms away)" if any("50 ms" in name for name in figures) else ""
    rows.append(
        f"{figures['messages']:,} messages{far}, {'one round' if rounds == 1 else f'medians of {rounds} rounds'}."
    )
    return "\n".join(rows)


def _stages(figures: dict[str, Any]) -> str:
    rows = ["| µs of processor a message | SQLite | PostgreSQL |", "|---|---|---|"]
    rows += [
        f"| {stage} | {used:.1f} | {figures['PostgreSQL'][stage]:.1f} |" for stage, used in figures["SQLite"].items()
    ]
    return "\n".join(rows)


def _memory(figures: dict[str, Any]) -> str:
    rows = ["| messages sent, about | database | MB: the largest so far | now | share |", "|---|---|---|---|---|"]
    for name in ("SQLite", "PostgreSQL"):
        for look in figures.get(name, {}).get("looks", ()):
            sizes = (
                ", ".join(str(round(process[what] / 1024)) for process in look["kib"])
                for what in ("peak", "now", "share")
            )
            rows.append(f"| {look['sent']:,} | {name} | {' | '.join(sizes)} |")
    return "\n".join(rows)


def _expansion(figures: dict[str, Any]) -> str:
    rows = ["| | seconds | of processors | places |", "|---|---|---|---|"]
    for name in ("SQLite", "PostgreSQL"):
        one = figures[name]
        rows.append(f"| {name} | {one['seconds']} | {one['processor_s']} | {one['places']:,} |")
    return "\n".join(rows)


_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "send": _send,
    "memory": _memory,
    "stages": _stages,
    "expansion": _expansion,
}


if __name__ == "__main__":
    main()
