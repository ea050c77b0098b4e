"""One chunk under way: tells the flight recorder at once, and keeps the details for the commit afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from kernel import faultpoints
from kernel.clock import from_ms, to_ms
from kernel.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError
from kernel.faultpoints import FaultPoint, faultpoint
from kernel.vocabulary import FailReason
from store.ledger import Ending, Outcome
from templates.sms import ComposedSms
from workers.channels.port import Parcel, Receipt
from workers.limits.retries import RetryPolicy, spread_of
from workers.recorder import TEXT_BYTES, Fenced, FlightRecorder, Slot


class Passenger(NamedTuple):
    """One message of the chunk and what its bookkeeping needs; a tuple, because there are so many."""

    parcel: Parcel
    planned_ms: int
    """When it was first due, in milliseconds."""
    attempts: int
    price_micro: int | None
    retry: RetryPolicy

    @property
    def cost_micro(self) -> int:
        """What it costs if it is accepted, in millionths of the currency; 0 where the gateway has no price."""
        parts = self.parcel.content.parts if isinstance(self.parcel.content, ComposedSms) else 1
        return (self.price_micro or 0) * parts


class ChunkFlight:
    """Implements workers.channels.port.Flight over a flight recorder.

    Told by one thread at a time: the channel's. Stragglers are told of after the channel has returned, so whoever waits
    for them waits for `settled`.
    """

    def __init__(
        self,
        recorder: FlightRecorder,
        passengers: Sequence[Passenger],
        *,
        began_at: datetime,
        began: float,
        lease_ends: Callable[[], float],
    ) -> None:
        """Take a chunk.

        Args:
            recorder: Has a slot for every parcel's index.
            passengers: The messages to be sent.
            began_at: An instant on the database's clock.
            began: The monotonic second of that instant.
            lease_ends: The monotonic second at which the lease, as last renewed, runs out.
        """
        self._recorder = recorder
        self._passengers = {passenger.parcel.index: passenger for passenger in passengers}
        self._began_at = began_at
        self._began = began
        self._zero_ms = to_ms(began_at) - began * 1000
        self._lease_ends = lease_ends
        self._outcomes: dict[int, Outcome] = {}
        self._waiting: frozenset[int] = frozenset()
        self.settled = threading.Event()

    def now(self) -> datetime:
        """Return the present instant on the database's clock."""
        return self._began_at + timedelta(seconds=time.monotonic() - self._began)

    def commit(self, index: int) -> None:
        """See Flight.commit; a lease that ran out while this process was stopped counts as the fence."""
        now = time.monotonic()
        if now >= self._lease_ends():
            raise Fenced
        if faultpoints.armed:
            faultpoint(FaultPoint.BEFORE_FLIGHT_COMMIT)
        self._recorder.commit(index, int(self._zero_ms + now * 1000))
        if faultpoints.armed:
            faultpoint(FaultPoint.AFTER_FLIGHT_COMMIT)

    def retract(self, index: int) -> None:
        """See Flight.retract."""
        self._recorder.retract(index)

    def accepted(self, index: int, receipt: Receipt) -> None:
        """See Flight.accepted."""
        parcel, _, _, price_micro, _ = self._passengers[index]
        content = parcel.content
        at_ms = int(self._zero_ms + time.monotonic() * 1000)
        if faultpoints.armed:
            faultpoint(FaultPoint.BEFORE_ACCEPTED_RECORDED)
        if isinstance(content, ComposedSms):
            # An SMS is known by its parts: then the text is the gateway's own id of it, which receipts will name.
            # What the gateway charges goes before what we counted.
            parts: int | None = receipt.parts or content.parts
            text, address = _kept_whole(receipt.gateway_id), content.address
        else:
            parts, text, address = None, receipt.reply, content.envelope_to
        self._recorder.record(index, Slot.ACCEPTED, receipt.code, text, at_ms=at_ms, parts=parts or 0)
        if faultpoints.armed:
            faultpoint(FaultPoint.AFTER_ACCEPTED_RECORDED)
        self._note(
            index,
            # In the order of its fields, not by their names: that takes half as long, and there are so many.
            Outcome(
                parcel.message_id,
                Ending.ACCEPTED,
                at_ms,
                receipt.reply,
                address,
                receipt.gateway_id,
                parts,
                None if price_micro is None else price_micro * (parts or 1),
            ),
        )

    def refused(self, index: int, error: PermanentError) -> None:
        """See Flight.refused."""
        self._recorder.record(index, Slot.REFUSED, error.code, error.text, at_ms=to_ms(self.now()))
        faultpoint(FaultPoint.AFTER_REFUSED_RECORDED)
        self._note(index, self._outcome(index, Ending.REFUSED, error))

    def deferred(self, index: int, error: TransientError) -> None:
        """See Flight.deferred; turns into a refusal where attempts or age are used up."""
        self._recorder.record(index, Slot.DEFERRED, error.code, error.text, at_ms=to_ms(self.now()))
        faultpoint(FaultPoint.AFTER_DEFERRED_RECORDED)
        passenger = self._passengers[index]
        retry_at = passenger.retry.next_try(
            now=self.now(),
            planned_for=from_ms(passenger.planned_ms),
            attempts=passenger.attempts,
            spread=spread_of(passenger.parcel.message_id, passenger.attempts),
            at_least_s=error.retry_after_s or 0.0,
        )
        if retry_at is None:
            self._note(index, self._outcome(index, Ending.REFUSED, error, FailReason.RETRIES_EXHAUSTED))
        else:
            self._note(index, self._outcome(index, Ending.DEFERRED, error, retry_at=retry_at))

    def unknown(self, index: int, error: OutcomeUnknown) -> None:
        """See Flight.unknown; the recorder's mark already says so."""
        self._note(index, self._outcome(index, Ending.IN_DOUBT, error))

    def take(self, waiting: frozenset[int] = frozenset()) -> list[Outcome]:
        """Return what became of every parcel but those still waited for.

        Those never mentioned are untouched; one that was committed and of which nothing was said since is in doubt.

        Args:
            waiting: Indices whose answers are still to come; `settled` is set with the last of them.
        """
        # Whatever is answered while this runs is either in the list, or sets `settled` once it is waited for.
        self._waiting = waiting
        outcomes = [
            self._outcomes.get(index) or self._unmentioned(index) for index in self._passengers if index not in waiting
        ]
        self._look()
        return outcomes

    def stragglers(self) -> list[Outcome]:
        """Return what became of those that were waited for; what nobody could tell is in doubt."""
        unanswered = OutcomeUnknown("the worker ended before the answer to the final byte came")
        return [
            self._outcomes.get(index) or self._outcome(index, Ending.IN_DOUBT, unanswered)
            for index in sorted(self._waiting)
        ]

    def _unmentioned(self, index: int) -> Outcome:
        if self._recorder.slot(index) is Slot.COMMITTED:
            lost = OutcomeUnknown("sending was broken off between the final byte and the answer")
            return self._outcome(index, Ending.IN_DOUBT, lost)
        return self._outcome(index, Ending.UNTOUCHED, None)

    def _note(self, index: int, outcome: Outcome) -> None:
        self._outcomes[index] = outcome
        if self._waiting:
            self._look()

    def _look(self) -> None:
        if all(index in self._outcomes for index in self._waiting):
            self.settled.set()

    def _outcome(
        self,
        index: int,
        ending: Ending,
        error: DeliveryError | None,
        fail_reason: FailReason = FailReason.REFUSED,
        retry_at: datetime | None = None,
    ) -> Outcome:
        parcel = self._passengers[index].parcel
        return Outcome(
            message_id=parcel.message_id,
            ending=ending,
            at_ms=to_ms(self.now()),
            reply=error.text if error else "",
            code=error.code if error else 0,
            enhanced=error.enhanced if error else "",
            address=address_of(parcel),
            parts=parcel.content.parts if isinstance(parcel.content, ComposedSms) else None,
            fail_reason=fail_reason,
            retry_at=retry_at,
        )


def _kept_whole(gateway_id: str | None) -> str:
    """Return the id where a recorder's slot holds all of it: half an id would match nothing, or the wrong thing."""
    return gateway_id if gateway_id and len(gateway_id.encode("utf-8", "replace")) <= TEXT_BYTES else ""


def address_of(parcel: Parcel) -> str:
    """Return where a parcel goes."""
    return parcel.content.address if isinstance(parcel.content, ComposedSms) else parcel.content.envelope_to
