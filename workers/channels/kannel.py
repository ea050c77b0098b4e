"""Kannel's sendsms: one GET for each part, cut and joined by ourselves.

Kannel would cut longer texts too, but through an emoji (bearerbox 1.4.5); so each part goes by itself with its header
(`udh`). The first goes ahead alone: what is refused then is refused whole. The last asks for the receipt.

Source:
    Kannel 1.4.5 User's Guide, "Using the HTTP interface to send SMS messages"; replies seen from a running one:
    202 "0: Accepted for delivery", 202 "3: Queued for later delivery", 403 "Authorization failed…", 503 try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote
from zlib import crc32

from kernel.errors import DeliveryError, GatewayDown, OutcomeUnknown, PermanentError
from kernel.gateways import KannelGateway
from templates.sms import ComposedSms
from templates.sms_octets import octets_of
from templates.sms_parts import Encoding, split
from workers.channels.over_http import SmsOverHttp
from workers.channels.port import Parcel, Receipt
from workers.http.exchange import Answer, Request, get

_BUSY_TRIES = 4
_BUSY_WAIT_S = 0.5
"""What has begun is worth a few more tries: a text of which one part came is worse than none."""


class KannelChannel(SmsOverHttp):
    """One Kannel smsbox. The password stands in the URL, so URLs are never logged."""

    def __init__(self, gateway: KannelGateway, *, receipt_url: str, busy_wait_s: float = _BUSY_WAIT_S) -> None:
        super().__init__(gateway)
        self._gateway = gateway
        self._receipt_url = receipt_url
        self._busy_wait_s = busy_wait_s

    async def _send(self, parcel: Parcel, commit: Callable[[], None]) -> Receipt:
        receipt = await super()._send(parcel, commit)
        if not isinstance(parcel.content, ComposedSms) or parcel.content.parts == 1:
            return receipt
        requests = self._requests(parcel.content, parcel.ref)
        for number, request in enumerate(requests[1:], start=2):
            try:
                receipt = await self._send_later_part(request)
            except (DeliveryError, GatewayDown) as error:
                how_far = f"{number - 1} of {len(requests)} parts accepted; part {number}: {error.text}"
                raise OutcomeUnknown(how_far, code=getattr(error, "code", 0)) from error
        return receipt

    async def _send_later_part(self, request: Request) -> Receipt:
        for attempt in range(_BUSY_TRIES):
            try:
                return self._read(await self._ask(request, _committed_already))
            except GatewayDown:
                await asyncio.sleep(self._busy_wait_s * 2**attempt)
        return self._read(await self._ask(request, _committed_already))

    def _request(self, content: ComposedSms, ref: str) -> Request:
        return self._requests(content, ref)[0]

    def _requests(self, content: ComposedSms, ref: str) -> list[Request]:
        parts = split(content.text)
        common = self._common_query(content.address, parts.encoding)
        queries = [common | {"text": text} for text in parts.parts]
        for query, octets in zip(queries, octets_of(parts, crc32(ref.encode())), strict=True):
            if octets.header:
                query["udh"] = octets.header
        if self._gateway.dlr_mask and self._receipt_url:
            # %d is the receipt's type, %A the SMSC's words, %F its id; our own reference comes first.
            queries[-1]["dlr-mask"] = str(self._gateway.dlr_mask)
            queries[-1]["dlr-url"] = f"{self._receipt_url}?ref={quote(ref)}&type=%d&answer=%A&id=%F"
        return [get(self._gateway.url, query) for query in queries]

    def _common_query(self, address: str, encoding: Encoding) -> dict[str, str | bytes]:
        gateway = self._gateway
        query: dict[str, str | bytes] = {
            "username": gateway.username,
            "password": gateway.password.get_secret_value(),
            "to": address,
            "charset": "UTF-8",
            "coding": "0" if encoding is Encoding.GSM7 else "2",
        }
        if gateway.sender:
            query["from"] = gateway.sender
        if gateway.smsc:
            query["smsc"] = gateway.smsc
        return query

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


def _committed_already() -> None:
    """Of a later part: its message was committed before the first."""
