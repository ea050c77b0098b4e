"""How a doubt ends: by a person's word, by a stated policy, by the relay's own log; each leaves its trace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from kernel.vocabulary import MessageEventKind, RunState
from store.doubts import Settlement, doubts, settle
from store.engine import reading, writing
from store.feedback import record_message_event
from store.tables import message_attempts, message_events, messages, runs
from tests.seeding import SPEC, seed_messages, states
from workers.mail_log import Logged, MailLog
from workers.settling import RESEND_AFTER, resend_by_policy, settle_by_log

NOW = datetime(2026, 11, 26, 18, tzinfo=UTC)
AN_HOUR_AGO = NOW - timedelta(hours=1)
RESENDING: dict[str, Any] = {**SPEC, "limits": {"in_doubt": "resend"}}


def come_into_doubt(engine: Engine, *ids: int, since: datetime = AN_HOUR_AGO, number: int = 1) -> None:
    """Do what a lost answer does to the ledger."""
    with writing(engine) as connection:
        connection.execute(
            update(messages)
            .where(messages.c.id.in_(ids))
            .values(state="in_doubt", sent_at=since, ended_at=since, address="user@customer.example", reply="lost")
        )
        attempt = {"number": number, "at": since, "lane": "relay", "ending": "in_doubt", "code": 0, "enhanced": ""}
        words = {"reply": "connection lost after the final dot", "recovered": False}
        connection.execute(message_attempts.insert(), [{"message_id": i, **attempt, **words} for i in ids])


def sent(engine: Engine, *ids: int, at: datetime = AN_HOUR_AGO) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id.in_(ids)).values(state="sent", sent_at=at, ended_at=at))


def events(engine: Engine) -> list[tuple[int, str, str]]:
    with reading(engine) as connection:
        columns = (message_events.c.message_id, message_events.c.kind, message_events.c.detail)
        return [tuple(row) for row in connection.execute(select(*columns).order_by(message_events.c.id))]


def settled(engine: Engine, message_id: int, way: Settlement) -> bool:
    with writing(engine) as connection:
        return settle(connection, message_id, way, at=NOW, words="by ann: asked the relay")


def test_doubts_are_listed_with_their_words_oldest_first(engine: Engine) -> None:
    seed_messages(engine, 3)
    come_into_doubt(engine, 2)
    come_into_doubt(engine, 1, since=NOW - timedelta(hours=2))
    with reading(engine) as connection:
        found = list(doubts(connection))
        assert list(doubts(connection, campaign="another")) == []
    assert [doubt.message for doubt in found] == [1, 2]
    assert (found[0].words, found[0].worker_died, found[0].resends) == ("connection lost after the final dot", False, 0)
    assert found[0].since == NOW - timedelta(hours=2)


def test_said_to_be_sent_it_counts_as_sent_when_it_left(engine: Engine) -> None:
    seed_messages(engine, 1)
    come_into_doubt(engine, 1)
    assert settled(engine, 1, Settlement.SENT)
    assert not settled(engine, 1, Settlement.SENT)
    with reading(engine) as connection:
        row = connection.execute(select(messages)).one()
    assert (row.state, row.sent_at, row.resends) == ("sent", AN_HOUR_AGO, 0)
    assert events(engine) == [(1, "settled", "sent: by ann: asked the relay")]


@pytest.mark.parametrize(("way", "kind", "resends"), [("not_sent", "settled", 0), ("resend", "resent", 1)])
def test_planned_again_its_run_is_open_again(engine: Engine, way: str, kind: str, resends: int) -> None:
    seed_messages(engine, 1)
    come_into_doubt(engine, 1)
    with writing(engine) as connection:
        connection.execute(update(runs).values(state=RunState.DONE, finished_at=AN_HOUR_AGO))
    assert settled(engine, 1, Settlement(way))
    with reading(engine) as connection:
        row = connection.execute(select(messages)).one()
        run = connection.execute(select(runs)).one()
    assert (row.state, row.due_at, row.sent_at, row.resends) == ("planned", NOW, None, resends)
    assert (run.state, run.finished_at) == ("open", None)
    assert [found[1] for found in events(engine)] == [kind]


def test_only_what_is_in_doubt_can_be_settled(engine: Engine) -> None:
    seed_messages(engine, 2)
    sent(engine, 1)
    for way in Settlement:
        assert not settled(engine, 1, way)
        assert not settled(engine, 2, way)
    assert states(engine) == {"sent": 1, "planned": 1}
    assert events(engine) == []


def test_a_second_doubt_of_one_message_is_settled_anew(engine: Engine) -> None:
    seed_messages(engine, 1)
    come_into_doubt(engine, 1)
    assert settled(engine, 1, Settlement.RESEND)
    come_into_doubt(engine, 1, number=2)
    assert settled(engine, 1, Settlement.RESEND)
    with reading(engine) as connection:
        assert connection.execute(select(messages.c.resends)).scalar_one() == 2
    assert len(events(engine)) == 2


# --- by policy -----------------------------------------------------------------------------------------------


def test_a_campaign_that_says_resend_sends_again_once_and_not_too_soon(engine: Engine) -> None:
    seed_messages(engine, 1, spec=RESENDING)
    come_into_doubt(engine, 1, since=NOW)
    assert resend_by_policy(engine, now=NOW + RESEND_AFTER - timedelta(seconds=1)) == 0
    assert resend_by_policy(engine, now=NOW + RESEND_AFTER) == 1
    assert states(engine) == {"planned": 1}
    come_into_doubt(engine, 1, since=NOW + timedelta(hours=1), number=2)
    assert resend_by_policy(engine, now=NOW + timedelta(hours=9)) == 0
    assert states(engine) == {"in_doubt": 1}
    assert [kind for _, kind, _ in events(engine)] == ["resent"]


def test_by_default_a_doubt_stays(engine: Engine) -> None:
    seed_messages(engine, 1)
    come_into_doubt(engine, 1)
    assert resend_by_policy(engine, now=NOW) == 0
    assert states(engine) == {"in_doubt": 1}


def test_what_came_back_meanwhile_ends_the_doubt_and_nothing_is_sent_again(engine: Engine) -> None:
    seed_messages(engine, 1, spec=RESENDING)
    come_into_doubt(engine, 1)
    with writing(engine) as connection:
        record_message_event(connection, key="k", message_id=1, kind=MessageEventKind.DELIVERED, at=NOW)
    assert resend_by_policy(engine, now=NOW) == 0
    assert states(engine) == {"delivered": 1}


# --- by the relay's log --------------------------------------------------------------------------------------


def log_of(*ids: int, first_at: datetime = NOW - timedelta(days=1), last_at: datetime = NOW) -> MailLog:
    mails = {i: Logged(at=AN_HOUR_AGO, queue_ids=[f"ABCDEF{i}"], status="sent", words="250 ok") for i in ids}
    return MailLog(mails=mails, lines=9, first_at=first_at, last_at=last_at)


def test_what_the_log_knows_was_sent(engine: Engine) -> None:
    seed_messages(engine, 1)
    come_into_doubt(engine, 1)
    found = settle_by_log(engine, log_of(1), gateway="relay", now=NOW)
    assert found.sent.keys() == {1}
    assert states(engine) == {"sent": 1}
    assert "Postfix took it over as ABCDEF1, status=sent" in events(engine)[0][2]


def test_what_a_full_log_does_not_know_never_arrived(engine: Engine) -> None:
    seed_messages(engine, 2)
    come_into_doubt(engine, 1)
    sent(engine, 2)
    found = settle_by_log(engine, log_of(2), gateway="relay", now=NOW)
    assert found.not_sent.keys() == {1}
    assert states(engine) == {"planned": 1, "sent": 1}


@pytest.mark.parametrize(
    ("known", "first_at", "reason"),
    [
        ((2, 3), NOW - timedelta(minutes=61), "does not cover"),
        ((2,), NOW - timedelta(days=1), "misses 1 of 2 other messages"),
        ((), NOW - timedelta(days=1), "misses 2 of 2 other messages"),
    ],
)
def test_a_log_with_gaps_proves_nothing_by_silence(
    engine: Engine, known: tuple[int, ...], first_at: datetime, reason: str
) -> None:
    seed_messages(engine, 3)
    come_into_doubt(engine, 1)
    sent(engine, 2, 3)
    found = settle_by_log(engine, log_of(*known, first_at=first_at), gateway="relay", now=NOW)
    assert reason in found.left[1]
    assert states(engine) == {"in_doubt": 1, "sent": 2}


def test_a_log_of_another_gateway_proves_nothing(engine: Engine) -> None:
    seed_messages(engine, 2)
    come_into_doubt(engine, 1)
    sent(engine, 2)
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == 2).values(lane="other"))
    found = settle_by_log(engine, log_of(2), gateway="relay", now=NOW)
    assert "may be another's" in found.left[1]
    assert settle_by_log(engine, log_of(1), gateway="other", now=NOW).sent == {}
    assert states(engine) == {"in_doubt": 1, "sent": 1}


def test_after_a_restored_backup_the_log_tells_what_was_sent_since(engine: Engine) -> None:
    seed_messages(engine, 2)
    found = settle_by_log(engine, log_of(1), gateway="relay", now=NOW)
    assert found.unknown_here.keys() == {1}
    with reading(engine) as connection:
        row = connection.execute(select(messages).where(messages.c.id == 1)).one()
    assert (row.state, row.sent_at) == ("sent", AN_HOUR_AGO)
    assert states(engine) == {"sent": 1, "planned": 1}
