"""Commands that run: up, worker, scheduler, web, inbound, redis."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from cli.shared import WorkspaceOption, console, opened, reporting_errors
from kernel.errors import ConfigError
from kernel.faultpoints import arm
from kernel.settings import load_workspace
from workers.logs import configure_logging

JsonLogsOption = Annotated[bool, typer.Option("--log-json", help="Log one JSON object a line.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command()(up)
    app.command()(worker)
    app.command()(scheduler)
    app.command()(web)
    app.command()(inbound)
    app.command(name="redis")(embedded_redis)


@reporting_errors
def up(
    root: WorkspaceOption = Path(),
    concurrency: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
) -> None:
    """Run everything on this machine and watch over it: Redis, web, worker, scheduler.

    Example: carillon up --workspace shop
    """
    from web.server import refuse_taken_port
    from workers.supervisor import Supervisor

    with opened(root) as (workspace, _engine):
        refuse_taken_port(workspace)
        Supervisor(workspace, concurrency=concurrency, say=lambda line: console.print(line, markup=False)).run()


@reporting_errors
def worker(
    root: WorkspaceOption = Path(),
    concurrency: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
    queues: Annotated[str, typer.Option(help="Queues to serve: email, sms, house.")] = "email,sms,house",
    log_json: JsonLogsOption = False,
) -> None:
    """Send what is due. SIGTERM lets the messages in hand finish, then ends.

    Example: carillon worker --concurrency 4
    """
    from workers.app import QUEUES
    from workers.main import become_worker

    wanted = tuple(name.strip() for name in queues.split(",") if name.strip())
    unknown = set(wanted) - set(QUEUES)
    if unknown or not wanted:
        raise ConfigError(f"--queues: unknown {', '.join(sorted(unknown)) or 'nothing'}; there are {', '.join(QUEUES)}")
    # Checks settings and brings the database up to date; each worker process opens its own afterwards.
    with opened(root) as (workspace, _engine):
        workspace.signer()
    become_worker(workspace, concurrency=concurrency, queues=wanted, log_json=log_json)


@reporting_errors
def scheduler(root: WorkspaceOption = Path(), log_json: JsonLogsOption = False) -> None:
    """Fire runs when their time has come and wake the workers. Any number may run.

    Example: carillon scheduler
    """
    from workers.scheduler import run_scheduler

    configure_logging(as_json=log_json)
    arm(os.environ)
    with opened(root) as (workspace, engine):
        run_scheduler(engine, workspace)


@reporting_errors
def web(root: WorkspaceOption = Path(), log_json: JsonLogsOption = False) -> None:
    """Serve links, pixels, unsubscribe pages, the ingest API and gateway callbacks.

    Example: carillon web --workspace shop
    """
    from web.server import serve

    configure_logging(as_json=log_json)
    with opened(root) as (workspace, _engine):
        serve(workspace)


@reporting_errors
def inbound(root: WorkspaceOption = Path(), log_json: JsonLogsOption = False) -> None:
    """Receive bounces and complaints by SMTP on `inbound.smtp_port`, and SMS by SMPP.

    Example: carillon inbound
    """
    from workers.inbound.listener import serve_bounces

    configure_logging(as_json=log_json)
    with opened(root) as (workspace, _engine):
        serve_bounces(workspace)


@reporting_errors
def embedded_redis(root: WorkspaceOption = Path()) -> None:
    """Run the embedded Redis in the foreground; `carillon up` does so by itself.

    Example: carillon redis --workspace shop
    """
    from workers.embedded import EmbeddedRedis

    server = EmbeddedRedis(load_workspace(root))
    signal.signal(signal.SIGTERM, lambda *_: server.ask_to_stop())
    with server:
        code = server.wait()
    raise typer.Exit(max(0, code))
