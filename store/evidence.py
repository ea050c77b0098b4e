"""Reading the ledger back: a message's whole life, and the state of the lanes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from store.tables import campaigns, contacts, conversions, lanes, links, message_events, messages, runs, touches


def life_of(connection: Connection, message_id: int) -> dict[str, Any] | None:
    """Return everything known of a message, its events in the order of time; None where there is no such message."""
    row = connection.execute(
        select(
            messages.c.id.label("message"),
            campaigns.c.name.label("campaign"),
            messages.c.run_id.label("run"),
            messages.c.step,
            contacts.c.external_id.label("contact"),
            messages.c.channel,
            messages.c.lane.label("gateway"),
            messages.c.state,
            messages.c.reason,
            messages.c.address,
            messages.c.due_at,
            messages.c.attempts,
            messages.c.sent_at,
            messages.c.gateway_id,
            messages.c.reply,
            messages.c.parts,
        )
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .join(contacts, contacts.c.id == messages.c.contact_id)
        .where(messages.c.id == message_id)
    ).one_or_none()
    if row is None:
        return None
    life = dict(row._mapping)
    life["events"] = sorted(_events(connection, message_id, life), key=lambda event: event["at"])
    return life


def _events(connection: Connection, message_id: int, life: dict[str, Any]) -> list[dict[str, Any]]:
    events = [{"at": life["due_at"], "what": "due", "detail": ""}]
    if life["sent_at"] is not None:
        events.append({"at": life["sent_at"], "what": "accepted", "detail": life["reply"] or ""})
    for touch in connection.execute(
        select(touches, links.c.url)
        .join(links, links.c.id == touches.c.link_id, isouter=True)
        .where(touches.c.message_id == message_id)
    ):
        detail = f"{touch.verdict} ({touch.reasons or 'no rule spoke'}) {touch.url or ''} {touch.ip} {touch.user_agent}"
        events.append({"at": touch.at, "what": touch.kind, "detail": detail})
    returned = connection.execute(select(message_events).where(message_events.c.message_id == message_id))
    events += [{"at": event.at, "what": event.kind, "detail": event.detail} for event in returned]
    credited = connection.execute(select(conversions).where(conversions.c.message_id == message_id))
    events += [
        {"at": credit.at, "what": "conversion", "detail": f"{credit.kind} {credit.value_minor} {credit.currency}"}
        for credit in credited
    ]
    return events


def lanes_now(connection: Connection) -> list[dict[str, Any]]:
    """Return every lane that refused lately."""
    rows = connection.execute(select(lanes).where(lanes.c.failures > 0).order_by(lanes.c.name))
    return [dict(row._mapping) for row in rows]
