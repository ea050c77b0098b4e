"""Rates shared by all workers: buckets in Redis, in the database where Redis is away. One call a chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Engine

from store.engine import reading, writing
from workers.limits import database_buckets
from workers.limits.buckets import Ask, Flow, Turn
from workers.limits.redis_buckets import RedisBuckets

log = structlog.get_logger(__name__)

_AWAY = timedelta(seconds=10)
_LOOK_S = 1.0
"""How often a worker that reaches Redis asks whether another does not."""


class Rates:
    """The buckets as this process sees them.

    A worker that does not reach Redis says so in the database, and as long as that word stands every worker takes
    from the buckets there. Those begin empty, and the others hear of it within a second: that second's worth,
    one bucket, is all that may ever leave twice.
    """

    def __init__(
        self, engine: Engine, shared: RedisBuckets | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the database, and Redis where the workspace has it."""
        self._engine = engine
        self._shared = shared
        self._monotonic = monotonic
        self._since_ms: int | None = None
        self._holds_until = 0.0
        self._is_mine = False

    def take(self, flows: Mapping[str, Flow], asks: Sequence[Ask]) -> list[Turn]:
        """Take tokens for a chunk; positions in `asks` count the buckets in the order of `flows`."""
        if self._shared is not None and not self._away():
            try:
                return self._shared.take(flows, asks)
            except RedisError as error:
                self._say_away(error)
        with writing(self._engine) as connection:
            return database_buckets.take(connection, flows, asks, since_ms=self._since_ms)

    def held(self, flows: Mapping[str, Flow]) -> list[float]:
        """Return what the buckets hold now, and take nothing."""
        if self._shared is not None and not self._away():
            try:
                return self._shared.held(flows)
            except RedisError as error:
                self._say_away(error)
        with reading(self._engine) as connection:
            return database_buckets.held(connection, flows, since_ms=self._since_ms)

    def _away(self) -> bool:
        """Tell whether any worker is without Redis; asks the database once a second."""
        now = self._monotonic()
        if self._is_mine and self._holds_until - now < _AWAY.total_seconds() / 2:
            # Before the word runs out it is renewed or taken back, so that nobody goes back to Redis too early.
            if self._shared is not None and self._shared.answers():
                self._is_mine = False
                log.info("rates_from_redis_again")
            else:
                self._say_away(None)
        if self._is_mine or now < self._holds_until:
            return self._since_ms is not None
        with reading(self._engine) as connection:
            found = database_buckets.away_since(connection)
        if found is None:
            self._since_ms = None
            self._holds_until = now + _LOOK_S
            return False
        self._since_ms, left_ms = found
        self._holds_until = now + min(left_ms / 1000, _LOOK_S)
        return True

    def _say_away(self, error: RedisError | None) -> None:
        if error is not None:
            log.error("rates_without_redis", error=str(error), remedy="rates hold by the database meanwhile")
        with writing(self._engine) as connection:
            self._since_ms = database_buckets.say_away(connection, _AWAY)
        self._is_mine = True
        self._holds_until = self._monotonic() + _AWAY.total_seconds()
