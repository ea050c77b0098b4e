"""Many tidings that ask for nothing further, written together: a provider tells of thousands of deliveries a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, or_, select, update

from kernel.vocabulary import MessageEventKind, MessageState
from store.changes import touch_recipients
from store.feedback import STATE_OF, states_below
from store.plain_text import clean_text
from store.sql import in_slices, insert_into
from store.suppressions import DISPROVABLE, SIGNS_OF_LIFE, revive
from store.tables import message_events, messages, suppressions
from store.types import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiding:
    """What was told of one message; `address` is where it went, in comparable form."""

    message_id: int
    address: str
    at: datetime
    detail: str


def record_tidings(connection: Connection, kind: MessageEventKind | None, tidings: Sequence[Tiding]) -> None:
    """Do for each message what `store.feedback.record_message_event` does, in a handful of statements for all.

    Args:
        connection: In a writing transaction.
        kind: What happened to each, keyed by kind and message; None: they only show that they were sent.
        tidings: At most one call's worth.
    """
    if not tidings:
        return
    if kind is not None:
        _write_events(connection, kind, tidings)
    target = STATE_OF[kind] if kind is not None else MessageState.SENT
    _climb(connection, target, tidings)
    if kind in SIGNS_OF_LIFE:
        for tiding in _of_suppressed(connection, tidings):
            revive(connection, [tiding.message_id], tiding.at)
    touch_recipients(connection, [tiding.message_id for tiding in tidings])


def _write_events(connection: Connection, kind: MessageEventKind, tidings: Sequence[Tiding]) -> None:
    rows = [
        {
            "key": f"{kind}:{tiding.message_id}",
            "message_id": tiding.message_id,
            "kind": kind.value,
            "at": tiding.at,
            "detail": clean_text(tiding.detail, 1000),
        }
        for tiding in tidings
    ]
    connection.execute(insert_into(connection, message_events).on_conflict_do_nothing(), rows)
    known, at = message_events.c, bindparam("b_at", type_=Instant)
    detail = bindparam("b_detail", type_=known.detail.type)
    earlier = or_(known["at"] > at, (known["at"] == at) & (known.detail > detail))
    connection.execute(
        update(message_events).where(known.key == bindparam("b_key"), earlier).values(at=at, detail=detail),
        [{"b_key": row["key"], "b_at": row["at"], "b_detail": row["detail"]} for row in rows],
    )


def _climb(connection: Connection, target: MessageState, tidings: Sequence[Tiding]) -> None:
    here, at = messages.c.id == bindparam("b_id"), bindparam("b_at", type_=Instant)
    given = [{"b_id": tiding.message_id, "b_at": tiding.at} for tiding in tidings]
    # No IN: a statement for many parameter sets may not hold a list.
    lower = or_(*(messages.c.state == state.value for state in states_below(target)))
    connection.execute(
        update(messages)
        .where(here, lower)
        .values(state=target, ended_at=at, sent_at=func.coalesce(messages.c.sent_at, messages.c.ended_at, at)),
        given,
    )
    if target != MessageState.SENT:
        connection.execute(
            update(messages).where(here, messages.c.state == target, messages.c.ended_at > at).values(ended_at=at),
            given,
        )


def _of_suppressed(connection: Connection, tidings: Sequence[Tiding]) -> list[Tiding]:
    """Return those to addresses that bounces have suppressed: mostly none."""
    found: set[str] = set()
    for addresses in in_slices(sorted({tiding.address for tiding in tidings}), 500):
        bounced = select(suppressions.c.address).where(
            suppressions.c.address.in_(addresses), suppressions.c.reason.in_(DISPROVABLE)
        )
        found.update(connection.execute(bounced).scalars())
    return [tiding for tiding in tidings if tiding.address in found]
