"""The web application: what comes back over HTTP, and the way in for other programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kernel.clock import Clock, system_clock
from kernel.settings import Workspace
from web import callbacks, health, hits, ingest, preferences
from web.guards import Guard
from web.rendering import unavailable
from web.service import Service, service_of
from web.writer import WriterBusy

ROUTES = (
    Route("/c/{token}", hits.click, methods=["GET"]),
    Route("/o/{file}", hits.pixel, methods=["GET"]),
    Route("/u/{token}", preferences.unsubscribe_page, methods=["GET"]),
    Route("/u/{token}", preferences.unsubscribe_now, methods=["POST"]),
    Route("/p/{token}", preferences.preference_page, methods=["GET"]),
    Route("/p/{token}", preferences.save_preferences, methods=["POST"]),
    Route("/v1/orders", ingest.post_orders, methods=["POST"]),
    Route("/v1/events", ingest.post_events, methods=["POST"]),
    Route("/v1/gateways/{name}/receipt/{secret}", callbacks.receipt, methods=["GET", "POST"]),
    Route("/v1/gateways/{name}/inbound/{secret}", callbacks.incoming, methods=["GET", "POST"]),
    Route("/v1/gateways/{name}/events/{secret}", callbacks.events, methods=["POST"]),
    Route("/healthz", health.healthz, methods=["GET"]),
    Route("/metrics", health.metrics, methods=["GET"]),
)
"""Every address there is; docs/http-api.md lists them (a test)."""


def create_app(engine: Engine, workspace: Workspace, clock: Clock = system_clock) -> Starlette:
    """Return the application on an open, migrated database.

    Raises:
        ConfigError: the secret key or the trusted proxies are wrong.
    """
    service = Service(engine, workspace, clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        service.writer.start()
        try:
            yield
        finally:
            service.writer.stop()

    app = Starlette(
        routes=list(ROUTES),
        middleware=[Middleware(Guard, metrics=service.metrics)],
        exception_handlers={HTTPException: _refused, WriterBusy: _busy},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if request.url.path.startswith("/v1/"):
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=headers)
    return PlainTextResponse(f"{error.detail}\n", status_code=error.status_code, headers=headers)


async def _busy(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/v1/"):
        return JSONResponse({"error": f"{error}; try again"}, status_code=503, headers={"Retry-After": "10"})
    return unavailable(service_of(request))
