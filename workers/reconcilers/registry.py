"""Which gateways can be asked what became of a message."""

from __future__ import annotations

from uuid import uuid4

from kernel.gateways import Gateway
from kernel.sms_providers import AliyunGateway, TencentGateway, TwilioGateway
from workers.reconcilers.aliyun import AliyunReconciler
from workers.reconcilers.port import Reconciler
from workers.reconcilers.tencent import TencentReconciler
from workers.reconcilers.twilio import TwilioReconciler


def is_asked(gateway: Gateway) -> bool:
    """Tell whether a gateway can be asked."""
    return isinstance(gateway, TwilioGateway | AliyunGateway | TencentGateway)


def open_reconciler(gateway: Gateway | None) -> Reconciler | None:
    """Return how to ask a gateway; None where it cannot be asked."""
    match gateway:
        case TwilioGateway():
            return TwilioReconciler(gateway)
        case AliyunGateway():
            return AliyunReconciler(gateway, nonce=lambda: uuid4().hex)
        case TencentGateway():
            return TencentReconciler(gateway)
        case _:
            return None
