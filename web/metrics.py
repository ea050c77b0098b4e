"""Figures for Prometheus: requests as they come, and the ledger's state as it is when asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import BigInteger, Connection, Engine, func, select, type_coerce
from sqlalchemy.exc import SQLAlchemyError

from campaigns.books import books
from kernel.vocabulary import CampaignState
from store.engine import reading
from store.ledger import due_by_lane
from store.states import is_planned
from store.tables import campaigns, inbox, lanes, messages, runs, touches
from store.types import database_now

_FRESH_S = 5.0
log = structlog.get_logger(__name__)


class RequestMetrics:
    """Counts and times of requests, hits and what was dropped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "carillon_http_requests", "Requests answered.", ["endpoint", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "carillon_http_request_seconds",
            "Time from request to answer.",
            ["endpoint"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=registry,
        )
        self._dropped = Counter(
            "carillon_hits_dropped", "Hits answered but not recorded.", ["reason"], registry=registry
        )

    def observe(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in ("GET", "HEAD", "POST") else "other"
        self._requests.labels(endpoint, known, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def hit_dropped(self, reason: str) -> None:
        """Count a hit that was answered but not recorded."""
        self._dropped.labels(reason).inc()


class LedgerCollector(Collector):
    """Reads the ledger's figures when Prometheus asks, at most every few seconds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._read_at_s = float("-inf")
        self._families: list[GaugeMetricFamily] = []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the figures; only `carillon_database_up` while the database does not answer."""
        with self._lock:
            if time.monotonic() - self._read_at_s >= _FRESH_S:
                self._families = self._read()
                self._read_at_s = time.monotonic()
            return self._families

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Tell the registry nothing in advance: asking would need the database."""
        return []

    def _read(self) -> list[GaugeMetricFamily]:
        up = GaugeMetricFamily("carillon_database_up", "1 where the database answers.")
        try:
            with reading(self._engine) as connection:
                families = list(_families(connection))
        except SQLAlchemyError as error:
            log.warning("figures_unread", error=f"{type(error).__name__}: {error}")
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *families]


def _families(connection: Connection) -> Iterator[GaugeMetricFamily]:
    by_state = GaugeMetricFamily("carillon_messages", "Messages by state.", labels=["channel", "state"])
    for channel, state, count in connection.execute(
        select(messages.c.channel, messages.c.state, func.count()).group_by(messages.c.channel, messages.c.state)
    ):
        by_state.add_metric([channel, state], count)
    yield by_state
    due = GaugeMetricFamily("carillon_messages_due", "Messages that should be leaving now.", labels=["lane"])
    for lane, count in due_by_lane(connection).items():
        due.add_metric([lane], count)
    yield due
    closed = GaugeMetricFamily("carillon_lane_closed", "1 where a gateway is not tried for now.", labels=["lane"])
    until = func.coalesce(type_coerce(lanes.c.closed_until, BigInteger), 0)
    for lane, is_closed in connection.execute(select(lanes.c.name, until > database_now())):
        closed.add_metric([lane], int(bool(is_closed)))
    yield closed
    hits = GaugeMetricFamily("carillon_hits", "Hits by kind and verdict.", labels=["kind", "verdict"])
    for kind, verdict, count in connection.execute(
        select(touches.c.kind, touches.c.verdict, func.count()).group_by(touches.c.kind, touches.c.verdict)
    ):
        hits.add_metric([kind, verdict], count)
    yield hits
    incoming = GaugeMetricFamily("carillon_inbox", "What came in, by state.", labels=["state"])
    for state, count in connection.execute(select(inbox.c.state, func.count()).group_by(inbox.c.state)):
        incoming.add_metric([state], count)
    yield incoming
    balanced = GaugeMetricFamily("carillon_books_balanced", "1 where everybody of every audience is accounted for.")
    balanced.add_metric([], int(books(connection).balanced))
    yield balanced


def oldest_due_s(connection: Connection) -> float:
    """Return for how many seconds the message longest overdue has waited; 0 where none is.

    Messages of paused campaigns and of closed lanes wait on purpose and do not count.
    """
    now = database_now()
    due_at = type_coerce(messages.c.due_at, BigInteger)
    longest: float | None = connection.execute(
        select(now - func.min(due_at))
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .join(lanes, lanes.c.name == messages.c.lane, isouter=True)
        .where(
            is_planned(),
            due_at <= now,
            campaigns.c.state == CampaignState.ACTIVE,
            func.coalesce(type_coerce(lanes.c.closed_until, BigInteger), 0) <= now,
        )
    ).scalar_one()
    return max(0.0, float(longest) / 1000) if longest is not None else 0.0
