"""Segments are refreshed in a process of its own: what that needs, a gigabyte for a large shop, no sender then keeps.

A workspace without segments is spared the process.
"""

from __future__ import annotations

import subprocess
import sys

import structlog
from sqlalchemy import Engine, exists, select

from kernel.settings import Workspace
from store.engine import reading
from store.tables import changes, segments
from workers.logs import in_json

log = structlog.get_logger(__name__)

_told = [""]
"""What the last process called wrong: the next one does not log it again."""


def refresh_apart(engine: Engine, workspace: Workspace) -> None:
    """Have `python -m workers.refreshing` refresh the segments where there is anything to do, and wait for it."""
    if not _anything(engine, workspace):
        return
    command = [sys.executable, "-m", "workers.refreshing", str(workspace.root), *(["json"] if in_json() else [])]
    done = subprocess.run(command, input=_told[0], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        log.error(
            "refresh_ended", code=done.returncode, remedy="the lines above say why; the next repairs what it left"
        )
    else:
        _told[0] = done.stdout


def _anything(engine: Engine, workspace: Workspace) -> bool:
    """Tell whether there are segments, or were, or facts have been noted for them."""
    if any((workspace.root / "segments").glob("*")):
        return True
    with reading(engine) as connection:
        there = select(exists().select_from(segments), exists().select_from(changes))
        return any(connection.execute(there).one())
