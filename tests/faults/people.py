"""People and campaign files for cells in which the scheduler itself fires."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import dedent

from sqlalchemy import Engine, func, insert, select, update

from campaigns.applying import apply
from store.engine import reading, writing
from store.tables import accounts, campaign_versions, consents, contacts, messages, runs
from tests.faults.bench import SMS_SPEC
from tests.faults.stage import Stage
from tests.seeding import LONG_AGO, seed_messages

CAMPAIGN = """\
audience: {segment: everybody}
schedule: {at: "2026-01-01 09:00"}
steps:
  - email: hello
"""


def add_people(stage: Stage, count: int) -> None:
    """Add contacts who have agreed to e-mail and SMS."""
    with writing(stage.engine) as connection:
        account = connection.execute(
            insert(accounts).values(external_id="A", name="Acme & Söhne").returning(accounts.c.id)
        ).scalar_one()
        people = [
            {
                "external_id": f"C-{n}",
                "account_id": account,
                "email": f"user{n}@customer.example",
                "phone": f"+4479{n:08d}",
                "first_name": f"Ann {n}",
            }
            for n in range(count)
        ]
        ids = connection.execute(insert(contacts).returning(contacts.c.id), people).scalars().all()
        for channel in ("email", "sms"):
            rows = [{"contact_id": i, "channel": channel, "status": "granted", "at": LONG_AGO} for i in ids]
            connection.execute(insert(consents), rows)


def apply_campaigns(stage: Stage, **campaigns: str) -> None:
    """Write campaign files and all they need, and apply them: their time has come, so that they fire at once."""
    files = {
        "segments/everybody.yaml": "subject: contact\nwhere: {everyone: true}\n",
        "segments/all-too.yaml": "subject: contact\nwhere: {everyone: true}\n",
        "templates/hello/subject.txt": "Hello {{ contact.first_name }}\n",
        "templates/hello/body.html": "<p>Hello {{ contact.first_name }}</p>\n",
        **{f"campaigns/{name}.yaml": text for name, text in campaigns.items()},
    }
    for path, text in files.items():
        target = stage.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dedent(text), encoding="utf-8")
    apply(stage.engine, stage.workspace, None, now=datetime.now(UTC))


def fired(stage: Stage) -> int:
    """Return how many runs stand in the database."""
    with reading(stage.engine) as connection:
        return int(connection.execute(select(func.count()).select_from(runs)).scalar_one())


def seed_sms(engine: Engine, count: int) -> None:
    """Plan SMS of one run, due now, to the lane `texts`."""
    seed_messages(engine, count, lane="texts", spec=SMS_SPEC)
    with writing(engine) as connection:
        connection.execute(update(messages).values(channel="sms"))
        connection.execute(update(campaign_versions).values(files={"note.txt": "Hello {{ contact.first_name }}"}))
