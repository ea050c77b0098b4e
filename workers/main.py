"""A worker's own program: `carillon worker` checks everything and becomes this, so that none of that stays in memory.

python -m workers.main WORKSPACE CONCURRENCY QUEUES [json]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel.settings import Workspace


def become_worker(workspace: Workspace, *, concurrency: int, queues: tuple[str, ...], log_json: bool) -> None:
    """Replace this process by a worker of the workspace; does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    words = [str(workspace.root), str(concurrency), ",".join(queues), *(["json"] if log_json else [])]
    # Each thread's own heap would keep what a chunk needed for a moment; one heap for all is given back and used again.
    # What a chunk gives back, up to 16 MB, stays for the next: the kernel would have to clear each page again.
    environment = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "16777216", **os.environ}
    os.execve(sys.executable, [sys.executable, "-m", "workers.main", *words], environment)  # noqa: S606 - our own program


def go_without_rich() -> None:
    """Keep structlog from loading Rich, which it would for tracebacks in colours that a worker never shows: 5 MB.

    Call it before anything imports structlog.
    """
    modules: dict[str, Any] = sys.modules  # None is how the import system is told that there is no such module.
    modules["rich"] = None


def main(arguments: list[str]) -> None:
    """Run a worker until it is told to stop."""
    go_without_rich()
    from kernel.faultpoints import arm
    from kernel.settings import load_workspace
    from workers.app import run_worker
    from workers.logs import configure_logging

    root, concurrency, queues, *rest = arguments
    configure_logging(as_json=rest == ["json"])
    arm(os.environ)
    run_worker(load_workspace(Path(root)), concurrency=int(concurrency), queues=tuple(queues.split(",")))


if __name__ == "__main__":
    main(sys.argv[1:])
