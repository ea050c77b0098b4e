"""Tencent Cloud SMS: SendSms by TC3-HMAC-SHA256; errors stand in an answer of HTTP 200.

Source:
    Tencent Cloud, "SendSms" and "Signature v3" (2021-01-11); the error codes are those of the official SDK.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

from kernel.errors import GatewayDown, OptedOut, OutcomeUnknown, PermanentError, TransientError
from kernel.sms_providers import TencentGateway
from templates.sms import ComposedSms
from workers.channels.over_http import SmsOverHttp, refuse_by_status
from workers.channels.port import Receipt
from workers.channels.provider_templates import read_filled
from workers.http.exchange import Answer, Request

_JSON = "application/json"
_CHINA = timezone(timedelta(hours=8))
_OPENS = 8
"""Marketing SMS are taken from 08:00 to 22:00 in China."""
_NIGHT = "FailedOperation.MarketingSendTimeConstraint"
_BLACKLIST = "FailedOperation.PhoneNumberInBlacklist"
"""The person has answered with a word of refusal, or stands on a carrier's list of those not to be disturbed."""
_UNKNOWN = (
    "InternalError.SendAndRecvFail",
    "InternalError.Timeout",
    "InternalError.ParseBackendResponseFail",
)
"""Something behind the interface did not answer Tencent: the SMS may be out."""
_BUSY = ("RequestLimitExceeded", "LimitExceeded.DeliveryFrequencyLimit", "LimitExceeded.GlobalSmsSendingRateLimit")
_BUSY_S = 1.0
_LATER = ("LimitExceeded.PhoneNumber", "InternalError", "ResourceUnavailable", "ResourceInsufficient")
_OURS_TO_MEND = (
    *(
        "AuthFailure",
        "UnauthorizedOperation",
        "InvalidParameterValue.SdkAppIdNotExist",
        "InvalidParameter.AppidAndBizId",
    ),
    *("InternalError.RequestTimeException", "InternalError.Sig", "InternalError.RestApiInterfaceNotExist"),
    *("FailedOperation.InsufficientBalanceInSmsPackage", "FailedOperation.SignatureIncorrectOrUnapproved"),
    *("FailedOperation.MissingSignature", "FailedOperation.MissingTemplate", "FailedOperation.TemplateIncorrect"),
    *("FailedOperation.TemplateUnapproved", "FailedOperation.TemplateIdNotExist", "FailedOperation.SignIdNotExist"),
    *("LimitExceeded.App", "LimitExceeded.DailyLimit", "InvalidAction", "NoSuchVersion", "UnsupportedRegion"),
)


class TencentChannel(SmsOverHttp):
    """One secret with one application and signature (the 【…】 in front)."""

    def __init__(self, gateway: TencentGateway, *, clock: Callable[[], datetime]) -> None:
        """Take the gateway; the clock dates requests and tells how far off the morning is."""
        super().__init__(gateway)
        self._gateway = gateway
        self._clock = clock

    def _request(self, content: ComposedSms, ref: str) -> Request:
        filled = read_filled(content.text, self._gateway.template)
        body = {
            "PhoneNumberSet": [content.address],
            "SmsSdkAppId": self._gateway.app_id,
            "SignName": self._gateway.sign_name,
            "TemplateId": filled.template,
            "TemplateParamSet": filled.in_order(),
            "SessionContext": ref,
        }
        return tc3_request(self._gateway, "SendSms", body, at=self._clock())

    def _read(self, answer: Answer) -> Receipt:
        refuse_by_status(answer)
        data = response_of(answer)
        error = data.get("Error")
        if isinstance(error, dict):
            self._refuse(str(error.get("Code")), str(error.get("Message", "")), answer)
        statuses = data.get("SendStatusSet")
        if not isinstance(statuses, list) or len(statuses) != 1 or not isinstance(statuses[0], dict):
            raise OutcomeUnknown(f"answer has no SendStatusSet of one: {answer.excerpt}", code=answer.status)
        status = statuses[0]
        if str(status.get("Code")).lower() != "ok":
            self._refuse(str(status.get("Code")), str(status.get("Message", "")), answer)
        serial, fee = status.get("SerialNo"), status.get("Fee")
        return Receipt(
            reply="Ok",
            code=answer.status,
            gateway_id=str(serial) if serial else None,
            parts=fee if isinstance(fee, int) and fee > 0 else None,
        )

    def _refuse(self, code: str, message: str, answer: Answer) -> None:
        words = f"{code} {message}".strip()
        if code == _NIGHT:
            raise GatewayDown(f"Tencent Cloud: {words}", retry_after_s=until_morning_s(self._clock()))
        if code == _BLACKLIST:
            raise OptedOut(words, code=answer.status)
        if code.startswith(_UNKNOWN):
            raise OutcomeUnknown(words, code=answer.status)
        if code.startswith(_BUSY):
            raise GatewayDown(f"Tencent Cloud is busy: {words}", retry_after_s=_BUSY_S)
        if code.startswith(_OURS_TO_MEND):
            raise GatewayDown(f"Tencent Cloud refuses: {words}", lasting=True)
        if code.startswith(_LATER):
            raise TransientError(words, code=answer.status)
        raise PermanentError(words, code=answer.status)


def response_of(answer: Answer) -> dict[str, Any]:
    """Return the Response of an answer; one without it leaves the outcome unknown."""
    data = answer.json_object().get("Response")
    if not isinstance(data, dict):
        raise OutcomeUnknown(f"answer has no Response: {answer.excerpt}", code=answer.status)
    return data


def until_morning_s(now: datetime) -> float:
    """Return the seconds until it is eight in China."""
    local = now.astimezone(_CHINA)
    opens = local.replace(hour=_OPENS, minute=0, second=0, microsecond=0)
    if opens <= local:
        opens += timedelta(days=1)
    return (opens - local).total_seconds()


def tc3_request(gateway: TencentGateway, action: str, data: dict[str, Any], *, at: datetime) -> Request:
    """Return a signed request of an action."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    host = urlsplit(gateway.url).netloc
    headers = {
        "Content-Type": _JSON,
        "X-TC-Action": action,
        "X-TC-Version": "2021-01-11",
        "X-TC-Region": gateway.region,
        "X-TC-Timestamp": str(int(at.timestamp())),
    }
    headers["Authorization"] = authorization(
        gateway.secret_id, gateway.secret_key.get_secret_value(), host=host, body=body, at=at
    )
    return Request(method="POST", url=gateway.url, headers=headers, body=body)


def authorization(secret_id: str, secret_key: str, *, host: str, body: bytes, at: datetime) -> str:
    """Return the Authorization header (TC3-HMAC-SHA256) of a POST of JSON to the root of a host."""
    instant = int(at.timestamp())
    date = at.strftime("%Y-%m-%d")
    names = "content-type;host"
    canonical = f"POST\n/\n\ncontent-type:{_JSON}\nhost:{host}\n\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{date}/sms/tc3_request"
    text = f"TC3-HMAC-SHA256\n{instant}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"TC3{secret_key}".encode()
    for step in (date, "sms", "tc3_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    made = hmac.digest(key, text.encode(), "sha256").hex()
    return f"TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders={names}, Signature={made}"
