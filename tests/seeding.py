"""Rows for tests of the ledger: a campaign with one e-mail step, contacts with consent, planned messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, select

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
) -> int:
    """Plan `count` messages of one run, due now, and return the run's id."""
    due_at = due_at or datetime.now(UTC) - timedelta(seconds=1)
    with writing(engine) as connection:
        campaign_id = connection.execute(
            campaigns.insert()
            .values(name=name, state="active", created_at=LONG_AGO, updated_at=LONG_AGO)
            .returning(campaigns.c.id)
        ).scalar_one()
        version_id = connection.execute(
            campaign_versions.insert()
            .values(
                campaign_id=campaign_id,
                number=1,
                digest="d",
                spec=CampaignSpec.model_validate(spec or SPEC).model_dump(
                    mode="json", by_alias=True, exclude_none=True
                ),
                files=FILES,
                segments={},
                applied_at=LONG_AGO,
            )
            .returning(campaign_versions.c.id)
        ).scalar_one()
        run_id: int = connection.execute(
            runs.insert()
            .values(
                campaign_id=campaign_id, version_id=version_id, scheduled_for=LONG_AGO, state="open", fired_at=LONG_AGO
            )
            .returning(runs.c.id)
        ).scalar_one()
        account_id = connection.execute(
            accounts.insert().values(external_id=f"A-{name}", name="Acme & Söhne").returning(accounts.c.id)
        ).scalar_one()
        first = (connection.execute(select(func.max(contacts.c.id))).scalar_one() or 0) + 1
        ids = range(first, first + count)
        connection.execute(
            contacts.insert(),
            [
                {
                    "id": i,
                    "external_id": f"C-{name}-{i}",
                    "account_id": account_id,
                    "email": address.format(n=i),
                    "phone": f"+4479{i:08d}",
                    "first_name": f"Ann {i}",
                }
                for i in ids
            ],
        )
        for channel in ("email", "sms"):
            connection.execute(
                consents.insert(),
                [{"contact_id": i, "channel": channel, "status": "granted", "at": LONG_AGO} for i in ids],
            )
        base = connection.execute(select(func.max(enrollments.c.id))).scalar_one() or 0
        connection.execute(
            enrollments.insert(),
            [
                {
                    "id": base + n,
                    "run_id": run_id,
                    "contact_id": i,
                    "account_id": account_id,
                    "segment": "everyone",
                    "held_out": False,
                }
                for n, i in enumerate(ids, start=1)
            ],
        )
        connection.execute(
            messages.insert(),
            [
                {
                    "run_id": run_id,
                    "step": 1,
                    "enrollment_id": base + n,
                    "contact_id": i,
                    "channel": "email",
                    "lane": lane,
                    "state": MessageState.PLANNED,
                    "planned_for": due_at,
                    "due_at": due_at,
                }
                for n, i in enumerate(ids, start=1)
            ],
        )
    return run_id


def states(engine: Engine) -> dict[str, int]:
    """Return how many messages stand in each state."""
    with reading(engine) as connection:
        rows = connection.execute(select(messages.c.state, func.count().label("number")).group_by(messages.c.state))
        return {row.state: row.number for row in rows}
