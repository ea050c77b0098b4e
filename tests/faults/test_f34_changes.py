"""F34 and F35: campaigns are paused, cancelled and applied anew, people leave and change, while a run is under way."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from campaigns.control import cancel, pause, resume
from kernel.vocabulary import Channel, ConsentStatus, MessageState, SuppressionReason
from store.engine import writing
from store.feedback import set_consent, unsubscribe
from store.suppressions import suppress
from store.tables import contacts, messages
from tests.faults.checker import Facts
from tests.faults.people import CAMPAIGN, add_people, apply_campaigns, fired
from tests.faults.stage import CONNECTIONS, Stage, hold_for
from tests.seeding import seed_messages, states

MESSAGES = 600
SLOW_MS = 40


def _run(stage: Stage) -> None:
    stage.start_redis()
    stage.start_worker()
    stage.start_scheduler()
    stage.until(lambda: len(stage.accepted()) >= 60, "some to be taken over")


@pytest.mark.cell("F34", quick="postgresql")
def test_paused_resumed_and_applied_at_random_moments_sends_each_once(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(delay_ms=10)
    add_people(stage, MESSAGES)
    apply_campaigns(stage, news=CAMPAIGN)
    _run(stage)
    chance = random.Random(34)
    for turn in range(4):
        goal = len(stage.accepted()) + chance.randrange(20, 80)
        pause(stage.engine, "news", now=datetime.now(UTC))
        if turn % 2:
            apply_campaigns(stage, news=CAMPAIGN + f"# edited {turn}\n", more=CAMPAIGN)
        resume(stage.engine, "news", now=datetime.now(UTC))
        stage.until(lambda g=goal: len(stage.accepted()) >= g or not stage.pending(), f"{goal} to be taken over")  # type: ignore[misc]
    stage.until(lambda: fired(stage) == 2, "the second campaign to fire")
    quiet(Facts(runs=2))
    assert len(stage.accepted()) == 2 * MESSAGES


@pytest.mark.cell("F34", quick="sqlite")
def test_nothing_leaves_after_a_pause_but_what_was_in_flight(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(delay_ms=SLOW_MS)
    add_people(stage, MESSAGES)
    apply_campaigns(stage, news=CAMPAIGN)
    _run(stage)
    pause(stage.engine, "news", now=datetime.now(UTC))
    stage.until(lambda: _under_way(stage) == 0, "the chunk in flight to end")
    standing = len(stage.accepted())
    left = states(stage.engine).get("planned", 0)
    hold_for(3.0)
    assert len(stage.accepted()) == standing
    resume(stage.engine, "news", now=datetime.now(UTC))
    quiet(Facts(runs=1))
    assert len(stage.accepted()) == MESSAGES
    assert left == MESSAGES - standing


@pytest.mark.cell("F34")
def test_a_cancelled_campaign_ends_with_a_reason_for_everybody(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink(delay_ms=SLOW_MS)
    add_people(stage, MESSAGES)
    apply_campaigns(stage, news=CAMPAIGN)
    _run(stage)
    cancel(stage.engine, "news", now=datetime.now(UTC))
    quiet(Facts(runs=1))
    found = states(stage.engine)
    assert set(found) <= {"sent", "skipped"}
    assert sum(found.values()) == MESSAGES


def _under_way(stage: Stage) -> int:
    found = states(stage.engine)
    return found.get(MessageState.CLAIMED, 0) + found.get(MessageState.SENDING, 0)


@pytest.mark.cell("F35")
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("unsubscribed", marks=pytest.mark.cell("F35", quick="postgresql")),
        *("withdrawn", "bounced", "complained", "emptied", "moved"),
    ],
)
def test_who_leaves_while_a_run_is_under_way_gets_nothing_more(
    way: str, stage: Stage, quiet: Callable[..., None], note: Callable[..., None]
) -> None:
    stage.start_sink(delay_ms=SLOW_MS)
    seed_messages(stage.engine, MESSAGES)
    _run(stage)
    with writing(stage.engine) as connection:
        query = select(messages.c.contact_id, messages.c.id).where(messages.c.state == MessageState.PLANNED)
        planned = {row.contact_id: row.id for row in connection.execute(query)}
        leaving = sorted(planned)[::2]
        now = datetime.now(UTC)
        for contact_id in leaving:
            _leave(connection, way, contact_id, planned[contact_id], now)
    quiet(Facts(connections=CONNECTIONS))
    late = {f"user{contact_id}@customer.example" for contact_id in leaving}
    note(left=len(leaving))
    # They were only planned when the word was committed: of these not one may be taken over.
    assert not late & {taken.recipient for taken in stage.accepted()}
    if leaving and way != "moved":
        assert states(stage.engine)["skipped"] == len(leaving)


def _leave(connection, way: str, contact_id: int, message_id: int, now: datetime) -> None:  # type: ignore[no-untyped-def]
    address = f"user{contact_id}@customer.example"
    if way == "unsubscribed":
        unsubscribe(connection, message_id=message_id, at=now, key=f"u{message_id}")
    elif way == "withdrawn":
        set_consent(
            connection, contact_id=contact_id, channel=Channel.EMAIL, status=ConsentStatus.WITHDRAWN, at=now, source="t"
        )
    elif way in ("bounced", "complained"):
        reason = SuppressionReason.HARD_BOUNCE if way == "bounced" else SuppressionReason.COMPLAINT
        suppress(connection, channel=Channel.EMAIL, address=address, reason=reason, at=now)
    elif way == "emptied":
        connection.execute(update(contacts).where(contacts.c.id == contact_id).values(email=None, phone=None))
    else:
        connection.execute(
            update(contacts).where(contacts.c.id == contact_id).values(email=f"new{contact_id}@customer.example")
        )


@pytest.mark.cell("F35", quick="sqlite")
def test_the_same_person_in_two_segments_is_written_to_once(stage: Stage, quiet: Callable[..., None]) -> None:
    stage.start_sink()
    add_people(stage, 100)
    apply_campaigns(stage, news=CAMPAIGN.replace("segment: everybody", "segment: [everybody, all-too]"))
    stage.start_redis()
    stage.start_worker()
    stage.start_scheduler()
    stage.until(lambda: fired(stage) == 1, "the run to fire")
    quiet(Facts(runs=1))
    assert len(stage.accepted()) == len({taken.recipient for taken in stage.accepted()}) == 100
