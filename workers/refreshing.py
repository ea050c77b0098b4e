"""Segments kept up to date while the service runs: about once a minute, by one worker at a time, never in the way.

The worker that does it sends nothing meanwhile, the others go on; whatever it writes it writes in short transactions.
A refresh takes no turn from mail that waits: its hint lapses where all workers are busy, and the next minute has one.

python -m workers.refreshing WORKSPACE [json]    # see workers.apart
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import Engine

from kernel.clock import system_clock
from kernel.errors import ConfigError, InputError
from kernel.faultpoints import arm
from kernel.settings import Workspace, load_workspace
from segments.refresh import RefreshRunning, refresh
from store.engine import open_database
from workers.logs import configure_logging

log = structlog.get_logger(__name__)

_told: list[str] = []
"""What was last logged as wrong: a file being edited is told once, not once a minute."""


def refresh_segments(engine: Engine, workspace: Workspace, *, now: datetime) -> bool:
    """Refresh all segments; return whether that was done. Another process at it, or a wrong file, is no failure."""
    try:
        refreshed = refresh(engine, workspace, now=now, patience_s=0.0, unhurried=True)
    except RefreshRunning:
        return False
    except (InputError, ConfigError) as error:
        words = str(error)
        if _told != [words]:
            log.error("segments_not_refreshed", error=words, remedy="mend what it says; the snapshots stay as they are")
        _told[:] = [words]
        return False
    _told.clear()
    for one in refreshed:
        if one.joined or one.left:
            log.info("segment_moved", segment=one.name, joined=one.joined, left=one.left, size=one.size)
    return True


def main(arguments: list[str]) -> None:
    """Refresh once; reads from standard input what was called wrong before, and says on standard output what is now."""
    root, *rest = arguments
    configure_logging(as_json=rest == ["json"])
    arm(os.environ)
    _told[:] = [words] if (words := sys.stdin.read()) else []
    workspace = load_workspace(Path(root))
    refresh_segments(open_database(workspace.database_url), workspace, now=system_clock())
    sys.stdout.write("".join(_told))


if __name__ == "__main__":
    main(sys.argv[1:])
