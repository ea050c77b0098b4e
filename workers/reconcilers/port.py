"""What is asked about a message in doubt, and the three answers there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from kernel.fields import duration
from kernel.sms_providers import HttpWay
from kernel.vocabulary import MessageEventKind
from workers.http.client import Client
from workers.http.exchange import Answer, NoAnswer, NotSent, Request

_MARGIN = timedelta(minutes=5)
"""The provider's clock and ours need not agree."""
_LATEST = timedelta(minutes=15)
"""A request not taken by then never will be: its connection is long closed, a signature of Alibaba's expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One message in doubt.

    `since` is when the doubt arose: after the request had left, by its time-out at most. `text` renders the SMS again,
    None where that cannot be done; `is_ours` tells whether an id of the gateway is that of another message of ours.
    """

    ref: str
    address: str
    since: datetime
    text: Callable[[], str | None]
    is_ours: Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The provider has it. `kind` is what became of it, None where only that it was taken over is known."""

    words: str
    gateway_id: str | None = None
    kind: MessageEventKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The provider's complete list of that time has no such message: it never arrived, and may be sent."""

    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """The answer proves nothing, now or at all."""

    words: str


Finding = Found | Absent | Unclear


class Reconciler(Protocol):
    """A provider that can be asked."""

    def ask(self, question: Question, *, now: datetime) -> Finding:
        """Ask about one message."""

    def close(self) -> None:
        """End connections; never raises."""


class Listing:
    """What asking over HTTP shares: the client, and the time around a doubt in which the message must have come."""

    def __init__(self, way: HttpWay) -> None:
        self._timeout = duration(way.timeout)
        self._client = Client(timeout_s=self._timeout.total_seconds(), ca_file=way.ca_file)

    def close(self) -> None:
        """Close kept-alive connections."""
        self._client.close()

    def _get(self, request: Request) -> Answer | Unclear:
        """Ask; a question may be repeated without harm, so what goes wrong is only a reason to ask again later."""
        try:
            return self._client.run(self._client.ask(request, lambda: None))
        except (NotSent, NoAnswer) as error:
            return Unclear(words=f"the provider cannot be asked: {error}")

    def _window(self, question: Question) -> tuple[datetime, datetime]:
        """Return when the provider may have taken the message over; twice the time-out, for one try again."""
        return question.since - 2 * self._timeout - _MARGIN, question.since + _LATEST


def is_over(question: Question, now: datetime) -> bool:
    """Tell whether the message can no longer arrive, so that its absence proves something."""
    return now - question.since >= _LATEST
