"""What comes back, recorded: states only climb, nothing doubles, order does not matter. On both databases."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from kernel.vocabulary import Channel, ConsentStatus, MessageEventKind, SuppressionReason, TouchKind, Verdict
from store.deliveries import Tiding, record_tidings
from store.engine import writing
from store.feedback import (
    ACCEPTANCE_UNKNOWN,
    mark_machine,
    record_message_event,
    record_sent_evidence,
    record_touch,
    set_consent,
    settle_doubts,
    settle_early_words,
    unsubscribe,
    withdraw_address,
)
from store.message_facts import touches_of_message
from store.suppressions import suppress
from store.tables import claims, consent_events, consents, contacts, message_events, messages, suppressions, touches
from tests.integration.returning import SENT_AT, everything, rows, sent_messages, state_of

LATER = SENT_AT + timedelta(hours=1)


def event(engine: Engine, message: int, kind: str, *, key: str = "", minutes: int = 60) -> bool:
    with writing(engine) as connection:
        return record_message_event(
            connection,
            key=key or f"{kind}:{message}",
            message_id=message,
            kind=MessageEventKind(kind),
            at=SENT_AT + timedelta(minutes=minutes),
            detail="words",
        )


def touch(engine: Engine, message: int, **changed: object) -> int:
    facts: dict[str, object] = {
        "message_id": message,
        "kind": TouchKind.OPEN,
        "link_id": None,
        "at": LATER,
        "method": "GET",
        "ip": "203.0.113.7",
        "user_agent": "Firefox",
        "verdict": Verdict.HUMAN,
        "reasons": (),
    }
    with writing(engine) as connection:
        return record_touch(connection, **{**facts, **changed})  # type: ignore[arg-type]  # the facts above have the right types


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("delivered", "delivered"),
        ("undelivered", "bounced"),
        ("bounced", "bounced"),
        ("soft_bounced", "bounced"),
        ("blocked", "bounced"),
        ("complained", "complained"),
        ("delayed", "sent"),
        ("replied", "sent"),
        ("unsubscribed", "sent"),
        ("unclassified", "in_doubt"),
    ],
)
def test_what_comes_back_settles_a_message_in_doubt(engine: Engine, kind: str, state: str) -> None:
    [message] = sent_messages(engine, state="in_doubt")
    assert event(engine, message, kind)
    assert state_of(engine, message) == state
    assert rows(engine, messages, "sent_at") == [(SENT_AT,)]


def test_an_open_settles_a_message_in_doubt(engine: Engine) -> None:
    [message] = sent_messages(engine, state="in_doubt")
    touch(engine, message, verdict=Verdict.MACHINE)
    assert state_of(engine, message) == "sent"


def test_states_only_climb_whatever_comes_first(engine: Engine) -> None:
    kinds = ("delivered", "bounced", "complained", "delayed")
    orders = list(itertools.permutations(kinds))
    ids = sent_messages(engine, len(orders))
    for message, order in zip(ids, orders, strict=True):
        for kind in order:
            event(engine, message, kind, minutes=60 + kinds.index(kind))
    ends = set(rows(engine, messages, "state", "ended_at", "sent_at"))
    assert ends == {("complained", SENT_AT + timedelta(minutes=62), SENT_AT)}


def test_of_several_proofs_of_one_state_the_earliest_dates_it(engine: Engine) -> None:
    one, other = sent_messages(engine, 2)
    event(engine, one, "bounced", minutes=10)
    event(engine, one, "blocked", minutes=5)
    event(engine, other, "blocked", minutes=5)
    event(engine, other, "bounced", minutes=10)
    assert {ended for (ended,) in rows(engine, messages, "ended_at")} == {SENT_AT + timedelta(minutes=5)}


def test_a_known_key_is_counted_once(engine: Engine) -> None:
    [message] = sent_messages(engine)
    assert event(engine, message, "delivered")
    before = everything(engine)
    assert not event(engine, message, "delivered")
    assert everything(engine) == before


@pytest.mark.parametrize("state", ["planned", "failed", "skipped", "held_out"])
def test_other_states_are_never_left(engine: Engine, state: str) -> None:
    [message] = sent_messages(engine, state=state)
    event(engine, message, "bounced")
    touch(engine, message)
    assert state_of(engine, message) == state


def test_a_message_in_a_workers_hands_keeps_its_fencing_token(engine: Engine) -> None:
    [message] = sent_messages(engine, state="planned")
    with writing(engine) as connection:
        connection.execute(
            claims.insert().values(
                id=7, lane="relay", host="h", boot="b", recorder="", claimed_at=SENT_AT, lease_until=LATER
            )
        )
        connection.execute(update(messages).values(state="sending", claim_id=7))
    event(engine, message, "delivered")
    touch(engine, message)
    assert rows(engine, messages, "state", "claim_id") == [("sending", 7)]
    with writing(engine) as connection:
        connection.execute(update(messages).values(state="in_doubt", claim_id=None))
        settle_doubts(connection, [message])
    assert state_of(engine, message) == "delivered"


def test_evidence_without_an_event_settles_doubt_only(engine: Engine) -> None:
    doubtful, delivered = sent_messages(engine, 2, state="in_doubt")
    event(engine, delivered, "delivered")
    with writing(engine) as connection:
        for message in (doubtful, delivered):
            record_sent_evidence(connection, message_id=message, at=LATER)
    assert (state_of(engine, doubtful), state_of(engine, delivered)) == ("sent", "delivered")
    assert len(rows(engine, message_events, "id")) == 1


def test_a_verdict_is_revised_and_the_facts_stay(engine: Engine) -> None:
    [message] = sent_messages(engine)
    first = touch(engine, message)
    second = touch(engine, message, reasons=("image_proxy",))
    third = touch(engine, message, verdict=Verdict.MACHINE, reasons=("too_soon",))
    with writing(engine) as connection:
        mark_machine(connection, [first, second, third], "burst")
        mark_machine(connection, [], "burst")
        found = touches_of_message(connection, message, since=SENT_AT)
    assert [(one.verdict, one.reasons) for one in found] == [
        ("machine", ("burst",)),
        ("machine", ("image_proxy", "burst")),
        ("machine", ("too_soon",)),
    ]


def test_a_hits_text_cannot_break_the_database(engine: Engine) -> None:
    [message] = sent_messages(engine)
    touch(engine, message, user_agent="a\x00b\ud800c" + "x" * 9000, ip="y" * 500)
    [(agent, ip)] = rows(engine, touches, "user_agent", "ip")
    assert agent.startswith("ab?c")
    assert (len(agent), len(ip)) == (500, 64)


def test_unsubscribing_takes_back_consent_and_suppresses_where_it_went(engine: Engine) -> None:
    [message] = sent_messages(engine)
    with writing(
        engine
    ) as connection:  # The contact has moved since; the old address is suppressed, the person is out.
        connection.execute(update(contacts).values(email="new@customer.example"))
        unsubscribe(connection, message_id=message, at=LATER, key="u")
        unsubscribe(connection, message_id=message, at=LATER + timedelta(days=1), key="u")
        unsubscribe(connection, message_id=message + 99, at=LATER, key="v")
    assert rows(engine, suppressions, "channel", "address", "at") == [("email", "user1@customer.example", LATER)]
    assert rows(engine, consents, "channel", "status") == [("email", "withdrawn"), ("sms", "granted")]
    assert rows(engine, consent_events, "status", "at", "source") == [
        ("withdrawn", LATER, f"unsubscribe:message {message}"),
        ("withdrawn", LATER + timedelta(days=1), f"unsubscribe:message {message}"),
    ]
    assert ("email", LATER) in rows(engine, consents, "channel", "at")
    assert rows(engine, message_events, "kind") == [("unsubscribed",)]


def test_a_late_older_word_is_kept_as_evidence_only(engine: Engine) -> None:
    [message] = sent_messages(engine)
    for minutes, status in ((10, "withdrawn"), (5, "granted"), (5, "granted")):
        with writing(engine) as connection:
            set_consent(
                connection,
                contact_id=message,
                channel=Channel.EMAIL,
                status=ConsentStatus(status),
                at=SENT_AT + timedelta(minutes=minutes),
                source="test",
            )
    assert ("email", "withdrawn") in rows(engine, consents, "channel", "status")
    assert len(rows(engine, consent_events, "id")) == 2


@pytest.mark.parametrize(("source", "suppressed"), [("import:crm", True), ("preference page:message 1", False)])
def test_only_a_persons_own_later_word_outweighs_a_stop_that_reaches_us_late(
    engine: Engine, source: str, suppressed: bool
) -> None:
    [message] = sent_messages(engine, channel="sms", lane="text")
    with writing(engine) as connection:
        connection.execute(update(consents).values(at=LATER, source=source))
        withdraw_address(
            connection,
            channel=Channel.SMS,
            address="+447900000001",
            reason=SuppressionReason.STOP,
            at=SENT_AT,
            source="sms STOP",
            message_id=message,
        )
    assert bool(rows(engine, suppressions, "address")) is suppressed


def test_a_click_faster_than_the_ledger_is_judged_once_the_message_is_written_down(engine: Engine) -> None:
    soon, later = sent_messages(engine, 2)
    for message, after in ((soon, timedelta(seconds=1)), (later, timedelta(seconds=2))):
        touch(
            engine,
            message,
            kind=TouchKind.CLICK,
            at=SENT_AT + after,
            verdict=Verdict.UNKNOWN,
            reasons=[ACCEPTANCE_UNKNOWN],
        )
    for _ in range(2):
        with writing(engine) as connection:
            settle_early_words(connection, [soon, later])
    assert sorted(rows(engine, touches, "message_id", "verdict", "reasons")) == [
        (soon, "machine", "too_soon"),
        (later, "human", ""),
    ]


@pytest.mark.parametrize("kind", [MessageEventKind.DELIVERED, MessageEventKind.DELAYED, None])
def test_many_tidings_written_together_do_what_each_alone_does(engine: Engine, kind: MessageEventKind | None) -> None:
    states = ("in_doubt", "sent", "delivered", "bounced", "complained", "planned", "failed")
    ids = [sent_messages(engine, state=state, name=state)[0] for state in states]
    with writing(engine) as connection:
        for message in ids[:3]:
            suppress(
                connection,
                channel=Channel.EMAIL,
                address=f"user{message}@customer.example",
                reason=SuppressionReason.HARD_BOUNCE if message != ids[1] else SuppressionReason.UNSUBSCRIBE,
                at=SENT_AT,
            )
    before = everything(engine)
    told = [(message, LATER + timedelta(minutes=minutes), f"{minutes}") for message in ids for minutes in (7, 3, 5)]
    with writing(engine) as connection:
        for message, at, detail in told:
            if kind is None:
                record_sent_evidence(connection, message_id=message, at=at)
            else:
                key = f"{kind}:{message}"
                record_message_event(connection, key=key, message_id=message, kind=kind, at=at, detail=detail)
    alone = everything(engine)
    assert alone != before
    with writing(engine) as connection:
        connection.execute(message_events.delete())
        connection.execute(suppressions.delete())
        for row in before["suppressions"]:
            connection.execute(suppressions.insert().values(dict(zip(suppressions.c.keys(), row, strict=True))))
        for message, state in zip(ids, states, strict=True):
            values = {"state": state, "sent_at": SENT_AT, "ended_at": SENT_AT}
            connection.execute(update(messages).where(messages.c.id == message).values(values))
    assert everything(engine) == before
    tidings = [
        Tiding(message_id=message, address=f"user{message}@customer.example", at=at, detail=detail)
        for message, at, detail in told
    ]
    with writing(engine) as connection:
        record_tidings(connection, kind, tidings)
    assert everything(engine) == alone
