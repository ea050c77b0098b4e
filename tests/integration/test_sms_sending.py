"""SMS from the ledger to a provider and back into the ledger, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from kernel.settings import Workspace, load_workspace
from store.engine import reading, writing
from store.tables import consents, contacts, lanes, messages, suppressions
from tests import seeding
from tests.servers import sms_providers
from tests.servers.sms_providers import ACCOUNT, SECRET, ProviderServer
from workers.drain import Drain

YAML = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  text: {{type: twilio, account_sid: {account}, auth_token: {secret}, sender: "+15005550006",
    url: "{url}", price: "0.05"}}
"""
SPEC = {**seeding.SPEC, "steps": [{"sms": "word", "gateway": "text"}]}


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(sms_providers.twilio) as running:
        yield running


def workspace(folder: Path, url: str) -> Workspace:
    (folder / "carillon.yaml").write_text(YAML.format(account=ACCOUNT, secret=SECRET, url=url), encoding="utf-8")
    return load_workspace(folder, {"CARILLON_SECRET_KEY": "k" * 64})


def send(
    engine: Engine, shop: Workspace, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[str, ...]]:
    """Send one SMS for each word, which is its whole text; return what the ledger says of each."""
    monkeypatch.setitem(seeding.FILES, "word.txt", "{{ contact.first_name }}")
    seeding.seed_messages(engine, len(words), lane="text", channel="sms", spec=SPEC)
    with writing(engine) as connection:
        for number, word in enumerate(words, start=1):
            connection.execute(update(contacts).where(contacts.c.id == number).values(first_name=word))
    drain = Drain(engine, shop)
    drain.run("text", budget=timedelta(seconds=20), stopping=lambda: False)
    drain.close()
    columns = (messages.c.state, messages.c.gateway_id, messages.c.parts, messages.c.cost_micro, messages.c.reason)
    with reading(engine) as connection:
        rows = connection.execute(
            select(contacts.c.first_name, *columns).join(contacts, contacts.c.id == messages.c.contact_id)
        )
        return {row[0]: tuple(row[1:]) for row in rows}


def test_what_a_provider_says_stands_in_the_ledger(
    engine: Engine, server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = send(engine, workspace(tmp_path, server.url), ["accept", "21211", "drop", "http500"], monkeypatch)
    assert told["accept"] == ("sent", "SM1", 2, 100_000, None)
    assert told["21211"][0::4] == ("failed", "refused")
    assert told["drop"][0] == "in_doubt"
    assert told["http500"][0] == "planned"
    with reading(engine) as connection:
        assert connection.execute(select(suppressions)).all() == []


def test_who_told_the_provider_to_stop_is_asked_no_more(
    engine: Engine, server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = send(engine, workspace(tmp_path, server.url), ["21610", "accept"], monkeypatch)
    assert told["21610"][0] == "failed"
    with reading(engine) as connection:
        [stop] = connection.execute(select(suppressions.c.channel, suppressions.c.address, suppressions.c.reason)).all()
        given = connection.execute(
            select(consents.c.contact_id, consents.c.channel).where(consents.c.status == "withdrawn")
        ).all()
    assert tuple(stop) == ("sms", "+447900000001", "stop")
    assert [tuple(row) for row in given] == [(1, "sms")]


def test_a_sender_that_is_not_ours_costs_no_message_and_closes_the_lane(
    engine: Engine, server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = send(engine, workspace(tmp_path, server.url), ["21606"], monkeypatch)
    assert told["21606"][0] == "planned"
    with reading(engine) as connection:
        assert "21606" in connection.execute(select(lanes.c.reason)).scalar_one()
