"""Waking workers: publishes hints for work that is due. What it fails to publish now it publishes a second later."""

from __future__ import annotations

import time

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy import Engine, exists, select

from kernel.faultpoints import FaultPoint, faultpoint
from kernel.settings import Workspace
from store.engine import reading
from store.ledger import due_in_lane
from store.states import is_unread
from store.tables import reports
from workers.app import HINT_EXPIRES_S

log = structlog.get_logger(__name__)

_MESSAGES_PER_HINT = 100
_HINTS_PER_LANE = 8
_HINTS_LAST_S = 0.5
"""A lane whose workers were woken is left alone for so long."""


class Dispatcher:
    """Publishes hints; a broker that is down costs a log line and nothing else."""

    def __init__(self, app: Celery, engine: Engine, workspace: Workspace) -> None:
        self._app = app
        self._engine = engine
        self._workspace = workspace
        self._reachable = True
        self._woken_at: dict[str, float] = {}

    def wake_lanes(self) -> int:
        """Publish hints for every lane with due messages, unless it was given some just now; return how many."""
        gateways, now = self._workspace.settings.gateways, time.monotonic()
        idle = [lane for lane in gateways if now - self._woken_at.get(lane, -_HINTS_LAST_S) >= _HINTS_LAST_S]
        if not idle:
            return 0
        with reading(self._engine) as connection:
            due = {lane: due_in_lane(connection, lane, most=_MESSAGES_PER_HINT * _HINTS_PER_LANE) for lane in idle}
        published = 0
        for lane, count in due.items():
            for _ in range(-(-count // _MESSAGES_PER_HINT)):
                if not self.hint("carillon.drain", [lane], queue=gateways[lane].channel.value):
                    return published
                self._woken_at[lane] = now
                published += 1
        return published

    def wake_house(self) -> None:
        """Publish hints for mail that came in and reports that are due."""
        with reading(self._engine) as connection:
            letters = connection.execute(select(exists().where(is_unread()))).scalar_one()
            due = connection.execute(select(exists().where(reports.c.state.in_(("planned", "sending"))))).scalar_one()
        if letters:
            self.hint("carillon.inbox", [], queue="house")
        if due:
            self.hint("carillon.reports", [], queue="house")

    def hint(self, task: str, arguments: list[str], *, queue: str) -> bool:
        """Publish one hint; False where the broker does not answer."""
        faultpoint(FaultPoint.BEFORE_PUBLISH)
        try:
            self._app.send_task(task, args=arguments, queue=queue, expires=HINT_EXPIRES_S)
        except (KombuError, RedisError, OSError) as error:
            if self._reachable:
                log.error(
                    "broker_unreachable", error=str(error), remedy="nothing is lost; sending goes on once it is back"
                )
            self._reachable = False
            return False
        if not self._reachable:
            log.info("broker_reachable_again")
            self._reachable = True
        faultpoint(FaultPoint.AFTER_PUBLISH)
        return True
