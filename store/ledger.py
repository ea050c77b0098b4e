"""The message ledger: claims with lease and fencing token, and the only writes that move a message on its way out.

A claim's id is its fencing token. Every write names it, so that a worker that lost its lease writes nothing.
Leases run on the database's clock. That a chunk is being sent is written once, on its claim, not on each of its
messages (docs/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from kernel.clock import from_ms, to_ms
from kernel.vocabulary import CampaignState, Channel, FailReason, MessageState, SkipReason
from store.claimed_ids import ids_of_claim, packed
from store.due import count_due, lock_due
from store.ingest.bulk import among, among_given, by_index, update_rows
from store.lanes import opening, take_probe
from store.states import is_planned
from store.tables import campaigns, claims, contacts, lanes, messages, runs
from store.types import database_now

FOREIGN_CLAIM_GRACE = timedelta(hours=1)
"""How long past its lease a chunk waits for its own host, whose flight recorder knows what was sent."""


class Ending(StrEnum):
    """What became of one message of a chunk."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DEFERRED = "deferred"
    UNTOUCHED = "untouched"
    IN_DOUBT = "in_doubt"


class ClaimedMessage(NamedTuple):
    """One row of a claimed chunk, as the delivery core needs it; a tuple, because there are so many."""

    id: int
    run_id: int
    campaign_id: int
    version_id: int
    step: int
    contact_id: int
    channel: str
    attempts: int
    planned_ms: int

    @property
    def planned_for(self) -> datetime:
        """When it was first due."""
        return from_ms(self.planned_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A chunk in a worker's hands. `claimed_at` and `lease_until` are instants of the database's clock."""

    id: int
    lane: str
    claimed_at: datetime
    lease_until: datetime
    messages: tuple[ClaimedMessage, ...]


class Outcome(NamedTuple):
    """What to write for one message that was being sent; a tuple, because there are so many."""

    message_id: int
    ending: Ending
    at_ms: int
    reply: str = ""
    address: str = ""
    gateway_id: str | None = None
    parts: int | None = None
    cost_micro: int | None = None
    retry_at: datetime | None = None
    fail_reason: FailReason = FailReason.REFUSED
    code: int = 0
    enhanced: str = ""

    @property
    def at(self) -> datetime:
        """When it happened."""
        return from_ms(self.at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """A claim whose holder let its lease run out."""

    id: int
    lane: str
    host: str
    boot: str
    recorder: str
    foreign_grace_over: bool


def claim(
    connection: Connection, *, lane: str, limit: int, lease: timedelta, host: str, boot: str, recorder: str
) -> Claim | None:
    """Take up to `limit` due messages of a lane; None where nothing is due or the lane is closed.

    Runs go by their oldest message, and each run's messages by age. Campaigns that are not active are
    passed over.
    """
    now_ms: int = connection.execute(_NOW).scalar_one()
    gap = opening(connection, lane, limit, now_ms)
    due = lock_due(connection, lane, most=gap.room, now_ms=now_ms) if gap.room else []
    if not due or (gap.is_probe and not take_probe(connection, lane, gap, now_ms)):
        return None
    lease_ms = now_ms + round(lease.total_seconds() * 1000)
    ids = [row[0] for row in due]
    holder = {"lane": lane, "host": host, "boot": boot, "recorder": recorder}
    held = {**holder, "claimed_at": now_ms, "lease_until": lease_ms, "message_ids": packed(ids)}
    token = connection.execute(_INSERT_CLAIM, held).scalar_one()
    # The rows are locked, or the database is: nobody has changed them meanwhile.
    connection.execute(_HOLD, {"token": token, "message_ids": ids})
    return Claim(
        id=token,
        lane=lane,
        claimed_at=from_ms(now_ms),
        lease_until=from_ms(lease_ms),
        messages=tuple(map(ClaimedMessage._make, due)),
    )


_NOW = select(database_now())
_INSERT_CLAIM = insert(claims).returning(claims.c.id)
_HOLD = (
    update(messages)
    .where(among_given(messages.c.id, "message_ids"))
    .values(state=MessageState.CLAIMED, claim_id=bindparam("token"))
)


def renew(connection: Connection, claim_id: int, lease: timedelta) -> datetime | None:
    """Extend a claim's lease; None where it is gone: somebody took over."""
    extended: datetime | None = connection.execute(
        update(claims)
        .where(claims.c.id == claim_id)
        .values(lease_until=database_now() + round(lease.total_seconds() * 1000))
        .returning(claims.c.lease_until)
    ).scalar_one_or_none()
    return extended


def skip(connection: Connection, claim_id: int, reasons: dict[int, SkipReason], at: datetime) -> None:
    """End claimed messages that are not to be sent, with their reasons."""
    at_ms = to_ms(at)
    rows = [(i, reason.value, at_ms) for i, reason in reasons.items()]
    _move(connection, claim_id, MessageState.SKIPPED, ("reason", "ended_at"), rows)


def fail(connection: Connection, claim_id: int, reasons: dict[int, tuple[FailReason, str]], at: datetime) -> None:
    """End claimed messages that cannot be made (template, composition), with reason and words."""
    at_ms = to_ms(at)
    rows = [(i, reason.value, words[:500], at_ms) for i, (reason, words) in reasons.items()]
    _move(connection, claim_id, MessageState.FAILED, ("reason", "reply", "ended_at"), rows)


def postpone(connection: Connection, claim_id: int, until: dict[int, datetime]) -> None:
    """Put claimed messages back to `planned`, due at the given instants."""
    rows = [(i, to_ms(instant)) for i, instant in until.items()]
    _move(connection, claim_id, MessageState.PLANNED, ("due_at",), rows)


def mark_sending(connection: Connection, claim_id: int) -> bool:
    """Say that what the claim still holds is being sent; False where the lease ran out.

    Commit before the first byte goes out. From then on a message of the claim of which nothing is known may be out.
    """
    return connection.execute(_MARK, {"marked": claim_id}).rowcount == 1


_MARK = (
    update(claims)
    .where(claims.c.id == bindparam("marked"), type_coerce(claims.c.lease_until, BigInteger) > database_now())
    .values(sending_at=database_now())
)


def finish(connection: Connection, claim_id: int, outcomes: Sequence[Outcome], *, last: bool = True) -> None:
    """Write what became of messages of the chunk, and give the claim back with the last of them.

    Raises:
        UnsettledMessages: the claim is to be given back and still holds messages nobody has said anything about.
    """
    by_index(connection)
    for ending in {outcome.ending for outcome in outcomes}:
        group = [outcome for outcome in outcomes if outcome.ending is ending]
        _write_endings(connection, claim_id, ending, group)
    if last:
        _give_back(connection, claim_id, {outcome.message_id for outcome in outcomes})


class UnsettledMessages(RuntimeError):
    """A fault of ours: a claim was to be given back with messages that may be out and of which nothing was said."""


def _give_back(connection: Connection, claim_id: int, settled: Collection[int]) -> None:
    # What was just settled is out of the claim: this very transaction has seen to it.
    others = [message_id for message_id in ids_of_claim(connection, claim_id) if message_id not in settled]
    if others and _held(connection, claim_id, others, MessageState.CLAIMED, MessageState.SENDING):
        raise UnsettledMessages(f"claim {claim_id} still holds messages")
    connection.execute(_DELETE_CLAIM, {"claim_id": claim_id})


_DELETE_CLAIM = delete(claims).where(claims.c.id == bindparam("claim_id"))


def release(connection: Connection, claim_id: int) -> None:
    """Give a claim back of which nothing was sent: what it holds is planned again."""
    made_for = ids_of_claim(connection, claim_id)
    back = [(message_id,) for message_id in _held(connection, claim_id, made_for, MessageState.CLAIMED)]
    _move(connection, claim_id, MessageState.PLANNED, (), back)
    connection.execute(_DELETE_CLAIM, {"claim_id": claim_id})


def _held(connection: Connection, claim_id: int, some: Sequence[int], *states: MessageState) -> list[int]:
    """Return which of some messages a claim still holds in one of these states."""
    query = select(messages.c.id).where(
        among(connection, messages.c.id, some), messages.c.claim_id == claim_id, messages.c.state.in_(states)
    )
    return list(connection.execute(query).scalars())


def _write_endings(connection: Connection, claim_id: int, ending: Ending, group: Sequence[Outcome]) -> None:
    """Write messages that ended alike; columns and their values stand in the same order."""
    if not group:
        return
    match ending:
        case Ending.ACCEPTED | Ending.IN_DOUBT:
            state = MessageState.SENT if ending is Ending.ACCEPTED else MessageState.IN_DOUBT
            columns: tuple[str, ...] = ("reply", "address", "sent_at", "ended_at")
            rows: list[tuple[Any, ...]] = [(o.message_id, o.reply[:500], o.address, o.at_ms, o.at_ms) for o in group]
            if any(o.gateway_id is not None or o.parts is not None or o.cost_micro is not None for o in group):
                # Mostly nobody has any of them; then their columns, and the index on one of them, are left alone.
                columns += ("gateway_id", "parts", "cost_micro")
                details = [(o.gateway_id, o.parts, o.cost_micro) for o in group]
                rows = [(*row, *detail) for row, detail in zip(rows, details, strict=True)]
        case Ending.REFUSED:
            state, columns = MessageState.FAILED, ("reply", "address", "ended_at", "reason")
            rows = [(o.message_id, o.reply[:500], o.address, o.at_ms, o.fail_reason.value) for o in group]
        case Ending.DEFERRED:
            state, columns = MessageState.PLANNED, ("reply", "due_at")
            rows = [(o.message_id, o.reply[:500], to_ms(o.retry_at) if o.retry_at else o.at_ms) for o in group]
            _count_attempts(connection, claim_id, [o.message_id for o in group])
        case Ending.UNTOUCHED:
            state, columns, rows = MessageState.PLANNED, (), [(o.message_id,) for o in group]
    _move(connection, claim_id, state, columns, rows)


def _count_attempts(connection: Connection, claim_id: int, ids: list[int]) -> None:
    if ids:
        connection.execute(
            update(messages)
            .where(among(connection, messages.c.id, ids), messages.c.claim_id == claim_id)
            .values(attempts=messages.c.attempts + 1)
        )


def _move(
    connection: Connection, claim_id: int, state: MessageState, columns: Sequence[str], rows: list[tuple[Any, ...]]
) -> None:
    """Take messages out of a claim into a state; each row is a message's id and the values of the columns."""
    out: dict[str, Any] = {"state": state.value, "claim_id": None}
    update_rows(connection, messages, columns, rows, same=out, only={"claim_id": claim_id})


def abandoned(connection: Connection, host: str) -> list[Abandoned]:
    """Return claims that may be taken over: this host's own (whatever their lease), and others long past theirs.

    The caller asks the flight recorder of its own host's claims whether their holder still lives.
    """
    lease_until = type_coerce(claims.c.lease_until, BigInteger)
    grace_ms = round(FOREIGN_CLAIM_GRACE.total_seconds() * 1000)
    rows = connection.execute(
        select(
            claims.c.id,
            claims.c.lane,
            claims.c.host,
            claims.c.boot,
            claims.c.recorder,
            (lease_until + grace_ms < database_now()).label("foreign_grace_over"),
        ).where((claims.c.host == host) | (lease_until + grace_ms < database_now()))
    )
    return [Abandoned(**row._mapping) for row in rows]


def lease_over(connection: Connection, claim_id: int) -> bool:
    """Tell whether a claim's lease has run out on the database's clock."""
    over: ColumnElement[bool] = type_coerce(claims.c.lease_until, BigInteger) <= database_now()
    return bool(connection.execute(select(over).where(claims.c.id == claim_id)).scalar_one_or_none())


def sending_ids(connection: Connection, claim_id: int) -> set[int]:
    """Return the messages of a claim that may be out; its holder cannot begin to send while this transaction lasts."""
    claimed = select(claims.c.sending_at).where(claims.c.id == claim_id).with_for_update()
    begun = connection.execute(claimed).scalar_one_or_none() is not None
    # Workers of earlier versions marked each message instead.
    made_for = ids_of_claim(connection, claim_id)
    return set(_held(connection, claim_id, made_for, MessageState.SENDING, *([MessageState.CLAIMED] if begun else [])))


def addresses(connection: Connection, message_ids: Sequence[int]) -> dict[int, str]:
    """Return where messages go by their contacts' present data, for what a dead worker did not write down."""
    rows = connection.execute(
        select(messages.c.id, case((messages.c.channel == Channel.EMAIL, contacts.c.email), else_=contacts.c.phone))
        .join(contacts, contacts.c.id == messages.c.contact_id)
        .where(messages.c.id.in_(message_ids))
    )
    return {message_id: address or "" for message_id, address in rows}


def due_in_lane(connection: Connection, lane: str, *, most: int) -> int:
    """Return how many messages are due now in a lane, counting no further than `most`; 0 where it is closed."""
    now_ms: int = connection.execute(_NOW).scalar_one()
    if not opening(connection, lane, most, now_ms).room:
        return 0
    return count_due(connection, lane, most=most, now_ms=now_ms)


def due_by_lane(connection: Connection) -> dict[str, int]:
    """Return how many messages are due now, by lane; closed lanes and campaigns that are not active left out."""
    now = database_now()
    rows = connection.execute(
        select(messages.c.lane, func.count().label("due"))
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .join(lanes, lanes.c.name == messages.c.lane, isouter=True)
        .where(
            is_planned(),
            type_coerce(messages.c.due_at, BigInteger) <= now,
            campaigns.c.state == CampaignState.ACTIVE,
            func.coalesce(type_coerce(lanes.c.closed_until, BigInteger), 0) <= now,
        )
        .group_by(messages.c.lane)
    )
    return {row.lane: row.due for row in rows}
