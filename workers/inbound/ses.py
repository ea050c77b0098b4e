"""Amazon SES: events that SNS brings, one a call.

Source:
    AWS, "Amazon SNS notification contents for Amazon SES" and "Examples of event data that Amazon SES publishes to
    Amazon SNS": bounce types and subtypes. `mail.source` is the envelope sender, so our return address is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kernel.webhooks import REFERENCE, SesWebhook
from workers.inbound import sns
from workers.inbound.bounces import BounceReport, Clues
from workers.inbound.provider_events import (
    Delivery,
    clues_of,
    json_of,
    judged,
    list_of,
    object_of,
    report_of,
    text_of,
)
from workers.inbound.statuses import BounceKind

_EVENTS: dict[str, BounceKind] = {
    "Delivery": BounceKind.DELIVERED,
    "DeliveryDelay": BounceKind.DELAYED,
    "Complaint": BounceKind.COMPLAINT,
    "Send": BounceKind.NOTICE,
    "Open": BounceKind.NOTICE,
    "Click": BounceKind.NOTICE,
    "Reject": BounceKind.BLOCKED,
    "Rendering Failure": BounceKind.BLOCKED,
}
_BOUNCES: dict[tuple[str, str], BounceKind] = {
    ("Permanent", "General"): BounceKind.HARD,
    ("Permanent", "NoEmail"): BounceKind.HARD,
    ("Permanent", "Suppressed"): BounceKind.HARD,
    ("Permanent", "OnAccountSuppressionList"): BounceKind.HARD,
    ("Transient", "General"): BounceKind.SOFT,
    ("Transient", "MailboxFull"): BounceKind.FULL,
    ("Transient", "MessageTooLarge"): BounceKind.BLOCKED,
    ("Transient", "ContentRejected"): BounceKind.BLOCKED,
    ("Transient", "AttachmentRejected"): BounceKind.BLOCKED,
    ("Undetermined", "Undetermined"): BounceKind.SOFT,
}
_GENERAL = "General"


def read_events(webhook: SesWebhook, call: Delivery, fetch: sns.Fetch = sns.fetch_from_amazon) -> list[BounceReport]:
    """Return the event of a call, its signature verified; none where SNS asks to confirm the subscription.

    Raises:
        CallbackError: the signature is missing or wrong, or the body cannot be read.
    """
    message = object_of(json_of(call.body))
    sns.verify(message, webhook.topic, fetch)
    if message["Type"] == "SubscriptionConfirmation":
        sns.confirm(message, fetch)
        return []
    if message["Type"] != "Notification":
        return []
    return _reports(object_of(json_of(text_of(message.get("Message")).encode("utf-8", "replace"))))


def _reports(event: Mapping[str, Any]) -> list[BounceReport]:
    word = text_of(event.get("eventType")) or text_of(event.get("notificationType"))
    mail = object_of(event.get("mail"))
    clues = _clues(mail)
    details = object_of(event.get(word[:1].lower() + word[1:].replace(" ", ""))) if word else {}
    at = details.get("timestamp") or mail.get("timestamp")
    if word == "Bounce":
        return [_bounce(object_of(one), details, clues, at) for one in list_of(details.get("bouncedRecipients"))]
    kind = _EVENTS.get(word, BounceKind.UNCLASSIFIED)
    if word == "Complaint" and text_of(details.get("complaintFeedbackType")) == "not-spam":
        kind = BounceKind.NOTICE
    if word == "Subscription":
        wishes = object_of(details.get("newTopicPreferences"))
        kind = BounceKind.UNSUBSCRIBED if wishes.get("unsubscribeAll") is True else BounceKind.NOTICE
    words = text_of(details.get("smtpResponse")) or text_of(details.get("reason")) or word
    people: Sequence[Any] = list_of(mail.get("destination")) or [""]
    # SES names a message's recipients together; ours has one.
    return [report_of(kind, recipient=text_of(people[0]), clues=clues, at=at, words=words)]


def _bounce(person: Mapping[str, Any], details: Mapping[str, Any], clues: Clues, at: Any) -> BounceReport:
    type_, subtype = text_of(details.get("bounceType")), text_of(details.get("bounceSubType"))
    status, words = text_of(person.get("status")), text_of(person.get("diagnosticCode"))
    kind = _BOUNCES.get((type_, subtype), BounceKind.UNCLASSIFIED)
    if subtype == _GENERAL:
        kind = judged(status, words, kind)
    return report_of(
        kind,
        recipient=text_of(person.get("emailAddress")),
        clues=clues,
        at=at,
        status=status,
        words=words or f"{type_} {subtype}",
    )


def _clues(mail: Mapping[str, Any]) -> Clues:
    tags = list_of(object_of(mail.get("tags")).get(REFERENCE))
    headers = {
        text_of(header.get("name")).lower(): text_of(header.get("value"))
        for header in map(object_of, list_of(mail.get("headers")))
    }
    return clues_of(
        reference=text_of(tags[0]) if tags else "",
        sender=text_of(mail.get("source")),
        message_id=headers.get("message-id", ""),
    )
