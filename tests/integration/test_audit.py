"""The audit finds each way a promise can be broken, says which messages, and is silent about a ledger in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, update

from kernel.settings import Workspace
from kernel.vocabulary import Channel, MessageEventKind, SuppressionReason, TouchKind, Verdict
from store.engine import writing
from store.feedback import record_message_event, record_touch, suppress
from store.lanes import open_lane
from store.tables import (
    claims,
    contacts,
    conversions,
    enrollments,
    inbox,
    message_attempts,
    messages,
    orders,
    runs,
)
from tests.integration.test_doubts import come_into_doubt
from tests.integration.test_drain import make_workspace
from tests.seeding import SPEC, seed_messages, states
from tests.servers.smtp_sink import Sink, SinkServer
from workers.audit.auditing import audit, promises, recount
from workers.audit.findings import Recounted
from workers.drain import Drain
from workers.mail_log import Logged, MailLog

SENT_AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
"""A Monday morning, within the window below."""
LATER = timedelta(hours=1)
STRICT: dict[str, Any] = {
    **SPEC,
    "schedule": {"at": "2026-03-02 09:00", "zone": "UTC", "default_zone": "UTC", "window": {"hours": "08:00-18:00"}},
    "limits": {"caps": [{"channel": "email", "messages": 1, "within": "7d"}]},
    "rate": "2/minute",
}


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path, 2525)


@pytest.fixture
def ledger(engine: Engine) -> Engine:
    """Four messages sent as they should be, a skipped one, and one in doubt that a try explains."""
    seed_messages(engine, 6, spec=STRICT)
    with writing(engine) as connection:
        sent(connection, 1, 2, 3, 4)
        connection.execute(
            update(messages).where(messages.c.id == 5).values(state="skipped", reason="no_consent", ended_at=SENT_AT)
        )
    come_into_doubt(engine, 6, since=SENT_AT)
    return engine


def sent(connection: Connection, *ids: int, at: datetime = SENT_AT) -> None:
    for place, message_id in enumerate(ids):
        instant = at + timedelta(minutes=place)
        values = {
            "state": "sent",
            "sent_at": instant,
            "ended_at": instant,
            "address": f"user{message_id}@customer.example",
        }
        connection.execute(update(messages).where(messages.c.id == message_id).values(values))


def recounted(engine: Engine, shop: Workspace, **log: Any) -> list[Recounted]:
    return list(audit(engine, shop, promises(**log)))


def test_a_ledger_in_order_keeps_every_promise(ledger: Engine, shop: Workspace) -> None:
    found = recounted(ledger, shop)
    assert [one.number for one in found] == [1, 2, 3, 4, 5, 6]
    assert [one.breaches for one in found if not one.holds] == []
    assert found[2].notes == ("1 are in doubt now; 1 ever were, out of 0 chunks that were cut short",)


def test_what_real_delivery_writes_keeps_every_promise_whatever_the_server_does(engine: Engine, tmp_path: Path) -> None:
    words = "user rcpt550 rcptfull rcptroute rcpt450 data554 body550 once450 dotdrop dotlose"
    spec = {**SPEC, "limits": {"max_attempts": 2, "max_age": "1000d"}}
    with SinkServer(Sink()) as server:
        shop = make_workspace(tmp_path, server.port)
        for fault in words.split():
            seed_messages(engine, 1, spec=spec, name=fault, address=f"{fault}+{{n}}@customer.example")
        drain = Drain(engine, shop)
        for _ in range(3):
            with writing(engine) as connection:
                waiting = messages.c.state == "planned"
                connection.execute(update(messages).where(waiting).values(due_at=SENT_AT))
                open_lane(connection, "relay")  # Connections lost again and again close it.
            drain.run("relay", budget=timedelta(seconds=30), stopping=lambda: False)
        drain.close()
    assert states(engine) == {"sent": 2, "failed": 6, "in_doubt": 2}
    assert [one.breaches for one in recounted(engine, shop) if not one.holds] == []


def test_an_empty_database_keeps_every_promise(engine: Engine, shop: Workspace) -> None:
    assert all(one.holds for one in recounted(engine, shop))


def lose_a_row(connection: Connection) -> None:
    connection.execute(messages.delete().where(messages.c.id == 2))


def mistake_the_enrollment(connection: Connection) -> None:
    connection.execute(update(messages).where(messages.c.id == 2).values(enrollment_id=3))


def enroll_nobody(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    row = {"id": 9, "run_id": 1, "contact_id": 99, "segment": "everyone", "held_out": False}
    connection.execute(enrollments.insert().values(row))
    place = {"id": 9, "run_id": 1, "step": 1, "enrollment_id": 9, "contact_id": 99, "channel": "email", "lane": "relay"}
    connection.execute(
        messages.insert().values(place | {"state": "planned", "planned_for": SENT_AT, "due_at": SENT_AT})
    )


def forget_the_reason(connection: Connection) -> None:
    connection.execute(update(messages).where(messages.c.id == 5).values(reason=None))


def lose_the_claim(connection: Connection) -> None:
    connection.execute(
        update(messages).where(messages.c.id == 2).values(state="claimed", claim_id=99, sent_at=None, ended_at=None)
    )


def leave_it_in_dead_hands(connection: Connection) -> None:
    old = datetime.now(UTC) - timedelta(hours=3)
    row = {
        "id": 9,
        "lane": "relay",
        "host": "gone",
        "boot": "b",
        "recorder": "/r",
        "claimed_at": old,
        "lease_until": old,
    }
    connection.execute(insert(claims).values(row))
    connection.execute(
        update(messages).where(messages.c.id == 2).values(state="claimed", claim_id=9, sent_at=None, ended_at=None)
    )


def send_one_address_twice(connection: Connection) -> None:
    connection.execute(update(messages).where(messages.c.id == 2).values(address="USER1@customer.example"))


def accept_it_twice(connection: Connection) -> None:
    row = {
        "message_id": 2,
        "at": SENT_AT,
        "lane": "relay",
        "ending": "accepted",
        "code": 250,
        "enhanced": "",
        "reply": "",
    }
    connection.execute(message_attempts.insert(), [{**row, "number": n, "recovered": True} for n in (1, 2)])


def let_a_skipped_one_bounce(connection: Connection) -> None:
    record_message_event(connection, key="k", message_id=5, kind=MessageEventKind.BOUNCED, at=SENT_AT)


def let_a_skipped_one_be_opened(connection: Connection) -> None:
    record_touch(
        connection,
        message_id=5,
        kind=TouchKind.OPEN,
        link_id=None,
        at=SENT_AT,
        method="GET",
        ip="192.0.2.1",
        user_agent="",
        verdict=Verdict.HUMAN,
        reasons=[],
    )


def doubt_without_a_try(connection: Connection) -> None:
    connection.execute(message_attempts.delete())


def many_doubts_of_one_claim(connection: Connection) -> None:
    row = {"at": SENT_AT, "lane": "relay", "ending": "in_doubt", "code": 0, "enhanced": "", "reply": "lost"}
    connection.execute(
        message_attempts.insert(),
        [
            {**row, "message_id": i, "number": 7 + n, "claim_id": 3, "recovered": False}
            for i in (1, 2, 3)
            for n in range(7)
        ],
    )


def send_after_a_complaint(connection: Connection) -> None:
    suppress(
        connection,
        channel=Channel.EMAIL,
        address="User3@customer.example",
        reason=SuppressionReason.COMPLAINT,
        at=SENT_AT - LATER,
        message_id=1,
    )


def send_at_night(connection: Connection) -> None:
    sent(connection, 4, at=SENT_AT.replace(hour=3))


def send_at_night_by_their_clock(connection: Connection) -> None:
    connection.execute(update(contacts).where(contacts.c.id == 4).values(timezone="America/New_York"))


def plan_a_step_that_is_none(connection: Connection) -> None:
    row = {"id": 9, "run_id": 1, "step": 2, "enrollment_id": 3, "contact_id": 3, "channel": "email", "lane": "relay"}
    connection.execute(messages.insert().values(row | {"state": "planned", "planned_for": SENT_AT, "due_at": SENT_AT}))


def send_too_fast(connection: Connection) -> None:
    for message_id in range(1, 6):
        sent(connection, message_id)


def credit_the_unsent(connection: Connection) -> None:
    order = {"id": 1, "external_id": "O1", "account_id": 1, "ordered_at": SENT_AT, "kind": "order", "net_minor": 100}
    connection.execute(orders.insert().values(**order, gross_minor=100, currency="EUR"))
    row = {"kind": "order", "source_id": 1, "at": SENT_AT, "account_id": 1, "value_minor": 100, "currency": "EUR"}
    connection.execute(conversions.insert().values(**row, campaign_id=1, run_id=1, message_id=5))


def say_that_the_planned_has_ended(connection: Connection) -> None:
    connection.execute(update(messages).where(messages.c.id == 1).values(state="planned", ended_at=SENT_AT))


def close_the_run_over_it(connection: Connection) -> None:
    connection.execute(update(messages).where(messages.c.id == 1).values(state="planned", sent_at=None, ended_at=None))
    connection.execute(update(runs).values(state="done", finished_at=SENT_AT))


HARMS: list[tuple[Callable[[Connection], None], int, str, tuple[int, ...] | None]] = [
    (lose_a_row, 1, "run 1, step 1: 1 contacts enrolled have no message", (2,)),
    (mistake_the_enrollment, 1, "1 belong to no enrollment of their run and contact", (2,)),
    (enroll_nobody, 1, "1 enrollments are of a run, contact or account that is gone", (9,)),
    (plan_a_step_that_is_none, 1, "run 1 has 1 messages of a step 2 that its campaign has not", (9,)),
    (forget_the_reason, 1, "1 ended without a reason", (5,)),
    (lose_the_claim, 1, "claimed by a claim that is gone", (2,)),
    (leave_it_in_dead_hands, 1, "in the hands of workers long gone (on gone)", (2,)),
    (say_that_the_planned_has_ended, 1, "1 are pending and have an end", (1,)),
    (close_the_run_over_it, 1, "1 are pending in a run that has ended", (1,)),
    (send_one_address_twice, 2, "1 addresses got one step of one run more than once", (2,)),
    (accept_it_twice, 2, "accepted more often than they were sent", (2,)),
    (let_a_skipped_one_bounce, 2, "though the ledger says they were not sent", (5,)),
    (let_a_skipped_one_be_opened, 2, "though the ledger says they were not sent", (5,)),
    (doubt_without_a_try, 3, "in doubt and no try says why", (6,)),
    (many_doubts_of_one_claim, 3, "claim 3 left 21 in doubt, more than the 20 connections of relay", None),
    (send_after_a_complaint, 4, "accepted after their address had been suppressed", (3,)),
    (send_at_night, 5, "1 were accepted outside their window", (4,)),
    (send_at_night_by_their_clock, 5, "1 were accepted outside their window", (4,)),
    (send_too_fast, 5, "hello: 5 were accepted in one stretch of its rate 2/minute", (1,)),
    (credit_the_unsent, 6, "credited to a message that was not sent", (5,)),
]


def test_each_broken_promise_is_found_and_no_other(ledger: Engine, shop: Workspace) -> None:
    """One database for all of them: each harm is taken back before the next."""
    for harm, number, words, ids in HARMS:
        with writing(ledger) as connection, taken_back(connection):
            harm(connection)
            broken = {one.number: one.breaches for one in recount(connection, shop, promises()) if not one.holds}
        assert broken.keys() == {number}, (harm.__name__, broken)
        told = [breach for breach in broken[number] if words in breach.what]
        assert len(told) == 1, (harm.__name__, broken)
        assert told[0].remedy
        assert ids is None or told[0].ids == ids, (harm.__name__, told)
    assert all(one.holds for one in recounted(ledger, shop))


@contextmanager
def taken_back(connection: Connection) -> Iterator[None]:
    savepoint = connection.begin_nested()
    yield
    savepoint.rollback()


def test_a_cap_counts_over_campaigns(ledger: Engine, shop: Workspace) -> None:
    seed_messages(ledger, 1, spec=STRICT, name="second")
    with writing(ledger) as connection:
        sent(connection, 7, at=SENT_AT + timedelta(days=1))
        connection.execute(update(messages).where(messages.c.id == 7).values(contact_id=3))
        connection.execute(update(enrollments).where(enrollments.c.id == 7).values(contact_id=3))
    [fifth] = [one for one in recounted(ledger, shop) if not one.holds]
    [breach] = fifth.breaches
    assert (breach.what, breach.ids) == ("1 went over the cap of 1 email within 7d", (7,))
    with writing(ledger) as connection:
        sent(connection, 7, at=SENT_AT + timedelta(days=8))
    assert all(one.holds for one in recounted(ledger, shop))


def test_numbers_that_differ_from_the_raw_rows_are_told(
    ledger: Engine, shop: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reports import tally

    monkeypatch.setattr(tally, "ACCEPTED_STATES", ("sent",))
    monkeypatch.setattr("reports.funnel.ACCEPTED_STATES", ("delivered",))
    [sixth] = [one for one in recounted(ledger, shop) if one.number == 6]
    assert [breach.what for breach in sixth.breaches] == ["the report of hello says sent 0, recounted 4"]


def test_what_was_in_flight_when_a_no_came_is_no_breach(ledger: Engine, shop: Workspace) -> None:
    with writing(ledger) as connection:
        for message_id, at in ((1, SENT_AT - timedelta(minutes=5)), (2, SENT_AT + timedelta(days=1))):
            suppress(
                connection,
                channel=Channel.EMAIL,
                address=f"user{message_id}@customer.example",
                reason=SuppressionReason.UNSUBSCRIBE,
                at=at,
                message_id=9,
            )
    assert all(one.holds for one in recounted(ledger, shop))


def test_a_bounce_that_lay_unread_is_no_breach(ledger: Engine, shop: Workspace) -> None:
    with writing(ledger) as connection:
        send_after_a_complaint(connection)
        connection.execute(
            inbox.insert().values(
                key="k",
                source="bounce",
                received_at=SENT_AT - LATER,
                processed_at=SENT_AT + LATER,
                body=b"",
                state="done",
            )
        )
    assert all(one.holds for one in recounted(ledger, shop))


def test_all_is_seen_as_it_was_when_the_audit_began(ledger: Engine, shop: Workspace) -> None:
    running = audit(ledger, shop, promises())
    assert next(running).holds
    with writing(ledger) as connection:
        doubt_without_a_try(connection)
    assert all(one.holds for one in running)


def test_a_gateway_that_is_gone_is_a_note(ledger: Engine, shop: Workspace) -> None:
    seed_messages(ledger, 2, name="other", lane="sold")
    [first] = [one for one in recounted(ledger, shop) if one.number == 1]
    assert first.holds
    assert "2 wait for gateway 'sold', which carillon.yaml no longer has" in first.notes[0]


# --- against a log -------------------------------------------------------------------------------------------


def log_of(*ids: int, twice: tuple[int, ...] = ()) -> MailLog:
    mails = {i: Logged(at=SENT_AT, queue_ids=[f"ABCDEF{i}"], status="sent") for i in ids}
    for i in twice:
        mails[i].queue_ids.append(f"FEDCBA{i}")
    return MailLog(mails=mails, lines=99, first_at=SENT_AT - LATER, last_at=SENT_AT + LATER)


def against(ledger: Engine, shop: Workspace, log: MailLog) -> Recounted:
    return recounted(ledger, shop, mail_log=log, gateway="relay")[-1]


def test_a_log_that_agrees(ledger: Engine, shop: Workspace) -> None:
    found = against(ledger, shop, log_of(1, 2, 3, 4))
    assert found.holds
    assert found.says == "ledger and log of relay agree"


def test_a_log_that_disagrees(ledger: Engine, shop: Workspace) -> None:
    for log, words, ids in (
        (log_of(1, 2, 4), "1 count as accepted by relay and its log does not know them", (3,)),
        (log_of(1, 2, 3, 4, twice=(2,)), "1 were accepted more often than they were sent", (2,)),
        (log_of(1, 2, 3, 4, 5), "1 were accepted, and the ledger says they were not sent", (5,)),
    ):
        assert [(breach.what, breach.ids) for breach in against(ledger, shop, log).breaches] == [(words, ids)]


def test_doubts_the_log_can_settle_are_noted(ledger: Engine, shop: Workspace) -> None:
    found = against(ledger, shop, log_of(1, 2, 3, 4, 6))
    assert found.holds
    assert any("1 in doubt were accepted, says the log" in note for note in found.notes)


def test_a_copy_more_by_choice_is_no_breach(ledger: Engine, shop: Workspace) -> None:
    with writing(ledger) as connection:
        connection.execute(update(messages).where(messages.c.id == 2).values(resends=1))
    assert against(ledger, shop, log_of(1, 2, 3, 4, twice=(2,))).holds


def test_the_edges_of_a_log_are_not_asked(ledger: Engine, shop: Workspace) -> None:
    log = log_of(2, 3, 4)
    log.first_at = SENT_AT
    assert against(ledger, shop, log).holds
