"""A flight that remembers everything it was told, for tests of channels."""

from __future__ import annotations

from dataclasses import dataclass, field

from kernel.errors import DeliveryError
from workers.channels.port import Receipt


@dataclass
class RememberingFlight:
    """Implements workers.channels.port.Flight."""

    committed: list[int] = field(default_factory=list)
    retracted: list[int] = field(default_factory=list)
    endings: dict[int, str] = field(default_factory=dict)
    receipts: dict[int, Receipt] = field(default_factory=dict)
    errors: dict[int, DeliveryError] = field(default_factory=dict)

    def commit(self, index: int) -> None:
        self.committed.append(index)

    def retract(self, index: int) -> None:
        self.retracted.append(index)

    def accepted(self, index: int, receipt: Receipt) -> None:
        self.endings[index] = "accepted"
        self.receipts[index] = receipt

    def refused(self, index: int, error: DeliveryError) -> None:
        self.endings[index] = "refused"
        self.errors[index] = error

    def deferred(self, index: int, error: DeliveryError) -> None:
        self.endings[index] = "deferred"
        self.errors[index] = error

    def unknown(self, index: int, error: DeliveryError) -> None:
        self.endings[index] = "unknown"
        self.errors[index] = error
