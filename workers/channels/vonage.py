"""Vonage's SMS API. HTTP 200 says nothing: what became of the SMS stands in `messages`, one entry for each part.

Source:
    Vonage SMS API reference 1.5.0: "Send an SMS", "Error codes".
"""

from __future__ import annotations

from typing import Any

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError, TransientError
from kernel.fields import duration
from kernel.sms_providers import VonageGateway
from templates.sms import ComposedSms
from templates.sms_parts import Encoding
from workers.channels.over_http import SmsOverHttp, refuse_by_status
from workers.channels.port import Receipt
from workers.http.exchange import Answer, Request, basic, post_form

_BUSY = frozenset({"1", "10"})
_BUSY_S = 1.0
_LATER = frozenset({"5"})
_OURS_TO_MEND = frozenset({"4", "8", "9", "11", "14", "15", "23", "32"})
"""Log-in, account, quota, sender, callback."""


class VonageChannel(SmsOverHttp):
    """One Vonage account."""

    def __init__(self, gateway: VonageGateway, *, receipt_url: str) -> None:
        super().__init__(gateway)
        self._url = gateway.url
        self._headers = basic(gateway.api_key, gateway.api_secret.get_secret_value())
        self._fields = {"from": gateway.sender.removeprefix("+")}
        if gateway.validity:
            self._fields["ttl"] = str(round(duration(gateway.validity).total_seconds() * 1000))
        if receipt_url:
            self._fields |= {"status-report-req": "1", "callback": receipt_url}

    def _request(self, content: ComposedSms, ref: str) -> Request:
        kind = "text" if content.encoding is Encoding.GSM7 else "unicode"
        fields = {"to": content.address.removeprefix("+"), "text": content.text, "type": kind, "client-ref": ref}
        return post_form(self._url, {**self._fields, **fields}, self._headers)

    def _read(self, answer: Answer) -> Receipt:
        refuse_by_status(answer)
        parts = answer.json_object().get("messages")
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            raise OutcomeUnknown(f"answer has no messages: {answer.excerpt}", code=answer.status)
        refused = [part for part in parts if str(part.get("status")) != "0"]
        if not refused:
            gateway_id = parts[0].get("message-id")
            return Receipt(
                reply="status 0",
                code=answer.status,
                gateway_id=None if gateway_id is None else str(gateway_id),
                parts=len(parts),
            )
        if len(refused) < len(parts):
            words = f"{len(parts) - len(refused)} of {len(parts)} parts accepted, {_words(refused[0])}"
            raise OutcomeUnknown(words, code=answer.status)
        _refuse(refused[0], answer)
        raise AssertionError("unreachable")


def _refuse(part: dict[str, Any], answer: Answer) -> None:
    status, words = str(part.get("status")), _words(part)
    if "status" not in part:
        raise OutcomeUnknown(f"answer has no status: {answer.excerpt}", code=answer.status)
    if status in _BUSY:
        raise GatewayDown(f"Vonage is busy: {words}", retry_after_s=_BUSY_S)
    if status in _LATER:
        raise TransientError(words, code=answer.status)
    if status in _OURS_TO_MEND:
        raise GatewayDown(f"Vonage refuses: {words}", lasting=True)
    raise PermanentError(words, code=answer.status)


def _words(part: dict[str, Any]) -> str:
    return f"status {part.get('status')} {part.get('error-text', '')}".strip()
