"""Run the benchmarks: all, or the one named. Each prints a table and writes benchmarks/results/<name>.json.

Usage: python -m benchmarks.run [NAME]
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

NAMES = (
    "send",
    "memory",
    "stages",
    "smtp_engine",
    "expansion",
    "compose",
    "sms_http",
    "ingest",
    "segments",
    "warehouse",
)
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = ("sqlalchemy", "celery", "jinja2", "psycopg", "polars", "numpy", "scipy", "scikit-learn", "duckdb")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def main() -> int:
    """Run what is asked for; 2 where there is no such benchmark."""
    wanted = [name for name in sys.argv[1:] if name] or list(NAMES)
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    for name in wanted:
        print(f"== {name}", flush=True)
        figures = importlib.import_module(f"benchmarks.{name}").measure()
        figures["machine"] = machine()
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path}\n", flush=True)
    importlib.import_module("benchmarks.tables").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
