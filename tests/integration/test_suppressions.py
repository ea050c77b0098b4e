"""Suppressions: what stands follows from what was said and what happened, in whatever order it was heard."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select, update

from kernel.settings import BounceRule, SuppressionSettings
from kernel.vocabulary import Channel, ConsentStatus, MessageEventKind, SuppressionReason, TouchKind, Verdict
from store.engine import reading, writing
from store.feedback import record_message_event, record_touch, set_consent
from store.message_facts import channel_choices, message_fact
from store.standing import standing
from store.suppressions import COUNTED, count_bounces, last_run, lift, suppress
from store.tables import (
    consent_events,
    consents,
    contacts,
    message_events,
    messages,
    suppression_words,
    suppressions,
    touches,
)
from tests.integration.returning import SENT_AT, rows, sent_messages

SETTINGS = SuppressionSettings()
SAID = [reason for reason in SuppressionReason if reason not in COUNTED.values()]
EMAIL = Channel.EMAIL
JO = "user1@customer.example"


def day(number: float) -> datetime:
    return SENT_AT + timedelta(days=number)


def bounce(engine: Engine, message: int, at: datetime, kind: str = "soft_bounced") -> None:
    with writing(engine) as connection:
        record_message_event(
            connection, key=f"{kind}:{message}", message_id=message, kind=MessageEventKind(kind), at=at, detail="no"
        )
        fact = message_fact(connection, message)
        assert fact is not None
        count_bounces(connection, fact, MessageEventKind(kind), SETTINGS)


def hard(engine: Engine, message: int, at: datetime) -> None:
    with writing(engine) as connection:
        suppress(
            connection,
            channel=EMAIL,
            address=JO,
            reason=SuppressionReason.HARD_BOUNCE,
            at=at,
            message_id=message,
            detail="5.1.1",
        )


def click(engine: Engine, message: int, at: datetime, verdict: Verdict = Verdict.HUMAN) -> None:
    with writing(engine) as connection:
        record_touch(
            connection,
            message_id=message,
            kind=TouchKind.CLICK,
            link_id=None,
            at=at,
            method="GET",
            ip="203.0.113.7",
            user_agent="Firefox",
            verdict=verdict,
            reasons=(),
        )


def taken_back(engine: Engine, reason: SuppressionReason, at: datetime) -> None:
    with writing(engine) as connection:
        lift(connection, channel=EMAIL, address=JO, reasons=(reason,), at=at, by="command:ann")


def to_one_person(engine: Engine, count: int) -> list[int]:
    """Return messages that all went to Jo."""
    ids = [sent_messages(engine, name=f"campaign-{number}")[0] for number in range(count)]
    with writing(engine) as connection:
        first = select(contacts.c.id).order_by(contacts.c.id).limit(1).scalar_subquery()
        connection.execute(update(messages).values(contact_id=first, address=JO.upper()))
    return ids


def stands(engine: Engine, now: datetime = SENT_AT + timedelta(days=10)) -> list[tuple[str, datetime, datetime | None]]:
    with reading(engine) as connection:
        query = select(suppressions.c.reason, suppressions.c.at, suppressions.c.expires_at).where(standing(now))
        return sorted(tuple(row) for row in connection.execute(query))


# --- words ---------------------------------------------------------------------------------------------------


def test_each_reason_stands_by_itself_whatever_comes_first(engine: Engine) -> None:
    orders = random.Random(3).sample(list(itertools.permutations(SAID)), 8)
    with writing(engine) as connection:
        for number, order in enumerate(orders):
            for reason in order:
                suppress(
                    connection,
                    channel=EMAIL,
                    address=f" Jo{number}@Customer.example",
                    reason=reason,
                    at=day(SAID.index(reason)),
                )
    found = rows(engine, suppressions, "address", "reason", "at")
    assert len(found) == len(orders) * len(SAID)
    assert {(reason, at) for _, reason, at in found} == {(reason, day(SAID.index(reason))) for reason in SAID}
    assert ("jo0@customer.example", "stop", day(SAID.index(SuppressionReason.STOP))) in found


def test_of_two_times_for_one_reason_the_earlier_stays(engine: Engine) -> None:
    with writing(engine) as connection:
        for minutes in (5, 3, 9):
            at = SENT_AT + timedelta(minutes=minutes)
            suppress(connection, channel=Channel.SMS, address="+447900000001", reason=SuppressionReason.STOP, at=at)
    assert rows(engine, suppressions, "at") == [(SENT_AT + timedelta(minutes=3),)]
    assert len(rows(engine, suppression_words, "id")) == 3


def test_a_word_said_before_a_lift_does_not_outlive_it_however_late_it_is_heard(engine: Engine) -> None:
    say = [
        lambda: suppress_manually(engine, day(1)),
        lambda: suppress_manually(engine, day(2)),
        lambda: suppress_manually(engine, day(4)),
    ]
    ends = []
    for order in itertools.permutations(say):
        order[0]()
        taken_back(engine, SuppressionReason.MANUAL, day(3))
        for late in order[1:]:
            late()
        ends.append(stands(engine))
        with writing(engine) as connection:
            connection.execute(delete(suppressions))
            connection.execute(delete(suppression_words))
    assert {tuple(end) for end in ends} == {(("manual", day(4), None),)}


def suppress_manually(engine: Engine, at: datetime, until: datetime | None = None) -> None:
    with writing(engine) as connection:
        suppress(connection, channel=EMAIL, address=JO, reason=SuppressionReason.MANUAL, at=at, by="ann", until=until)


def test_what_has_expired_holds_no_longer_for_any_reader(engine: Engine) -> None:
    [message] = sent_messages(engine)
    suppress_manually(engine, day(0), until=day(2))
    assert stands(engine, day(1.9)) == [("manual", day(0), day(2))]
    assert stands(engine, day(2)) == []
    with reading(engine) as connection:
        told = [
            {choice.channel: choice.suppressed for choice in channel_choices(connection, message, now=now)}[EMAIL]
            for now in (day(1), day(3))
        ]
    assert told == [{SuppressionReason.MANUAL}, frozenset()]


# --- bounces and signs of life -------------------------------------------------------------------------------


def test_several_soft_bounces_suppress_for_a_time(engine: Engine) -> None:
    ids = to_one_person(engine, 4)
    bounce(engine, ids[0], day(0))
    bounce(engine, ids[1], day(7))
    bounce(engine, ids[1], day(8))  # The same message again is the same bounce.
    assert stands(engine) == []
    bounce(engine, ids[2], day(14))
    assert stands(engine, day(15)) == [("soft_bounce", day(14), day(44))]
    bounce(engine, ids[3], day(20))
    assert stands(engine, day(21)) == [("soft_bounce", day(20), day(50))]
    assert stands(engine, day(50)) == []


def test_full_mailboxes_are_counted_by_themselves_and_policy_never(sqlite_engine: Engine) -> None:
    ids = to_one_person(sqlite_engine, 9)
    for number, kind in enumerate(["soft_bounced", "mailbox_full", "blocked"] * 2 + ["blocked"] * 2):
        bounce(sqlite_engine, ids[number], day(number / 10), kind)
    assert stands(sqlite_engine) == []
    bounce(sqlite_engine, ids[8], day(1), "mailbox_full")
    assert [reason for reason, _, _ in stands(sqlite_engine)] == ["mailbox_full"]


def test_bounces_too_far_apart_do_not_add_up(sqlite_engine: Engine) -> None:
    for number, message in enumerate(to_one_person(sqlite_engine, 4)):
        bounce(sqlite_engine, message, day(number * 7.1))
    assert stands(sqlite_engine) == []


@pytest.mark.parametrize("sign", ["click", "machine click", "delivered", "replied", "consent", "lift", "delayed"])
@pytest.mark.parametrize("reason", ["hard_bounce", "soft_bounce"])
def test_a_later_sign_of_life_lifts_what_a_bounce_led_to(sqlite_engine: Engine, sign: str, reason: str) -> None:
    ids = to_one_person(sqlite_engine, 4)
    if reason == "hard_bounce":
        hard(sqlite_engine, ids[0], day(0))
    else:
        for number in range(3):
            bounce(sqlite_engine, ids[number], day(number / 10))
    assert [what for what, _, _ in stands(sqlite_engine)] == [reason]
    _give(sqlite_engine, sign, ids[3], day(1), SuppressionReason(reason))
    lifts = {"click", "delivered", "replied", "lift"} | ({"consent"} if reason == "soft_bounce" else set())
    assert bool(stands(sqlite_engine)) is (sign not in lifts)


def _give(engine: Engine, sign: str, message: int, at: datetime, reason: SuppressionReason) -> None:
    if sign in ("click", "machine click"):
        click(engine, message, at, Verdict.HUMAN if sign == "click" else Verdict.MACHINE)
    elif sign == "lift":
        taken_back(engine, reason, at)
    elif sign == "consent":
        with writing(engine) as connection:
            connection.execute(update(consents).values(status="withdrawn", at=day(-1)))
            [contact] = connection.execute(select(consents.c.contact_id).limit(1)).scalars()
            set_consent(
                connection, contact_id=contact, channel=EMAIL, status=ConsentStatus.GRANTED, at=at, source="form"
            )
    else:
        with writing(engine) as connection:
            record_message_event(
                connection, key=f"{sign}:{message}", message_id=message, kind=MessageEventKind(sign), at=at
            )


@pytest.mark.parametrize("reason", ["unsubscribe", "complaint", "stop", "manual"])
def test_no_sign_of_life_takes_a_persons_word_back(sqlite_engine: Engine, reason: str) -> None:
    [message] = to_one_person(sqlite_engine, 1)
    with writing(sqlite_engine) as connection:
        suppress(connection, channel=EMAIL, address=JO, reason=SuppressionReason(reason), at=day(0))
    click(sqlite_engine, message, day(1))
    _give(sqlite_engine, "delivered", message, day(2), SuppressionReason(reason))
    assert stands(sqlite_engine) == [(reason, day(0), None)]


def test_a_click_lifts_the_bounce_and_leaves_the_unsubscribing(engine: Engine) -> None:
    [message] = to_one_person(engine, 1)
    hard(engine, message, day(0))
    with writing(engine) as connection:
        suppress(connection, channel=EMAIL, address=JO, reason=SuppressionReason.UNSUBSCRIBE, at=day(0))
    click(engine, message, day(1))
    assert [reason for reason, _, _ in stands(engine)] == ["unsubscribe"]


def test_bounces_and_signs_of_life_end_the_same_in_any_order(engine: Engine) -> None:
    ids = to_one_person(engine, 5)
    happenings: list[Callable[[], None]] = [
        lambda: bounce(engine, ids[0], day(0)),
        lambda: bounce(engine, ids[1], day(1)),
        lambda: click(engine, ids[4], day(1.5)),
        lambda: bounce(engine, ids[2], day(2)),
        lambda: bounce(engine, ids[3], day(3)),
        lambda: bounce(engine, ids[4], day(4)),
        lambda: hard(engine, ids[0], day(1)),
        lambda: hard(engine, ids[1], day(1.2)),
        lambda: hard(engine, ids[2], day(5)),
        lambda: click(engine, ids[3], day(1.3), Verdict.MACHINE),
    ]
    dice, ends = random.Random(9), set()
    for _ in range(8):
        for happening in dice.sample(happenings * 2, len(happenings) * 2):
            happening()
        ends.add(tuple(stands(engine)))
        with writing(engine) as connection:
            for table in (message_events, touches, suppressions, suppression_words, consent_events):
                connection.execute(delete(table))
    assert ends == {(("hard_bounce", day(5), None), ("soft_bounce", day(4), day(34)))}


# --- the rule ------------------------------------------------------------------------------------------------


@given(
    gaps=st.lists(st.integers(0, 20), max_size=12),
    bounces=st.integers(1, 5),
    within=st.integers(1, 30),
)
def test_the_latest_run_is_dense_enough_and_nothing_later_is(gaps: list[int], bounces: int, within: int) -> None:
    ats = [day(sum(gaps[: number + 1])) for number in range(len(gaps))]
    rule = BounceRule(bounces=bounces, within=f"{within}d")
    runs = [
        (ats[start], ats[start + bounces - 1])
        for start in range(len(ats) - bounces + 1)
        if ats[start + bounces - 1] - ats[start] <= timedelta(days=within)
    ]
    assert last_run(ats, rule) == (runs[-1] if runs else None)
