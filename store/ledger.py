"""The message ledger: claims with lease and fencing token, and the only writes that move a message on its way out.

A claim's id is its fencing token. Every write names it, so that a worker that lost its lease writes nothing.
Leases run on the database's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, case, delete, exists, func, select, type_coerce, update
from sqlalchemy.sql.elements import ColumnElement

from kernel.clock import from_ms
from kernel.vocabulary import CampaignState, Channel, FailReason, MessageState, SkipReason
from store.sql import insert_into
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedMessage:
    """One row of a claimed chunk, as the delivery core needs it."""

    id: int
    run_id: int
    campaign_id: int
    version_id: int
    step: int
    contact_id: int
    channel: str
    attempts: int
    planned_for: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A chunk in a worker's hands. `claimed_at` and `lease_until` are instants of the database's clock."""

    id: int
    lane: str
    claimed_at: datetime
    lease_until: datetime
    messages: tuple[ClaimedMessage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What to write for one message that was `sending`."""

    message_id: int
    ending: Ending
    at: datetime
    reply: str = ""
    address: str = ""
    gateway_id: str | None = None
    parts: int | None = None
    cost_micro: int | None = None
    retry_at: datetime | None = None
    fail_reason: FailReason = FailReason.REFUSED


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
    """Take up to `limit` due messages of a lane, oldest first; None where nothing is due or the lane is closed.

    Messages of campaigns that are not active stay where they are.
    """
    now_ms: int = connection.execute(select(database_now())).scalar_one()
    if _closed(connection, lane, now_ms):
        return None
    rows = connection.execute(_due(lane, now_ms, limit)).all()
    if not rows:
        return None
    lease_ms = now_ms + round(lease.total_seconds() * 1000)
    token = connection.execute(
        insert_into(connection, claims)
        .values(lane=lane, host=host, boot=boot, recorder=recorder, claimed_at=now_ms, lease_until=lease_ms)
        .returning(claims.c.id)
    ).scalar_one()
    connection.execute(
        update(messages)
        .where(messages.c.id.in_([row.id for row in rows]), messages.c.state == MessageState.PLANNED)
        .values(state=MessageState.CLAIMED, claim_id=token)
    )
    return Claim(
        id=token,
        lane=lane,
        claimed_at=from_ms(now_ms),
        lease_until=from_ms(lease_ms),
        messages=tuple(ClaimedMessage(**row._mapping) for row in rows),
    )


def _closed(connection: Connection, lane: str, now_ms: int) -> bool:
    closed_until = connection.execute(
        select(type_coerce(lanes.c.closed_until, BigInteger)).where(lanes.c.name == lane)
    ).scalar_one_or_none()
    return closed_until is not None and closed_until > now_ms


def _due(lane: str, now_ms: int, limit: int) -> Any:
    return (
        select(
            messages.c.id,
            messages.c.run_id,
            runs.c.campaign_id,
            runs.c.version_id,
            messages.c.step,
            messages.c.contact_id,
            messages.c.channel,
            messages.c.attempts,
            messages.c.planned_for,
        )
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(
            messages.c.lane == lane,
            messages.c.state == MessageState.PLANNED,
            type_coerce(messages.c.due_at, BigInteger) <= now_ms,
            campaigns.c.state == CampaignState.ACTIVE,
        )
        .order_by(messages.c.due_at, messages.c.id)
        .limit(limit)
        .with_for_update(of=messages, skip_locked=True)
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
    _move(
        connection,
        claim_id,
        MessageState.CLAIMED,
        [{"b_id": message_id, "reason": reason, "ended_at": at} for message_id, reason in reasons.items()],
        {
            "state": MessageState.SKIPPED,
            "claim_id": None,
            "reason": bindparam("reason"),
            "ended_at": bindparam("ended_at"),
        },
    )


def fail(connection: Connection, claim_id: int, reasons: dict[int, tuple[FailReason, str]], at: datetime) -> None:
    """End claimed messages that cannot be made (template, composition), with reason and words."""
    _move(
        connection,
        claim_id,
        MessageState.CLAIMED,
        [
            {"b_id": message_id, "reason": reason, "reply": words[:500], "ended_at": at}
            for message_id, (reason, words) in reasons.items()
        ],
        {
            "state": MessageState.FAILED,
            "claim_id": None,
            "reason": bindparam("reason"),
            "reply": bindparam("reply"),
            "ended_at": bindparam("ended_at"),
        },
    )


def postpone(connection: Connection, claim_id: int, until: dict[int, datetime]) -> None:
    """Put claimed messages back to `planned`, due at the given instants."""
    _move(
        connection,
        claim_id,
        MessageState.CLAIMED,
        [{"b_id": message_id, "due_at": instant} for message_id, instant in until.items()],
        {"state": MessageState.PLANNED, "claim_id": None, "due_at": bindparam("due_at")},
    )


def mark_sending(connection: Connection, claim_id: int) -> set[int]:
    """Move what is still claimed to `sending`; empty where the lease ran out. Commit before the first byte goes out."""
    lease_holds = exists().where(
        claims.c.id == claim_id, type_coerce(claims.c.lease_until, BigInteger) > database_now()
    )
    moved = connection.execute(
        update(messages)
        .where(messages.c.claim_id == claim_id, messages.c.state == MessageState.CLAIMED, lease_holds)
        .values(state=MessageState.SENDING)
        .returning(messages.c.id)
    )
    return set(moved.scalars())


def finish(connection: Connection, claim_id: int, outcomes: Sequence[Outcome]) -> None:
    """Write what became of the chunk and give the claim back."""
    by_ending: dict[Ending, list[Outcome]] = {ending: [] for ending in Ending}
    for outcome in outcomes:
        by_ending[outcome.ending].append(outcome)
    for ending, group in by_ending.items():
        rows = [_row_of(outcome) for outcome in group]
        _move(connection, claim_id, MessageState.SENDING, rows, _COLUMNS_OF[ending])
    release(connection, claim_id)


def release(connection: Connection, claim_id: int) -> None:
    """Give a claim back. What it still holds as `claimed` was never sent and is planned again."""
    connection.execute(
        update(messages)
        .where(messages.c.claim_id == claim_id, messages.c.state == MessageState.CLAIMED)
        .values(state=MessageState.PLANNED, claim_id=None)
    )
    connection.execute(delete(claims).where(claims.c.id == claim_id))


_COMMON: dict[str, Any] = {"claim_id": None, "reply": bindparam("reply")}
_COLUMNS_OF: dict[Ending, dict[str, Any]] = {
    Ending.ACCEPTED: {
        **_COMMON,
        "state": MessageState.SENT,
        "address": bindparam("address"),
        "gateway_id": bindparam("gateway_id"),
        "parts": bindparam("parts"),
        "cost_micro": bindparam("cost_micro"),
        "sent_at": bindparam("at"),
        "ended_at": bindparam("at"),
    },
    Ending.REFUSED: {
        **_COMMON,
        "state": MessageState.FAILED,
        "reason": bindparam("reason"),
        "address": bindparam("address"),
        "ended_at": bindparam("at"),
    },
    Ending.DEFERRED: {
        **_COMMON,
        "state": MessageState.PLANNED,
        "attempts": messages.c.attempts + 1,
        "due_at": bindparam("retry_at"),
    },
    Ending.UNTOUCHED: {"claim_id": None, "state": MessageState.PLANNED},
    Ending.IN_DOUBT: {
        **_COMMON,
        "state": MessageState.IN_DOUBT,
        "address": bindparam("address"),
        "gateway_id": bindparam("gateway_id"),
        "parts": bindparam("parts"),
        "cost_micro": bindparam("cost_micro"),
        "sent_at": bindparam("at"),
        "ended_at": bindparam("at"),
    },
}


def _row_of(outcome: Outcome) -> dict[str, Any]:
    everything = {
        "b_id": outcome.message_id,
        "reply": outcome.reply[:500],
        "address": outcome.address,
        "gateway_id": outcome.gateway_id,
        "parts": outcome.parts,
        "cost_micro": outcome.cost_micro,
        "at": outcome.at,
        "reason": outcome.fail_reason,
        "retry_at": outcome.retry_at or outcome.at,
    }
    wanted = {value.key for value in _COLUMNS_OF[outcome.ending].values() if hasattr(value, "key")}
    return {name: value for name, value in everything.items() if name == "b_id" or name in wanted}


def _move(
    connection: Connection, claim_id: int, state: MessageState, rows: list[dict[str, Any]], values: dict[str, Any]
) -> None:
    if not rows:
        return
    statement = (
        update(messages)
        .where(messages.c.id == bindparam("b_id"), messages.c.claim_id == claim_id, messages.c.state == state)
        .values(**values)
    )
    connection.execute(statement, rows)


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
    """Return the messages of a claim that are marked `sending`."""
    return set(
        connection.execute(
            select(messages.c.id).where(messages.c.claim_id == claim_id, messages.c.state == MessageState.SENDING)
        ).scalars()
    )


def addresses(connection: Connection, message_ids: Sequence[int]) -> dict[int, str]:
    """Return where messages go by their contacts' present data, for what a dead worker did not write down."""
    rows = connection.execute(
        select(messages.c.id, case((messages.c.channel == Channel.EMAIL, contacts.c.email), else_=contacts.c.phone))
        .join(contacts, contacts.c.id == messages.c.contact_id)
        .where(messages.c.id.in_(message_ids))
    )
    return {message_id: address or "" for message_id, address in rows}


def due_by_lane(connection: Connection) -> dict[str, int]:
    """Return how many messages are due now, by lane; closed lanes and campaigns that are not active left out."""
    now = database_now()
    rows = connection.execute(
        select(messages.c.lane, func.count().label("due"))
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .join(lanes, lanes.c.name == messages.c.lane, isouter=True)
        .where(
            messages.c.state == MessageState.PLANNED,
            type_coerce(messages.c.due_at, BigInteger) <= now,
            campaigns.c.state == CampaignState.ACTIVE,
            func.coalesce(type_coerce(lanes.c.closed_until, BigInteger), 0) <= now,
        )
        .group_by(messages.c.lane)
    )
    return {row.lane: row.due for row in rows}


def close_lane(
    connection: Connection, lane: str, *, reason: str, first_wait: timedelta, longest: timedelta
) -> timedelta:
    """Close a lane after its gateway refused as a whole; each refusal in a row doubles the wait. Returns the wait."""
    failures: int = connection.execute(
        insert_into(connection, lanes)
        .values(name=lane, failures=1, reason=reason[:500])
        .on_conflict_do_update(index_elements=["name"], set_={"failures": lanes.c.failures + 1, "reason": reason[:500]})
        .returning(lanes.c.failures)
    ).scalar_one()
    wait: timedelta = min(first_wait * 2 ** min(failures - 1, 16), longest)
    connection.execute(
        update(lanes)
        .where(lanes.c.name == lane)
        .values(closed_until=database_now() + round(wait.total_seconds() * 1000))
    )
    return wait


def open_lane(connection: Connection, lane: str) -> bool:
    """Open a lane again, after a success or by command; returns whether it had been closed."""
    return (
        connection.execute(
            update(lanes)
            .where(lanes.c.name == lane, lanes.c.failures > 0)
            .values(closed_until=None, failures=0, reason="")
        ).rowcount
        > 0
    )
