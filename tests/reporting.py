"""A small world for tests of figures: campaigns, people, messages and what they led to, one call each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Table

from campaigns.schema import CampaignSpec
from kernel.vocabulary import (
    CampaignState,
    Channel,
    MessageEventKind,
    MessageState,
    OrderKind,
    RunState,
    TouchKind,
    Verdict,
)
from store.engine import writing
from store.feedback import record_message_event, record_touch
from store.tables import (
    accounts,
    campaign_versions,
    campaigns,
    contacts,
    enrollments,
    events,
    messages,
    opportunities,
    opportunity_stages,
    orders,
    runs,
)

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
"""Monday morning: every run of this world is due then unless told otherwise."""


def spec(**keys: Any) -> dict[str, Any]:
    """Return the spec of a one-step campaign, as applied, with the given keys of the file set."""
    file = {
        "audience": {"segment": "at-risk"},
        "schedule": {"at": "2026-03-02 09:00", "zone": "UTC", "default_zone": "Europe/London"},
        "steps": [{"email": "winback", "sender": "default"}],
        **keys,
    }
    return CampaignSpec.model_validate(file).model_dump(mode="json", by_alias=True)


ORDERS_FROM_100 = {"order": {"min_value": "100.00"}, "within": "14d", "touch": ["click", "open"]}


class World:
    """Inserts rows and returns their ids; names are made up in order."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._made = 0

    def _name(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}{self._made}"

    def add(self, table: Table, **row: Any) -> int:
        with writing(self.engine) as connection:
            return int(connection.execute(table.insert().values(**row).returning(table.c.id)).scalar_one())

    def campaign(self, name: str, content: dict[str, Any] | None = None) -> int:
        campaign_id = self.add(campaigns, name=name, state=CampaignState.ACTIVE, created_at=START, updated_at=START)
        self.version(campaign_id, content)
        return campaign_id

    def version(self, campaign_id: int, content: dict[str, Any] | None = None) -> int:
        number = self._made = self._made + 1
        version_id = self.add(
            campaign_versions,
            campaign_id=campaign_id,
            number=number,
            digest=str(number),
            spec=content or spec(goal=ORDERS_FROM_100),
            files={},
            segments={},
            applied_at=START,
        )
        with writing(self.engine) as connection:
            connection.execute(campaigns.update().where(campaigns.c.id == campaign_id).values(version_id=version_id))
        return version_id

    def run(self, campaign_id: int, at: datetime = START) -> int:
        with writing(self.engine) as connection:
            version_id = connection.execute(
                campaigns.select().with_only_columns(campaigns.c.version_id).where(campaigns.c.id == campaign_id)
            ).scalar_one()
        return self.add(
            runs, campaign_id=campaign_id, version_id=version_id, scheduled_for=at, fired_at=at, state=RunState.OPEN
        )

    def account(self, name: str = "") -> int:
        external = self._name("A")
        return self.add(accounts, external_id=external, name=name or external)

    def contact(self, account_id: int | None) -> int:
        name = self._name("C")
        return self.add(contacts, external_id=name, account_id=account_id, email=f"{name.lower()}@shop.example")

    def enroll(self, run_id: int, contact_id: int, account_id: int | None, **columns: Any) -> int:
        row = {"segment": "at-risk", "rfm_segment": "at_risk", "held_out": False, **columns}
        return self.add(enrollments, run_id=run_id, contact_id=contact_id, account_id=account_id, **row)

    def message(self, run_id: int, contact_id: int, enrollment_id: int, **columns: Any) -> int:
        row = {
            "step": 1,
            "channel": Channel.EMAIL,
            "lane": "relay",
            "state": MessageState.SENT,
            "planned_for": START,
            "due_at": START,
            "sent_at": START,
            **columns,
        }
        if row["state"] not in ("sent", "delivered", "bounced", "complained", "in_doubt"):
            row["sent_at"] = None
        return self.add(messages, run_id=run_id, contact_id=contact_id, enrollment_id=enrollment_id, **row)

    def mailed(self, run_id: int, account_id: int | None, **columns: Any) -> int:
        """Enroll a new contact of the account and return the message sent to them."""
        contact_id = self.contact(account_id)
        return self.message(run_id, contact_id, self.enroll(run_id, contact_id, account_id), **columns)

    def touch(
        self,
        message_id: int,
        at: datetime,
        kind: TouchKind = TouchKind.CLICK,
        verdict: Verdict = Verdict.HUMAN,
        reasons: Sequence[str] = (),
    ) -> int:
        with writing(self.engine) as connection:
            return record_touch(
                connection,
                message_id=message_id,
                kind=kind,
                link_id=None,
                at=at,
                method="GET",
                ip="192.0.2.1",
                user_agent="test",
                verdict=verdict,
                reasons=reasons,
            )

    def event_of(self, message_id: int, kind: MessageEventKind, at: datetime = START) -> None:
        with writing(self.engine) as connection:
            record_message_event(connection, key=self._name("e"), message_id=message_id, kind=kind, at=at)

    def order(
        self,
        account_id: int | None,
        at: datetime,
        net_minor: int = 20_000,
        currency: str = "GBP",
        kind: OrderKind = OrderKind.ORDER,
        **columns: Any,
    ) -> int:
        return self.add(
            orders,
            external_id=self._name("O"),
            account_id=account_id,
            ordered_at=at,
            kind=kind,
            net_minor=net_minor,
            gross_minor=max(net_minor, 0),
            currency=currency,
            **columns,
        )

    def opportunity(self, account_id: int, *stages: tuple[str, datetime], value_minor: int = 500_000) -> list[int]:
        """Make an opportunity that went through the stages and return the ids of its stage rows."""
        opportunity_id = self.add(
            opportunities,
            external_id=self._name("P"),
            account_id=account_id,
            stage=stages[-1][0],
            stage_at=stages[-1][1],
            value_minor=value_minor,
            currency="GBP",
        )
        return [
            self.add(opportunity_stages, opportunity_id=opportunity_id, stage=stage, entered_at=at)
            for stage, at in stages
        ]

    def happening(self, name: str, at: datetime, **columns: Any) -> int:
        return self.add(events, external_id=self._name("E"), name=name, at=at, **columns)


def days(number: float) -> datetime:
    """Return the instant so many days after START."""
    return START + timedelta(days=number)
