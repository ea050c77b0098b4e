"""Kannel's sendsms: one GET per message.

Source:
    Kannel 1.4.5 User's Guide, "Using the HTTP interface to send SMS messages"; replies seen from a running one:
    202 "0: Accepted for delivery", 202 "3: Queued for later delivery", 403 "Authorization failed…", 503 try again.
"""

from __future__ import annotations

from urllib.parse import quote

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError
from kernel.gateways import KannelGateway
from templates.sms import ComposedSms
from templates.sms_parts import Encoding
from workers.channels.over_http import SmsOverHttp
from workers.channels.port import Receipt
from workers.http.exchange import Answer, Request, get


class KannelChannel(SmsOverHttp):
    """One Kannel smsbox. The password stands in the URL, so URLs are never logged."""

    def __init__(self, gateway: KannelGateway, *, receipt_url: str) -> None:
        super().__init__(gateway)
        self._gateway = gateway
        self._receipt_url = receipt_url

    def _request(self, content: ComposedSms, ref: str) -> Request:
        gateway = self._gateway
        query = {
            "username": gateway.username,
            "password": gateway.password.get_secret_value(),
            "to": content.address,
            "text": content.text,
            "charset": "UTF-8",
            "coding": "0" if content.encoding is Encoding.GSM7 else "2",
        }
        if gateway.sender:
            query["from"] = gateway.sender
        if gateway.smsc:
            query["smsc"] = gateway.smsc
        if gateway.dlr_mask and self._receipt_url:
            # %d is the receipt's type, %A the SMSC's words, %F its id; our own reference comes first.
            query["dlr-mask"] = str(gateway.dlr_mask)
            query["dlr-url"] = f"{self._receipt_url}?ref={quote(ref)}&type=%d&answer=%A&id=%F"
        return get(gateway.url, query)

    def _read(self, answer: Answer) -> Receipt:
        if answer.status == 202 and answer.text[:2] in ("0:", "3:"):
            return Receipt(reply=answer.excerpt, code=answer.status)
        if answer.status == 503:
            raise GatewayDown(f"Kannel is busy: {answer.excerpt}")
        if answer.status == 403:
            raise GatewayDown(f"Kannel refuses the log-in: {answer.excerpt}", lasting=True)
        if answer.status == 400 and "sender" in answer.text.lower():
            # "Sender missing and no global set, rejected": ours to mend, no message is to blame.
            raise GatewayDown(f"Kannel wants a sender; set `sender` of the gateway: {answer.excerpt}", lasting=True)
        if answer.status == 400:
            raise PermanentError(answer.excerpt, code=400)
        if answer.status == 404:
            raise GatewayDown(f"no sendsms at this URL: {answer.excerpt}", lasting=True)
        raise OutcomeUnknown(f"Kannel answered {answer.excerpt}", code=answer.status)
