"""Worker processes that drain one lane: a program that forks them, and a new one for each killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from kernel.settings import load_workspace
from store.engine import open_database
from workers import drain
from workers.drain import Drain

SMALL_CHUNK = 12
"""So that eight workers are at it at once, and a kill finds chunks half-way."""


def main(root: Path, lane: str, count: int, folder: Path) -> None:
    """Keep `count` workers at work until SIGTERM; each has a file named by its pid in `folder`."""
    drain._CHUNK = SMALL_CHUNK
    alive: set[int] = set()

    def end(*_: object) -> NoReturn:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        while len(alive) < count:
            pid = os.fork()
            if not pid:
                _work(root, lane, folder)
            alive.add(pid)
        dead, _ = os.wait()
        alive.discard(dead)
        (folder / str(dead)).unlink(missing_ok=True)


def _work(root: Path, lane: str, folder: Path) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()
    workspace = load_workspace(root)
    mine = Drain(open_database(workspace.database_url), workspace)
    (folder / str(os.getpid())).touch()
    while os.getppid() == parent:
        mine.run(lane, budget=timedelta(seconds=1), stopping=lambda: False)
        time.sleep(0.05)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
