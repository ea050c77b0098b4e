"""Alibaba Cloud's Dysmsapi: SendSms by the RPC signature, business errors at HTTP 200.

A SignatureNonce may not come twice within 31 minutes. So a request that was not answered is sent once more, byte for
byte: either it is taken now, or `SignatureNonceUsed` proves that the first had arrived. What became of that one is
asked later, by QuerySendDetails and our OutId.

Source:
    Alibaba Cloud, "SendSms" and "API error codes" (2017-05-25), "RPC signature" (SignatureVersion 1.0).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError, TransientError
from kernel.sms_providers import AliyunGateway
from templates.sms import ComposedSms
from workers.channels.over_http import SmsOverHttp, refuse_by_status
from workers.channels.port import Parcel, Receipt
from workers.channels.provider_templates import read_filled
from workers.http.exchange import Answer, Request

NONCE_USED = "SignatureNonceUsed"
_OURS_TO_MEND = (
    *("isv.OUT_OF_SERVICE", "isv.AMOUNT_NOT_ENOUGH", "isv.PRODUCT_UN", "isv.ACCOUNT_", "isv.DENY_IP_RANGE"),
    *("isv.DAY_LIMIT_CONTROL", "isv.MONTH_LIMIT_CONTROL", "isv.SMS_SIGN", "isv.SIGN_", "isv.SMS_TEMPLATE_ILLEGAL"),
    *(
        "isp.RAM_PERMISSION_DENY",
        "isv.EXTEND_CODE_ERROR",
        "isv.SMS_TEST_",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
    ),
    *(
        "InvalidTimeStamp",
        "IncompleteSignature",
        "Forbidden",
        "NoPermission",
        "UnsupportedOperation",
        "MissingAccessKeyId",
    ),
)
_LATER = ("isv.BUSINESS_LIMIT_CONTROL", "isp.SYSTEM_ERROR", "isp.UNKNOW", "InternalError")
"""BUSINESS_LIMIT_CONTROL is about this one number: so many a minute, an hour, a day."""
_BUSY = ("Throttling", "ServiceUnavailable", "isp.GATEWAY_ERROR")
_BUSY_S = 1.0


class AliyunChannel(SmsOverHttp):
    """One AccessKey with one signature (the 【…】 in front)."""

    def __init__(
        self,
        gateway: AliyunGateway,
        *,
        clock: Callable[[], datetime],
        nonce: Callable[[], str],
    ) -> None:
        """Take the gateway; the clock dates requests, `nonce` gives each a word never used before."""
        super().__init__(gateway)
        self._gateway = gateway
        self._clock = clock
        self._nonce = nonce

    async def _send(self, parcel: Parcel, commit: Callable[[], None]) -> Receipt:
        if not isinstance(parcel.content, ComposedSms):
            return await super()._send(parcel, commit)
        request = self._request(parcel.content, parcel.ref)
        try:
            answer = await self._ask(request, commit)
        except OutcomeUnknown as error:
            return await self._once_more(request, error)
        return self._read(answer)

    async def _once_more(self, request: Request, first: OutcomeUnknown) -> Receipt:
        """Send the same bytes again; only words about the SMS itself settle what became of the first."""
        try:
            answer = await self._ask(request, lambda: None)
            data = answer.json_object()
        except (GatewayDown, TransientError, OutcomeUnknown) as error:
            raise OutcomeUnknown(f"{first.text}; again: {error}", code=first.code) from error
        code = str(data.get("Code"))
        if code == NONCE_USED:
            raise OutcomeUnknown(f"{first.text}; it had arrived", code=first.code)
        if code == "OK" or code.startswith("isv."):
            return self._read(answer)
        raise OutcomeUnknown(f"{first.text}; again: {code} {data.get('Message', '')}", code=first.code)

    def _request(self, content: ComposedSms, ref: str) -> Request:
        filled = read_filled(content.text, self._gateway.template)
        fields = {
            "PhoneNumbers": number_of(content.address),
            "SignName": self._gateway.sign_name,
            "TemplateCode": filled.template,
            "TemplateParam": json.dumps(filled.values, ensure_ascii=False, separators=(",", ":")),
            "OutId": ref,
        }
        return rpc_request(self._gateway, "SendSms", fields, at=self._clock(), nonce=self._nonce())

    def _read(self, answer: Answer) -> Receipt:
        if answer.status == 200 or 400 <= answer.status < 500:
            data = _words_of(answer)
            code = data.get("Code")
            if code == "OK":
                biz_id = data.get("BizId")
                return Receipt(reply="OK", code=answer.status, gateway_id=str(biz_id) if biz_id else None)
            if isinstance(code, str) and code:
                refuse_by_code(code, f"{code} {data.get('Message', '')}", answer)
        refuse_by_status(answer)
        raise OutcomeUnknown(f"answer has no Code: {answer.excerpt}", code=answer.status)


def refuse_by_code(code: str, words: str, answer: Answer) -> None:
    """Raise what a Code other than OK means."""
    if code.startswith(_BUSY):
        raise GatewayDown(f"Alibaba Cloud is busy: {words}", retry_after_s=answer.retry_after_s or _BUSY_S)
    if code.startswith(_OURS_TO_MEND):
        raise GatewayDown(f"Alibaba Cloud refuses: {words}", lasting=True)
    if code.startswith(_LATER):
        raise TransientError(words, code=answer.status)
    if code == NONCE_USED:
        raise OutcomeUnknown(words, code=answer.status)
    raise PermanentError(words, code=answer.status)


def rpc_request(gateway: AliyunGateway, action: str, fields: Mapping[str, str], *, at: datetime, nonce: str) -> Request:
    """Return a signed request of an action; the same arguments give the same bytes."""
    signed = {
        **fields,
        "Action": action,
        "Version": "2017-05-25",
        "RegionId": gateway.region,
        "Format": "JSON",
        "AccessKeyId": gateway.access_key_id,
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "SignatureNonce": nonce,
        "Timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    signed["Signature"] = signature("POST", signed, gateway.access_key_secret.get_secret_value())
    body = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(signed.items()))
    return Request(
        method="POST",
        url=gateway.url,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=body.encode("ascii"),
    )


def signature(method: str, fields: Mapping[str, str], secret: str) -> str:
    """Return the RPC signature of a request's fields."""
    query = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(fields.items()))
    text = f"{method}&{_encoded('/')}&{_encoded(query)}"
    return base64.b64encode(hmac.digest(f"{secret}&".encode(), text.encode(), hashlib.sha1)).decode("ascii")


def _encoded(value: str) -> str:
    return quote(value, safe="-_.~")


def number_of(address: str) -> str:
    """Return a number as SendSms takes it: of mainland China the eleven digits, of elsewhere all, no plus sign."""
    return address.removeprefix("+86") if address.startswith("+86") else address.removeprefix("+")


def _words_of(answer: Answer) -> dict[str, Any]:
    if answer.status == 200:
        return answer.json_object()
    try:
        return answer.json_object()
    except OutcomeUnknown:
        return {}  # Not Alibaba's own words: the HTTP status has to do.
