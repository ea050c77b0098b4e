"""Mailgun's webhooks: one event a call, signed by HMAC over a timestamp and a random token.

Source:
    Mailgun, "Webhooks: Securing webhooks" and "Events: Event structure". The signature does not cover the event, so an
    old one is refused: Mailgun repeats a call for about eight hours.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kernel.webhooks import MailgunWebhook
from workers.inbound.bounces import BounceReport
from workers.inbound.callbacks import CallbackError
from workers.inbound.provider_events import (
    Delivery,
    clues_of,
    instant_of,
    json_of,
    judged,
    object_of,
    reference_in,
    report_of,
    text_of,
)
from workers.inbound.statuses import BounceKind

_OLDEST = timedelta(hours=12)

_EVENTS: dict[str, BounceKind] = {
    "accepted": BounceKind.NOTICE,
    "stored": BounceKind.NOTICE,
    "delivered": BounceKind.DELIVERED,
    "rejected": BounceKind.BLOCKED,
    "complained": BounceKind.COMPLAINT,
    "unsubscribed": BounceKind.UNSUBSCRIBED,
    "opened": BounceKind.NOTICE,
    "clicked": BounceKind.NOTICE,
}
_REASONS: dict[str, BounceKind] = {
    "suppress-bounce": BounceKind.HARD,
    "suppress-complaint": BounceKind.COMPLAINT,
    "suppress-unsubscribe": BounceKind.UNSUBSCRIBED,
    "espblock": BounceKind.BLOCKED,
    "bounce": BounceKind.SOFT,
    "generic": BounceKind.SOFT,
    "old": BounceKind.SOFT,
}
"""Why a message failed for good; where the receiving server gave a code, that says more."""


def read_events(webhook: MailgunWebhook, call: Delivery) -> list[BounceReport]:
    """Return the event of a call, its signature verified.

    Raises:
        CallbackError: the signature is missing, wrong or old, or the body cannot be read.
    """
    whole = object_of(json_of(call.body))
    verify(webhook.key.get_secret_value(), object_of(whole.get("signature")), call)
    return [_report(object_of(whole.get("event-data")))]


def verify(key: str, signature: Mapping[str, Any], call: Delivery) -> None:
    """Check the signature.

    Raises:
        CallbackError: it is missing, wrong, or older than any repetition.
    """
    stamp, token, given = (text_of(signature.get(name)) for name in ("timestamp", "token", "signature"))
    wanted = hmac.new(key.encode(), f"{stamp}{token}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace")):
        raise CallbackError("the signature is not Mailgun's")
    signed_at = instant_of(float(stamp)) if stamp.isdigit() else None
    if signed_at is None or abs(call.received_at - signed_at) > _OLDEST:
        raise CallbackError(f"the signature is of {stamp}: too old, or a wrong clock")


def _report(event: Mapping[str, Any]) -> BounceReport:
    word, reason = text_of(event.get("event")), text_of(event.get("reason"))
    answer = object_of(event.get("delivery-status"))
    words = text_of(answer.get("message")) or text_of(answer.get("description"))
    status = text_of(answer.get("enhanced-code"))
    headers = object_of(object_of(event.get("message")).get("headers"))
    return report_of(
        _kind(word, reason, text_of(event.get("severity")), status, words),
        recipient=text_of(event.get("recipient")),
        clues=clues_of(
            reference=reference_in(event.get("user-variables")),
            sender=text_of(object_of(event.get("envelope")).get("sender")),
            message_id=text_of(headers.get("message-id")),
        ),
        at=event.get("timestamp"),
        status=status,
        words=words or f"{word} {reason}".strip(),
    )


def _kind(word: str, reason: str, severity: str, status: str, words: str) -> BounceKind:
    if word != "failed":
        return _EVENTS.get(word, BounceKind.UNCLASSIFIED)
    if severity == "temporary":
        return BounceKind.DELAYED
    told = _REASONS.get(reason, BounceKind.UNCLASSIFIED)
    return judged(status, words, told) if told in (BounceKind.SOFT, BounceKind.UNCLASSIFIED) else told
