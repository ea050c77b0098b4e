"""Addresses that are not sent to: why, since when, until when, and what lifts that again.

Two things are kept. `suppression_words` holds every word said, by whom and when. `suppressions` holds what stands now,
one row for each reason, and is a function of the words, of the soft bounces in `message_events` and of the signs of
life in `touches` and `message_events`: whatever comes first, it ends the same.

A bounce is disproved by a later sign of life: a receipt that says delivered, an answer, an open or click by a person.
What a person said (unsubscribe, STOP, complaint) or an operator is taken back by a word only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    case,
    delete,
    func,
    literal,
    select,
    type_coerce,
)

from kernel.clock import from_ms, to_ms
from kernel.fields import duration
from kernel.settings import BounceRule, SuppressionSettings
from kernel.vocabulary import (
    Channel,
    ConsentStatus,
    MessageEventKind,
    SuppressionAction,
    SuppressionReason,
    TouchKind,
    Verdict,
)
from store.message_facts import MessageFact, comparable_address, contacts_with
from store.plain_text import clean_text
from store.sql import insert_into
from store.tables import consent_events, contacts, message_events, messages, suppression_words, suppressions, touches

DISPROVABLE = (SuppressionReason.HARD_BOUNCE, SuppressionReason.SOFT_BOUNCE, SuppressionReason.MAILBOX_FULL)
"""Reasons a later sign of life lifts."""

COUNTED: dict[MessageEventKind, SuppressionReason] = {
    MessageEventKind.SOFT_BOUNCED: SuppressionReason.SOFT_BOUNCE,
    MessageEventKind.MAILBOX_FULL: SuppressionReason.MAILBOX_FULL,
}
"""Bounces that only their number makes a suppression of."""

SIGNS_OF_LIFE = (MessageEventKind.DELIVERED, MessageEventKind.REPLIED)


def suppress(
    connection: Connection,
    *,
    channel: Channel,
    address: str,
    reason: SuppressionReason,
    at: datetime,
    message_id: int | None = None,
    detail: str = "",
    by: str = "",
    until: datetime | None = None,
) -> None:
    """Keep the word that this address is not to be sent to on this channel, and let it stand if nothing outweighs it.

    Args:
        connection: In a writing transaction.
        channel: The channel.
        address: In any spelling.
        reason: Why. The reasons that are counted stand by `count_bounces` only.
        at: When it was said, or when we heard of it.
        message_id: The message that led to it.
        detail: The other side's words.
        by: Who said so; "" where the reason tells.
        until: When it ends; None: never.
    """
    address = comparable_address(channel, address)
    _say(connection, SuppressionAction.ADDED, channel, address, reason, at, until, by, message_id, detail)
    _restand(connection, channel, address, reason)


def lift(
    connection: Connection,
    *,
    channel: Channel,
    address: str,
    reasons: Sequence[SuppressionReason],
    at: datetime,
    by: str,
    detail: str = "",
) -> list[SuppressionReason]:
    """Take suppressions of these reasons back, keep the word, and return which reasons had stood.

    Words that were said later stay in force.
    """
    address = comparable_address(channel, address)
    here = (suppressions.c.channel == channel, suppressions.c.address == address)
    found = connection.execute(select(suppressions.c.reason).where(*here, suppressions.c.reason.in_(reasons)))
    stood = sorted(SuppressionReason(reason) for reason in found.scalars())
    for reason in stood:
        _say(connection, SuppressionAction.LIFTED, channel, address, reason, at, None, by, None, detail)
        if reason in COUNTED.values():
            connection.execute(delete(suppressions).where(*here, suppressions.c.reason == reason))
        else:
            _restand(connection, channel, address, reason)
    return stood


def count_bounces(
    connection: Connection, message: MessageFact, kind: MessageEventKind, settings: SuppressionSettings
) -> None:
    """Suppress an address for a time where it has had so many soft bounces of a kind in so short a time.

    Bounces before a sign of life, a fresh consent or a lift do not count. Where the kind is not counted, nothing
    happens.
    """
    reason = COUNTED.get(kind)
    if reason is None or not message.address:
        return
    rule = settings.soft if reason is SuppressionReason.SOFT_BOUNCE else settings.full
    channel, address = message.channel, message.address
    holders = _holders(connection, channel, address, [message.id])
    bounced = connection.execute(
        _events_of(holders, channel, address, (kind,)).order_by(message_events.c.at, message_events.c.id)
    ).all()
    anew_ms = max(
        _last_sign_of_life(connection, holders, channel, address),
        _last_grant(connection, holders, channel),
        _last_lift(connection, channel, address, reason),
    )
    counted = [row for row in bounced if row.at_ms >= anew_ms]
    run = last_run([from_ms(row.at_ms) for row in counted], rule)
    if run is None:
        _stand_no_more(connection, channel, address, reason)
        return
    first, last = run
    final = next(row for row in reversed(counted) if from_ms(row.at_ms) == last)
    _stand(
        connection,
        channel,
        address,
        reason,
        {
            "at": last,
            "expires_at": last + duration(rule.pause),
            "counted_from": first,
            "message_id": final.message_id,
            "detail": f"{rule.bounces} within {rule.within}: {final.detail}"[:1000],
        },
    )


def last_run(bounced_at: Sequence[datetime], rule: BounceRule) -> tuple[datetime, datetime] | None:
    """Return the first and last instant of the latest run of bounces that is dense enough, or None. Pure.

    Args:
        bounced_at: In the order of time.
        rule: How many, within which time, both ends counted.
    """
    within: timedelta = duration(rule.within)
    for end in range(len(bounced_at) - 1, rule.bounces - 2, -1):
        first = bounced_at[end - rule.bounces + 1]
        if bounced_at[end] - first <= within:
            return first, bounced_at[end]
    return None


def revive(connection: Connection, message_ids: Sequence[int], at: datetime) -> None:
    """Lift what bounces before `at` led to, for the addresses of these messages: somebody is there.

    Args:
        connection: In a writing transaction.
        message_ids: Messages that just gave a sign of life.
        at: When.
    """
    for message_id in message_ids:
        where = _address_of().where(messages.c.id == message_id)
        connection.execute(
            delete(suppressions).where(
                suppressions.c.channel == where.with_only_columns(messages.c.channel).scalar_subquery(),
                suppressions.c.address == where.scalar_subquery(),
                suppressions.c.reason.in_(DISPROVABLE),
                func.coalesce(suppressions.c.counted_from, suppressions.c.at) < literal(at, suppressions.c.at.type),
            )
        )


def revive_by_consent(connection: Connection, contact_id: int, channel: Channel, at: datetime) -> None:
    """Lift what soft bounces before a fresh consent led to, for the address the contact has."""
    column: ColumnElement[Any] = contacts.c.phone if channel is Channel.SMS else func.lower(contacts.c.email)
    connection.execute(
        delete(suppressions).where(
            suppressions.c.channel == channel,
            suppressions.c.address == select(column).where(contacts.c.id == contact_id).scalar_subquery(),
            suppressions.c.reason.in_(list(COUNTED.values())),
            suppressions.c.counted_from < at,
        )
    )


# --- words ---------------------------------------------------------------------------------------------------


def _say(
    connection: Connection,
    action: SuppressionAction,
    channel: Channel,
    address: str,
    reason: SuppressionReason,
    at: datetime,
    until: datetime | None,
    by: str,
    message_id: int | None,
    detail: str,
) -> None:
    connection.execute(
        insert_into(connection, suppression_words)
        .values(
            key=f"{action}:{reason}:{channel}:{to_ms(at)}:{message_id or ''}:{address}",
            channel=channel,
            address=address,
            reason=reason,
            action=action,
            at=at,
            expires_at=until,
            said_by=clean_text(by, 200),
            message_id=message_id,
            detail=clean_text(detail, 1000),
        )
        .on_conflict_do_nothing()
    )


def _restand(connection: Connection, channel: Channel, address: str, reason: SuppressionReason) -> None:
    """Let stand what the words on one reason come to: those added since the latest lift and the latest sign of life."""
    words = connection.execute(
        select(suppression_words, type_coerce(suppression_words.c.at, BigInteger).label("at_ms"))
        .where(
            suppression_words.c.channel == channel,
            suppression_words.c.address == address,
            suppression_words.c.reason == reason,
        )
        .order_by(suppression_words.c.at, suppression_words.c.message_id, suppression_words.c.id)
    ).all()
    anew_ms = max((word.at_ms for word in words if word.action == SuppressionAction.LIFTED), default=0)
    if reason in DISPROVABLE:
        holders = _holders(connection, channel, address, [word.message_id for word in words if word.message_id])
        anew_ms = max(anew_ms, _last_sign_of_life(connection, holders, channel, address))
    added = [word for word in words if word.action == SuppressionAction.ADDED and word.at_ms >= anew_ms]
    if not added:
        _stand_no_more(connection, channel, address, reason)
        return
    # A person's word counts from the first time it was said; a bounce as of the latest, for it may be disproved.
    told = max(added, key=_age) if reason in DISPROVABLE else min(added, key=_age)
    ends = [word.expires_at for word in added]
    _stand(
        connection,
        channel,
        address,
        reason,
        {
            "at": told.at,
            "expires_at": None if None in ends else max(ends),
            "counted_from": None,
            "message_id": told.message_id,
            "detail": told.detail,
        },
    )


def _age(word: Row[Any]) -> tuple[int, int]:
    return word.at_ms, word.message_id or 0


def _stand(
    connection: Connection, channel: Channel, address: str, reason: SuppressionReason, values: dict[str, Any]
) -> None:
    insert = insert_into(connection, suppressions).values(channel=channel, address=address, reason=reason, **values)
    key = [suppressions.c.channel, suppressions.c.address, suppressions.c.reason]
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=values))


def _stand_no_more(connection: Connection, channel: Channel, address: str, reason: SuppressionReason) -> None:
    connection.execute(
        delete(suppressions).where(
            suppressions.c.channel == channel, suppressions.c.address == address, suppressions.c.reason == reason
        )
    )


# --- facts ---------------------------------------------------------------------------------------------------


def _holders(connection: Connection, channel: Channel, address: str, message_ids: Sequence[int]) -> set[int]:
    """Return the contacts that have the address, and those messages to it went to."""
    holders = set(contacts_with(connection, channel=channel, address=address))
    if message_ids:
        sent_to = select(messages.c.contact_id).where(messages.c.id.in_(message_ids))
        holders.update(connection.execute(sent_to).scalars())
    return holders


def _address_of() -> Any:
    """Return a query for the address of messages, in comparable form."""
    kept = func.nullif(messages.c.address, "")
    phone, email = func.coalesce(kept, contacts.c.phone), func.lower(func.coalesce(kept, contacts.c.email))
    address = case((messages.c.channel == Channel.SMS, phone), else_=email).label("address")
    return select(address).select_from(messages).join(contacts, contacts.c.id == messages.c.contact_id)


def _sent_to(holders: Iterable[int], channel: Channel, address: str) -> Any:
    """Return the ids of the messages that went to an address."""
    query = _address_of()
    return query.with_only_columns(messages.c.id).where(
        messages.c.contact_id.in_(sorted(holders)),
        messages.c.channel == channel,
        query.selected_columns.address == address,
    )


def _events_of(holders: Iterable[int], channel: Channel, address: str, kinds: Sequence[MessageEventKind]) -> Any:
    at_ms = type_coerce(message_events.c.at, BigInteger).label("at_ms")
    return select(at_ms, message_events.c.message_id, message_events.c.detail).where(
        message_events.c.message_id.in_(_sent_to(holders, channel, address)), message_events.c.kind.in_(kinds)
    )


def _last_sign_of_life(connection: Connection, holders: Iterable[int], channel: Channel, address: str) -> int:
    """Return when, in milliseconds, the address last showed that somebody is there; 0 where it never did."""
    sent = _sent_to(holders, channel, address)
    looked = select(func.max(type_coerce(touches.c.at, BigInteger))).where(
        touches.c.message_id.in_(sent),
        touches.c.kind.in_((TouchKind.OPEN, TouchKind.CLICK)),
        touches.c.verdict == Verdict.HUMAN,
    )
    heard = select(func.max(type_coerce(message_events.c.at, BigInteger))).where(
        message_events.c.message_id.in_(sent), message_events.c.kind.in_(SIGNS_OF_LIFE)
    )
    return max(connection.execute(query).scalar_one() or 0 for query in (looked, heard))


def _last_grant(connection: Connection, holders: Iterable[int], channel: Channel) -> int:
    granted = select(func.max(type_coerce(consent_events.c.at, BigInteger))).where(
        consent_events.c.contact_id.in_(sorted(holders)),
        consent_events.c.channel == channel,
        consent_events.c.status == ConsentStatus.GRANTED,
    )
    return connection.execute(granted).scalar_one() or 0


def _last_lift(connection: Connection, channel: Channel, address: str, reason: SuppressionReason) -> int:
    lifted = select(func.max(type_coerce(suppression_words.c.at, BigInteger))).where(
        suppression_words.c.channel == channel,
        suppression_words.c.address == address,
        suppression_words.c.reason == reason,
        suppression_words.c.action == SuppressionAction.LIFTED,
    )
    return connection.execute(lifted).scalar_one() or 0


def signs_and_bounces(connection: Connection, channel: Channel, address: str) -> list[tuple[datetime, str, int, str]]:
    """Return what happened to messages to an address that bears on it: when, what, by which message, in what words."""
    said_of = select(suppression_words.c.message_id).where(
        suppression_words.c.channel == channel,
        suppression_words.c.address == address,
        suppression_words.c.message_id.is_not(None),
    )
    holders = _holders(connection, channel, address, list(connection.execute(said_of).scalars()))
    kinds = (*COUNTED, *SIGNS_OF_LIFE)
    happened = connection.execute(_events_of(holders, channel, address, kinds).add_columns(message_events.c.kind))
    looked = connection.execute(
        select(touches.c.at, touches.c.kind, touches.c.message_id).where(
            touches.c.message_id.in_(_sent_to(holders, channel, address)),
            touches.c.kind.in_((TouchKind.OPEN, TouchKind.CLICK)),
            touches.c.verdict == Verdict.HUMAN,
        )
    )
    found = [(from_ms(row.at_ms), str(row.kind), int(row.message_id), str(row.detail)) for row in happened]
    return sorted(found + [(row.at, str(row.kind), int(row.message_id), "by a person") for row in looked])
