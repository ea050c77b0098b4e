"""Reading the ledger back: everything known of one message, and ways to find it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, or_, select

from kernel.vocabulary import Channel
from store.message_facts import comparable_address
from store.tables import (
    accounts,
    campaign_versions,
    campaigns,
    claims,
    contacts,
    conversions,
    enrollments,
    lanes,
    links,
    message_attempts,
    message_events,
    messages,
    runs,
    suppression_words,
    touches,
)


def message_row(connection: Connection, message_id: int) -> Row[Any] | None:
    """Return a message with its campaign, run, contact and, while a worker has it, its claim; None: no such message."""
    return connection.execute(
        select(
            messages,
            campaigns.c.name.label("campaign"),
            campaigns.c.state.label("campaign_state"),
            campaigns.c.state_reason,
            runs.c.scheduled_for,
            runs.c.fired_at,
            runs.c.version_id,
            campaign_versions.c.number.label("version"),
            enrollments.c.segment,
            enrollments.c.variant,
            contacts.c.external_id.label("contact"),
            contacts.c.email,
            contacts.c.phone,
            contacts.c.timezone.label("contact_zone"),
            accounts.c.external_id.label("account"),
            accounts.c.timezone.label("account_zone"),
            claims.c.host,
            claims.c.claimed_at,
            claims.c.sending_at,
            claims.c.lease_until,
            runs.c.campaign_id,
            lanes.c.closed_until,
            lanes.c.held,
            lanes.c.reason.label("lane_reason"),
        )
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .join(campaign_versions, campaign_versions.c.id == runs.c.version_id)
        .join(enrollments, enrollments.c.id == messages.c.enrollment_id)
        .join(contacts, contacts.c.id == messages.c.contact_id)
        .join(accounts, accounts.c.id == contacts.c.account_id, isouter=True)
        .join(claims, claims.c.id == messages.c.claim_id, isouter=True)
        .join(lanes, lanes.c.name == messages.c.lane, isouter=True)
        .where(messages.c.id == message_id)
    ).one_or_none()


def attempts_of(connection: Connection, message_id: int) -> Sequence[Row[Any]]:
    """Return every try that was not a plain acceptance, the first first."""
    mine = message_attempts.c.message_id == message_id
    return connection.execute(select(message_attempts).where(mine).order_by(message_attempts.c.number)).all()


def touches_of(connection: Connection, message_id: int) -> Sequence[Row[Any]]:
    """Return every hit with the link's target, oldest first."""
    query = select(touches, links.c.url).join(links, links.c.id == touches.c.link_id, isouter=True)
    return connection.execute(query.where(touches.c.message_id == message_id).order_by(touches.c.at)).all()


def events_of(connection: Connection, message_id: int) -> Sequence[Row[Any]]:
    """Return what came back about a message, oldest first."""
    mine = message_events.c.message_id == message_id
    return connection.execute(select(message_events).where(mine).order_by(message_events.c.at)).all()


def conversions_of(connection: Connection, message_id: int) -> Sequence[Row[Any]]:
    """Return what the message is credited with, oldest first."""
    mine = conversions.c.message_id == message_id
    return connection.execute(select(conversions).where(mine).order_by(conversions.c.at)).all()


def suppression_words_of(connection: Connection, *, channel: str, address: str) -> Sequence[Row[Any]]:
    """Return every word that suppressed an address or lifted that, oldest first."""
    here = (suppression_words.c.channel == channel) & (
        suppression_words.c.address == comparable_address(channel, address)
    )
    return connection.execute(select(suppression_words).where(here).order_by(suppression_words.c.at)).all()


# --- finding -----------------------------------------------------------------------------------------------------


def ids_by_gateway_id(connection: Connection, gateway_id: str, names: Sequence[str]) -> list[int]:
    """Return messages the named gateways know by an id of theirs, or whose answer held it (Postfix's `queued as …`)."""
    exact = select(messages.c.id).where(messages.c.lane.in_(names), messages.c.gateway_id == gateway_id)
    found = list(connection.execute(exact.order_by(messages.c.id.desc()).limit(20)).scalars())
    if found:
        return found
    # No index holds answers: a walk through the ledger, for a person who waits for it.
    said = select(messages.c.id).where(messages.c.reply.contains(gateway_id, autoescape=True))
    return list(connection.execute(said.order_by(messages.c.id.desc()).limit(20)).scalars())


def ids_by_address(connection: Connection, address: str, *, limit: int = 20) -> list[int]:
    """Return the latest messages to a contact who has, or to whom one was sent at, an e-mail address or a number."""
    email, phone = (comparable_address(channel, address) for channel in (Channel.EMAIL, Channel.SMS))
    holders = select(contacts.c.id).where(or_(_lower(contacts.c.email) == email, contacts.c.phone == phone))
    latest = messages.c.id.desc()
    found = connection.execute(
        select(messages.c.id).where(messages.c.contact_id.in_(holders)).order_by(latest).limit(limit)
    ).scalars()
    return list(found)


def _lower(column: ColumnElement[Any]) -> ColumnElement[str]:
    return func.lower(column)
