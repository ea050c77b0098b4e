"""The port every way out implements, and the loop most of them share.

`deliver` is handed a whole chunk, so that a channel may pipeline it over many connections; a simple adapter sends
one message at a time and lets `one_by_one` do the bookkeeping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError, TransientError
from templates.mail import ComposedMail
from templates.sms import ComposedSms


@dataclass(slots=True, kw_only=True)
class Parcel:
    """One message ready to leave. `ref` is our signed reference of it, for receipts. Nobody changes one.

    Not frozen: that would cost more than all the rest of making one.
    """

    index: int
    message_id: int
    ref: str
    content: ComposedMail | ComposedSms


class Receipt(NamedTuple):
    """The gateway took the message over. `parts` is how many SMS parts it says it charges, where it says so."""

    reply: str
    code: int = 0
    gateway_id: str | None = None
    parts: int | None = None


class Flight(Protocol):
    """Where a channel says what happens to each message of the chunk, the moment it happens."""

    def commit(self, index: int) -> None:
        """Say that the next byte cannot be taken back. Raises workers.recorder.Fenced: send nothing more."""

    def retract(self, index: int) -> None:
        """Say that nothing left after all, after a `commit`."""

    def accepted(self, index: int, receipt: Receipt) -> None:
        """The gateway took it over."""

    def refused(self, index: int, error: PermanentError) -> None:
        """Not sent, never will be."""

    def deferred(self, index: int, error: TransientError) -> None:
        """Not sent, may be later."""

    def unknown(self, index: int, error: OutcomeUnknown) -> None:
        """Perhaps sent."""


class Channel(Protocol):
    """A way out."""

    def deliver(self, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]) -> frozenset[int]:
        """Send the parcels, telling `flight` of each. Those never mentioned were not touched.

        Returns once every parcel is decided, or once only stragglers are left: parcels that may be out and whose
        answer has not come within a few seconds of the rest. For those the channel goes on waiting in the background,
        as long as the protocol asks for, and tells `flight` of each from a thread of its own.

        Args:
            parcels: The chunk, in order.
            flight: Told of every step.
            keep_going: Asked between messages; False means stop here (shutdown, lease).

        Returns:
            The indices of the stragglers.

        Raises:
            GatewayDown: the gateway refuses as a whole; what is not yet mentioned was not sent.
        """

    def close(self) -> None:
        """End connections politely; never raises."""


Send = Callable[[Parcel, Callable[[], None], Callable[[], None]], Receipt]
"""Sends one parcel; calls the first function right before the point of no return, the second to take that back."""


def one_by_one(send: Send, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]) -> frozenset[int]:
    """Deliver a chunk with a function that sends one message and raises one of the three delivery errors."""
    for parcel in parcels:
        if not keep_going():
            break
        index = parcel.index
        try:
            receipt = send(parcel, lambda i=index: flight.commit(i), lambda i=index: flight.retract(i))  # type: ignore[misc]
        except GatewayDown:
            flight.retract(index)  # By its definition nothing was sent.
            raise
        except PermanentError as error:
            flight.refused(index, error)
        except TransientError as error:
            flight.deferred(index, error)
        except OutcomeUnknown as error:
            flight.unknown(index, error)
        else:
            flight.accepted(index, receipt)
    return frozenset()
