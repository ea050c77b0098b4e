"""Which adapter serves which kind of gateway: the one table to extend for a new provider.

An adapter is imported by the first gateway of its kind: a worker that sends e-mail holds none of what SMS need.
"""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import Engine

from kernel.clock import system_clock
from kernel.gateways import HttpGateway, KannelGateway, SmppGateway, SmtpGateway
from kernel.settings import Workspace
from kernel.sms_providers import AliyunGateway, TencentGateway, TwilioGateway, VonageGateway
from workers.channels.port import Channel


def open_channel(workspace: Workspace, name: str, *, engine: Engine | None = None) -> Channel | None:
    """Return the way out of that name; None where carillon.yaml no longer has it.

    Args:
        workspace: The workspace.
        name: The gateway's.
        engine: The database that keeps what comes back over the same connection (SMPP); None asks for nothing back.
    """
    gateway = workspace.settings.gateways.get(name)
    channel: Channel | None = None
    match gateway:
        case SmtpGateway():
            from workers.channels.smtp import SmtpChannel

            channel = SmtpChannel(gateway)
        case HttpGateway():
            from workers.channels.http import HttpChannel

            channel = HttpChannel(gateway, receipt_url=receipt_url(workspace, name))
        case KannelGateway():
            from workers.channels.kannel import KannelChannel

            channel = KannelChannel(gateway, receipt_url=receipt_url(workspace, name))
        case SmppGateway():
            from workers.channels.smpp import SmppChannel
            from workers.inbound.smpp import InboxKeeper

            channel = SmppChannel(gateway, keep=InboxKeeper(engine, name) if engine is not None else None)
        case TwilioGateway():
            from workers.channels.twilio import TwilioChannel

            channel = TwilioChannel(gateway, receipt_url=receipt_url(workspace, name))
        case VonageGateway():
            from workers.channels.vonage import VonageChannel

            channel = VonageChannel(gateway, receipt_url=receipt_url(workspace, name))
        case AliyunGateway():
            from workers.channels.aliyun import AliyunChannel

            channel = AliyunChannel(gateway, clock=system_clock, nonce=_nonce)
        case TencentGateway():
            from workers.channels.tencent import TencentChannel

            channel = TencentChannel(gateway, clock=system_clock)
    return channel


def _nonce() -> str:
    return uuid4().hex


def receipt_url(workspace: Workspace, name: str) -> str:
    """Return where a gateway is to post its receipts; "" where it has no callback token: the door stays shut."""
    gateway = workspace.settings.gateways[name]
    token = getattr(gateway, "callback_token", None)
    if token is None:
        return ""
    return f"{workspace.settings.web.public_url.rstrip('/')}/v1/gateways/{name}/receipt/{token.get_secret_value()}"
