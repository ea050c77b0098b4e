"""Tencent Cloud's callbacks: delivery status (a JSON array) and incoming SMS (one object). Neither is signed.

Source:
    Tencent Cloud SMS, "Status callback of sent SMS" and "Callback of replies".
"""

from __future__ import annotations

from kernel.vocabulary import MessageEventKind
from workers.inbound.aliyun import chinese_number
from workers.inbound.callbacks import Callback, IncomingSms, SmsReceipt, text_at
from workers.inbound.http import items_of

_KINDS: dict[str, MessageEventKind] = {
    "SUCCESS": MessageEventKind.DELIVERED,
    "FAIL": MessageEventKind.UNDELIVERED,
}


def read_receipts(callback: Callback) -> list[SmsReceipt]:
    """Return the receipts of one callback; `sid` is the SerialNo the answer to SendSms gave.

    Raises:
        CallbackError: it cannot be read.
    """
    return [
        SmsReceipt(
            ref="",
            gateway_id=text_at(item, "sid"),
            kind=_KINDS.get(text_at(item, "report_status")),
            detail=f"{text_at(item, 'errmsg')} {text_at(item, 'description')}".strip(),
            # The only key there is: a callback that overtakes the ledger waits for the id to be written there.
            spellings=(text_at(item, "sid"),),
        )
        for item in items_of(callback.query, callback.content_type, callback.body)
    ]


def read_incoming(callback: Callback) -> list[IncomingSms]:
    """Return the incoming SMS of one callback.

    Raises:
        CallbackError: it cannot be read.
    """
    return [
        IncomingSms(
            sender=f"+{nation}{text_at(item, 'mobile')}"
            if (nation := text_at(item, "nationcode"))
            else chinese_number(text_at(item, "mobile")),
            text=text_at(item, "text"),
        )
        for item in items_of(callback.query, callback.content_type, callback.body)
    ]
