"""Sending one e-mail outside the ledger: reports and test sends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from kernel.errors import ConfigError, OutcomeUnknown, PermanentError, TransientError
from kernel.settings import Workspace
from kernel.vocabulary import Channel as ChannelName
from templates.mail import ComposedMail
from templates.sms import ComposedSms
from workers.channels.port import Parcel, Receipt
from workers.channels.registry import open_channel

_PATIENCE_S = 660.0
"""Longer than any channel waits for an answer (RFC 5321 4.5.3.2.6: ten minutes after the final dot)."""


@dataclass(slots=True)
class SingleFlight:
    """Implements workers.channels.port.Flight for one message: keeps the receipt or the error."""

    receipt: Receipt | None = None
    error: PermanentError | TransientError | OutcomeUnknown | None = None
    told: threading.Event = field(default_factory=threading.Event)

    def commit(self, index: int) -> None:
        """Nothing to keep: the caller decides what an unknown outcome means."""

    def retract(self, index: int) -> None:
        """Nothing to take back."""

    def accepted(self, index: int, receipt: Receipt) -> None:
        """Keep the receipt."""
        self.receipt = receipt
        self.told.set()

    def refused(self, index: int, error: PermanentError) -> None:
        """Keep the error."""
        self.error = error
        self.told.set()

    def deferred(self, index: int, error: TransientError) -> None:
        """Keep the error."""
        self.error = error
        self.told.set()

    def unknown(self, index: int, error: OutcomeUnknown) -> None:
        """Keep the error."""
        self.error = error
        self.told.set()


def send_one(workspace: Workspace, lane: str, content: ComposedMail | ComposedSms, *, ref: str = "") -> Receipt:
    """Send one message by a gateway now.

    Raises:
        ConfigError: there is no such gateway.
        GatewayDown: the gateway refuses as a whole; nothing was sent.
        DeliveryError: what became of the message.
    """
    channel = open_channel(workspace, lane)
    if channel is None:
        raise ConfigError(f"carillon.yaml has no gateway {lane!r}")
    flight = SingleFlight()
    try:
        parcel = Parcel(index=0, message_id=0, ref=ref, content=content)
        # A straggler: somebody waits for this one answer, so wait as long as the channel does.
        if channel.deliver([parcel], flight, lambda: True) and not flight.told.wait(_PATIENCE_S):
            raise OutcomeUnknown(f"gateway {lane!r} has not answered")
    finally:
        channel.close()
    if flight.error is not None:
        raise flight.error
    if flight.receipt is None:
        raise ConfigError(f"gateway {lane!r} neither took nor refused the message")
    return flight.receipt


def first_gateway(workspace: Workspace, channel: ChannelName) -> str:
    """Return the channel's first gateway.

    Raises:
        ConfigError: carillon.yaml has none.
    """
    for name in workspace.settings.gateways_for(channel):
        return name
    raise ConfigError(f"carillon.yaml has no gateway for {channel}; add one under `gateways:`")
