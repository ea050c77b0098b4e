"""A lane over SMPP from the claim to the receipt and the reply, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from kernel.settings import Workspace
from store.engine import reading, writing
from store.inbox import gateway_source
from store.tables import campaign_versions, contacts, inbox, messages, suppressions
from tests.integration.returning import make_workspace, rows, sent_messages, state_of
from tests.seeding import SPEC, seed_messages, states
from tests.servers.smsc import Smsc, deliver_sm
from workers.drain import Drain
from workers.inbound.process import process_inbox
from workers.inbound.smpp import InboxKeeper

YAML = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  smsc: {{type: smpp, host: 127.0.0.1, port: {port}, tls: none, system_id: u, password: secret, price: "0.05"}}
"""
NUDGE = {**SPEC, "steps": [{"sms": "nudge", "gateway": "smsc"}]}


@pytest.fixture
def smsc() -> Iterator[Smsc]:
    with Smsc(hex_ids=True, first_id=25) as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path, smsc: Smsc) -> Workspace:
    return make_workspace(tmp_path / "shop", {"CARILLON_SECRET_KEY": "k" * 64}, YAML.format(port=smsc.port))


@pytest.fixture
def drain(engine: Engine, workspace: Workspace) -> Iterator[Drain]:
    made = Drain(engine, workspace)
    yield made
    made.close()


def plan_texts(engine: Engine, count: int, text: str = "accept {{ contact.first_name }}") -> None:
    seed_messages(engine, count, lane="smsc", spec=NUDGE)
    with writing(engine) as connection:
        connection.execute(update(messages).values(channel="sms"))
        connection.execute(update(campaign_versions).values(files={"nudge.txt": text}))


def run(drain: Drain) -> int:
    return drain.run("smsc", budget=timedelta(seconds=20), stopping=lambda: False)


def number_of(engine: Engine, message: int) -> str:
    with reading(engine) as connection:
        query = select(contacts.c.phone).join(messages, messages.c.contact_id == contacts.c.id)
        return str(connection.execute(query.where(messages.c.id == message)).scalar_one()).removeprefix("+")


def receipt(id_: str, state: str) -> bytes:
    return f"id:{id_} sub:001 dlvrd:001 submit date:2611261530 done date:2611261531 stat:{state} err:000".encode()


def test_texts_leave_and_what_comes_back_over_the_same_bind_is_recorded(
    engine: Engine, workspace: Workspace, drain: Drain, smsc: Smsc
) -> None:
    plan_texts(engine, 12)
    assert run(drain) == 12
    assert states(engine) == {"sent": 12}
    ids = [row[0] for row in rows(engine, messages, "id")]
    assert {cost for (cost,) in rows(engine, messages, "cost_micro")} == {50_000}
    kept = dict(rows(engine, messages, "gateway_id", "id"))
    assert sorted(kept, key=lambda text: int(text, 16)) == [f"{number:x}" for number in range(25, 37)]
    # The SMSC gave ids in hexadecimal and tells them in decimal: "29" is 0x1d's, though 0x29 might have been another's.
    done, gone, leaver = ids[4], ids[5], ids[6]
    for message, state in ((done, "DELIVRD"), (gone, "UNDELIV")):
        told = next(name for name, known in kept.items() if known == message)
        assert smsc.deliver(number_of(engine, message), receipt(str(int(told, 16)), state), esm_class=4) == 0
    assert smsc.deliver(number_of(engine, leaver), b"Stop") == 0
    assert process_inbox(engine, workspace, now=datetime.now(UTC)) == 3
    assert (state_of(engine, done), state_of(engine, gone)) == ("delivered", "bounced")
    assert rows(engine, suppressions, "address", "reason") == [("+" + number_of(engine, leaver), "stop")]


def test_a_long_text_costs_what_its_parts_cost(engine: Engine, drain: Drain, smsc: Smsc) -> None:
    plan_texts(engine, 1, "accept " + "a" * 400)
    assert run(drain) == 1
    assert rows(engine, messages, "parts", "cost_micro", "gateway_id") == [(3, 150_000, "1b")]
    assert len(smsc.submits) == 3


def test_an_id_in_hex_is_not_taken_for_anothers_in_decimal(engine: Engine, workspace: Workspace) -> None:
    ten, sixteen = sent_messages(engine, 2, lane="smsc", channel="sms")
    with writing(engine) as connection:
        for message, name in ((ten, "10"), (sixteen, "16")):
            connection.execute(update(messages).where(messages.c.id == message).values(gateway_id=name))
    keep = InboxKeeper(engine, "smsc")
    # 0x10 is 16, which by itself is the other message's id: the number says whose receipt it is.
    assert keep([deliver_sm(receipt("16", "DELIVRD"), source=number_of(engine, ten), esm_class=4)])
    process_inbox(engine, workspace, now=datetime.now(UTC))
    assert (state_of(engine, ten), state_of(engine, sixteen)) == ("delivered", "sent")


def test_a_receipt_that_overtakes_the_ledger_waits_for_the_id_and_not_for_ever(
    engine: Engine, workspace: Workspace
) -> None:
    [message] = sent_messages(engine, lane="smsc", channel="sms")
    keep = InboxKeeper(engine, "smsc")
    raw = deliver_sm(receipt("77", "DELIVRD"), source=number_of(engine, message), esm_class=4)
    assert keep([raw, raw])
    now = datetime.now(UTC)
    assert process_inbox(engine, workspace, now=now) == 0
    with writing(engine) as connection:
        connection.execute(update(messages).values(gateway_id="77"))
    assert process_inbox(engine, workspace, now=now) == 1
    assert state_of(engine, message) == "delivered"
    assert keep([deliver_sm(receipt("78", "DELIVRD"), esm_class=4)])
    assert process_inbox(engine, workspace, now=now + timedelta(minutes=6)) == 1
    assert sorted(state for (state,) in rows(engine, inbox, "state")) == ["done", "unclassified"]


def test_what_the_smsc_repeats_is_kept_once_and_the_same_words_later_again(engine: Engine) -> None:
    at = [datetime(2026, 11, 26, 12, 0, tzinfo=UTC)]
    keep = InboxKeeper(engine, "smsc", clock=lambda: at[0])
    first, repeated = deliver_sm(b"STOP"), deliver_sm(b"STOP")[:12] + b"\x00\x00\x00\x63" + deliver_sm(b"STOP")[16:]
    assert keep([first])
    assert keep([repeated])
    assert len(rows(engine, inbox, "id")) == 1
    at[0] += timedelta(hours=1)
    assert keep([repeated])
    assert rows(engine, inbox, "source", "meta") == [(gateway_source("smsc"), {"kind": "inbound"})] * 2


def test_a_database_that_is_away_lets_the_smsc_keep_what_it_has(sqlite_engine: Engine) -> None:
    keep = InboxKeeper(sqlite_engine, "smsc")
    with sqlite_engine.begin() as connection:
        inbox.drop(connection)
    assert not keep([deliver_sm(b"STOP")])
