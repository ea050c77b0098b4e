"""Sends e-mails with the real delivery core to a real server, and returns them as they crossed the wire."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, update

from campaigns.firing import fire_due
from demo.commands import environment_of
from demo.stage import ALWAYS, OFFICE_HOURS, Stage, let_the_dates_come, set_stage
from kernel.clock import system_clock
from kernel.settings import Workspace, load_workspace
from store.engine import open_database, writing
from store.schema import migrate
from store.tables import contacts
from tests.seeding import seed_messages, states
from tests.servers.smtp_sink import Sink, SinkServer
from workers.drain import Drain

YAML = """\
brand: {{name: "Acme & Söhne", postal_address: "1 Dock Road, Leeds LS1 1AA, UK"}}
senders:
  default: {{name: "Acme & Söhne", email: hello@acme.example, feedback_id: acme2026{more}}}
gateways:
  relay: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}
web: {{public_url: "https://links.acme.example"}}
"""
SECRETS = {"CARILLON_SECRET_KEY": "k" * 64}
ODD_NAMES = (
    "Ann",
    "Zoë 👩‍🚀" * 12,
    "مرحبا بالعالم",
    "山田 太郎",
    "=?utf-8?q?x?=",
    ".\u200b'\"<b>&amp;",
    'O\'Brien, "Bob" (née\\x)',
)
_FOR_EACH_CAMPAIGN = 3
_SUBJECT = re.compile(rb"^List-Id:[^\n]*<([a-z0-9-]+)\.", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One e-mail as the server took it, after dot-unstuffing. `name` says what it is for in words."""

    name: str
    sender: str
    recipient: str
    body: bytes


def saved(mails: list[Mail], folder: Path) -> dict[str, Mail]:
    """Write each e-mail to a file of the folder and return them by file name."""
    by_file = {f"{number:04d}.eml": mail for number, mail in enumerate(mails)}
    for name, mail in by_file.items():
        (folder / name).write_bytes(mail.body)
    return by_file


def mails_of_odd_people(root: Path, *, more: str = "") -> list[Mail]:
    """Send one campaign to people with odd names; `more` are further keys of the sender, after a comma."""
    with SinkServer(Sink()) as server:
        (root / "carillon.yaml").write_text(YAML.format(port=server.port, more=more), encoding="utf-8")
        with opened(load_workspace(root, SECRETS)) as (workspace, engine):
            seed_messages(engine, len(ODD_NAMES))
            with writing(engine) as connection:
                for number, name in enumerate(ODD_NAMES, start=1):
                    connection.execute(update(contacts).where(contacts.c.id == number).values(first_name=name))
            deliver(engine, workspace)
            assert states(engine) == {"sent": len(ODD_NAMES)}
        return _received(server.sink, "odd")


def mails_of_examples(root: Path) -> list[Mail]:
    """Run the example workspace's campaigns over its made-up shop and return a few e-mails of each."""
    now = system_clock()
    stage = set_stage(root, seed=7, now=now)
    let_the_dates_come(root, now, sms_wait=timedelta(days=3))
    _let_the_weekly_campaign_come(root, now)
    for source in ("accounts", "contacts", "consents", "orders"):
        carillon(stage, "import", source, allowed=(0, 3))
    carillon(stage, "segments", "refresh")
    carillon(stage, "apply")
    with SinkServer(Sink(), stage.ports.smtp) as server:
        with opened(load_workspace(root, environment_of(stage))) as (workspace, engine):
            assert len(fire_due(engine, workspace, now=system_clock())) == 3
            deliver(engine, workspace)
        every = _received(server.sink, "example")
    return _a_few_of_each(every)


@contextmanager
def opened(workspace: Workspace) -> Iterator[tuple[Workspace, Engine]]:
    """Yield the workspace and its migrated database."""
    engine = open_database(workspace.database_url)
    try:
        migrate(engine)
        yield workspace, engine
    finally:
        engine.dispose()


def deliver(engine: Engine, workspace: Workspace, lane: str = "relay") -> int:
    """Do what a worker does with everything that is due."""
    drain = Drain(engine, workspace)
    try:
        return drain.run(lane, budget=timedelta(seconds=60), stopping=lambda: False)
    finally:
        drain.close()


def carillon(stage: Stage, *arguments: str, allowed: tuple[int, ...] = (0,)) -> str:
    """Run a command as a person would."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments, "--workspace", str(stage.root)],
        env=environment_of(stage),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in allowed, done.stdout + done.stderr
    return done.stdout


def _let_the_weekly_campaign_come(root: Path, now: datetime) -> None:
    """Fire the weekly campaign once, now, whatever the day: its content is what is judged here."""
    path = root / "campaigns" / "weekly-restock.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in {
        'cron: "0 8 * * tue"': f'at: "{now.astimezone(UTC):%Y-%m-%d %H:%M}"',
        "zone: Europe/London": "zone: UTC",
        OFFICE_HOURS: ALWAYS,
        "  catch_up: latest\n": "",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def _received(sink: Sink, name: str) -> list[Mail]:
    return [
        Mail(name=f"{name} {number}", sender=sender, recipient=recipient, body=body)
        for number, ((_, sender, recipient), body) in enumerate(zip(sink.accepted, sink.bodies, strict=True), start=1)
    ]


def _a_few_of_each(mails: list[Mail]) -> list[Mail]:
    """Return the first few e-mails of each campaign and language of subject."""
    kept: dict[bytes, list[Mail]] = {}
    for mail in mails:
        found = _SUBJECT.search(mail.body)
        group = kept.setdefault(found[1] if found else b"", [])
        if len(group) < _FOR_EACH_CAMPAIGN:
            group.append(mail)
    assert len(kept) == 3, f"e-mails of {len(kept)} campaigns, not 3"
    return [mail for group in kept.values() for mail in group]
