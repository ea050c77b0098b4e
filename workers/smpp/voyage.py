"""One chunk over one SMSC: what is out in the window, what still has to go, and why nothing more may.

The first part of a longer message goes ahead alone: what the SMSC refuses then, it refuses whole. The others follow
once it is accepted; the message is accepted when all of them are. A part refused after that leaves the message in
doubt: the telephone may show what it has.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kernel.errors import GatewayDown, OutcomeUnknown, PermanentError, TransientError
from workers.channels.port import Flight, Receipt
from workers.smpp.pdus import OK, status_name
from workers.smpp.session import Answer, Events, Lost, Session
from workers.smpp.statuses import Meaning

PATIENCE_S = 5.0
"""Answers that take longer hold up the rest of the chunk no more."""
_MOST_PAUSES = 5
_LOOK_EVERY_S = 0.5
_THROTTLED_WAIT_S = 10.0


class Pace:
    """How much may be out at once and how long throttling stops it; kept between chunks.

    The window halves when the SMSC throttles and grows by one a window accepted (as TCP does, RFC 5681). After a pause
    one submit_sm goes out alone to try.
    """

    def __init__(self, window: int, first_pause_s: float) -> None:
        self._window = window
        self._room = float(window)
        self._first_pause_s = first_pause_s
        self._pauses = 0
        self._since = self._until = 0.0

    def room(self, at: float) -> int:
        """Return how many may be out at a monotonic second."""
        if at < self._until:
            return 0
        return 1 if self._pauses else int(self._room)

    def until(self) -> float:
        """Return the monotonic second at which the present pause ends."""
        return self._until

    def accepted(self, submitted_at: float) -> None:
        """Take an acceptance into account."""
        if submitted_at >= self._since:
            self._pauses = 0
        self._room = min(self._window, self._room + 1 / self._room)

    def throttled(self, submitted_at: float, at: float) -> bool:
        """Take a word of throttling into account; False where it has been the answer too many times in a row."""
        if submitted_at < self._until:
            return True  # Of the burst that this pause is for.
        self._room = max(1.0, self._room / 2)
        self._since, self._until = at, at + self._first_pause_s * 2**self._pauses
        self._pauses += 1
        return self._pauses <= _MOST_PAUSES

    def rest(self) -> None:
        """Forget the pauses: the lane is closed instead."""
        self._pauses = 0
        self._until = 0.0


@dataclass(slots=True, kw_only=True)
class Message:
    """One message and its parts; `submits` holds the fields of a submit_sm for each."""

    index: int
    submits: Sequence[dict[str, Any]]
    ids: dict[int, str] = field(default_factory=dict)
    refused: str = ""
    open_parts: int = 0
    """Parts that are out or ready to go."""
    over: bool = False

    def partly(self, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(f"{len(self.ids)} of {len(self.submits)} parts accepted; {why}")


class Terms(Protocol):
    """What a voyage has to know of its gateway."""

    patience_s: float
    pace: Pace

    @property
    def adrift(self) -> int:
        """How many submit_sm of earlier chunks are still out."""

    def meaning(self, status: int) -> Meaning:
        """Return what a status other than ESME_ROK means here."""

    def kept_id(self, given: str) -> str:
        """Return how the ledger keeps an id."""


@dataclass(slots=True)
class _Out:
    message: Message
    part: int
    at: float


class Voyage:
    """Drives one chunk; survives the loss of its session."""

    def __init__(
        self, terms: Terms, messages: Sequence[Message], flight: Flight, keep_going: Callable[[], bool]
    ) -> None:
        self._terms = terms
        self._flight = flight
        self._keep_going = keep_going
        self._fresh = deque(messages)
        self._events: Events = queue.SimpleQueue()
        self._ready: deque[tuple[Message, int]] = deque()
        self._out: dict[int, _Out] = {}
        self._stopped = False
        self._returned = False
        self.down: GatewayDown | None = None

    def has_work(self) -> bool:
        """Tell whether anything may still be sent."""
        return bool(self._ready or (self._fresh and not self._stopped))

    def stragglers(self) -> frozenset[int]:
        """Return the indices of messages still out."""
        return frozenset(one.message.index for one in tuple(self._out.values()))

    def sail(self, session: Session) -> Lost | None:
        """Send and wait until everything is decided or only stragglers are left (None), or the session is lost.

        `down` may have been set meanwhile: then the SMSC wants nothing more for now, and there are no stragglers.
        """
        while True:
            self._fill(session)
            if self._out and not self._ready and self._all_overdue():
                self._stopped = True  # It answers nobody: what has not begun had better not begin.
                return None
            if not self._out and not self.has_work():
                return None
            event = self._next_event(session)
            if isinstance(event, Lost):
                self._lose(session, event)
                return event
            if event is not None:
                self._hear(event)
            self._give_up_waiting()

    def drift(self, session: Session) -> None:
        """Wait for the stragglers, in a thread of one's own, after the chunk has been returned from."""
        self._returned = self._stopped = True
        while self._out or self._ready:
            self._fill(session)
            event = self._next_event(session)
            if isinstance(event, Lost):
                self._lose(session, event)
                self.abandon(event.reason)
                return
            if event is not None:
                self._hear(event)
            self._give_up_waiting()

    def abandon(self, why: str) -> None:
        """Decide what had begun and cannot go on."""
        for message in {id(message): message for message, _ in self._ready}.values():
            self._in_doubt(message, why)
        self._ready.clear()

    def _fill(self, session: Session) -> None:
        while len(self._out) < self._room():
            if self._ready:
                self._submit(session, *self._ready.popleft())
            elif self._fresh and not self._stopped and self.down is None:
                if not self._keep_going():
                    self._stopped = True
                    return
                message = self._fresh.popleft()
                self._flight.commit(message.index)
                message.open_parts = 1
                self._submit(session, message, 0)
            else:
                return

    def _room(self) -> int:
        room = self._terms.pace.room(time.monotonic())
        return room if self._returned or not room else max(1, room - self._terms.adrift)

    def _all_overdue(self) -> bool:
        late = time.monotonic() - PATIENCE_S
        return self.down is None and all(one.at <= late for one in self._out.values())

    def _submit(self, session: Session, message: Message, part: int) -> None:
        at = time.monotonic()
        self._out[session.submit(message.submits[part], self._events)] = _Out(message, part, at)

    def _next_event(self, session: Session) -> Answer | Lost | None:
        now = time.monotonic()
        ends = [now + _LOOK_EVERY_S, *(one.at + self._terms.patience_s for one in self._out.values())]
        if self.has_work() and self._terms.pace.until() > now:
            ends.append(self._terms.pace.until())
        try:
            event = self._events.get(timeout=max(min(ends) - now, 0.001))
        except queue.Empty:
            return None
        # A session may be told of several times, by each submit_sm that came too late for it.
        return None if isinstance(event, Lost) and event.session is not session else event

    def _hear(self, answer: Answer) -> None:
        one = self._out.pop(answer.sequence, None)
        if one is None or one.message.over:
            return  # Of a message that has been decided without it.
        if answer.status == OK:
            self._terms.pace.accepted(one.at)
            self._take(one.message, one.part, answer.message_id)
            return
        meaning = self._terms.meaning(answer.status)
        if meaning is Meaning.THROTTLED:
            self._throttle(one, answer.status)
        else:
            self._refuse(one, answer.status, meaning)

    def _take(self, message: Message, part: int, given: str) -> None:
        message.ids[part] = given
        message.open_parts -= 1
        others = range(1, len(message.submits)) if part == 0 else range(0)
        message.open_parts += len(others)
        self._ready.extend((message, other) for other in others)
        if message.open_parts:
            return
        if message.refused:
            self._in_doubt(message, message.refused)
            return
        message.over = True
        given_ids = [message.ids[number] for number in sorted(message.ids)]
        receipt = Receipt(
            reply=f"accepted as {', '.join(given_ids)}", gateway_id=self._terms.kept_id(given_ids[-1]) or None
        )
        self._flight.accepted(message.index, receipt)

    def _throttle(self, one: _Out, status: int) -> None:
        goes_on = self._terms.pace.throttled(one.at, time.monotonic())
        if one.message.ids:
            self._ready.appendleft((one.message, one.part))
        else:
            self._put_back(one.message)
        if not goes_on:
            self._terms.pace.rest()
            self._stop(GatewayDown(f"the SMSC throttles: {status_name(status)}", retry_after_s=_THROTTLED_WAIT_S))

    def _refuse(self, one: _Out, status: int, meaning: Meaning) -> None:
        message, name = one.message, status_name(status)
        if meaning in (Meaning.DOWN, Meaning.SETTINGS):
            if not message.ids:
                self._put_back(message)
            self._stop(GatewayDown(f"the SMSC answers {name}", lasting=meaning is Meaning.SETTINGS))
        if message.ids:
            message.refused = f"part {one.part + 1}: {name}"
            self._drop_ready(message)
            message.open_parts -= 1
            if not message.open_parts:
                self._in_doubt(message, message.refused)
        elif meaning is Meaning.PERMANENT:
            message.over = True
            self._flight.refused(message.index, PermanentError(name, code=_code(status)))
        elif meaning is Meaning.TRANSIENT:
            message.over = True
            self._flight.deferred(message.index, TransientError(name, code=_code(status)))

    def _stop(self, down: GatewayDown) -> None:
        self.down = self.down or down
        self._stopped = True
        self.abandon(down.text)

    def _put_back(self, message: Message) -> None:
        """Nothing of it was accepted: it has not left."""
        if self._returned:
            # A straggler is owed a word of its own; the lane hears of the SMSC with the next chunk.
            message.over = True
            self._flight.deferred(message.index, TransientError("the SMSC wants nothing more now"))
            return
        self._flight.retract(message.index)
        message.open_parts = 0
        self._fresh.appendleft(message)

    def _drop_ready(self, message: Message) -> None:
        kept = [(other, part) for other, part in self._ready if other is not message]
        message.open_parts -= len(self._ready) - len(kept)
        self._ready = deque(kept)

    def _in_doubt(self, message: Message, why: str) -> None:
        if not message.over:
            message.over = True
            self._flight.unknown(message.index, message.partly(why) if message.ids else OutcomeUnknown(why))

    def _give_up_waiting(self) -> None:
        late = time.monotonic() - self._terms.patience_s
        for sequence, one in list(self._out.items()):
            if one.at <= late:
                del self._out[sequence]
                self._drop_ready(one.message)
                self._in_doubt(one.message, f"no answer to submit_sm in {self._terms.patience_s:g} s")

    def _lose(self, session: Session, lost: Lost) -> None:
        """What was out is in doubt; what had not been written goes again, and so do parts that had not begun."""
        out, self._out = self._out, {}
        for sequence, one in reversed(out.items()):
            if one.message.over:
                continue
            if session.was_written(sequence):
                self._drop_ready(one.message)
                self._in_doubt(one.message, f"{lost.reason} before the answer")
            elif one.message.ids:
                self._ready.appendleft((one.message, one.part))
            else:
                self._put_back(one.message)


def _code(status: int) -> int:
    """Return a status as the ledger keeps codes: 16 bits hold all that SMPP 3.4 has."""
    return status & 0xFFFF
