"""Which file reads the callbacks of which SMS gateway: the twin of workers.channels.registry."""

from __future__ import annotations

from kernel.gateways import Gateway, HttpGateway, KannelGateway, SmppGateway
from kernel.settings import Workspace
from kernel.sms_providers import AliyunGateway, TencentGateway, TwilioGateway, VonageGateway
from store.inbox import InboxRow
from workers.inbound import aliyun, http, kannel, smpp, tencent, twilio, vonage
from workers.inbound.callbacks import Callback, CallbackError, IncomingSms, SmsReceipt

_NO_GATEWAY = "carillon.yaml has no such SMS gateway"


def callback_of(workspace: Workspace, row: InboxRow) -> Callback:
    """Return a row of the inbox as the callback it was, with the address its gateway had been given."""
    name = row.gateway or ""
    token = getattr(workspace.settings.gateways.get(name), "callback_token", None)
    secret = token.get_secret_value() if token else ""
    kind = "inbound" if row.meta.get("kind") == "inbound" else "receipt"
    headers = row.meta.get("headers")
    return Callback(
        url=f"{workspace.settings.web.public_url.rstrip('/')}/v1/gateways/{name}/{kind}/{secret}",
        query=str(row.meta.get("query", "")),
        headers={str(key): str(value) for key, value in headers.items()} if isinstance(headers, dict) else {},
        body=row.body,
    )


def understand_receipts(gateway: Gateway | None, callback: Callback) -> list[SmsReceipt]:
    """Return what a gateway's callback says of our messages.

    Raises:
        CallbackError: it cannot be read or is not the gateway's, or carillon.yaml has no such gateway any more.
    """
    match gateway:
        case KannelGateway():
            receipts = kannel.read_receipts(callback.query)
        case HttpGateway():
            receipts = http.read_receipts(gateway.receipt, callback.query, callback.content_type, callback.body)
        case SmppGateway():
            receipts = smpp.read_receipts(gateway, callback.body)
        case TwilioGateway():
            receipts = twilio.read_receipts(gateway, callback)
        case VonageGateway():
            receipts = vonage.read_receipts(gateway, callback)
        case AliyunGateway():
            receipts = aliyun.read_receipts(callback)
        case TencentGateway():
            receipts = tencent.read_receipts(callback)
        case _:
            raise CallbackError(_NO_GATEWAY)
    return receipts


def understand_incoming(gateway: Gateway | None, callback: Callback) -> list[IncomingSms]:
    """Return the incoming SMS of a gateway's callback.

    Raises:
        CallbackError: as of `understand_receipts`.
    """
    match gateway:
        case KannelGateway():
            incoming = kannel.read_incoming(callback.query)
        case HttpGateway():
            incoming = http.read_incoming(gateway.receipt, callback.query, callback.content_type, callback.body)
        case SmppGateway():
            incoming = smpp.read_incoming(callback.body)
        case TwilioGateway():
            incoming = twilio.read_incoming(gateway, callback)
        case VonageGateway():
            incoming = vonage.read_incoming(gateway, callback)
        case AliyunGateway():
            incoming = aliyun.read_incoming(callback)
        case TencentGateway():
            incoming = tencent.read_incoming(callback)
        case _:
            raise CallbackError(_NO_GATEWAY)
    return incoming
