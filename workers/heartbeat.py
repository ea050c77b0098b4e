"""Renewing the lease of a chunk for as long as it is under way."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from kernel.faultpoints import FaultPoint, faultpoint
from store.engine import writing
from store.ledger import renew

log = structlog.get_logger(__name__)


class Heartbeat:
    """Renews a claim's lease from a thread of its own."""

    def __init__(self, engine: Engine, claim_id: int, lease: timedelta, started: float) -> None:
        """Take a claim whose lease began at the monotonic second `started`."""
        self._engine = engine
        self._claim_id = claim_id
        self._lease = lease
        self._stop = threading.Event()
        self._ends = started + lease.total_seconds()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{claim_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._stop.set()
        self._thread.join()

    def lease_ends(self) -> float:
        """Return the monotonic second at which the lease surely still held when last renewed, less a margin."""
        return self._ends - self._lease.total_seconds() * 0.1

    def _beat(self) -> None:
        while not self._stop.wait(self._lease.total_seconds() / 3):
            asked = time.monotonic()
            faultpoint(FaultPoint.BEFORE_LEASE_RENEWED)
            try:
                with writing(self._engine) as connection:
                    if renew(connection, self._claim_id, self._lease) is None:
                        self._ends = 0.0
                        return
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", claim=self._claim_id, error=str(error).splitlines()[0])
                continue
            self._ends = asked + self._lease.total_seconds()
            faultpoint(FaultPoint.AFTER_LEASE_RENEWED)
