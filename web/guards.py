"""What stands around every request: who is asking, how much may be sent, and headers every answer carries."""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Sequence

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kernel.errors import ConfigError
from kernel.ids import digest
from web.metrics import RequestMetrics

log = structlog.get_logger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BODY_LIMIT = 64 * 1024
BATCH_LIMIT = 1024 * 1024
"""Bytes of a request's body, elsewhere and for batches of orders and events."""
_BATCH_PATHS = re.compile(r"/v1/orders|/v1/events|/v1/gateways/[^/]+/events/[^/]+")

_HEADERS = {
    "X-Robots-Tag": "noindex, nofollow",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    ),
}


def networks(trusted_proxies: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks of proxies whose X-Forwarded-For is believed.

    Raises:
        ConfigError: an entry is neither an address nor a network.
    """
    try:
        return tuple(ipaddress.ip_network(entry, strict=False) for entry in trusted_proxies)
    except ValueError as error:
        raise ConfigError(f"web.trusted_proxies: {error}; write addresses or networks like 10.0.0.0/8") from None


def client_address(request: Request, trusted: Sequence[Network]) -> str:
    """Return the asker's network address: the last in X-Forwarded-For that no trusted proxy bears; "" if unknown."""
    address = request.client.host if request.client else ""
    hops = [hop.strip() for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
    while hops and is_within(address, trusted):
        hop = hops.pop()
        if not _is_address(hop):
            break
        address = hop
    return address


def is_local(request: Request, trusted: Sequence[Network]) -> bool:
    """Tell whether the request was made on this machine and did not come through somebody's proxy."""
    forwarded = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    peer = request.client.host if request.client else ""
    if forwarded and not is_within(peer, trusted):
        return False
    address = client_address(request, trusted)
    return _is_address(address) and ipaddress.ip_address(address).is_loopback


def has_bearer(request: Request, token: str) -> bool:
    """Tell, in constant time, whether the request carries the token."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and same_secret(given.strip(), token)


def same_secret(given: str, wanted: str) -> bool:
    """Compare two secrets in a time that tells neither their length nor where they differ."""
    return hmac.compare_digest(digest(given.encode("utf-8", "surrogatepass")), digest(wanted))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_within(address: str, trusted: Sequence[Network]) -> bool:
    """Tell whether an address lies in one of the networks; what is no address lies in none."""
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in trusted)


class Guard:
    """ASGI middleware: limits bodies, adds headers to every answer, counts and times requests."""

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, guarded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = BATCH_LIMIT if _BATCH_PATHS.fullmatch(scope["path"]) else BODY_LIMIT
        started_s, status = time.perf_counter(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, _limited(scope, receive, limit), send_guarded)
        except Exception as error:
            # The log learns everything, the asker nothing; paths hold tokens, so the endpoint stands for them.
            log.error("request_failed", endpoint=_endpoint(scope), exc_info=error)
            if status:
                raise
            await PlainTextResponse("something went wrong here\n", status_code=500)(scope, receive, send_guarded)
        finally:
            endpoint = _endpoint(scope)
            self._metrics.observe(endpoint, scope["method"], status, time.perf_counter() - started_s)


def _endpoint(scope: Scope) -> str:
    return getattr(scope.get("endpoint"), "__name__", "none")


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    declared = Headers(scope=scope).get("content-length", "")
    too_big = declared.isdigit() and int(declared) > limit
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        if too_big:
            raise HTTPException(413, f"at most {limit} bytes are taken")
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"at most {limit} bytes are taken")
        return message

    return receive_limited
