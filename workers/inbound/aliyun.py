"""Alibaba Cloud's callbacks: SmsReport (receipts) and SmsUp (incoming SMS), each a JSON array. Neither is signed.

Source:
    Alibaba Cloud SMS, "SmsReport" and "SmsUp" HTTP push; repeated after one, five and ten minutes, then dropped.
"""

from __future__ import annotations

from kernel.vocabulary import MessageEventKind
from workers.inbound.callbacks import Callback, IncomingSms, SmsReceipt, text_at
from workers.inbound.http import items_of


def read_receipts(callback: Callback) -> list[SmsReceipt]:
    """Return the receipts of one callback.

    Raises:
        CallbackError: it cannot be read.
    """
    return [
        SmsReceipt(
            ref=text_at(item, "out_id"),
            gateway_id=text_at(item, "biz_id"),
            kind=_kind(text_at(item, "success")),
            detail=f"{text_at(item, 'err_code')} {text_at(item, 'err_msg')}".strip(),
        )
        for item in items_of(callback.query, callback.content_type, callback.body)
    ]


def read_incoming(callback: Callback) -> list[IncomingSms]:
    """Return the incoming SMS of one callback.

    Raises:
        CallbackError: it cannot be read.
    """
    return [
        IncomingSms(sender=chinese_number(text_at(item, "phone_number")), text=text_at(item, "content"))
        for item in items_of(callback.query, callback.content_type, callback.body)
    ]


def chinese_number(number: str) -> str:
    """Return a number with its country: the Chinese platforms leave 86 out of the eleven digits of a mobile at home."""
    digits = number.strip()
    return f"+86{digits}" if len(digits) == 11 and digits.startswith("1") and digits.isdigit() else digits


def _kind(success: str) -> MessageEventKind | None:
    return {"true": MessageEventKind.DELIVERED, "false": MessageEventKind.UNDELIVERED}.get(success.lower())
