"""The delivery core: chunk after chunk of what is due leaves by its lane, and no lane waits for another.

One call drains many chunks within a time budget. Nothing here knows Celery: the task that calls it is a wake-up.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from kernel.gateways import SmppGateway
from kernel.settings import Workspace
from store.engine import reading
from store.ledger import due_in_lane
from workers.channels.port import Channel
from workers.channels.registry import open_channel
from workers.chunk import Chunk
from workers.preparing import MOST_OCTETS, Preparer, tariffs
from workers.recovery import recover

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=60)
_CHUNK = 1000
_CHUNK_SECONDS = 3.0
_LEAST_CHUNK = 10
_LEISURE_S = 0.25
"""A chunk that takes at least so long, most of it spent waiting for the gateway, leaves time to prepare the next."""
_LOOK_ROUND_S = 0.5
"""How often it is asked whether other lanes have work, while one is being drained."""
_LAST_WORDS_S = 3.0
"""How long what a closed channel says of its stragglers may take to be written down."""
_FAREWELL_S = 20.0
"""How long closing waits for stragglers' answers, before the connections end and leave them in doubt."""


class Drain:
    """What one worker process keeps between chunks: its lanes, each with compiled templates and open connections."""

    def __init__(self, engine: Engine, workspace: Workspace, *, lease: timedelta = LEASE) -> None:
        self._engine = engine
        self._workspace = workspace
        self._lanes: dict[str, Lane] = {}
        self._lease = lease
        self._tariffs = tariffs(workspace)

    def run(self, lane: str, *, budget: timedelta, stopping: Callable[[], bool]) -> int:
        """Send what is due in one lane until nothing is, the budget is spent, or the process is to stop.

        Returns:
            How many messages the gateway took over.
        """
        self._recover()
        found = self._lane(lane)
        return 0 if found is None else found.drain(time.monotonic() + budget.total_seconds(), stopping)

    def serve(self, lane: str, *, budget: timedelta, stopping: Callable[[], bool]) -> None:
        """Send what is due in a lane, and in others meanwhile: a slow gateway keeps no other's work waiting.

        Each lane has a thread, idle while its gateway lets us wait. While a slow lane holds this process beyond the
        budget, the others go on being served.
        """
        self._recover()
        ends = time.monotonic() + budget.total_seconds()
        with ThreadPoolExecutor(len(self._workspace.settings.gateways) + 1, thread_name_prefix="lane") as pool:
            crew: dict[str, Future[int]] = {}
            wanted, looked = {lane}, time.monotonic()
            while True:
                for found in filter(None, map(self._lane, sorted(wanted - crew.keys()))):
                    crew[found.name] = pool.submit(found.drain, ends, stopping)
                wait(crew.values(), timeout=_LOOK_ROUND_S, return_when=FIRST_COMPLETED)
                for name in [name for name, work in crew.items() if work.done()]:
                    crew.pop(name).result()
                if not crew or stopping():
                    break
                wanted = set()
                if time.monotonic() - looked >= _LOOK_ROUND_S:
                    looked = time.monotonic()
                    wanted, ends = self._due(), max(ends, looked + _LOOK_ROUND_S)
        for work in crew.values():
            work.result()

    def close(self) -> None:
        """End every connection."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def _recover(self) -> None:
        recover(self._engine, self._workspace.settings, tariffs=self._tariffs)

    def _due(self) -> set[str]:
        with reading(self._engine) as connection:
            return {lane for lane in self._workspace.settings.gateways if due_in_lane(connection, lane, most=1)}

    def _lane(self, name: str) -> Lane | None:
        if name not in self._lanes:
            channel = open_channel(self._workspace, name, engine=self._engine)
            if channel is None:
                log.error("lane_without_gateway", lane=name, remedy="put the gateway back into carillon.yaml")
                return None
            self._lanes[name] = Lane(self._engine, self._workspace, name, channel, self._lease)
        return self._lanes[name]


class Lane:
    """One gateway's work in this process."""

    def __init__(self, engine: Engine, workspace: Workspace, name: str, channel: Channel, lease: timedelta) -> None:
        self._engine = engine
        self._workspace = workspace
        self.name = name
        self._channel = channel
        self._lease = lease
        self._preparer = Preparer(engine, workspace)
        self._pace: float | None = None
        self._octets_each = 0
        self._leisure = False
        # A session over SMPP counts its window for one chunk at a time.
        self._several = not isinstance(workspace.settings.gateways.get(name), SmppGateway)
        self._stragglers: list[threading.Thread] = []

    def drain(self, ends: float, stopping: Callable[[], bool]) -> int:
        """Send what is due until nothing is, the monotonic second `ends` has come, or the process is to stop.

        While the gateway lets us wait, a second stream prepares and writes down what the first has no time for.

        Returns:
            How many messages the gateway took over.
        """
        over = threading.Event()
        second: Future[int] | None = None

        def stream() -> int:
            nonlocal second
            accepted = 0
            while time.monotonic() < ends and not (stopping() or over.is_set()):
                chunk = self._chunk(stopping)
                if chunk is None or chunk.down:
                    break
                accepted += chunk.accepted
                if self._leisure and self._several and second is None:
                    second = pool.submit(stream)
                del chunk
                gc.collect(1)  # Little is left to be walked through now, and rings of objects do not pile up.
            return accepted

        with ThreadPoolExecutor(1, thread_name_prefix=f"lane-{self.name}") as pool:
            try:
                accepted = stream()
            finally:
                over.set()
        return accepted + (second.result() if second is not None else 0)

    def close(self) -> None:
        """End the connections; stragglers' answers are waited for no longer than a moment."""
        ends = time.monotonic() + _FAREWELL_S
        for thread in self._stragglers:
            thread.join(max(0.0, ends - time.monotonic()))
        self._channel.close()
        for thread in self._stragglers:
            thread.join(_LAST_WORDS_S)

    def _chunk(self, stopping: Callable[[], bool]) -> Chunk | None:
        began, used = time.monotonic(), time.process_time()
        limit = self._preparer.gate.room(self.name, self._chunk_size())
        if not limit:
            return None
        chunk = Chunk.take(self._engine, self._workspace, self.name, limit=limit, lease=self._lease)
        if chunk is None:
            return None
        chunk.carry(self._preparer, self._channel, stopping)
        took_s = time.monotonic() - began
        if chunk.touched:
            self._pace = chunk.touched / max(took_s, 0.001)
        self._octets_each = chunk.octets_each
        self._leisure = took_s > _LEISURE_S and time.process_time() - used < took_s / 2
        self._stragglers = [thread for thread in self._stragglers if thread.is_alive()]
        if chunk.waiting is not None:
            self._stragglers.append(chunk.waiting)
        return chunk

    def _chunk_size(self) -> int:
        """Return how many messages the lane's gateway takes in a few seconds, by what it took last.

        What became of a message stands in the ledger only when its chunk is done: a slow gateway gets small chunks. So
        do large messages, which memory has to hold.
        """
        most = _CHUNK // 2 if self._leisure else _CHUNK
        if self._octets_each:
            most = min(most, MOST_OCTETS // self._octets_each + 1)
        return most if self._pace is None else max(min(most, round(self._pace * _CHUNK_SECONDS)), _LEAST_CHUNK)
