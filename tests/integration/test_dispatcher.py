"""Waking workers: at once where something has become due, and not over and over while they are at it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from kernel.settings import Workspace
from tests.acceptance.processes import wait_for
from tests.seeding import seed_messages
from workers.app import configure
from workers.dispatcher import Dispatcher


class Heard(Dispatcher):
    """Keeps the hints it would publish."""

    def __init__(self, engine: Engine, workspace: Workspace) -> None:
        super().__init__(configure(workspace), engine, workspace)
        self.hints: list[tuple[str, list[str], str]] = []
        self.broker_is_there = True

    def hint(self, task: str, arguments: list[str], *, queue: str) -> bool:
        if self.broker_is_there:
            self.hints.append((task, arguments, queue))
        return self.broker_is_there


def test_a_lane_gets_a_hint_for_each_hundred_due_and_none_again_at_once(
    sqlite_engine: Engine, workspace: Workspace
) -> None:
    dispatcher = Heard(sqlite_engine, workspace)
    assert dispatcher.wake_lanes() == 0
    seed_messages(sqlite_engine, 150, due_at=datetime.now(UTC) - timedelta(minutes=1))
    # A look that found nothing keeps nobody waiting.
    assert dispatcher.wake_lanes() == 2
    assert dispatcher.hints == [("carillon.drain", ["relay"], "email")] * 2
    woken = time.monotonic()
    assert dispatcher.wake_lanes() == 0
    wait_for(lambda: dispatcher.wake_lanes() == 2, "the next hints")
    assert time.monotonic() - woken > 0.4


def test_hints_that_could_not_be_published_are_tried_again_at_once(sqlite_engine: Engine, workspace: Workspace) -> None:
    dispatcher = Heard(sqlite_engine, workspace)
    seed_messages(sqlite_engine, 5_000, due_at=datetime.now(UTC) - timedelta(minutes=1))
    dispatcher.broker_is_there = False
    assert dispatcher.wake_lanes() == 0
    dispatcher.broker_is_there = True
    assert dispatcher.wake_lanes() == 8
