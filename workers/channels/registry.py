"""Which adapter serves which kind of gateway: the one table to extend for a new provider."""

from __future__ import annotations

from kernel.gateways import HttpGateway, KannelGateway, SmtpGateway
from kernel.settings import Workspace
from workers.channels.http import HttpChannel
from workers.channels.kannel import KannelChannel
from workers.channels.port import Channel
from workers.channels.smtp import SmtpChannel


def open_channel(workspace: Workspace, name: str) -> Channel | None:
    """Return the way out of that name; None where carillon.yaml no longer has it."""
    gateway = workspace.settings.gateways.get(name)
    match gateway:
        case SmtpGateway():
            return SmtpChannel(gateway)
        case HttpGateway():
            return HttpChannel(gateway, receipt_url=receipt_url(workspace, name))
        case KannelGateway():
            return KannelChannel(gateway, receipt_url=receipt_url(workspace, name))
        case None:
            return None


def receipt_url(workspace: Workspace, name: str) -> str:
    """Return where a gateway is to post its receipts; "" where it has no callback token: the door stays shut."""
    gateway = workspace.settings.gateways[name]
    token = getattr(gateway, "callback_token", None)
    if token is None:
        return ""
    return f"{workspace.settings.web.public_url.rstrip('/')}/v1/gateways/{name}/receipt/{token.get_secret_value()}"
