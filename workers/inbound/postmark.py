"""Postmark's webhooks: one record a call.

Source:
    Postmark, "Webhooks: Bounce, Delivery, Spam complaint, Subscription change" and "Bounce API: Bounce types". They
    are not signed: the door has compared the secret of the address, and basic authentication where it is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernel.webhooks import PostmarkWebhook
from workers.inbound.bounces import BounceReport
from workers.inbound.provider_events import (
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

_RECORDS: dict[str, BounceKind] = {
    "Delivery": BounceKind.DELIVERED,
    "SpamComplaint": BounceKind.COMPLAINT,
    "Open": BounceKind.NOTICE,
    "Click": BounceKind.NOTICE,
}
_BOUNCES: dict[str, BounceKind] = {
    "HardBounce": BounceKind.HARD,
    "BadEmailAddress": BounceKind.HARD,
    "SoftBounce": BounceKind.SOFT,
    "DnsError": BounceKind.SOFT,
    "Unknown": BounceKind.SOFT,
    "Transient": BounceKind.DELAYED,
    "Blocked": BounceKind.BLOCKED,
    "SpamNotification": BounceKind.BLOCKED,
    "VirusNotification": BounceKind.BLOCKED,
    "DMARCPolicy": BounceKind.BLOCKED,
    "SMTPApiError": BounceKind.BLOCKED,
    "ManuallyDeactivated": BounceKind.BLOCKED,
    "SpamComplaint": BounceKind.COMPLAINT,
    "Unsubscribe": BounceKind.UNSUBSCRIBED,
    "AutoResponder": BounceKind.AUTO_REPLY,
    "ChallengeVerification": BounceKind.AUTO_REPLY,
    "AddressChange": BounceKind.NOTICE,
    "Subscribe": BounceKind.NOTICE,
}
_SUPPRESSED: dict[str, BounceKind] = {
    "HardBounce": BounceKind.HARD,
    "SpamComplaint": BounceKind.COMPLAINT,
    "ManualSuppression": BounceKind.UNSUBSCRIBED,
}
_CARRY_CODES = (BounceKind.HARD, BounceKind.SOFT)
_TIMES = ("BouncedAt", "DeliveredAt", "ChangedAt", "ReceivedAt")


def read_events(_webhook: PostmarkWebhook, call: Delivery) -> list[BounceReport]:
    """Return the record of a call.

    Raises:
        CallbackError: the body cannot be read.
    """
    record = object_of(json_of(call.body))
    details = next((found for name in ("Details", "Description") if (found := text_of(record.get(name)))), "")
    kind = _kind(record, details)
    return [
        report_of(
            kind,
            recipient=text_of(record.get("Email")) or text_of(record.get("Recipient")),
            clues=clues_of(reference=reference_in(record.get("Metadata"))),
            at=next((record[name] for name in _TIMES if record.get(name)), None),
            words=details or f"{text_of(record.get('RecordType'))} {text_of(record.get('Type'))}".strip(),
        )
    ]


def _kind(record: Mapping[str, Any], details: str) -> BounceKind:
    word = text_of(record.get("RecordType"))
    if word == "Bounce":
        kind = _BOUNCES.get(text_of(record.get("Type")), BounceKind.UNCLASSIFIED)
        return judged("", details, kind) if kind in _CARRY_CODES else kind
    if word == "SubscriptionChange":
        if record.get("SuppressSending") is not True:
            return BounceKind.NOTICE
        return _SUPPRESSED.get(text_of(record.get("SuppressionReason")), BounceKind.UNCLASSIFIED)
    return _RECORDS.get(word, BounceKind.UNCLASSIFIED)
