"""Reading what is known of a message something came back about, and of the hits it had before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, select

from kernel.vocabulary import Channel, ConsentStatus, MessageState, SuppressionReason, TouchKind, Verdict
from store.sql import in_slices
from store.standing import standing
from store.tables import consents, contacts, messages, suppressions, touches


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchFact:
    """One stored hit, as far as judging the next one needs it."""

    id: int
    message_id: int
    kind: TouchKind
    link_id: int | None
    at: datetime
    ip: str
    user_agent: str
    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelChoice:
    """How one contact stands to one channel.

    `said` is its standing word; `suppressed` are the reasons its address is suppressed for.
    """

    channel: Channel
    address: str
    said: ConsentStatus | None
    suppressed: frozenset[SuppressionReason]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFact:
    """What is known of a message something came back about. `address` is where it went, in comparable form."""

    id: int
    state: MessageState
    channel: Channel
    lane: str
    contact_id: int
    address: str
    sent_at: datetime | None


def comparable_address(channel: str, address: str) -> str:
    """Return the form suppressions are keyed by: e-mail in lower case, numbers as they are."""
    return address.strip().lower() if channel == Channel.EMAIL else address.strip()


def message_fact(connection: Connection, message_id: int) -> MessageFact | None:
    """Return what is known of a message, or None where there is no such row."""
    row = connection.execute(_message_facts().where(messages.c.id == message_id)).one_or_none()
    return _as_message_fact(row) if row else None


def message_facts(connection: Connection, message_ids: Sequence[int]) -> dict[int, MessageFact]:
    """Return what is known of each of the messages there is."""
    found: dict[int, MessageFact] = {}
    for ids in in_slices(sorted(set(message_ids)), 500):
        rows = connection.execute(_message_facts().where(messages.c.id.in_(ids)))
        found.update({row.id: _as_message_fact(row) for row in rows})
    return found


def message_by_gateway_id(connection: Connection, *, lane: str, gateway_id: str) -> MessageFact | None:
    """Return the message a gateway knows by an id of its own."""
    query = _message_facts().where(messages.c.lane == lane, messages.c.gateway_id == gateway_id)
    row = connection.execute(query.order_by(messages.c.id.desc()).limit(1)).one_or_none()
    return _as_message_fact(row) if row else None


def last_message_to(connection: Connection, *, channel: Channel, address: str) -> MessageFact | None:
    """Return the latest message that went to an address; what an incoming SMS answers."""
    holders = select(contacts.c.id).where(_address_column(channel) == address)
    query = (
        _message_facts()
        .where(messages.c.contact_id.in_(holders), messages.c.channel == channel, messages.c.sent_at.is_not(None))
        .order_by(messages.c.sent_at.desc(), messages.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return _as_message_fact(row) if row else None


def channel_choices(connection: Connection, contact_id: int, *, now: datetime) -> list[ChannelChoice]:
    """Return how a contact stands to each channel it has an address for."""
    row = connection.execute(select(contacts.c.email, contacts.c.phone).where(contacts.c.id == contact_id)).one()
    words = connection.execute(select(consents.c.channel, consents.c.status).where(consents.c.contact_id == contact_id))
    said = {word.channel: ConsentStatus(word.status) for word in words}
    choices = []
    for channel, address in ((Channel.EMAIL, row.email), (Channel.SMS, row.phone)):
        if not address:
            continue
        reasons = connection.execute(
            select(suppressions.c.reason).where(
                suppressions.c.channel == channel,
                suppressions.c.address == comparable_address(channel, address),
                standing(now),
            )
        ).scalars()
        choices.append(
            ChannelChoice(
                channel=channel,
                address=address,
                said=said.get(channel),
                suppressed=frozenset(SuppressionReason(reason) for reason in reasons),
            )
        )
    return choices


def touches_of_message(connection: Connection, message_id: int, *, since: datetime) -> list[TouchFact]:
    """Return the hits of one message from `since` on, oldest first, at most the latest 200."""
    return _touch_facts(connection, touches.c.message_id == message_id, touches.c.at >= since)


def touches_from(connection: Connection, ip: str, *, since: datetime) -> list[TouchFact]:
    """Return the hits of one network address from `since` on, oldest first, at most the latest 200."""
    return _touch_facts(connection, touches.c.ip == ip, touches.c.at >= since)


def contacts_with(connection: Connection, *, channel: Channel, address: str) -> list[int]:
    """Return the contacts that have an address, in the order of their ids."""
    column = _address_column(channel)
    return list(
        connection.execute(
            select(contacts.c.id).where(column == comparable_address(channel, address)).order_by(contacts.c.id)
        ).scalars()
    )


def withdrawn_by(connection: Connection, contact_ids: Sequence[int], *, channel: Channel, source: str) -> list[int]:
    """Return those contacts whose consent is withdrawn, and was so by this source."""
    return list(
        connection.execute(
            select(consents.c.contact_id).where(
                consents.c.contact_id.in_(contact_ids),
                consents.c.channel == channel,
                consents.c.status == ConsentStatus.WITHDRAWN,
                consents.c.source == source,
            )
        ).scalars()
    )


def _address_column(channel: Channel) -> ColumnElement[str]:
    return contacts.c.phone if channel == Channel.SMS else func.lower(contacts.c.email)


def _message_facts() -> Select[Any]:
    address = func.coalesce(func.nullif(messages.c.address, ""), _contact_address()).label("address")
    return select(
        messages.c.id,
        messages.c.state,
        messages.c.channel,
        messages.c.lane,
        messages.c.contact_id,
        messages.c.sent_at,
        address,
    ).join(contacts, contacts.c.id == messages.c.contact_id)


def _contact_address() -> ColumnElement[str]:
    return case((messages.c.channel == Channel.SMS, contacts.c.phone), else_=contacts.c.email)


def _as_message_fact(row: Row[Any]) -> MessageFact:
    return MessageFact(
        id=row.id,
        state=MessageState(row.state),
        channel=Channel(row.channel),
        lane=row.lane,
        contact_id=row.contact_id,
        address=comparable_address(row.channel, row.address or ""),
        sent_at=row.sent_at,
    )


def _touch_facts(connection: Connection, *conditions: ColumnElement[bool]) -> list[TouchFact]:
    rows = connection.execute(select(touches).where(*conditions).order_by(touches.c.id.desc()).limit(200)).all()
    return [
        TouchFact(
            id=row.id,
            message_id=row.message_id,
            kind=TouchKind(row.kind),
            link_id=row.link_id,
            at=row.at,
            ip=row.ip,
            user_agent=row.user_agent,
            verdict=Verdict(row.verdict),
            reasons=tuple(reason for reason in row.reasons.split(",") if reason),
        )
        for row in reversed(rows)
    ]
