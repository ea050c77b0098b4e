"""The delivery core: claim a chunk, prepare it, say `sending`, send, write down what became of it. And again.

One call drains many chunks within a time budget. Nothing here knows Celery: the task that calls it is a wake-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from kernel.errors import GatewayDown
from kernel.faultpoints import FaultPoint, faultpoint
from kernel.fields import duration
from kernel.ids import boot_id, host_name
from kernel.settings import Workspace
from store.engine import writing
from store.ledger import (
    Claim,
    Ending,
    Outcome,
    claim,
    close_lane,
    fail,
    mark_sending,
    open_lane,
    postpone,
    release,
    renew,
    skip,
)
from workers.channels.port import Channel
from workers.channels.registry import open_channel
from workers.flight import ChunkFlight, Passenger
from workers.outcomes import write_outcomes
from workers.preparing import Prepared, Preparer, prices_micro
from workers.recorder import Fenced, FlightRecorder
from workers.recovery import recorder_path, recover

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=60)
_CHUNK = 500
_CHUNK_SECONDS = 3.0
_LEAST_CHUNK = 10
_LONGEST_CHUNK_S = 10.0
_FIRST_CLOSURE = timedelta(seconds=5)
_LASTING_CLOSURE = timedelta(minutes=10)
_LONGEST_CLOSURE = timedelta(minutes=30)


class Drain:
    """What one worker process keeps between chunks: database, compiled templates, open connections."""

    def __init__(self, engine: Engine, workspace: Workspace, *, lease: timedelta = LEASE) -> None:
        self._engine = engine
        self._workspace = workspace
        self._preparer = Preparer(engine, workspace)
        self._channels: dict[str, Channel] = {}
        self._prices = prices_micro(workspace)
        self._pace: dict[str, float] = {}
        self._lease = lease
        self._folder = workspace.data_dir / "flight"
        self._first_retry = duration(workspace.settings.limits.first_retry)
        self._suppression = workspace.settings.suppression

    def run(self, lane: str, *, budget: timedelta, stopping: Callable[[], bool]) -> int:
        """Send what is due in a lane until nothing is, the budget is spent, or the process is to stop.

        Returns:
            How many messages the gateway took over.
        """
        recover(self._engine, prices=self._prices, retry_after=self._first_retry, suppression=self._suppression)
        channel = self._channel(lane)
        if channel is None:
            log.error("lane_without_gateway", lane=lane, remedy="put the gateway back into carillon.yaml")
            return 0
        ends = time.monotonic() + budget.total_seconds()
        accepted = 0
        while time.monotonic() < ends and not stopping():
            taken = self._chunk(lane, channel, stopping)
            if taken is None:
                break
            accepted += taken
        return accepted

    def close(self) -> None:
        """End every connection."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def _channel(self, lane: str) -> Channel | None:
        if lane not in self._channels:
            channel = open_channel(self._workspace, lane, engine=self._engine)
            if channel is None:
                return None
            self._channels[lane] = channel
        return self._channels[lane]

    def _chunk(self, lane: str, channel: Channel, stopping: Callable[[], bool]) -> int | None:
        """Handle one chunk; None where nothing was due or the lane closed, else how many were accepted."""
        limit = self._chunk_size(lane)
        started = time.monotonic()
        with writing(self._engine) as connection:
            claimed = claim(
                connection,
                lane=lane,
                limit=limit,
                lease=self._lease,
                host=host_name(),
                boot=boot_id(),
                recorder=str(self._folder),
            )
            faultpoint(FaultPoint.BEFORE_CLAIM_COMMIT)
        if claimed is None:
            return None
        faultpoint(FaultPoint.AFTER_CLAIM_COMMIT)
        recorder = FlightRecorder.create(
            recorder_path(str(self._folder), claimed.id), claimed.id, [message.id for message in claimed.messages]
        )
        faultpoint(FaultPoint.AFTER_RECORDER_CREATED)
        # A failure from here on leaves the recorder behind, closed: whoever recovers next reads it at once.
        done = False
        try:
            with Heartbeat(self._engine, claimed, self._lease, started) as heartbeat:
                result = self._fly(claimed, channel, recorder, heartbeat, started, stopping)
            done = True
        finally:
            recorder.close(remove=done)
        faultpoint(FaultPoint.AFTER_RECORDER_REMOVED)
        return result

    def _chunk_size(self, lane: str) -> int:
        """Return how many messages the lane's gateway takes in a few seconds, by what it took last.

        What became of a message stands in the ledger only when its chunk is done: a slow gateway gets small chunks.
        """
        most = _CHUNK
        pace = self._pace.get(lane)
        return most if pace is None else max(min(most, round(pace * _CHUNK_SECONDS)), _LEAST_CHUNK)

    def _fly(
        self,
        claimed: Claim,
        channel: Channel,
        recorder: FlightRecorder,
        heartbeat: Heartbeat,
        started: float,
        stopping: Callable[[], bool],
    ) -> int | None:
        def now() -> datetime:
            return claimed.claimed_at + timedelta(seconds=time.monotonic() - started)

        def keep_going() -> bool:
            return not stopping() and time.monotonic() - started < _LONGEST_CHUNK_S

        prepared = self._preparer.prepare(claimed, now=now())
        faultpoint(FaultPoint.AFTER_PREPARING)
        passengers = self._settle_harmless(claimed, prepared, now())
        flight = ChunkFlight(
            recorder, passengers, began_at=claimed.claimed_at, began=started, lease_ends=heartbeat.lease_ends
        )
        down: GatewayDown | None = None
        try:
            channel.deliver([passenger.parcel for passenger in passengers], flight, keep_going)
        except GatewayDown as error:
            down = error
        except Fenced:
            log.warning("chunk_fenced", claim=claimed.id)
        faultpoint(FaultPoint.AFTER_DELIVERY)
        outcomes = flight.take()
        touched = sum(outcome.ending is not Ending.UNTOUCHED for outcome in outcomes)
        if touched:
            self._pace[claimed.lane] = touched / max(time.monotonic() - started, 0.001)
        self._write(claimed, outcomes, down)
        accepted = sum(outcome.ending is Ending.ACCEPTED for outcome in outcomes)
        log.info("chunk_done", lane=claimed.lane, claim=claimed.id, claimed=len(claimed.messages), accepted=accepted)
        return None if down else accepted

    def _settle_harmless(self, claimed: Claim, prepared: Prepared, at: datetime) -> list[Passenger]:
        """Write down who is not sent to, and move the rest to `sending`; returns those that may go."""
        with writing(self._engine) as connection:
            skip(connection, claimed.id, prepared.skipped, at)
            fail(connection, claimed.id, prepared.failed, at)
            postpone(connection, claimed.id, prepared.postponed)
            if not prepared.go:
                release(connection, claimed.id)
                return []
            sending = mark_sending(connection, claimed.id)
            if not sending:
                release(connection, claimed.id)
            faultpoint(FaultPoint.BEFORE_SENDING_COMMIT)
        faultpoint(FaultPoint.AFTER_SENDING_COMMIT)
        return prepared.go if sending else []

    def _write(self, claimed: Claim, outcomes: list[Outcome], down: GatewayDown | None) -> None:
        """Commit the outcomes; the database may be away for a while, the recorder keeps them meanwhile."""
        wait_s = 0.2
        for attempt in range(8):
            try:
                with writing(self._engine) as connection:
                    write_outcomes(connection, claimed.id, outcomes, suppression=self._suppression)
                    self._settle_lane(connection, claimed.lane, outcomes, down)
                    faultpoint(FaultPoint.BEFORE_OUTCOMES_COMMIT)
            except DBAPIError as error:
                if attempt == 7:
                    raise
                log.warning("outcomes_wait_for_database", claim=claimed.id, error=str(error.orig))
                time.sleep(wait_s)
                wait_s = min(wait_s * 2, 10)
            else:
                faultpoint(FaultPoint.AFTER_OUTCOMES_COMMIT)
                return

    def _settle_lane(
        self, connection: Connection, lane: str, outcomes: list[Outcome], down: GatewayDown | None
    ) -> None:
        if down is not None:
            first = _LASTING_CLOSURE if down.lasting else _FIRST_CLOSURE
            if down.retry_after_s:
                first = timedelta(seconds=down.retry_after_s)
            wait = close_lane(connection, lane, reason=down.text, first_wait=first, longest=_LONGEST_CLOSURE)
            log.error("lane_closed", lane=lane, reason=down.text, seconds=wait.total_seconds(), lasting=down.lasting)
        elif any(outcome.ending is not Ending.UNTOUCHED for outcome in outcomes) and open_lane(connection, lane):
            log.info("lane_open_again", lane=lane)


class Heartbeat:
    """Renews a claim's lease from a thread of its own while the chunk is under way."""

    def __init__(self, engine: Engine, claimed: Claim, lease: timedelta, started: float) -> None:
        self._engine = engine
        self._claim_id = claimed.id
        self._lease = lease
        self._stop = threading.Event()
        self._ends = started + lease.total_seconds()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{claimed.id}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
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
            except DBAPIError as error:
                log.warning("lease_not_renewed", claim=self._claim_id, error=str(error.orig))
                continue
            self._ends = asked + self._lease.total_seconds()
            faultpoint(FaultPoint.AFTER_LEASE_RENEWED)
