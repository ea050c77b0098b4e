"""Twilio's Messages resource: one form per SMS.

Source:
    Twilio API reference, "Create a Message" (2010-04-01) and "Error and Warning Dictionary". There is no key against
    doubling a create: a request that was not answered is in doubt until the list of messages has been asked.
"""

from __future__ import annotations

from urllib.parse import quote

from kernel.errors import GatewayDown, OptedOut, OutcomeUnknown, PermanentError
from kernel.fields import duration
from kernel.sms_providers import TwilioGateway
from templates.sms import ComposedSms
from workers.channels.over_http import SmsOverHttp, refuse_by_status
from workers.channels.port import Receipt
from workers.http.exchange import Answer, Request, basic, post_form

_OPTED_OUT = 21610
_OURS_TO_MEND = frozenset(
    {
        *(20003, 20005, 20403, 20404, 20426, 30002),  # log-in, account suspended or unknown
        *(21212, 21603, 21606, 21607, 21659, 21660, 21701, 21703, 21704, 21705),  # From or messaging service
        *(21609, 21621, 21624),  # StatusCallback, ValidityPeriod
        *(30034,),  # unregistered 10DLC
    }
)
_BUSY = frozenset({14107, 20429, 21611, 30001, 63038})
"""Too many requests, or the sender's queue is full: no message is to blame."""


class TwilioChannel(SmsOverHttp):
    """One Twilio account with one sender or messaging service."""

    def __init__(self, gateway: TwilioGateway, *, receipt_url: str) -> None:
        super().__init__(gateway)
        self._url = f"{gateway.url.rstrip('/')}/2010-04-01/Accounts/{gateway.account_sid}/Messages.json"
        self._headers = basic(gateway.account_sid, gateway.auth_token.get_secret_value())
        self._fields: dict[str, str] = {}
        if gateway.messaging_service_sid:
            self._fields["MessagingServiceSid"] = gateway.messaging_service_sid
        if gateway.sender:
            self._fields["From"] = gateway.sender
        if gateway.validity:
            self._fields["ValidityPeriod"] = str(round(duration(gateway.validity).total_seconds()))
        self._receipt_url = receipt_url

    def _request(self, content: ComposedSms, ref: str) -> Request:
        fields = {"To": content.address, "Body": content.text, **self._fields}
        if self._receipt_url:
            fields["StatusCallback"] = f"{self._receipt_url}?ref={quote(ref)}"
        return post_form(self._url, fields, self._headers)

    def _read(self, answer: Answer) -> Receipt:
        if answer.status in (200, 201):
            return _accepted(answer)
        if 400 <= answer.status < 500:
            _refuse(answer)
        refuse_by_status(answer)
        raise OutcomeUnknown(f"Twilio answered {answer.excerpt}", code=answer.status)


def _accepted(answer: Answer) -> Receipt:
    data = answer.json_object()
    sid, status, error = data.get("sid"), data.get("status"), data.get("error_code")
    if not isinstance(sid, str) or not sid:
        raise OutcomeUnknown(f"answer has no sid: {answer.excerpt}", code=answer.status)
    if status in ("failed", "undelivered", "canceled"):
        if error == _OPTED_OUT:
            raise OptedOut(f"{error} {data.get('error_message')}", code=answer.status)
        raise PermanentError(f"{status} {error or ''} {data.get('error_message') or ''}".strip(), code=answer.status)
    # A messaging service says 0 segments until it has chosen a sender.
    segments = str(data.get("num_segments") or "")
    parts = int(segments) if segments.isascii() and segments.isdigit() else 0
    return Receipt(reply=f"{answer.status} {status}", code=answer.status, gateway_id=sid, parts=parts or None)


def _refuse(answer: Answer) -> None:
    try:
        data = answer.json_object()
    except OutcomeUnknown:
        return  # Not Twilio's own words: the HTTP status has to do.
    code = data.get("code")
    words = f"{code} {data.get('message', '')}"
    if code == _OPTED_OUT:
        raise OptedOut(words, code=answer.status)
    if code in _OURS_TO_MEND:
        raise GatewayDown(f"Twilio refuses: {words}", lasting=True)
    if code in _BUSY or answer.status == 429:
        raise GatewayDown(f"Twilio is busy: {words}", retry_after_s=answer.retry_after_s)
    if answer.status not in (401, 403, 408, 425) and isinstance(code, int):
        raise PermanentError(words, code=answer.status)
