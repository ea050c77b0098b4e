"""Adapters of the SMS providers, facing a server of the tests."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

from kernel.sms_providers import AliyunGateway, TencentGateway, TwilioGateway, VonageGateway
from tests.servers.sms_providers import ACCOUNT, SECRET
from workers.channels.aliyun import AliyunChannel
from workers.channels.tencent import TencentChannel
from workers.channels.twilio import TwilioChannel
from workers.channels.vonage import VonageChannel

NOW = datetime(2026, 11, 26, 15, 30, tzinfo=UTC)
"""Half past eleven at night in China."""
_nonces = count(1)


def twilio_gateway(url: str, **more: Any) -> TwilioGateway:
    settings = {
        "type": "twilio",
        "account_sid": ACCOUNT,
        "auth_token": SECRET,
        "sender": "+15005550006",
        "timeout": "5s",
    }
    return TwilioGateway.model_validate({**settings, "url": url, **more})


def twilio(url: str, *, receipt_url: str = "", **more: Any) -> TwilioChannel:
    return TwilioChannel(twilio_gateway(url, **more), receipt_url=receipt_url)


def vonage_gateway(url: str, **more: Any) -> VonageGateway:
    settings = {"type": "vonage", "api_key": "key", "api_secret": SECRET, "sender": "ACME", "timeout": "5s"}
    return VonageGateway.model_validate({**settings, "url": url, **more})


def vonage(url: str, *, receipt_url: str = "", **more: Any) -> VonageChannel:
    return VonageChannel(vonage_gateway(f"{url}/sms/json", **more), receipt_url=receipt_url)


def aliyun_gateway(url: str, **more: Any) -> AliyunGateway:
    settings = {"type": "aliyun", "access_key_id": "id", "access_key_secret": SECRET, "sign_name": "阿里云"}
    return AliyunGateway.model_validate({**settings, "template": "SMS_1", "timeout": "5s", "url": url, **more})


def aliyun(url: str, **more: Any) -> AliyunChannel:
    return AliyunChannel(aliyun_gateway(f"{url}/", **more), clock=lambda: NOW, nonce=lambda: f"nonce{next(_nonces)}")


def tencent_gateway(url: str, **more: Any) -> TencentGateway:
    settings = {"type": "tencent", "secret_id": "id", "secret_key": SECRET, "app_id": "1400006666"}
    more = {"sign_name": "腾讯云", "template": "1234", "timeout": "5s", "url": url, **more}
    return TencentGateway.model_validate({**settings, **more})


def tencent(url: str, **more: Any) -> TencentChannel:
    return TencentChannel(tencent_gateway(f"{url}/", **more), clock=lambda: NOW)
