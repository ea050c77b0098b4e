"""SendGrid's event webhook: a signed list of events.

Source:
    Twilio SendGrid, "Event Webhook Reference" and "Getting Started with the Event Webhook Security Features": the
    signature is ECDSA (P-256, SHA-256) over the timestamp header and the raw body.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kernel.webhooks import SendgridWebhook
from workers.inbound.bounces import BounceReport
from workers.inbound.callbacks import CallbackError
from workers.inbound.provider_events import (
    MAX_EVENTS,
    Delivery,
    clues_of,
    json_of,
    judged,
    object_of,
    reference_in,
    report_of,
    text_of,
)
from workers.inbound.statuses import BounceKind

_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"

_EVENTS: dict[str, BounceKind] = {
    "processed": BounceKind.NOTICE,
    "deferred": BounceKind.DELAYED,
    "delivered": BounceKind.DELIVERED,
    "spamreport": BounceKind.COMPLAINT,
    "unsubscribe": BounceKind.UNSUBSCRIBED,
    "group_unsubscribe": BounceKind.UNSUBSCRIBED,
    "group_resubscribe": BounceKind.NOTICE,
    "open": BounceKind.NOTICE,
    "click": BounceKind.NOTICE,
}
_CLASSES: dict[str, BounceKind] = {
    "Invalid Address": BounceKind.HARD,
    "Mailbox Unavailable": BounceKind.SOFT,
    "Technical": BounceKind.SOFT,
    "Unclassified": BounceKind.SOFT,
    "Content": BounceKind.BLOCKED,
    "Reputation": BounceKind.BLOCKED,
    "Frequency or Volume Too High": BounceKind.BLOCKED,
}
_DROPS: dict[str, BounceKind] = {
    "Bounced Address": BounceKind.HARD,
    "Invalid": BounceKind.HARD,
    "Spam Reporting Address": BounceKind.COMPLAINT,
    "Unsubscribed Address": BounceKind.UNSUBSCRIBED,
    "Recipient List over Package Quota": BounceKind.BLOCKED,
    "Spam Content (if Spam Checker app is enabled)": BounceKind.BLOCKED,
    "Invalid SMTPAPI header": BounceKind.BLOCKED,
}


def read_events(webhook: SendgridWebhook, call: Delivery) -> list[BounceReport]:
    """Return the events of a call, its signature verified.

    Raises:
        CallbackError: the signature is missing or wrong, or the body cannot be read.
    """
    verify(webhook.key, call)
    events = json_of(call.body)
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise CallbackError(f"the body is not a list of at most {MAX_EVENTS} events")
    return [_report(object_of(event)) for event in events]


def verify(key: str, call: Delivery) -> None:
    """Check the signature.

    Raises:
        CallbackError: it is missing or wrong, or the key in carillon.yaml is none.
    """
    try:
        public = load_der_public_key(base64.b64decode(key, validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise CallbackError("the key in carillon.yaml is no public key in base64; copy SendGrid's anew") from error
    if not isinstance(public, EllipticCurvePublicKey):
        raise CallbackError("the key in carillon.yaml is no ECDSA key")
    try:
        signature = base64.b64decode(call.headers.get(_SIGNATURE, ""), validate=True)
        public.verify(signature, call.headers.get(_TIMESTAMP, "").encode() + call.body, ECDSA(SHA256()))
    except (InvalidSignature, ValueError, binascii.Error) as error:
        raise CallbackError("the signature is not SendGrid's") from error


def _report(event: Mapping[str, Any]) -> BounceReport:
    word, status, words = (text_of(event.get(name)) for name in ("event", "status", "reason"))
    words = words or text_of(event.get("response"))
    return report_of(
        _kind(word, event, status, words),
        recipient=text_of(event.get("email")),
        clues=clues_of(reference=reference_in(event), message_id=text_of(event.get("smtp-id"))),
        at=event.get("timestamp"),
        status=status,
        words=words or word,
    )


def _kind(word: str, event: Mapping[str, Any], status: str, words: str) -> BounceKind:
    if word == "dropped":
        return _DROPS.get(words, BounceKind.UNCLASSIFIED)
    if word == "bounce":
        by_class = _CLASSES.get(text_of(event.get("bounce_classification")), BounceKind.SOFT)
        blocked = text_of(event.get("type")) == "blocked"
        return BounceKind.BLOCKED if blocked else judged(status, words, by_class)
    return _EVENTS.get(word, BounceKind.UNCLASSIFIED)
