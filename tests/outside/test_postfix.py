"""A real Postfix takes what the delivery core sends, delivers it, and bounces to the door whom it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from kernel.clock import system_clock
from kernel.settings import Workspace, load_workspace
from store.engine import reading, writing
from store.tables import contacts, inbox, message_events, messages, suppressions
from tests.acceptance.processes import wait_for
from tests.outside.postfix import Postfix, running_postfix
from tests.outside.sending import ODD_NAMES, SECRETS, YAML, deliver
from tests.seeding import seed_messages, states
from tests.servers.byte_rules import byte_problems
from workers.inbound.listener import BounceDoor
from workers.inbound.process import process_inbox

BOUNCE_DOMAIN = "bounces.acme.example"
KNOWN = "user{n}@customer.example"
UNKNOWN = "stranger{n}@customer.example"
_TRACE = re.compile(rb"\AReturn-Path: .*\nX-Original-To: .*\nDelivered-To: .*\nReceived: .*\n(?:\t.*\n)+")


@pytest.fixture
def door(engine: Engine, tmp_path: Path) -> Iterator[BounceDoor]:
    """The listener for returned mail, on a port Postfix will be told."""
    with BounceDoor(engine, load_signer(tmp_path), host="127.0.0.1", port=0) as opened:
        yield opened


@pytest.fixture
def postfix(door: BounceDoor) -> Iterator[Postfix]:
    with running_postfix(bounce_domain=BOUNCE_DOMAIN, bounce_port=door.port) as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path, postfix: Postfix) -> Workspace:
    return make_workspace(tmp_path, postfix.port)


def make_workspace(root: Path, port: int) -> Workspace:
    text = YAML.format(port=port).replace("email: hello@", f"bounce_domain: {BOUNCE_DOMAIN}, email: hello@")
    (root / "carillon.yaml").write_text(text, encoding="utf-8")
    return load_workspace(root, SECRETS)


def load_signer(root: Path):  # type: ignore[no-untyped-def]
    return make_workspace(root, 1).signer()


def test_postfix_delivers_every_mail_unharmed(engine: Engine, workspace: Workspace, postfix: Postfix) -> None:
    seed_messages(engine, len(ODD_NAMES), address=KNOWN)
    with writing(engine) as connection:
        for number, name in enumerate(ODD_NAMES, start=1):
            connection.execute(update(contacts).where(contacts.c.id == number).values(first_name=name))
    deliver(engine, workspace)
    assert states(engine) == {"sent": len(ODD_NAMES)}
    wait_for(lambda: len(postfix.delivered()) == len(ODD_NAMES), "Postfix to deliver")
    for mail in postfix.delivered():
        trace = _TRACE.match(mail)
        assert trace is not None, mail[:600]
        assert byte_problems(mail[trace.end() :].replace(b"\n", b"\r\n")) == []
        assert b"Received: from" not in mail[trace.end() :]
    assert "warning" not in postfix.log()


def test_whom_postfix_does_not_know_comes_back_and_is_suppressed(
    engine: Engine, workspace: Workspace, postfix: Postfix
) -> None:
    seed_messages(engine, 2, address=KNOWN)
    seed_messages(engine, 2, address=UNKNOWN, name="strangers")
    deliver(engine, workspace)
    assert states(engine) == {"sent": 4}

    def returned() -> int:
        with reading(engine) as connection:
            return len(connection.execute(select(inbox.c.id)).all())

    wait_for(lambda: returned() == 2 and len(postfix.delivered()) == 2, "two bounces and two deliveries")
    assert process_inbox(engine, workspace, now=system_clock()) == 2
    with reading(engine) as connection:
        dead = connection.execute(select(suppressions.c.address, suppressions.c.reason)).all()
        events = connection.execute(select(message_events.c.kind, message_events.c.detail)).all()
        ends = connection.execute(select(messages.c.contact_id, messages.c.state).order_by(messages.c.id)).all()
    assert sorted(map(tuple, dead)) == [(f"stranger{n}@customer.example", "hard_bounce") for n in (3, 4)]
    assert [kind for kind, _ in events] == ["bounced", "bounced"]
    assert all("unknown user" in detail for _, detail in events)
    assert [state for _, state in ends] == ["sent", "sent", "bounced", "bounced"]

    seed_messages(engine, 1, address="stranger3@customer.example", name="again")
    deliver(engine, workspace)
    assert states(engine) == {"sent": 2, "bounced": 2, "skipped": 1}
