"""The Celery application and its tasks: each a name and a time budget, each handed a hint, never a body.

The database owns the work. A lost, doubled or late hint changes nothing but the moment work is looked for, so hints
are acknowledged early, never retried, and expire within seconds; the scheduler publishes new ones as long as
something is due.
"""

from __future__ import annotations

import gc
import mmap
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_process_shutdown, worker_ready, worker_shutting_down
from sqlalchemy import Engine

from kernel.clock import system_clock
from kernel.errors import ConfigError
from kernel.ids import host_name
from kernel.settings import Workspace, load_workspace
from store.engine import open_database
from workers.drain import Drain

log = structlog.get_logger(__name__)

DRAIN_BUDGET = timedelta(seconds=20)
HINT_EXPIRES_S = 10
_CACHE_MB = 4
"""Of SQLite, per connection of a worker process, which has several."""
QUEUES = ("email", "sms", "house")
WORKSPACE_VARIABLE = "CARILLON_WORKSPACE"

app = Celery("carillon")  # Celery ships no types: hence the marks on its decorators below.

# One byte shared by the worker's main process and its children: told to stop, they finish the message in hand.
_stop_flag = mmap.mmap(-1, 1)


def configure(workspace: Workspace) -> Celery:
    """Point the application at the workspace's broker, with settings chosen for hints (see docs/decisions/0004)."""
    redis = workspace.broker_url.startswith("redis")
    app.conf.update(
        broker_url=workspace.broker_url,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis that turns into a read-only replica answers with errors instead of going away: that too is waited out.
        broker_channel_error_retry=True,
        broker_transport_options=(
            {
                "visibility_timeout": 3600,
                "socket_timeout": 30,
                "socket_connect_timeout": 5,
                "socket_keepalive": True,
                "health_check_interval": 25,
                "retry_on_timeout": True,
            }
            if redis
            else {"confirm_publish": True}
        ),
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=False,
        task_default_queue="house",
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2},
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=1000,
        worker_max_memory_per_child=300_000,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_pool_limit=2,
        enable_utc=True,
    )
    return app


class _Process:
    """What this worker process has opened; made by the first task, after the fork."""

    def __init__(self) -> None:
        settle_memory()
        self.workspace: Workspace = load_workspace(Path(_workspace_folder()))
        self.engine: Engine = open_database(self.workspace.database_url, cache_mb=_CACHE_MB)
        self.drain = Drain(self.engine, self.workspace)


def settle_memory() -> None:
    """Keep the collector of garbage from walking through all that a process has loaded, chunk after chunk.

    It would: a chunk makes and drops tens of thousands of tuples. That cost 20 µs a message, a sixth of the whole; and
    what a chunk holds while it is under way is not walked through either: a lane collects between its chunks.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


_processes: dict[int, _Process] = {}


def _process() -> _Process:
    pid = os.getpid()
    if pid not in _processes:
        _processes.clear()
        _processes[pid] = _Process()
    return _processes[pid]


def _workspace_folder() -> str:
    folder = os.environ.get(WORKSPACE_VARIABLE)
    if not folder:
        raise ConfigError(f"{WORKSPACE_VARIABLE} is not set; start workers with `carillon worker`")
    return folder


def stopping() -> bool:
    """Tell whether this worker has been asked to stop."""
    return _stop_flag[0] == 1


@app.task(name="carillon.drain")  # type: ignore[untyped-decorator]
def drain(lane: str) -> None:
    """Send what is due in a lane, and in others while that one lets us wait."""
    _process().drain.serve(lane, budget=DRAIN_BUDGET, stopping=stopping)


@app.task(name="carillon.inbox")  # type: ignore[untyped-decorator]
def inbox() -> None:
    """Read what came in: bounces, receipts, replies."""
    from workers.inbound.process import process_inbox

    process = _process()
    process_inbox(process.engine, process.workspace, now=system_clock())


@app.task(name="carillon.attribute")  # type: ignore[untyped-decorator]
def attribute() -> None:
    """Credit conversions to touches."""
    from reports.attribution import attribute as credit

    credit(_process().engine, now=system_clock())


@app.task(name="carillon.segments")  # type: ignore[untyped-decorator]
def segments() -> None:
    """Bring segments up to date, asking only whom new facts or time touched."""
    from workers.apart import refresh_apart

    process = _process()
    refresh_apart(process.engine, process.workspace)


@app.task(name="carillon.reports")  # type: ignore[untyped-decorator]
def reports() -> None:
    """Send the reports that are due."""
    from workers.reporting import send_due_reports

    process = _process()
    send_due_reports(process.engine, process.workspace, now=system_clock())


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _say_stop(**_: Any) -> None:
    _stop_flag[0] = 1


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _close_process(**_: Any) -> None:
    for process in _processes.values():
        process.drain.close()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _say_ready(**_: Any) -> None:
    folder = os.environ.get(WORKSPACE_VARIABLE)
    if folder:
        ready_file(Path(folder), "worker").write_text(str(os.getpid()), encoding="ascii")
    log.info("worker_ready", pid=os.getpid())


def ready_file(root: Path, name: str) -> Path:
    """Return the file in which a process of the workspace writes its pid once it is ready."""
    folder = root / ".carillon" / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.ready"


def run_worker(workspace: Workspace, *, concurrency: int, queues: tuple[str, ...] = QUEUES) -> None:
    """Run a worker in this process until it is told to stop; SIGTERM lets the messages in hand finish."""
    os.environ[WORKSPACE_VARIABLE] = str(workspace.root)
    ready_file(workspace.root, "worker").unlink(missing_ok=True)
    settle_memory()
    # Not by Celery's command line, which would stay in memory with all its commands.
    configure(workspace).Worker(
        pool_cls="prefork",
        concurrency=concurrency,
        queues=",".join(queues),
        hostname=f"carillon-{os.getpid()}@{host_name()}",
        without_gossip=True,
        without_mingle=True,
        loglevel="WARNING",
    ).start()
