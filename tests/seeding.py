"""Rows for tests of the ledger: a campaign with one e-mail step, contacts with consent, planned messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from campaigns.schema import CampaignSpec
from kernel.vocabulary import MessageState
from store.engine import reading, writing
from store.tables import (
    accounts,
    campaign_versions,
    campaigns,
    consents,
    contacts,
    enrollments,
    messages,
    runs,
)

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "audience": {"segment": "everyone"},
    "schedule": {"at": "2026-01-01 09:00"},
    "steps": [{"email": "hello", "sender": "default", "gateway": "relay"}],
}
FILES = {
    "hello/subject.txt": "Hello {{ contact.first_name }}",
    "hello/body.txt": "Dear {{ contact.first_name }}, see https://shop.example/offers for news of {{ account.name }}.",
    "hello/body.html": (
        "<html><body><h1>Hello {{ contact.first_name }}</h1>"
        '<p><a href="https://shop.example/offers">Offers for {{ account.name }}</a></p></body></html>'
    ),
}


def seed_messages(
    engine: Engine,
    count: int,
    *,
    due_at: datetime | None = None,
    lane: str = "relay",
    address: str = "user{n}@customer.example",
    spec: dict[str, Any] | None = None,
    name: str = "hello",
    channel: str = "email",
) -> int:
    """Plan `count` messages of one run, due now, and return the run's id."""
    due_at = due_at or datetime.now(UTC) - timedelta(seconds=1)
    with writing(engine) as connection:
        run_id = _run(connection, name, spec or SPEC)
        account_id, contact_ids = _people(connection, name, count, address)
        base = connection.execute(select(func.max(enrollments.c.id))).scalar_one() or 0
        places = [(base + number, contact_id) for number, contact_id in enumerate(contact_ids, start=1)]
        enrolled = {"run_id": run_id, "account_id": account_id, "segment": "everyone", "held_out": False}
        connection.execute(enrollments.insert(), [{"id": e, "contact_id": c, **enrolled} for e, c in places])
        planned = {
            "run_id": run_id,
            "step": 1,
            "channel": channel,
            "lane": lane,
            "state": MessageState.PLANNED,
            "planned_for": due_at,
            "due_at": due_at,
        }
        connection.execute(messages.insert(), [{"enrollment_id": e, "contact_id": c, **planned} for e, c in places])
    return run_id


def _run(connection: Connection, name: str, spec: dict[str, Any]) -> int:
    campaign = {"name": name, "state": "active", "created_at": LONG_AGO, "updated_at": LONG_AGO}
    campaign_id = connection.execute(campaigns.insert().values(campaign).returning(campaigns.c.id)).scalar_one()
    version = {
        "campaign_id": campaign_id,
        "number": 1,
        "digest": "d",
        "spec": CampaignSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_none=True),
        "files": FILES,
        "segments": {},
        "applied_at": LONG_AGO,
    }
    version_id = connection.execute(
        campaign_versions.insert().values(version).returning(campaign_versions.c.id)
    ).scalar_one()
    run = {"campaign_id": campaign_id, "version_id": version_id, "scheduled_for": LONG_AGO, "state": "open"}
    return int(connection.execute(runs.insert().values(**run, fired_at=LONG_AGO).returning(runs.c.id)).scalar_one())


def _people(connection: Connection, name: str, count: int, address: str) -> tuple[int, range]:
    """Add an account and its contacts, who have agreed to everything; return its id and theirs."""
    account = {"external_id": f"A-{name}", "name": "Acme & Söhne"}
    account_id = connection.execute(accounts.insert().values(account).returning(accounts.c.id)).scalar_one()
    first = (connection.execute(select(func.max(contacts.c.id))).scalar_one() or 0) + 1
    ids = range(first, first + count)
    people = [
        {
            "id": i,
            "external_id": f"C-{name}-{i}",
            "account_id": account_id,
            "email": address.format(n=i),
            "phone": f"+4479{i:08d}",
            "first_name": f"Ann {i}",
        }
        for i in ids
    ]
    connection.execute(contacts.insert(), people)
    granted = {"status": "granted", "at": LONG_AGO}
    for channel in ("email", "sms"):
        connection.execute(consents.insert(), [{"contact_id": i, "channel": channel, **granted} for i in ids])
    return account_id, ids


def states(engine: Engine) -> dict[str, int]:
    """Return how many messages stand in each state."""
    with reading(engine) as connection:
        rows = connection.execute(select(messages.c.state, func.count().label("number")).group_by(messages.c.state))
        return {row.state: row.number for row in rows}
