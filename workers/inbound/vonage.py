"""Vonage's callbacks: delivery receipts and incoming SMS, by GET or POST, as form or JSON; signed where asked for.

Source:
    Vonage SMS API, "Delivery receipt", "Inbound SMS", "Signing messages".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from kernel.sms_providers import VonageGateway
from kernel.vocabulary import MessageEventKind
from workers.inbound.callbacks import Callback, CallbackError, IncomingSms, SmsReceipt, text_at
from workers.inbound.http import items_of

_KINDS: dict[str, MessageEventKind] = {
    "delivered": MessageEventKind.DELIVERED,
    "failed": MessageEventKind.UNDELIVERED,
    "rejected": MessageEventKind.UNDELIVERED,
    "expired": MessageEventKind.UNDELIVERED,
    "buffered": MessageEventKind.DELAYED,
}
"""`accepted` and `unknown` only say that Vonage has the message."""


def read_receipts(gateway: VonageGateway, callback: Callback) -> list[SmsReceipt]:
    """Return the receipt of one message, or of one of its parts.

    Raises:
        CallbackError: it cannot be read, or its signature is not Vonage's.
    """
    return [
        SmsReceipt(
            ref=text_at(item, "client-ref"),
            gateway_id=text_at(item, "messageId"),
            kind=_KINDS.get(text_at(item, "status")),
            detail=f"{text_at(item, 'status')} {text_at(item, 'err-code')}".strip(),
        )
        for item in _verified(gateway, callback)
    ]


def read_incoming(gateway: VonageGateway, callback: Callback) -> list[IncomingSms]:
    """Return the incoming SMS.

    Raises:
        CallbackError: it cannot be read, or its signature is not Vonage's.
    """
    return [
        IncomingSms(sender=text_at(item, "msisdn"), text=text_at(item, "text")) for item in _verified(gateway, callback)
    ]


def signature(secret: str, method: str, fields: Mapping[str, Any]) -> str:
    """Return the `sig` of a request's other fields, in small hexadecimal letters."""
    text = "".join(
        f"&{name}={str(value).replace('&', '_').replace('=', '_')}" for name, value in sorted(fields.items())
    )
    if method == "md5hash":
        return hashlib.md5(f"{text}{secret}".encode(), usedforsecurity=False).hexdigest()
    return hmac.digest(secret.encode(), text.encode(), method).hex()


def _verified(gateway: VonageGateway, callback: Callback) -> list[Mapping[str, Any]]:
    items = items_of(callback.query, callback.content_type, callback.body)
    if gateway.signature_secret is None:
        return items
    secret = gateway.signature_secret.get_secret_value()
    for item in items:
        others = {name: value for name, value in item.items() if name != "sig"}
        wanted = signature(secret, gateway.signature_method, others)
        if not hmac.compare_digest(wanted.encode(), text_at(item, "sig").lower().encode()):
            raise CallbackError(
                "the sig is wrong: are signature_secret and signature_method those of Vonage's dashboard?"
            )
    return items
