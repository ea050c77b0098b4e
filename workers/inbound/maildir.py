"""Collecting returned mail that a mail system delivers into folders in Maildir form.

Source:
    D. J. Bernstein, "Using maildir format": a delivery is whole once it stands in new/; whoever read it moves it to
    cur/.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import Engine

from kernel.ids import digest
from kernel.settings import Workspace
from store.engine import writing
from store.inbox import BOUNCE_SOURCE, put
from workers.inbound.listener import MAIL_BYTES

log = structlog.get_logger(__name__)


def collect_maildirs(engine: Engine, workspace: Workspace, *, now: datetime) -> int:
    """Keep what lies in new/ of every `inbound.maildirs` folder, move it to cur/, and return how many were new.

    Relative folders start at the workspace. Another process may collect the same folder at the same time. A mail that
    cannot be read stays where it is and is named in the log.
    """
    return sum(_collect(engine, workspace.root / folder, now) for folder in workspace.settings.inbound.maildirs)


def _collect(engine: Engine, folder: Path, now: datetime) -> int:
    new = folder / "new"
    if not new.is_dir():
        log.warning("maildir_missing", folder=str(folder))
        return 0
    kept = 0
    for path in sorted(entry for entry in new.iterdir() if not entry.name.startswith(".")):
        try:
            kept += _keep(engine, path, now)
        except FileNotFoundError:
            continue  # Another process was first.
        except OSError as error:
            log.error("maildir_mail_unreadable", file=str(path), error=error.strerror or str(error))
    return kept


def _keep(engine: Engine, path: Path, now: datetime) -> bool:
    with path.open("rb") as file:
        raw = file.read(MAIL_BYTES)
    with writing(engine) as connection:
        new = put(
            connection,
            key=digest(BOUNCE_SOURCE, "", raw),
            source=BOUNCE_SOURCE,
            body=raw,
            meta={"maildir": str(path.parent.parent), "file": path.name},
            received_at=now,
        )
    seen = path.parent.parent / "cur"
    seen.mkdir(exist_ok=True)
    name = path.name if ":2," in path.name else f"{path.name}:2,S"
    with contextlib.suppress(FileNotFoundError):
        path.replace(seen / name)
    return new
