"""Messages in doubt: which there are, and the ways a doubt ends. Each leaves its trace among the message's events.

A message comes into doubt where the last byte had left and no answer came, or its worker died before telling. It
stays so until evidence settles it (what came back, a gateway's log, a person's word) or a stated policy sends it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, func, literal, select, update

from kernel.vocabulary import CampaignState, MessageEventKind, MessageState, RunState
from store.changes import touch_recipients
from store.feedback import record_message_event, record_sent_evidence
from store.ledger import Ending
from store.tables import campaigns, message_attempts, messages, runs


class Settlement(StrEnum):
    """How a doubt ends."""

    SENT = "sent"
    NOT_SENT = "not_sent"
    """It never was: planned again, and nobody can get it twice."""
    RESEND = "resend"
    """Nobody knows: planned again all the same, and counted; the person may get it twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One message in doubt. `since` is when it was last heard of, `words` what was said then."""

    message: int
    campaign: str
    run: int
    version_id: int
    channel: str
    gateway: str
    address: str
    since: datetime
    words: str
    worker_died: bool
    resends: int


def doubts(connection: Connection, *, campaign: str | None = None) -> Iterator[Doubt]:
    """Yield every message in doubt, the oldest first."""
    query = _in_doubt().order_by("since", messages.c.id)
    for row in connection.execute(query if campaign is None else query.where(campaigns.c.name == campaign)):
        yield Doubt(**row._mapping)


def ripe_for_resending(connection: Connection, *, before: datetime) -> list[Doubt]:
    """Return messages of active campaigns in doubt since before an instant that were never sent again.

    Asked every few seconds, so it walks through the index of doubtful attempts and not through the ledger.
    """
    ripe = select(message_attempts.c.message_id).where(
        message_attempts.c.ending == literal(Ending.IN_DOUBT.value, literal_execute=True),
        message_attempts.c.at <= before,
    )
    query = _in_doubt().where(
        messages.c.id.in_(ripe), messages.c.resends == 0, campaigns.c.state == CampaignState.ACTIVE
    )
    found = [Doubt(**row._mapping) for row in connection.execute(query)]
    return [doubt for doubt in found if doubt.since <= before]


def doubts_by(connection: Connection, gateways: Sequence[str], *, since: datetime) -> list[Doubt]:
    """Return what came into doubt on its way by these gateways since an instant, the oldest first.

    Asked every few seconds, so it walks through the index of doubtful attempts and not through the ledger.
    """
    recent = select(message_attempts.c.message_id).where(
        message_attempts.c.ending == literal(Ending.IN_DOUBT.value, literal_execute=True),
        message_attempts.c.at >= since,
    )
    query = _in_doubt().where(messages.c.id.in_(recent), messages.c.lane.in_(gateways))
    return [Doubt(**row._mapping) for row in connection.execute(query.order_by("since", messages.c.id))]


def note_gateway_id(connection: Connection, message_id: int, gateway_id: str) -> None:
    """Keep the gateway's id of a message that had none."""
    connection.execute(
        update(messages)
        .where(messages.c.id == message_id, messages.c.gateway_id.is_(None))
        .values(gateway_id=gateway_id)
    )


def _in_doubt() -> Select[Any]:
    every = message_attempts.alias()
    latest = select(func.max(every.c.number)).where(every.c.message_id == messages.c.id).correlate(messages)
    attempt = message_attempts.c
    return (
        select(
            messages.c.id.label("message"),
            campaigns.c.name.label("campaign"),
            messages.c.run_id.label("run"),
            runs.c.version_id,
            messages.c.channel,
            messages.c.lane.label("gateway"),
            func.coalesce(messages.c.address, "").label("address"),
            func.coalesce(messages.c.sent_at, messages.c.ended_at, messages.c.due_at).label("since"),
            func.coalesce(attempt.reply, messages.c.reply, "").label("words"),
            func.coalesce(attempt.recovered, False).label("worker_died"),
            messages.c.resends,
        )
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .join(
            message_attempts,
            (attempt.message_id == messages.c.id) & (attempt.number == latest.scalar_subquery()),
            isouter=True,
        )
        .where(messages.c.state == MessageState.IN_DOUBT)
    )


def settle(connection: Connection, message_id: int, settlement: Settlement, *, at: datetime, words: str) -> bool:
    """End a doubt; False where the message is not in doubt (any more).

    Args:
        connection: In a writing transaction.
        message_id: The message.
        settlement: How it ends.
        at: When that was said.
        words: Who said so and why; kept with the message.
    """
    still = connection.execute(
        select(messages.c.id)
        .where(messages.c.id == message_id, messages.c.state == MessageState.IN_DOUBT)
        .with_for_update()
    ).one_or_none()
    if still is None:
        return False
    kind = MessageEventKind.RESENT if settlement is Settlement.RESEND else MessageEventKind.SETTLED
    record_message_event(
        connection,
        key=f"{kind.value}:{message_id}:{_tries(connection, message_id)}",
        message_id=message_id,
        kind=kind,
        at=at,
        detail=f"{settlement.value}: {words}",
    )
    if settlement is Settlement.SENT:
        record_sent_evidence(connection, message_id=message_id, at=at)
    else:
        _plan_again(connection, message_id, at, counted=settlement is Settlement.RESEND)
    return True


def take_as_sent(connection: Connection, message_id: int, *, sent_at: datetime, at: datetime, words: str) -> bool:
    """Write down as sent what is planned here but was taken over by a gateway; False where it is not planned.

    A restored backup knows nothing of what was sent since; the gateway's log does.
    """
    moved = connection.execute(
        update(messages)
        .where(messages.c.id == message_id, messages.c.state == MessageState.PLANNED)
        .values(state=MessageState.SENT, sent_at=sent_at, ended_at=sent_at)
    )
    if moved.rowcount == 0:
        return False
    record_message_event(
        connection,
        key=f"{MessageEventKind.SETTLED.value}:{message_id}:log",
        message_id=message_id,
        kind=MessageEventKind.SETTLED,
        at=at,
        detail=f"{Settlement.SENT.value}: {words}",
    )
    return True


def _tries(connection: Connection, message_id: int) -> int:
    """Return how many attempts are kept: it names the doubt, for a message may come into doubt again."""
    mine = message_attempts.c.message_id == message_id
    return int(connection.execute(select(func.count()).select_from(message_attempts).where(mine)).scalar_one())


def _plan_again(connection: Connection, message_id: int, at: datetime, *, counted: bool) -> None:
    """Put a message back to `planned`, due at once; its run is open again.

    The gateway's id stays: should a receipt come for the first copy, it finds its message.
    """
    # Locked first: who closes the run meanwhile sees the message, or has closed it before and it is opened again.
    owner = select(runs.c.id).join(messages, messages.c.run_id == runs.c.id).where(messages.c.id == message_id)
    connection.execute(owner.with_for_update(of=runs))
    run_id = connection.execute(
        update(messages)
        .where(messages.c.id == message_id)
        .values(
            state=MessageState.PLANNED,
            due_at=at,
            sent_at=None,
            ended_at=None,
            cost_micro=None,
            resends=messages.c.resends + int(counted),
        )
        .returning(messages.c.run_id)
    ).scalar_one()
    connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.DONE)
        .values(state=RunState.OPEN, finished_at=None)
    )
    connection.execute(
        update(runs).where(runs.c.id == run_id, runs.c.state == RunState.CANCELLED).values(finished_at=None)
    )
    touch_recipients(connection, [message_id])
