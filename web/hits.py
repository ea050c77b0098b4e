"""Clicks and opens: answered whatever happens, recorded raw, judged by web.verdicts."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from urllib.parse import quote

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from kernel.signing import Purpose
from kernel.vocabulary import TouchKind
from store.feedback import mark_machine, record_touch
from store.message_facts import TouchFact, message_fact, touches_from, touches_of_message
from web.rendering import not_found
from web.service import Service, service_of
from web.verdicts import Hit, Limits, judge

_PIXEL = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent GIF of one pixel, 42 bytes."""

_PATIENCE_S = 1.0
"""How long a person waits for the record of a click; it is written later where the database takes longer."""

_LIMITS = Limits()
_AS_IS = "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


async def click(request: Request) -> Response:
    """Lead to the registered target and nowhere else; a token that is not ours leads nowhere."""
    service = service_of(request)
    signed = service.signer.verify(Purpose.CLICK, request.path_params["token"])
    url = await service.link_target(signed.number) if signed else None
    if signed is None or url is None or not url.lower().startswith(("http://", "https://")):
        return not_found(service)
    await record(request, signed.message_id, TouchKind.CLICK, signed.number)
    headers = {
        "Location": quote(url, safe=_AS_IS),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer-when-downgrade",
    }
    return Response(status_code=302, headers=headers)


async def pixel(request: Request) -> Response:
    """Return the picture, always: a bad token must look like a good one. HEAD is not recorded."""
    service = service_of(request)
    token = request.path_params["file"].removesuffix(".gif")
    signed = service.signer.verify(Purpose.OPEN, token)
    if signed is not None and request.method == "GET":
        await record(request, signed.message_id, TouchKind.OPEN, None)
    return Response(_PIXEL, media_type="image/gif", headers={"Cache-Control": "no-store, private, max-age=0"})


async def record(request: Request, message_id: int, kind: TouchKind, link_id: int | None) -> None:
    """Record one hit, judged in the light of those before it."""
    service = service_of(request)
    hit = Hit(
        message_id=message_id,
        kind=kind,
        link_id=link_id,
        at=service.now(),
        method=request.method,
        ip=service.address_of(request),
        user_agent=request.headers.get("user-agent", ""),
    )
    await keep(service, hit)


async def keep(service: Service, hit: Hit) -> None:
    """Hand a hit to the writer; a flood on one message is answered but not recorded."""
    if service.is_flood(hit.message_id, hit.at):
        service.metrics.hit_dropped("flood")
    elif not await service.writer.keep(lambda connection: store_hit(connection, hit), patience_s=_PATIENCE_S):
        service.metrics.hit_dropped("overload")


def store_hit(connection: Connection, hit: Hit) -> None:
    """Judge a hit and store it; earlier hits it shows to be a machine's are revised. Unknown messages are ignored."""
    message = message_fact(connection, hit.message_id)
    if message is None:
        return
    judgement = judge(
        hit,
        sent_at=message.sent_at,
        same_message=touches_of_message(connection, hit.message_id, since=hit.at - _LIMITS.scanner_memory),
        same_address=_from_same_address(connection, hit),
        limits=_LIMITS,
    )
    record_touch(
        connection,
        message_id=hit.message_id,
        kind=hit.kind,
        link_id=hit.link_id,
        at=hit.at,
        method=hit.method,
        ip=hit.ip,
        user_agent=hit.user_agent,
        verdict=judgement.verdict,
        reasons=judgement.reasons,
    )
    for rule, touch_ids in judgement.revised:
        mark_machine(connection, touch_ids, rule)


def _from_same_address(connection: Connection, hit: Hit) -> Sequence[TouchFact]:
    """Return the hits the rule of many recipients looks at; it looks at no opens."""
    if not hit.ip or hit.kind is TouchKind.OPEN:
        return ()
    return touches_from(connection, hit.ip, since=hit.at - _LIMITS.recipients_within)
