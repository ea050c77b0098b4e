"""What the endpoints share: the database, the signer, the writer, settings, the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from kernel.clock import Clock
from kernel.settings import Workspace
from store.engine import reading, writing
from store.links import target
from web.guards import client_address, networks
from web.metrics import LedgerCollector, RequestMetrics
from web.writer import GroupWriter, WriterBusy

Result = TypeVar("Result")

_LINKS_KEPT = 50_000
_HITS_A_MINUTE = 120
"""Of one message; more come only from floods. Counted per message, not per address: proxies share addresses."""


class Service:
    """One per process. Opened and closed by the application's lifespan."""

    def __init__(self, engine: Engine, workspace: Workspace, clock: Clock) -> None:
        """Take the collaborators.

        Raises:
            ConfigError: the secret key or the trusted proxies are wrong.
        """
        self.engine = engine
        self.workspace = workspace
        self.settings = workspace.settings
        self.signer = workspace.signer()
        self.trusted = networks(workspace.settings.web.trusted_proxies)
        self.writer = GroupWriter(engine)
        self.registry = CollectorRegistry()
        self.metrics = RequestMetrics(self.registry)
        self.registry.register(LedgerCollector(engine))
        self._clock = clock
        self._links: dict[int, str] = {}
        self._minute = 0
        self._hits: Counter[int] = Counter()

    def now(self) -> datetime:
        """Return the present instant."""
        return self._clock()

    def address_of(self, request: Request) -> str:
        """Return the asker's network address."""
        return client_address(request, self.trusted)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run a query in a thread.

        Raises:
            WriterBusy: the database does not answer.
        """

        def in_thread() -> Result:
            with reading(self.engine) as connection:
                return work(connection)

        try:
            return await run_in_threadpool(in_thread)
        except SQLAlchemyError as error:
            raise WriterBusy("the database does not answer") from error

    async def write_alone(self, work: Callable[[Connection], Result]) -> Result:
        """Run a write in a transaction of its own: one that may wait for locks must not hold up the shared writer.

        Raises:
            WriterBusy: the database does not answer.
        """

        def in_thread() -> Result:
            with writing(self.engine) as connection:
                return work(connection)

        try:
            return await run_in_threadpool(in_thread)
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise WriterBusy("the database does not answer") from error

    async def link_target(self, link_id: int) -> str | None:
        """Return the registered target. Targets never change: one asked for is known while the database is away."""
        url = self._links.get(link_id)
        if url is None:
            url = await self.read(lambda connection: target(connection, link_id))
            if url is not None:
                if len(self._links) >= _LINKS_KEPT:
                    self._links.clear()
                self._links[link_id] = url
        return url

    def is_flood(self, message_id: int, at: datetime) -> bool:
        """Count a hit of a message; true where it had more this minute than are worth keeping."""
        minute = int(at.timestamp() // 60)
        if minute != self._minute:
            self._minute, self._hits = minute, Counter()
        self._hits[message_id] += 1
        return self._hits[message_id] > _HITS_A_MINUTE


def service_of(request: Request) -> Service:
    """Return the service of the application a request came to."""
    service: Service = request.app.state.service
    return service
