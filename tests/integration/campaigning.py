"""A small trading world for campaign tests: a workspace with files, and people in a database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

from sqlalchemy import Engine, select, update

from campaigns.eligibility import Go, Skip, check
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import ConsentStatus, MessageState
from store.engine import reading, writing
from store.tables import accounts, consents, contacts, messages, orders

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
"""A Tuesday morning in winter: London is at UTC."""

SETTINGS = """\
brand: {name: Acme Wholesale, postal_address: "1 Dock Road, Leeds LS1 1AA, UK"}
currency: GBP
timezone: Europe/London
senders:
  default: {name: Acme Wholesale, email: hello@acme.example}
gateways:
  relay: {type: smtp, host: 127.0.0.1, port: 2525, tls: none}
  texts: {type: http, url: "http://127.0.0.1:9/send", form: {to: "{to}", text: "{text}"}, price: "0.05"}
"""

CAMPAIGN = """\
audience: {segment: everybody}
schedule: {at: "2026-12-01 09:00"}
steps:
  - email: hello
"""

FILES = {
    "segments/everybody.yaml": "subject: contact\nwhere: {everyone: true}\n",
    "segments/british.yaml": "subject: account\nwhere: {attribute: {name: country, eq: GB}}\n",
    "segments/finance.yaml": "subject: contact\nwhere: {attribute: {name: role, eq: finance}}\n",
    "templates/hello/subject.txt": "Hello {{ contact.first_name }}\n",
    "templates/hello/body.html": "<p>Hello {{ contact.first_name }}</p>\n",
    "templates/nudge.txt": "Hello {{ contact.first_name }}\n",
}


def make_workspace(root: Path, *, settings: str = SETTINGS, **campaigns: str) -> Workspace:
    """Write a workspace with the given campaign files (underscores in names become dashes)."""
    for path, text in FILES.items():
        put(root, path, text)
    put(root, "carillon.yaml", settings)
    (root / "campaigns").mkdir(exist_ok=True)
    for name, text in campaigns.items():
        put(root, f"campaigns/{name.replace('_', '-')}.yaml", text)
    return load_workspace(root, {"CARILLON_SECRET_KEY": "k" * 64})


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(dedent(text), encoding="utf-8")


def add_account(engine: Engine, external_id: str, **values: Any) -> int:
    with writing(engine) as connection:
        inserted = connection.execute(
            accounts.insert().values(external_id=external_id, name=external_id, **values).returning(accounts.c.id)
        )
        return int(inserted.scalar_one())


def add_contact(
    engine: Engine,
    external_id: str,
    account: int | None = None,
    *,
    consent: tuple[str, ...] = ("email", "sms"),
    **values: Any,
) -> int:
    """Add a contact with an e-mail address of its own and consent, unless told otherwise."""
    row = {"email": f"{external_id}@shop.example", "first_name": external_id, **values}
    with writing(engine) as connection:
        contact_id = connection.execute(
            contacts.insert().values(external_id=external_id, account_id=account, **row).returning(contacts.c.id)
        ).scalar_one()
        for channel in consent:
            connection.execute(
                consents.insert().values(contact_id=contact_id, channel=channel, status=ConsentStatus.GRANTED, at=NOW)
            )
    return int(contact_id)


def add_order(engine: Engine, external_id: str, account: int, at: datetime, net_minor: int, **values: Any) -> None:
    row = {"kind": "order", "currency": "GBP", "gross_minor": net_minor, **values}
    with writing(engine) as connection:
        connection.execute(
            orders.insert().values(
                external_id=external_id, account_id=account, ordered_at=at, net_minor=net_minor, **row
            )
        )


def ledger(engine: Engine, *columns: str) -> list[Any]:
    """Return columns of all messages, by step and contact."""
    chosen = [messages.c[name] for name in columns]
    with reading(engine) as connection:
        return list(
            connection.execute(select(*chosen).order_by(messages.c.run_id, messages.c.step, messages.c.contact_id))
        )


def deliver_due(engine: Engine, now: datetime) -> int:
    """Do what a worker does with what is due, without the wire; returns how many messages were touched."""
    due = select(messages.c.id).where(messages.c.state == MessageState.PLANNED, messages.c.due_at <= now)
    with reading(engine) as connection:
        ids = list(connection.execute(due).scalars())
        verdicts = check(connection, ids, now=now)
    with writing(engine) as connection:
        for message_id, verdict in verdicts.items():
            if isinstance(verdict, Go):
                values: dict[str, Any] = {"state": MessageState.SENT, "sent_at": now, "address": verdict.address}
            elif isinstance(verdict, Skip):
                values = {"state": MessageState.SKIPPED, "reason": verdict.reason, "ended_at": now}
            else:
                values = {"due_at": verdict.until}
            connection.execute(update(messages).where(messages.c.id == message_id).values(**values))
    return len(ids)
