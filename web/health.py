"""Whether it works (/healthz), and how it does (/metrics)."""

from __future__ import annotations

from urllib.parse import urlsplit

import redis
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from kernel.settings import Workspace
from web.guards import has_bearer, is_local
from web.metrics import oldest_due_s
from web.service import service_of
from web.writer import WriterBusy

_BROKER_TIMEOUT_S = 1.0


async def healthz(request: Request) -> Response:
    """Return 200 where the database answers, else 503. The broker is told but does not count: it only wakes workers."""
    service = service_of(request)
    state = {"status": "ok", "database": "ok", "broker": await run_in_threadpool(broker_state, service.workspace)}
    try:
        oldest_s = await service.read(oldest_due_s)
    except WriterBusy:
        return JSONResponse({**state, "status": "failing", "database": "down"}, status_code=503)
    return JSONResponse({**state, "oldest_due_s": round(oldest_s, 1), "waiting_writes": service.writer.waiting})


async def metrics(request: Request) -> Response:
    """Return the figures, to this machine or to the bearer of the API token."""
    service = service_of(request)
    token = service.workspace.api_token
    if not is_local(request, service.trusted) and not (token and has_bearer(request, token)):
        return PlainTextResponse("not found\n", status_code=404)
    text = await run_in_threadpool(generate_latest, service.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def broker_state(workspace: Workspace) -> str:
    """Return "ok" or "down" for Redis, "not checked" for other brokers."""
    parts = urlsplit(workspace.broker_url)
    if not parts.scheme.startswith(("redis", "rediss")):
        return "not checked"
    url = workspace.broker_url.replace("redis+socket://", "unix://", 1)
    client = redis.Redis.from_url(url, socket_timeout=_BROKER_TIMEOUT_S, socket_connect_timeout=_BROKER_TIMEOUT_S)
    try:
        client.ping()
    except (redis.RedisError, OSError):
        return "down"
    finally:
        client.close()
    return "ok"
