"""One at a time: a lock that ends with its process, on both databases."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from kernel.ids import digest
from store.engine import writing

Writer = Callable[[], AbstractContextManager[Connection]]
"""Opens a writing transaction on behalf of whoever holds the lock."""
_LOOK_AGAIN_S = 0.2


@contextmanager
def alone(engine: Engine, what: str, *, patience_s: float) -> Iterator[Writer | None]:
    """Hold the lock named `what`; nobody else holds it meanwhile, in any process on any host of the database.

    A process that dies lets go by dying: on SQLite the lock is one on a file beside the database, on PostgreSQL it
    belongs to a connection, the very one the writer's transactions run on. So whoever lost the lock cannot write.

    Args:
        engine: The database.
        what: Names the lock.
        patience_s: How long to wait for it.

    Yields:
        What opens writing transactions; None where the lock did not come free in time.
    """
    deadline = time.monotonic() + patience_s
    held = _on_postgresql(engine, what, deadline) if engine.dialect.name == "postgresql" else None
    with held or _on_sqlite(engine, what, deadline) as writer:
        yield writer


@contextmanager
def _on_sqlite(engine: Engine, what: str, deadline: float) -> Iterator[Writer | None]:
    descriptor = os.open(Path(f"{engine.url.database}-{what}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                yield None
                return
            time.sleep(_LOOK_AGAIN_S)
        yield lambda: writing(engine)
    finally:
        os.close(descriptor)  # Which lets go of the lock.


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _on_postgresql(engine: Engine, what: str, deadline: float) -> Iterator[Writer | None]:
    key = int(digest(what)[:15], 16)
    with engine.connect() as connection:
        while not _taken(connection, key):
            if time.monotonic() >= deadline:
                yield None
                return
            time.sleep(_LOOK_AGAIN_S)

        @contextmanager
        def write() -> Iterator[Connection]:
            with connection.begin():
                yield connection

        try:
            yield write
        finally:
            # Not unlocked by a statement: after a failure the connection may not take one. The server lets go.
            connection.invalidate()


def _taken(connection: Connection, key: int) -> bool:
    with connection.begin():
        return bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar_one())
