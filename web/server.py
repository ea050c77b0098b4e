"""Running the web application until told to stop."""

from __future__ import annotations

import signal
import socket

import structlog
import uvicorn
from starlette.applications import Starlette

from kernel.errors import ConfigError
from kernel.settings import Workspace
from store.engine import open_database
from web.app import create_app

log = structlog.get_logger(__name__)

_GRACE_S = 10
_CONCURRENT = 1000
"""Requests in hand at once; more are answered 503 rather than queued without end."""


def serve(workspace: Workspace) -> None:
    """Serve on `web.host` and `web.port` until SIGTERM or SIGINT; requests in hand are finished.

    Port 0 takes a free port; the log line `web_ready` names it.

    Raises:
        ConfigError: the port is taken, or a setting is wrong.
    """
    web = workspace.settings.web
    listener = _listen(web.host, web.port)
    engine = open_database(workspace.database_url)
    try:
        server = uvicorn.Server(server_config(create_app(engine, workspace)))
        # uvicorn raises the signal it was stopped by once more when it is done; here that must not kill.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        log.info("web_ready", host=web.host, port=listener.getsockname()[1])
        server.run(sockets=[listener])
    finally:
        listener.close()
        engine.dispose()


def refuse_taken_port(workspace: Workspace) -> None:
    """Say at once that `web.port` is taken, before anything that relies on it is started.

    Raises:
        ConfigError: somebody listens there, perhaps another workspace's Carillon.
    """
    web = workspace.settings.web
    _listen(web.host, web.port).close()


def server_config(app: Starlette) -> uvicorn.Config:
    """Return how the application is served."""
    return uvicorn.Config(
        app,
        proxy_headers=False,  # web.guards reads them, by our own list of proxies
        server_header=False,
        access_log=False,  # addresses hold tokens and secrets
        log_config=None,
        limit_concurrency=_CONCURRENT,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"web.port: cannot listen on {host}:{port}: {error.strerror or error};"
            " stop what listens there, or set another web.port in carillon.yaml"
        ) from error
    listener.set_inheritable(True)
    return listener
