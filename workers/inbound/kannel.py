"""Kannel's callbacks: delivery reports (dlr-url) and incoming SMS (get-url).

Source:
    Kannel 1.4.5 User's Guide, "Delivery reports" and "SMS services: escape codes". The URL we give for reports
    carries ref (our reference), type (%d), answer (%A) and id (%F); the one for incoming SMS is to carry from (%p) and
    text (%a).
"""

from __future__ import annotations

from kernel.vocabulary import MessageEventKind
from workers.inbound.callbacks import CallbackError, IncomingSms, SmsReceipt, fields_of

_KINDS: dict[str, MessageEventKind | None] = {
    "1": MessageEventKind.DELIVERED,
    "2": MessageEventKind.UNDELIVERED,
    "4": MessageEventKind.DELAYED,  # buffered on the SMSC: the telephone is off
    "8": None,  # the SMSC has taken it
    "16": MessageEventKind.UNDELIVERED,  # the SMSC refused it
}


def read_receipts(query: str) -> list[SmsReceipt]:
    """Return the delivery report of one callback.

    Raises:
        CallbackError: its type is none of Kannel's.
    """
    fields = fields_of(query)
    type_ = fields.get("type", "").strip()
    if type_ not in _KINDS:
        raise CallbackError(f"type {type_!r} is none of Kannel's (1, 2, 4, 8, 16)")
    return [
        SmsReceipt(
            ref=fields.get("ref", "").strip(),
            gateway_id=fields.get("id", "").strip(),
            kind=_KINDS[type_],
            detail=fields.get("answer", "").strip() or f"type {type_}",
        )
    ]


def read_incoming(query: str) -> list[IncomingSms]:
    """Return the incoming SMS of one callback."""
    fields = fields_of(query)
    return [IncomingSms(sender=fields.get("from", "").strip(), text=fields.get("text", ""))]
