"""Writing down what became of a chunk: one way for the worker that sent it and for whoever recovers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from kernel.errors import OPTED_OUT
from kernel.settings import SuppressionSettings
from kernel.vocabulary import Channel, MessageEventKind, Subject, SuppressionReason
from store.allowances import settle
from store.attempts import write_attempts
from store.changes import touch, touch_recipients
from store.feedback import STOP_SOURCE, record_message_event, settle_early_words, withdraw_address
from store.ledger import Ending, Outcome, finish
from store.message_facts import message_fact
from store.suppressions import count_bounces, suppress
from workers.inbound.statuses import BounceKind, classify, telling_code

_PERHAPS_OUT = (Ending.ACCEPTED, Ending.IN_DOUBT)
_COUNTED: dict[BounceKind, MessageEventKind] = {
    BounceKind.SOFT: MessageEventKind.SOFT_BOUNCED,
    BounceKind.FULL: MessageEventKind.MAILBOX_FULL,
}
_ABOUT_THE_RECIPIENT = ("1", "2", "4")
"""Subjects of enhanced codes: addressing, mailbox, routing. A refusal for anything else may be our own fault."""


def write_outcomes(
    connection: Connection,
    claim_id: int,
    outcomes: Sequence[Outcome],
    *,
    suppression: SuppressionSettings,
    recovered: bool = False,
    last: bool = True,
    reserved: bool = True,
    contact_of: Mapping[int, int] | None = None,
) -> None:
    """Commit outcomes of a chunk, settle what came back about it already, and draw the consequences of refusals.

    An address the relay calls dead at once is as dead as one that bounces later.

    Args:
        connection: In a writing transaction.
        claim_id: The claim whose messages these are.
        outcomes: What became of them.
        suppression: How many refusals that may pass suppress an address.
        recovered: The worker was gone and its flight recorder told.
        last: Give the claim back: these are the last ones.
        reserved: False where the caller knows that the chunk took nothing of a quota or budget.
        contact_of: Whom the messages are for, where the caller knows.
    """
    write_attempts(connection, claim_id, outcomes, recovered=recovered)
    finish(connection, claim_id, outcomes, last=last)
    out = [outcome.message_id for outcome in outcomes if outcome.ending in _PERHAPS_OUT]
    settle_early_words(connection, out)
    if contact_of is None:
        touch_recipients(connection, out)
    else:
        touch(connection, Subject.CONTACT, [contact_of[message_id] for message_id in out], merge=False)
    for outcome in outcomes:
        if outcome.ending is Ending.REFUSED and outcome.reply.startswith(OPTED_OUT):
            _stop(connection, outcome)
        elif outcome.ending is Ending.REFUSED and outcome.parts is None:
            _draw_consequences(connection, outcome, suppression)
    if reserved:
        settle(connection, claim_id, {outcome.message_id: outcome.ending in _PERHAPS_OUT for outcome in outcomes})


def _stop(connection: Connection, outcome: Outcome) -> None:
    """Take a number out that has told the gateway to stop, as if it had told us."""
    withdraw_address(
        connection,
        channel=Channel.SMS,
        address=outcome.address,
        reason=SuppressionReason.STOP,
        at=outcome.at,
        source=STOP_SOURCE,
        message_id=outcome.message_id,
    )


def _draw_consequences(connection: Connection, outcome: Outcome, settings: SuppressionSettings) -> None:
    """Suppress a dead address; count a refusal that may pass. By the table that bounces are read by.

    Only a code proves anything here: words without one are the relay's, and may be about us.
    """
    code = telling_code("", outcome.reply)
    kind = classify(code, outcome.reply) if code else None
    if kind is BounceKind.HARD:
        suppress(
            connection,
            channel=Channel.EMAIL,
            address=outcome.address,
            reason=SuppressionReason.HARD_BOUNCE,
            at=outcome.at,
            message_id=outcome.message_id,
            detail=outcome.reply,
        )
        return
    counted = _COUNTED.get(kind) if kind is not None and code.split(".")[1] in _ABOUT_THE_RECIPIENT else None
    message = message_fact(connection, outcome.message_id) if counted else None
    if counted is None or message is None or message.channel is not Channel.EMAIL:
        return
    key = f"{counted}:{message.id}"
    record_message_event(connection, key=key, message_id=message.id, kind=counted, at=outcome.at, detail=outcome.reply)
    count_bounces(connection, message, counted, settings)
