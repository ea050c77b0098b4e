"""One chunk of SMS on its way over HTTP, many requests at once. Runs wholly in the loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError, TransientError
from workers.channels.port import Flight, Parcel, Receipt
from workers.recorder import Fenced

log = structlog.get_logger(__name__)

PATIENCE_S = 5.0
"""A request answered by nobody for so long holds up the rest of the chunk no more."""
_LOOK_EVERY_S = 0.5

Send = Callable[[Parcel, Callable[[], None]], Awaitable[Receipt]]
"""Sends one parcel; calls the function right before the first byte leaves."""


class Delivery:
    """Sends a chunk over a channel's seats: who has one has one request under way, and takes the next parcel after it.

    Chunks of the same channel may be under way at once, stragglers of earlier ones too; they share the seats.
    """

    def __init__(
        self,
        send: Send,
        parcels: Sequence[Parcel],
        flight: Flight,
        keep_going: Callable[[], bool],
        seats: asyncio.Semaphore,
        most: int,
    ) -> None:
        """Take a chunk for at most so many seats. Other arguments as of `workers.channels.port.Channel.deliver`."""
        self._send = send
        self._left = iter(parcels)
        self._flight = flight
        self._keep_going = keep_going
        self._seats = seats
        self._most = min(most, len(parcels))
        self._since: dict[int, float] = {}
        self._queued: set[asyncio.Task[None]] = set()
        self._moved = 0.0
        self._stop = False
        self._returned = False
        self._failure: Exception | None = None

    async def run(self) -> tuple[frozenset[int], frozenset[asyncio.Task[None]]]:
        """Send until every parcel is decided or only stragglers are left; returns those and the tasks that wait.

        Raises:
            GatewayDown: see Channel.deliver; also where all seats are held by requests nobody answers.
            Fenced: the chunk belongs to somebody else now.
        """
        self._moved = asyncio.get_running_loop().time()
        tasks = {asyncio.create_task(self._seat()) for _ in range(self._most)}
        try:
            while tasks:
                _, tasks = await asyncio.wait(tasks, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                if tasks and self._failure is None and self._is_stuck(len(tasks)):
                    self._stop = True
                    if not self._since:
                        self._failure = GatewayDown("the gateway leaves every request without an answer")
                if self._stop:
                    for task in self._queued:
                        task.cancel()
                # After a failure the caller must know everything: no stragglers then, but all the patience it takes.
                if tasks and self._failure is None and self._is_stuck(len(tasks)):
                    self._returned = True
                    return frozenset(self._since), frozenset(tasks - self._queued)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        if self._failure is not None:
            raise self._failure
        return frozenset(), frozenset()

    def _is_stuck(self, tasks: int) -> bool:
        """Tell whether nothing has moved for so long as we have patience: all wait, for an answer or for a seat."""
        now = asyncio.get_running_loop().time()
        if len(self._since) + len(self._queued) < tasks:
            return False
        if self._since:
            return all(now - since > PATIENCE_S for since in self._since.values())
        return now - self._moved > PATIENCE_S

    async def _seat(self) -> None:
        try:
            while not self._stop:
                await self._take_seat()
                try:
                    if self._stop or not self._keep_going():
                        self._stop = True
                        return
                    parcel = next(self._left, None)
                    if parcel is None:
                        self._stop = True
                        return
                    await self._one(parcel)
                finally:
                    self._seats.release()
        except Exception as error:  # noqa: BLE001 - carried to the caller by `run`, once the other seats have ended
            self._fail(error)

    async def _take_seat(self) -> None:
        if not self._seats.locked():
            await self._seats.acquire()
            return
        me = asyncio.current_task()
        if me is None:
            raise RuntimeError("a seat is taken by a task")
        self._queued.add(me)
        try:
            await self._seats.acquire()
        finally:
            self._queued.discard(me)

    async def _one(self, parcel: Parcel) -> None:
        index = parcel.index
        try:
            receipt = await self._send(parcel, lambda: self._commit(index))
        except GatewayDown as error:
            self._gateway_down(index, error)
        except PermanentError as error:
            self._flight.refused(index, error)
        except TransientError as error:
            self._flight.deferred(index, error)
        except OutcomeUnknown as error:
            self._flight.unknown(index, error)
        except Exception as error:
            if not self._returned:
                raise
            # A straggler is owed a word, whatever happened: without one its chunk would be waited for without end.
            self._flight.unknown(index, OutcomeUnknown(f"{type(error).__name__}: {error}"))
        else:
            self._flight.accepted(index, receipt)
        finally:
            self._since.pop(index, None)
            self._moved = asyncio.get_running_loop().time()

    def _commit(self, index: int) -> None:
        self._flight.commit(index)
        self._since[index] = asyncio.get_running_loop().time()

    def _gateway_down(self, index: int, error: GatewayDown) -> None:
        if self._returned:
            # A straggler is owed a word of its own; the lane hears of the gateway with the next chunk.
            self._flight.deferred(index, TransientError(error.text, retry_after_s=error.retry_after_s))
            return
        if index in self._since:
            self._flight.retract(index)  # By its definition nothing was sent.
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._stop = True
        if self._returned:
            level = log.warning if isinstance(error, Fenced) else log.error
            level("straggler_not_settled", error=f"{type(error).__name__}: {error}")
        elif self._failure is None or isinstance(self._failure, GatewayDown) > isinstance(error, GatewayDown):
            self._failure = error  # What is worse than a gateway that is down goes before it.
