"""What became of one thing in the inbox, and when it has to wait."""

from __future__ import annotations

from collections.abc import Sequence
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


_WORST_FIRST = (InboxState.REJECTED, InboxState.NEW, InboxState.UNCLASSIFIED, InboxState.DONE)


def sum_of(reads: Sequence[Read]) -> Read:
    """Return what parts of a row come to: the worst state, every word once."""
    state = min((read.state for read in reads), key=_WORST_FIRST.index)
    return Read(state=state, note="; ".join(dict.fromkeys(read.note for read in reads)))


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
