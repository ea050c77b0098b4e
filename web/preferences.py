"""Unsubscribing and choosing channels. Looking changes nothing: only a POST acts (RFC 8058 section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from kernel.signing import Purpose
from kernel.vocabulary import Channel, ConsentStatus, SuppressionReason, TouchKind
from store.feedback import LIFTABLE, OWN_WORD_SOURCES, has_unsubscribed, set_consent, unsubscribe
from store.message_facts import ChannelChoice, channel_choices, message_fact
from store.standing import WEIGHTS
from store.suppressions import lift, suppress
from web.hits import record
from web.rendering import not_found, page, unavailable
from web.service import Service, service_of
from web.writer import WriterBusy

_SOURCE = OWN_WORD_SOURCES[0]
_LABELS: dict[Channel, str] = {Channel.EMAIL: "E-mail", Channel.SMS: "SMS"}
_WHY_NOT: dict[SuppressionReason, str] = {
    SuppressionReason.HARD_BOUNCE: "mail to this address comes back",
    SuppressionReason.COMPLAINT: "you reported our mail as unwanted",
    SuppressionReason.MANUAL: "this address was blocked by us",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    channel: Channel
    label: str
    receives: bool
    blocked: str


async def unsubscribe_page(request: Request) -> Response:
    """Show the button. Scanners fetch this address too, so nothing changes."""
    service = service_of(request)
    message_id = _message_of(request, service, Purpose.UNSUBSCRIBE)
    if message_id is None:
        return not_found(service)
    await record(request, message_id, TouchKind.PAGE, None)
    return page(service, "unsubscribe", preferences_url=_preferences_url(service, message_id))


async def unsubscribe_now(request: Request) -> Response:
    """Unsubscribe, for the button and for a mail program's one click alike; never a redirect, never a question.

    A POST to this address has one meaning, so its body decides only the form of the answer.

    Source:
        RFC 8058 sections 3.1 and 3.2.
    """
    service = service_of(request)
    message_id = _message_of(request, service, Purpose.UNSUBSCRIBE)
    if message_id is None:
        return not_found(service)
    one_click = "list-unsubscribe" in {name.lower() for name in await _form(request)}
    at = service.now()

    def write(connection: Connection) -> bool:
        if has_unsubscribed(connection, message_id):
            # Pressed again and again it is one word: a stranger with a link must not fill the tables of evidence.
            return True
        unsubscribe(connection, message_id=message_id, at=at, key=f"unsubscribed:{message_id}")
        return message_fact(connection, message_id) is not None

    try:
        known = await service.writer.write(write)
    except WriterBusy:
        return unavailable(service)
    if not known:
        return not_found(service)
    if one_click:
        return PlainTextResponse("unsubscribed\n")
    return page(service, "unsubscribed", preferences_url=_preferences_url(service, message_id))


async def preference_page(request: Request) -> Response:
    """Show which channels the contact receives."""
    service = service_of(request)
    message_id = _message_of(request, service, Purpose.PREFERENCES)
    if message_id is None:
        return not_found(service)
    await record(request, message_id, TouchKind.PAGE, None)
    try:
        choices = await service.read(lambda connection: _choices(connection, message_id, service.now()))
    except WriterBusy:
        return unavailable(service)
    return not_found(service) if choices is None else _preferences(service, choices, saved=False)


async def save_preferences(request: Request) -> Response:
    """Grant or withdraw each channel as ticked. A body that is not our form changes nothing."""
    service = service_of(request)
    message_id = _message_of(request, service, Purpose.PREFERENCES)
    if message_id is None:
        return not_found(service)
    form, at = await _form(request), service.now()
    if form.get("save") != "yes":
        return await preference_page(request)
    try:
        choices = await service.writer.write(lambda connection: _save(connection, service, message_id, form, at))
    except WriterBusy:
        return unavailable(service)
    return not_found(service) if choices is None else _preferences(service, choices, saved=True)


def _save(
    connection: Connection, service: Service, message_id: int, form: Mapping[str, str], at: datetime
) -> list[ChannelChoice] | None:
    message = message_fact(connection, message_id)
    if message is None:
        return None
    source = f"{_SOURCE}:message {message_id}"
    for choice in channel_choices(connection, message.contact_id, now=at):
        if not choice.suppressed.issubset(LIFTABLE):
            continue
        wanted = choice.channel in form
        status = ConsentStatus.GRANTED if wanted else ConsentStatus.WITHDRAWN
        changed = choice.said is not status
        if changed:  # Saved again unchanged, it is no new word.
            set_consent(
                connection,
                contact_id=message.contact_id,
                channel=choice.channel,
                status=status,
                at=at,
                source=source,
                wording=f"{service.settings.brand.name} sends me marketing messages by {_LABELS[choice.channel]}",
            )
        if wanted:
            lift(connection, channel=choice.channel, address=choice.address, reasons=LIFTABLE, at=at, by=source)
        elif changed or not choice.suppressed:
            suppress(
                connection,
                channel=choice.channel,
                address=choice.address,
                reason=SuppressionReason.UNSUBSCRIBE,
                at=at,
                message_id=message_id,
                by=source,
            )
    return channel_choices(connection, message.contact_id, now=at)


def _choices(connection: Connection, message_id: int, now: datetime) -> list[ChannelChoice] | None:
    message = message_fact(connection, message_id)
    return channel_choices(connection, message.contact_id, now=now) if message else None


def _preferences(service: Service, choices: list[ChannelChoice], *, saved: bool) -> Response:
    shown = [
        _Shown(
            channel=choice.channel,
            label=_LABELS[choice.channel],
            receives=choice.said is ConsentStatus.GRANTED and not choice.suppressed,
            blocked=_WHY_NOT.get(max(choice.suppressed, key=WEIGHTS.__getitem__), "") if choice.suppressed else "",
        )
        for choice in choices
    ]
    return page(service, "preferences", choices=shown, saved=saved)


def _message_of(request: Request, service: Service, purpose: Purpose) -> int | None:
    signed = service.signer.verify(purpose, request.path_params["token"])
    return signed.message_id if signed else None


def _preferences_url(service: Service, message_id: int) -> str:
    return f"/p/{service.signer.token(Purpose.PREFERENCES, message_id)}"


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form in either encoding; none where the body is no form."""
    try:
        async with request.form(max_files=0, max_fields=20) as form:
            return {name: value for name, value in form.items() if isinstance(value, str)}
    except HTTPException as error:
        if error.status_code == 413:
            raise
        return {}
