"""Twilio's callbacks: status callbacks and incoming SMS, both signed with the account's auth token.

Source:
    Twilio, "Webhooks security" (X-Twilio-Signature: base64 of HMAC-SHA1 over the address and the sorted parameters),
    "Track outbound message status", "TwiML for Programmable SMS". Callbacks may come out of order.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

from kernel.sms_providers import TwilioGateway
from kernel.vocabulary import MessageEventKind
from workers.inbound.callbacks import Callback, CallbackError, IncomingSms, SmsReceipt, fields_of

_KINDS: dict[str, MessageEventKind] = {
    "delivered": MessageEventKind.DELIVERED,
    "read": MessageEventKind.DELIVERED,
    "undelivered": MessageEventKind.UNDELIVERED,
    "failed": MessageEventKind.UNDELIVERED,
    "canceled": MessageEventKind.UNDELIVERED,
}
"""Any other status (queued, sending, sent, one yet to be invented) only says that Twilio has the message."""
_OPTED_OUT = "21610"


def read_receipts(gateway: TwilioGateway, callback: Callback) -> list[SmsReceipt]:
    """Return the status of one message.

    Raises:
        CallbackError: the signature is not Twilio's.
    """
    fields = _verified(gateway, callback)
    status, error = fields.get("MessageStatus", fields.get("SmsStatus", "")), fields.get("ErrorCode", "")
    return [
        SmsReceipt(
            ref=fields_of(callback.query).get("ref", ""),
            gateway_id=fields.get("MessageSid", fields.get("SmsSid", "")),
            kind=_KINDS.get(status),
            detail=f"{status} {error}".strip(),
            opted_out=error == _OPTED_OUT,
        )
    ]


def read_incoming(gateway: TwilioGateway, callback: Callback) -> list[IncomingSms]:
    """Return the incoming SMS; where Twilio has taken it for STOP or START itself, its reading goes before ours.

    Raises:
        CallbackError: the signature is not Twilio's.
    """
    fields = _verified(gateway, callback)
    taken_for = fields.get("OptOutType", "")
    text = taken_for if taken_for in ("STOP", "START") else fields.get("Body", "")
    return [IncomingSms(sender=fields.get("From", ""), text=text)]


def signature(token: str, url: str, parameters: Sequence[tuple[str, str]]) -> str:
    """Return what X-Twilio-Signature says of a POST of these parameters to that address, its query included."""
    text = url + "".join(name + value for name, value in sorted(set(parameters)))
    return base64.b64encode(hmac.digest(token.encode(), text.encode(), hashlib.sha1)).decode("ascii")


def _verified(gateway: TwilioGateway, callback: Callback) -> dict[str, str]:
    given = callback.headers.get("x-twilio-signature", "")
    parameters = parse_qsl(callback.body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=200)
    token = gateway.auth_token.get_secret_value()
    url = callback.url + (f"?{callback.query}" if callback.query else "")
    # Twilio signs the address with its port or without it, whichever way it holds it.
    if not any(
        hmac.compare_digest(signature(token, way, parameters).encode(), given.encode()) for way in (url, _other(url))
    ):
        raise CallbackError("X-Twilio-Signature is wrong: is web.public_url the address Twilio calls?")
    return dict(parameters)


def _other(url: str) -> str:
    where = urlsplit(url)
    host = where.netloc
    if where.port:
        return where._replace(netloc=host.rpartition(":")[0]).geturl()
    return where._replace(netloc=f"{host}:{443 if where.scheme == 'https' else 80}").geturl()
