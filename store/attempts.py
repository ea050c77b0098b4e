"""Every try that was not a plain acceptance, kept for whoever asks later what happened to a message.

Of an accepted message its own row tells all: address, words, instant. So the way most messages take costs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Integer, Text, bindparam, func, insert, literal, select

from store.ledger import Ending, Outcome
from store.tables import message_attempts, messages
from store.types import Instant

_CODE = re.compile(r"\b([2345]\d\d)(?=[ -]|$)")
_ENHANCED = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")


def write_attempts(connection: Connection, claim_id: int, outcomes: Sequence[Outcome], *, recovered: bool) -> None:
    """Keep the tries of a chunk that is about to be finished, in the transaction that finishes it.

    A worker that has lost its claim writes nothing, as in the ledger.

    Args:
        connection: In a writing transaction, before `store.ledger.finish`.
        claim_id: The fencing token.
        outcomes: Of the whole chunk; plain acceptances and untouched messages are left out.
        recovered: The worker was gone, and its flight recorder told: then acceptances are kept too.
    """
    left_out = {Ending.UNTOUCHED} if recovered else {Ending.UNTOUCHED, Ending.ACCEPTED}
    rows = [_row_of(outcome) for outcome in outcomes if outcome.ending not in left_out]
    if rows:
        connection.execute(_insertion(claim_id, recovered=recovered), rows)


def _row_of(outcome: Outcome) -> dict[str, Any]:
    code, enhanced = _CODE.search(outcome.reply), _ENHANCED.search(outcome.reply)
    return {
        "b_id": outcome.message_id,
        "b_at": outcome.at,
        "b_ending": outcome.ending,
        "b_code": outcome.code or (int(code[1]) if code else 0),
        "b_enhanced": outcome.enhanced or (enhanced[0] if enhanced else ""),
        "b_reply": outcome.reply[:500],
        "b_retry_at": outcome.retry_at,
    }


def _insertion(claim_id: int, *, recovered: bool) -> Any:
    earlier = message_attempts.alias()
    number = (
        select(func.coalesce(func.max(earlier.c.number), 0) + 1)
        .where(earlier.c.message_id == messages.c.id)
        .scalar_subquery()
    )
    columns = {
        "message_id": messages.c.id,
        "number": number,
        "at": bindparam("b_at", type_=Instant),
        "lane": messages.c.lane,
        "claim_id": messages.c.claim_id,
        "ending": bindparam("b_ending", type_=Text),
        "code": bindparam("b_code", type_=Integer),
        "enhanced": bindparam("b_enhanced", type_=Text),
        "reply": bindparam("b_reply", type_=Text),
        "retry_at": bindparam("b_retry_at", type_=Instant),
        "recovered": literal(recovered),
    }
    source = select(*columns.values()).where(
        messages.c.id == bindparam("b_id"),
        messages.c.claim_id == claim_id,
    )
    return insert(message_attempts).from_select(list(columns), source)
