"""Which file reads whose events.

Each is imported by the first call it reads: only Amazon's need certificates and all that comes with them.
"""

from __future__ import annotations

from collections.abc import Mapping

from kernel.gateways import Gateway, SmtpGateway
from kernel.webhooks import MailgunWebhook, PostmarkWebhook, SendgridWebhook, SesWebhook
from store.inbox import InboxRow
from workers.inbound.bounces import BounceReport
from workers.inbound.callbacks import CallbackError
from workers.inbound.provider_events import Delivery


def understand_events(gateway: Gateway | None, row: InboxRow) -> list[BounceReport]:
    """Return what an e-mail provider's call says of our messages, verified.

    Raises:
        CallbackError: it cannot be read or is not the provider's, or carillon.yaml names no such webhook any more.
    """
    webhook = gateway.webhook if isinstance(gateway, SmtpGateway) else None
    headers = row.meta.get("headers")
    call = Delivery(
        headers={str(name): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {},
        body=row.body,
        received_at=row.received_at,
    )
    match webhook:
        case SesWebhook():
            from workers.inbound import ses

            return ses.read_events(webhook, call)
        case SendgridWebhook():
            from workers.inbound import sendgrid

            return sendgrid.read_events(webhook, call)
        case MailgunWebhook():
            from workers.inbound import mailgun

            return mailgun.read_events(webhook, call)
        case PostmarkWebhook():
            from workers.inbound import postmark

            return postmark.read_events(webhook, call)
        case _:
            raise CallbackError("carillon.yaml names no webhook of this gateway")
