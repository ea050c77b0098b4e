"""The ticker: APScheduler says when to look; what is due follows from the database alone.

Any number of schedulers may run: a run is unique by (campaign, scheduled_for), a hint is harmless twice.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from campaigns.control import close_finished_runs
from campaigns.firing import fire_due
from campaigns.guardrails import watch
from campaigns.routing import fail_over
from kernel.clock import Clock, system_clock
from kernel.errors import CarillonError
from kernel.settings import Workspace
from reports.schedule import plan_reports
from workers.app import configure, ready_file
from workers.asking import Asker
from workers.dispatcher import Dispatcher
from workers.inbound.imap import collect_mailboxes
from workers.inbound.maildir import collect_maildirs
from workers.preparing import tariffs
from workers.recovery import recover
from workers.settling import resend_by_policy

log = structlog.get_logger(__name__)


class Ticker:
    """What a scheduler does at each tick. Every method is safe to call at any time, from any number of processes."""

    def __init__(self, engine: Engine, workspace: Workspace, clock: Clock = system_clock) -> None:
        self._engine = engine
        self._workspace = workspace
        self._clock = clock
        self._watch_again = 0.0
        self._dispatcher = Dispatcher(configure(workspace), engine, workspace)
        self._asker = Asker(engine, workspace)

    def fire(self) -> None:
        """Fire the runs whose time has come, and wake the workers at once."""
        for fired in fire_due(self._engine, self._workspace, now=self._clock()):
            log.info(
                "run_fired", campaign=fired.campaign, run=fired.run_id, scheduled_for=fired.scheduled_for.isoformat()
            )

    def dispatch(self) -> None:
        """Wake workers for whatever is due."""
        self._dispatcher.wake_lanes()

    def sweep(self) -> None:
        """Settle chunks of dead workers, send again what a campaign wants sent again, close runs that have ended."""
        recover(self._engine, self._workspace.settings, tariffs=tariffs(self._workspace))
        resend_by_policy(self._engine, now=self._clock())
        close_finished_runs(self._engine, now=self._clock())

    def guard(self) -> None:
        """Move what waits for closed gateways, pause campaigns that break a guardrail, let runs follow their canary."""
        fail_over(self._engine, self._workspace.settings, now=self._clock())
        if time.monotonic() < self._watch_again:
            return
        began = time.monotonic()
        watch(self._engine, now=self._clock())
        # Counting a run of a million takes a while; it gets a tenth of the time at most.
        self._watch_again = time.monotonic() + 10 * (time.monotonic() - began)

    def house(self) -> None:
        """Collect mail that lies in folders, plan reports, wake the workers for what came in."""
        collect_maildirs(self._engine, self._workspace, now=self._clock())
        plan_reports(self._engine, now=self._clock())
        self._dispatcher.wake_house()

    def ask(self) -> None:
        """Ask SMS providers what became of messages in doubt."""
        self._asker.ask(now=self._clock())

    def mailboxes(self) -> None:
        """Collect mail from mailboxes; apart from the house, for a mail server may be slow."""
        collect_mailboxes(self._engine, self._workspace, now=self._clock())

    def credit(self) -> None:
        """Have conversions credited."""
        self._dispatcher.hint("carillon.attribute", [], queue="house")

    def segment(self) -> None:
        """Have segments brought up to date."""
        self._dispatcher.hint("carillon.segments", [], queue="house")

    def jobs(self) -> dict[str, tuple[Callable[[], None], float]]:
        """Return every job with the seconds between two looks."""
        return {
            "fire": (self.fire, 1.0),
            "dispatch": (self.dispatch, 0.2),
            "sweep": (self.sweep, 3.0),
            "guard": (self.guard, 2.0),
            "house": (self.house, 2.0),
            "ask": (self.ask, 30.0),
            "mailboxes": (self.mailboxes, 60.0),
            "credit": (self.credit, 60.0),
            "segments": (self.segment, 60.0),
        }


def run_scheduler(engine: Engine, workspace: Workspace) -> None:
    """Tick until SIGTERM or SIGINT."""
    ticker = Ticker(engine, workspace)
    scheduler = BackgroundScheduler(timezone="UTC")
    for name, (job, every_s) in ticker.jobs().items():
        scheduler.add_job(
            _surviving(name, job),
            "interval",
            seconds=every_s,
            id=name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    scheduler.start()
    ready_file(workspace.root, "scheduler").write_text(str(os.getpid()), encoding="ascii")
    log.info("scheduler_ready", pid=os.getpid())
    stop.wait()
    scheduler.shutdown(wait=True)


def _surviving(name: str, job: Callable[[], None]) -> Callable[[], None]:
    """A tick that fails is logged and comes again: a database away for a minute must not end the scheduler.

    A failure that lasts is told once, and its end too: a tick comes every second.
    """
    told: list[str] = []

    def run() -> None:
        try:
            job()
        except (SQLAlchemyError, CarillonError, OSError) as error:
            # SQLAlchemy appends the statement with all its parameters; the first line says what is wrong.
            words = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
            if told != [words]:
                log.error("tick_failed", job=name, error=words)
            told[:] = [words]
        else:
            if told:
                log.info("tick_well_again", job=name)
            told.clear()

    return run
