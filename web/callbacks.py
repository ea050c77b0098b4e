"""What gateways call back: kept raw and answered at once; workers.inbound reads it."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from kernel.ids import digest
from kernel.webhooks import PostmarkWebhook
from store.inbox import gateway_source, put
from web.guards import is_within, same_secret
from web.service import Service, service_of
from web.writer import WriterBusy

_HEADERS = (
    "content-type",
    "user-agent",
    "x-twilio-signature",
    "x-twilio-email-event-webhook-signature",
    "x-twilio-email-event-webhook-timestamp",
)
"""Kept beside the body: what it takes to read it, and to verify it."""
_REPLAY_S = 600
"""Gateways repeat a callback for about so long when our answer is lost. The same words later are said anew."""


async def receipt(request: Request) -> Response:
    """Keep a delivery receipt. The same one again falls away."""
    return await _keep(request, "receipt")


async def incoming(request: Request) -> Response:
    """Keep an incoming SMS. The answer is empty: some gateways send it to the person as a reply."""
    return await _keep(request, "inbound")


async def events(request: Request) -> Response:
    """Keep what an e-mail provider tells of messages. Signatures are verified by who reads it."""
    return await _keep(request, "events")


async def _keep(request: Request, kind: str) -> Response:
    service = service_of(request)
    name, secret = request.path_params["name"], request.path_params["secret"]
    if not (_may_tell(service, request, name, secret) if kind == "events" else _known(service, request, name, secret)):
        return PlainTextResponse("not found\n", status_code=404)
    body, at = await request.body(), service.now()
    query = request.url.query
    meta: dict[str, Any] = {
        "kind": kind,
        "query": query,
        "headers": {header: request.headers[header] for header in _HEADERS if header in request.headers},
        "ip": service.address_of(request),
    }
    source = gateway_source(name)
    # A forged signature must not keep out the same words with the true one.
    signed = request.headers.get("x-twilio-signature", "")
    key = digest(source, kind, query, body, *_said_when(kind, at), *([signed] if signed else []))
    try:
        await service.writer.write(
            lambda connection: put(connection, key=key, source=source, body=body, meta=meta, received_at=at)
        )
    except WriterBusy:
        return PlainTextResponse("try again\n", status_code=503, headers={"Retry-After": "10"})
    answer = getattr(service.settings.gateways[name], "callback_answer", "")
    return Response(answer, status_code=200, media_type="application/json" if answer else "text/plain")


def _said_when(kind: str, at: datetime) -> tuple[str, ...]:
    return (str(int(at.timestamp() // _REPLAY_S)),) if kind == "inbound" else ()


def _known(service: Service, request: Request, name: str, secret: str) -> bool:
    gateway = service.settings.gateways.get(name)
    token = getattr(gateway, "callback_token", None)
    if token is None or not same_secret(secret, token.get_secret_value()):
        return False
    allowed = getattr(gateway, "callback_from", [])
    return not allowed or is_within(service.address_of(request), [ip_network(network) for network in allowed])


def _may_tell(service: Service, request: Request, name: str, secret: str) -> bool:
    webhook = getattr(service.settings.gateways.get(name), "webhook", None)
    if webhook is None or not same_secret(secret, webhook.token.get_secret_value()):
        return False
    if isinstance(webhook, PostmarkWebhook) and webhook.password is not None:
        wanted = f"{webhook.username or ''}:{webhook.password.get_secret_value()}"
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "basic" and same_secret(given.strip(), b64encode(wanted.encode()).decode("ascii"))
    return True
