"""Writing for many requests in one commit: requests wait for the commit they are part of, not for one each.

Mail scanners hit every link of a batch in the second it is delivered. One thread takes whatever has gathered
while the last commit was running and commits it together, so a burst costs a few commits.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kernel.errors import CarillonError
from store.engine import writing

Result = TypeVar("Result")
_BATCH = 200
_RETRY_S = 1.0
log = structlog.get_logger(__name__)


class WriterBusy(CarillonError):
    """The database does not keep up or does not answer; the caller asks again later."""


@dataclass(frozen=True, slots=True)
class _Job(Generic[Result]):
    work: Callable[[Connection], Result]
    keep: bool
    future: Future[Result]


class GroupWriter:
    """One thread that runs jobs in shared transactions. A job is a function of the connection and may run again."""

    def __init__(self, engine: Engine, *, waiting: int = 10_000) -> None:
        """Take the database, and how many jobs may wait before new ones are refused."""
        self._engine = engine
        self._jobs: queue.Queue[_Job[Any] | None] = queue.Queue(waiting)
        self._kept: deque[_Job[Any]] = deque(maxlen=waiting)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="web-writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Write what is waiting, then end."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout_s)
            self._thread = None

    @property
    def waiting(self) -> int:
        """How many jobs are not written yet."""
        return self._jobs.qsize() + len(self._kept)

    async def write(self, work: Callable[[Connection], Result], *, timeout_s: float = 10.0) -> Result:
        """Run a job and return its result once it is committed.

        Raises:
            WriterBusy: the database did not answer in time. The job may still be written: it must bear repeating.
        """
        future = asyncio.wrap_future(self._submit(work, keep=False))
        done, _ = await asyncio.wait({future}, timeout=timeout_s)
        if not done:
            raise WriterBusy("the database does not keep up")
        try:
            return future.result()
        except SQLAlchemyError as error:
            log.warning("write_failed", error=f"{type(error).__name__}: {error}")
            raise WriterBusy("the database does not answer") from error

    async def keep(self, work: Callable[[Connection], object], *, patience_s: float) -> bool:
        """Run a job, waiting at most `patience_s` for its commit; it is tried until the database takes it.

        Returns:
            False where so many jobs are waiting that this one was dropped.
        """
        try:
            future = asyncio.wrap_future(self._submit(work, keep=True))
        except WriterBusy:
            return False
        await asyncio.wait({future}, timeout=patience_s)
        return True

    def _submit(self, work: Callable[[Connection], Result], *, keep: bool) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            self._jobs.put_nowait(_Job(work, keep, future))
        except queue.Full:
            raise WriterBusy("too much is waiting to be written") from None
        return future

    def _run(self) -> None:
        ending = False
        while not ending:
            batch, ending = self._gather()
            if batch:
                self._write(batch)
        if self._kept:
            self._write([self._kept.popleft() for _ in range(len(self._kept))])

    def _gather(self) -> tuple[list[_Job[Any]], bool]:
        batch = []
        try:
            job = self._jobs.get(timeout=_RETRY_S if self._kept else None)
            while job is not None:
                batch.append(job)
                if len(batch) == _BATCH:
                    break
                job = self._jobs.get_nowait()
            ending = job is None
        except queue.Empty:
            ending = False
        return [*(self._kept.popleft() for _ in range(len(self._kept))), *batch], ending

    def _write(self, batch: Sequence[_Job[Any]]) -> None:
        try:
            self._together(batch)
        except Exception:  # noqa: BLE001 - whatever one job does wrong must not cost the others; each is tried alone
            for job in batch:
                self._alone(job)

    def _together(self, batch: Sequence[_Job[Any]]) -> None:
        with writing(self._engine) as connection:
            results = [job.work(connection) for job in batch]
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)

    def _alone(self, job: _Job[Any]) -> None:
        try:
            self._together([job])
        except Exception as error:  # noqa: BLE001 - the request that asked is told; this thread goes on
            if job.keep and isinstance(error, OperationalError | InterfaceError | PoolTimeout):
                self._kept.append(job)
            elif job.keep:
                log.error("hit_not_written", error=f"{type(error).__name__}: {error}")
                job.future.set_result(None)
            else:
                job.future.set_exception(error)
