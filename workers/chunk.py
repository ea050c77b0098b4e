"""One chunk's way: claimed, prepared, said to be sending, sent, written down. Whatever is killed, somebody can tell."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from kernel.errors import GatewayDown
from kernel.faultpoints import FaultPoint, faultpoint
from kernel.ids import boot_id, host_name
from kernel.settings import Workspace
from store.engine import writing
from store.lanes import close_lane, open_lane
from store.ledger import (
    Claim,
    Ending,
    Outcome,
    claim,
    fail,
    mark_sending,
    postpone,
    release,
    skip,
)
from workers.channels.port import Channel
from workers.flight import ChunkFlight, Passenger
from workers.heartbeat import Heartbeat
from workers.outcomes import write_outcomes
from workers.preparing import Prepared, Preparer
from workers.recorder import Fenced, FlightRecorder
from workers.recovery import recorder_path

log = structlog.get_logger(__name__)

_LONGEST_CHUNK_S = 10.0
_FIRST_CLOSURE = timedelta(seconds=5)
_LASTING_CLOSURE = timedelta(minutes=10)
_LONGEST_CLOSURE = timedelta(minutes=30)
_WRITES = 8
"""How often outcomes are tried to be written, the waits between doubling: about a minute in all."""


class Chunk:
    """A claimed chunk in this process's hands."""

    def __init__(
        self, engine: Engine, workspace: Workspace, claimed: Claim, *, lease: timedelta, started: float
    ) -> None:
        """Take a claim that was asked for at the monotonic second `started`; makes its flight recorder."""
        self._engine = engine
        self._suppression = workspace.settings.suppression
        self._claimed = claimed
        self._started = started
        ids = [message.id for message in claimed.messages]
        self._recorder = FlightRecorder.create(recorder_path(_folder(workspace), claimed.id), claimed.id, ids)
        faultpoint(FaultPoint.AFTER_RECORDER_CREATED)
        self._heartbeat = Heartbeat(engine, claimed.id, lease, started)
        self._reserved = False
        self.down = False
        self.touched = 0
        self.octets_each = 0
        """Of an e-mail, on average."""
        self.accepted = 0
        self.waiting: threading.Thread | None = None
        """Waits for stragglers, where there are any."""

    @classmethod
    def take(cls, engine: Engine, workspace: Workspace, lane: str, *, limit: int, lease: timedelta) -> Chunk | None:
        """Claim up to `limit` messages of a lane; None where nothing is due or the lane is closed."""
        started = time.monotonic()
        with writing(engine) as connection:
            claimed = claim(
                connection,
                lane=lane,
                limit=limit,
                lease=lease,
                host=host_name(),
                boot=boot_id(),
                recorder=_folder(workspace),
            )
            faultpoint(FaultPoint.BEFORE_CLAIM_COMMIT)
        if claimed is None:
            return None
        faultpoint(FaultPoint.AFTER_CLAIM_COMMIT)
        return cls(engine, workspace, claimed, lease=lease, started=started)

    def carry(self, preparer: Preparer, channel: Channel, stopping: Callable[[], bool]) -> None:
        """Prepare, send and write down. A failure leaves the recorder behind: whoever recovers next reads it."""
        done = False
        try:
            self._carry(preparer, channel, stopping)
            done = True
        finally:
            if self.waiting is None:
                self._close(remove=done)
        faultpoint(FaultPoint.AFTER_RECORDER_REMOVED)

    def _close(self, *, remove: bool) -> None:
        self._heartbeat.stop()
        self._recorder.close(remove=remove)

    def _carry(self, preparer: Preparer, channel: Channel, stopping: Callable[[], bool]) -> None:
        claimed = self._claimed

        def keep_going() -> bool:
            return not stopping() and time.monotonic() - self._started < _LONGEST_CHUNK_S

        now = claimed.claimed_at + timedelta(seconds=time.monotonic() - self._started)
        prepared = preparer.prepare(claimed, now=now, hold=self._recorder.hold)
        faultpoint(FaultPoint.AFTER_PREPARING)
        self.octets_each = prepared.octets // max(1, len(prepared.go))
        passengers = self._settle_harmless(prepared, preparer)
        flight = ChunkFlight(
            self._recorder,
            passengers,
            began_at=claimed.claimed_at,
            began=self._started,
            lease_ends=self._heartbeat.lease_ends,
        )
        down: GatewayDown | None = None
        waiting: frozenset[int] = frozenset()
        try:
            waiting = channel.deliver([passenger.parcel for passenger in passengers], flight, keep_going)
        except GatewayDown as error:
            down = error
        except Fenced:
            log.warning("chunk_fenced", claim=claimed.id)
        faultpoint(FaultPoint.AFTER_DELIVERY)
        outcomes = flight.take(waiting)
        self.down = down is not None
        self.touched = sum(outcome.ending is not Ending.UNTOUCHED for outcome in outcomes)
        self.accepted = sum(outcome.ending is Ending.ACCEPTED for outcome in outcomes)
        self._write(outcomes, down, last=not waiting)
        log.info(
            "chunk_done", lane=claimed.lane, claim=claimed.id, claimed=len(claimed.messages), accepted=self.accepted
        )
        if waiting:
            log.warning("answers_awaited", lane=claimed.lane, claim=claimed.id, messages=len(waiting))
            self.waiting = threading.Thread(
                target=self._wait_for_stragglers, args=(flight,), name=f"stragglers-{claimed.id}", daemon=True
            )
            self.waiting.start()

    def _wait_for_stragglers(self, flight: ChunkFlight) -> None:
        """Write down the last answers when they come; the channel sees to it that they come, or are given up."""
        done = False
        try:
            flight.settled.wait()
            self._write(flight.stragglers(), None, last=True)
            done = True
        finally:
            self._close(remove=done)

    def _settle_harmless(self, prepared: Prepared, preparer: Preparer) -> list[Passenger]:
        """Write down who is not sent to, and say that the rest is being sent; returns those that may go."""
        claim_id = self._claimed.id
        at = self._claimed.claimed_at + timedelta(seconds=time.monotonic() - self._started)
        with writing(self._engine) as connection:
            skip(connection, claim_id, prepared.skipped, at)
            fail(connection, claim_id, prepared.failed, at)
            self._reserved = preparer.hold_within_budgets(connection, self._claimed, prepared, now=at)
            postpone(connection, claim_id, prepared.postponed)
            sending = bool(prepared.go) and mark_sending(connection, claim_id)
            if not sending:
                if self._reserved:
                    preparer.gate.give_back(connection, claim_id, prepared.go)
                release(connection, claim_id)
            faultpoint(FaultPoint.BEFORE_SENDING_COMMIT)
        faultpoint(FaultPoint.AFTER_SENDING_COMMIT)
        return prepared.go if sending else []

    def _write(self, outcomes: list[Outcome], down: GatewayDown | None, *, last: bool) -> None:
        """Commit the outcomes; the database may be away for a while, the recorder keeps them meanwhile."""
        wait_s = 0.2
        for attempt in range(1, _WRITES + 1):
            try:
                with writing(self._engine) as connection:
                    write_outcomes(
                        connection,
                        self._claimed.id,
                        outcomes,
                        suppression=self._suppression,
                        last=last,
                        reserved=self._reserved,
                        contact_of={message.id: message.contact_id for message in self._claimed.messages},
                    )
                    self._settle_lane(connection, outcomes, down)
                    faultpoint(FaultPoint.BEFORE_OUTCOMES_COMMIT)
            except SQLAlchemyError as error:
                if attempt == _WRITES:
                    raise
                log.warning("outcomes_wait_for_database", claim=self._claimed.id, error=str(error).splitlines()[0])
                time.sleep(wait_s)
                wait_s = min(wait_s * 2, 10)
            else:
                faultpoint(FaultPoint.AFTER_OUTCOMES_COMMIT)
                return

    def _settle_lane(self, connection: Connection, outcomes: list[Outcome], down: GatewayDown | None) -> None:
        lane = self._claimed.lane
        if down is not None:
            first = _LASTING_CLOSURE if down.lasting else _FIRST_CLOSURE
            spread = random.random()  # noqa: S311 - keeps lanes apart, keeps no secret
            if down.retry_after_s:
                first, spread = timedelta(seconds=down.retry_after_s), 1.0  # Never sooner than it asked for.
            wait = close_lane(
                connection, lane, reason=down.text, first_wait=first, longest=_LONGEST_CLOSURE, spread=spread
            )
            log.error("lane_closed", lane=lane, reason=down.text, seconds=wait.total_seconds(), lasting=down.lasting)
        elif any(outcome.ending is not Ending.UNTOUCHED for outcome in outcomes) and open_lane(connection, lane):
            log.info("lane_open_again", lane=lane)


def _folder(workspace: Workspace) -> str:
    """Return where this workspace's flight recorders lie."""
    return str(workspace.data_dir / "flight")
