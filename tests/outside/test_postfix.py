"""A real Postfix takes what the delivery core sends, delivers it, and bounces to the door whom it does not know."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from kernel.clock import system_clock
from kernel.settings import Workspace, load_workspace
from store.doubts import doubts
from store.engine import reading, writing
from store.schema import installation
from store.tables import contacts, inbox, lanes, message_events, messages, suppressions
from tests.acceptance.processes import wait_for
from tests.outside.cutting import Cut, wire
from tests.outside.postfix import Postfix, running_postfix
from tests.outside.sending import ODD_NAMES, SECRETS, YAML, deliver
from tests.outside.signing import SENDER_KEYS, make_keys, records_of, verified
from tests.seeding import seed_messages, states
from tests.servers.byte_rules import byte_problems
from workers.audit.auditing import audit, promises
from workers.inbound.listener import BounceDoor
from workers.inbound.process import process_inbox
from workers.mail_log import MailLog, read_mail_logs
from workers.settling import settle_by_log

BOUNCE_DOMAIN = "bounces.acme.example"
KNOWN = "user{n}@customer.example"
A_MOMENT = timedelta(seconds=2)
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
    make_keys(tmp_path)
    return make_workspace(tmp_path, postfix.port)


def make_workspace(root: Path, port: int) -> Workspace:
    text = YAML.format(port=port, more=f", bounce_domain: {BOUNCE_DOMAIN}{SENDER_KEYS}")
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
    records = records_of(workspace)
    for mail in postfix.delivered():
        assert verified(mail.replace(b"\n", b"\r\n"), records) == [True, True]
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


@pytest.mark.parametrize("cut", list(Cut))
def test_postfixs_own_log_ends_a_doubt(
    sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    """Whether the lost message had arrived is in Postfix's log; in the end everybody has it once."""
    monkeypatch.setattr("workers.settling._AROUND", A_MOMENT)
    make_keys(tmp_path)
    with running_postfix(bounce_domain=BOUNCE_DOMAIN, bounce_port=9) as postfix, wire(postfix.port, cut) as broken:
        workspace = make_workspace(tmp_path, broken.port)
        seed_messages(sqlite_engine, 12, address=KNOWN)
        begun = read_log(sqlite_engine, postfix).first_at
        assert begun is not None
        wait_for(lambda: system_clock() > begun + 2 * A_MOMENT, "the log to reach back a moment")
        wait_for(lambda: sending_ends(sqlite_engine, workspace), "everything to be sent or in doubt")
        assert states(sqlite_engine) == {"sent": 11, "in_doubt": 1}
        with reading(sqlite_engine) as connection:
            [doubt] = doubts(connection)
        wait_for(lambda: log_covers(sqlite_engine, postfix, doubt.since + A_MOMENT), "the log to go on")

        found = settle_by_log(sqlite_engine, read_log(sqlite_engine, postfix), gateway="relay", now=system_clock())
        settled = found.sent if cut is Cut.AFTER_IT_ARRIVED else found.not_sent
        assert settled.keys() == {doubt.message}, found
        deliver(sqlite_engine, workspace)
        assert states(sqlite_engine) == {"sent": 12}
        wait_for(lambda: len(postfix.delivered()) == 12, "Postfix to deliver")
        assert len({re.search(rb"^Message-ID: (\S+)", mail, re.MULTILINE)[1] for mail in postfix.delivered()}) == 12  # type: ignore[index]
        log = read_log(sqlite_engine, postfix)
        recounted = list(audit(sqlite_engine, workspace, promises(mail_log=log, gateway="relay")))
        assert [one.breaches for one in recounted if not one.holds] == []


def sending_ends(engine: Engine, workspace: Workspace) -> bool:
    """Send what is due; what a broken wire put off falls due at once."""
    with writing(engine) as connection:
        waiting = messages.c.state == "planned"
        connection.execute(update(messages).where(waiting).values(due_at=system_clock() - timedelta(seconds=1)))
        connection.execute(update(lanes).values(closed_until=None))
    deliver(engine, workspace)
    return "planned" not in states(engine)


def read_log(engine: Engine, postfix: Postfix) -> MailLog:
    with reading(engine) as connection:
        name = installation(connection)
    return read_mail_logs([postfix.mail_log], name, now=system_clock())


def log_covers(engine: Engine, postfix: Postfix, until: datetime) -> bool:
    """Have Postfix log one line more, and tell whether its log reaches so far."""
    socket.create_connection(("127.0.0.1", postfix.port), timeout=5).close()
    last_at = read_log(engine, postfix).last_at
    return last_at is not None and last_at > until
