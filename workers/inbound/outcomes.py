"""What became of one thing in the inbox, and when it has to wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from kernel.vocabulary import PENDING_STATES
from store.inbox import InboxState
from store.message_facts import MessageFact

_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What to mark a row of the inbox with."""

    state: InboxState
    note: str


class Waiting(Exception):
    """The message a row is about is in a worker's hands: its outcome has to be in the ledger first."""


def wait_for_outcome(message: MessageFact, *, received_at: datetime, now: datetime) -> None:
    """Put off what speaks of a message whose sending is not in the ledger yet, for an hour at most.

    A gateway's receipt can overtake its own answer to us.

    Raises:
        Waiting: not yet.
    """
    if message.state in PENDING_STATES and now - received_at < _PATIENCE:
        raise Waiting
