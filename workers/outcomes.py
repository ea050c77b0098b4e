"""Writing down what became of a chunk: one way for the worker that sent it and for whoever recovers it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import Connection

from kernel.vocabulary import Channel, SuppressionReason
from store.attempts import write_attempts
from store.changes import touch_recipients
from store.feedback import settle_early_words
from store.ledger import Ending, Outcome, finish
from store.suppressions import suppress

_PERHAPS_OUT = (Ending.ACCEPTED, Ending.IN_DOUBT)
_ENHANCED = re.compile(r"\b[45]\.\d{1,3}\.\d{1,3}\b")
_HARD_BOUNCES = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
"""Enhanced codes that say the address itself is dead. Source: RFC 3463, IANA enhanced status codes."""


def write_outcomes(
    connection: Connection, claim_id: int, outcomes: Sequence[Outcome], *, recovered: bool = False, last: bool = True
) -> None:
    """Commit outcomes of a chunk, settle what came back about it already, and suppress addresses called dead.

    An address the relay calls dead at once is as dead as one that bounces later. With the last outcomes the claim is
    given back. `recovered` says that the worker was gone and its flight recorder told.
    """
    write_attempts(connection, claim_id, outcomes, recovered=recovered)
    finish(connection, claim_id, outcomes, last=last)
    out = [outcome.message_id for outcome in outcomes if outcome.ending in _PERHAPS_OUT]
    settle_early_words(connection, out)
    touch_recipients(connection, out)
    for outcome in outcomes:
        if outcome.ending is Ending.REFUSED and outcome.parts is None and _is_hard_bounce(outcome.reply):
            suppress(
                connection,
                channel=Channel.EMAIL,
                address=outcome.address,
                reason=SuppressionReason.HARD_BOUNCE,
                at=outcome.at,
                message_id=outcome.message_id,
                detail=outcome.reply,
            )


def _is_hard_bounce(reply: str) -> bool:
    """Read the enhanced code out of an SMTP reply, as kept in the flight recorder too."""
    found = _ENHANCED.search(reply)
    return found is not None and found[0] in _HARD_BOUNCES
