"""Messages on their way: a letter for each, a batch for the chunk they came in."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kernel.errors import OutcomeUnknown, PermanentError, TransientError
from templates.mail import ComposedMail
from workers.channels.port import Flight, Parcel, Receipt


class Letter:
    """One message. `committed` turns true right before the write that may complete it."""

    __slots__ = ("batch", "committed", "content", "domain", "index", "key")

    def __init__(self, batch: Batch, parcel: Parcel, content: ComposedMail) -> None:
        self.batch = batch
        self.index = parcel.index
        self.key = parcel.message_id
        self.content = content
        self.domain = content.envelope_to.rpartition("@")[2].lower()
        self.committed = False


class Batch:
    """The letters of one `deliver`, and how many of them are still undecided.

    Belongs to the engine's thread, except for `done`, which the caller waits for. What a flight raises is the
    caller's to handle, so it is kept for it in `error`.
    """

    __slots__ = ("_flight", "done", "error", "left", "letters", "stopped_at", "stragglers", "waiting")

    def __init__(self, parcels: Sequence[tuple[Parcel, ComposedMail]], flight: Flight) -> None:
        self._flight = flight
        self.letters = [Letter(self, parcel, content) for parcel, content in parcels]
        self.left = len(self.letters)
        """Letters neither decided nor given back."""
        self.waiting = 0
        """Letters in the queue."""
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.stopped_at: float | None = None
        self.stragglers: frozenset[int] = frozenset()

    def commit(self, letter: Letter) -> bool:
        """Mark the point of no return; False where the flight forbids it: nothing may be sent then."""
        try:
            self._flight.commit(letter.index)
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it, whatever it is
            self.fail(error)
            return False
        letter.committed = True
        return True

    def accepted(self, letter: Letter, receipt: Receipt) -> None:
        """The server took the letter over."""
        try:
            self._flight.accepted(letter.index, receipt)
        except BaseException as error:  # noqa: BLE001 - as in commit
            self.fail(error)
        self.left -= 1

    def decided(self, letter: Letter, error: PermanentError | TransientError | OutcomeUnknown) -> None:
        """Tell the flight what became of a letter that was not accepted."""
        try:
            match error:
                case PermanentError():
                    self._flight.refused(letter.index, error)
                case TransientError():
                    self._flight.deferred(letter.index, error)
                case OutcomeUnknown():
                    self._flight.unknown(letter.index, error)
        except BaseException as failure:  # noqa: BLE001 - as in commit
            self.fail(failure)
        self.left -= 1

    def returned(self, letter: Letter) -> None:
        """Take back the mark of a letter of which the server has said that it did not take it."""
        if letter.committed:
            letter.committed = False
            try:
                self._flight.retract(letter.index)
            except BaseException as error:  # noqa: BLE001 - as in commit
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Keep the first reason why this batch ends early."""
        if self.error is None:
            self.error = error
