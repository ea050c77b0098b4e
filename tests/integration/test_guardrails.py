"""Guardrails pause a campaign by what came back; a canary goes ahead, and the rest follows if it may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, update

from campaigns.applying import apply
from campaigns.books import books
from campaigns.control import find_campaign, pause, resume
from campaigns.firing import fire_due
from campaigns.guardrails import NOT_YET, Tally, judge, watch
from campaigns.planning import plan
from campaigns.schema import Guardrails
from kernel.settings import Workspace
from kernel.vocabulary import CampaignState, MessageEventKind
from store.engine import reading, writing
from store.feedback import record_message_event
from store.tables import messages, runs
from tests.integration.campaigning import NOW, add_account, add_contact, make_workspace

CAMPAIGN = """\
audience: {segment: everybody}
schedule: {at: "2026-12-01 09:00"}
steps:
  - email: hello
"""
GUARDED = CAMPAIGN + "guardrails: {bounces: 5%, complaints: 0.5%, unsubscribes: 2%, after: 100}\n"
PEOPLE = 200
HOUR = timedelta(hours=1)


def fired(tmp_path: Path, engine: Engine, text: str = GUARDED, people: int = PEOPLE) -> Workspace:
    made = make_workspace(tmp_path / "shop", hello=text)
    account = add_account(engine, "A1")
    for number in range(people):
        add_contact(engine, f"c{number}", account)
    apply(engine, made, None, now=NOW - timedelta(days=1))
    fire_due(engine, made, now=NOW)
    return made


def send(engine: Engine, count: int, at: datetime = NOW) -> list[int]:
    """Do as if a gateway had accepted the next planned messages that are due; return them."""
    with writing(engine) as connection:
        planned = select(messages.c.id).where(messages.c.state == "planned", messages.c.due_at < NOT_YET)
        ids = connection.execute(planned.order_by(messages.c.id).limit(count)).scalars().all()
        connection.execute(update(messages).where(messages.c.id.in_(ids)).values(state="sent", sent_at=at, ended_at=at))
    return list(ids)


def hear(engine: Engine, ids: list[int], kind: MessageEventKind, at: datetime = NOW) -> None:
    with writing(engine) as connection:
        for message_id in ids:
            record_message_event(connection, key=f"{kind}:{message_id}", message_id=message_id, kind=kind, at=at)


def state(engine: Engine) -> tuple[CampaignState, str]:
    with reading(engine) as connection:
        row = find_campaign(connection, "hello", now=NOW)
    return row.state, row.state_reason


@pytest.mark.parametrize(
    ("tally", "words"),
    [
        (Tally(sent=99, bounces=99, complaints=99, unsubscribes=99), None),
        (Tally(sent=1000, bounces=50, complaints=5, unsubscribes=20), None),
        (Tally(sent=1000, bounces=51, complaints=0, unsubscribes=0), "bounces 5.10% of 1,000 sent, over 5%"),
        (Tally(sent=1000, bounces=0, complaints=6, unsubscribes=0), "complaints 0.60% of 1,000 sent, over 0.5%"),
        (Tally(sent=1000, bounces=0, complaints=0, unsubscribes=21), "unsubscribes 2.10% of 1,000 sent, over 2%"),
    ],
)
def test_a_share_over_its_limit_is_a_breach(tally: Tally, words: str | None) -> None:
    rails = Guardrails(bounces="5%", complaints="0.5%", unsubscribes="2%", after=100)
    assert judge(rails, tally, after=rails.after) == words
    assert judge(Guardrails(after=100), tally, after=100) is None


def test_bounces_over_the_limit_pause_the_campaign_with_its_reason(engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, engine)
    sent = send(engine, 120)
    hear(engine, sent[:6], MessageEventKind.BOUNCED)
    assert watch(engine, now=NOW) == []
    hear(engine, sent[6:7], MessageEventKind.BOUNCED)
    (breach,) = watch(engine, now=NOW)
    assert state(engine) == (CampaignState.PAUSED, breach.reason)
    assert breach.reason == f"guardrail: bounces 5.83% of 120 sent, over 5% in run {breach.run_id}"
    assert watch(engine, now=NOW) == []


def test_who_is_refused_at_once_counts_as_bounced(sqlite_engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, sqlite_engine)
    sent = send(sqlite_engine, 120)
    with writing(sqlite_engine) as connection:
        refused = update(messages).where(messages.c.id.in_(sent[:7]))
        connection.execute(refused.values(state="failed", reason="refused", sent_at=None))
    assert "bounces 5.83% of 120" in watch(sqlite_engine, now=NOW)[0].reason


@pytest.mark.parametrize("kind", [MessageEventKind.COMPLAINED, MessageEventKind.UNSUBSCRIBED])
def test_complaints_and_unsubscribes_pause_too(sqlite_engine: Engine, tmp_path: Path, kind: MessageEventKind) -> None:
    fired(tmp_path, sqlite_engine)
    sent = send(sqlite_engine, 120)
    hear(sqlite_engine, sent[:3], kind)
    assert len(watch(sqlite_engine, now=NOW)) == 1


def test_after_a_resume_only_what_is_sent_since_counts(engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, engine, people=300)
    hear(engine, send(engine, 100)[:10], MessageEventKind.BOUNCED)
    assert len(watch(engine, now=NOW)) == 1
    resume(engine, "hello", now=NOW + HOUR)
    assert watch(engine, now=NOW + HOUR) == []
    later = NOW + 2 * HOUR
    sent = send(engine, 100, later)
    assert watch(engine, now=later) == []
    hear(engine, sent[:6], MessageEventKind.BOUNCED, later)
    assert "bounces 6.00% of 100 sent" in watch(engine, now=later)[0].reason


def test_a_pause_by_hand_begins_no_new_count(sqlite_engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, sqlite_engine)
    hear(sqlite_engine, send(sqlite_engine, 100)[:6], MessageEventKind.BOUNCED)
    pause(sqlite_engine, "hello", now=NOW, reason="let me look")
    assert watch(sqlite_engine, now=NOW) == []
    resume(sqlite_engine, "hello", now=NOW + HOUR)
    assert len(watch(sqlite_engine, now=NOW + HOUR)) == 1


# --- the canary --------------------------------------------------------------------------------------------

CANARY = GUARDED + 'canary: {share: "20%", wait: 1h}\nrate: 600/minute\n'


def due(engine: Engine) -> list[datetime]:
    """Return when planned messages are due, the rest that waits left out."""
    with reading(engine) as connection:
        query = select(messages.c.due_at).where(messages.c.state == "planned", messages.c.due_at < NOT_YET)
        return sorted(connection.execute(query).scalars())


def waiting(engine: Engine) -> int:
    with reading(engine) as connection:
        query = select(func.count()).where(messages.c.state == "planned", messages.c.due_at == NOT_YET)
        return connection.execute(query).scalar_one()


def test_a_first_share_goes_ahead_and_the_rest_follows_after_the_wait(engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, engine, CANARY)
    ahead = due(engine)
    assert 25 <= len(ahead) <= 55
    assert waiting(engine) == PEOPLE - len(ahead)
    # The first of all, one every 100 ms.
    assert ahead == [NOW + timedelta(milliseconds=100 * number) for number in range(len(ahead))]
    watch(engine, now=NOW + 2 * HOUR)
    assert waiting(engine) == PEOPLE - len(ahead), "the canary itself has not been sent"
    send(engine, PEOPLE, at=NOW + HOUR)
    watch(engine, now=NOW + 2 * HOUR - timedelta(seconds=1))
    assert waiting(engine) == PEOPLE - len(ahead), "an hour after the last of the canary, not before"
    watch(engine, now=NOW + 2 * HOUR)
    assert waiting(engine) == 0
    # As far apart as planned, and none before now.
    rest = due(engine)
    assert rest == [NOW + 2 * HOUR + timedelta(milliseconds=100 * number) for number in range(PEOPLE - len(ahead))]
    with reading(engine) as connection:
        assert connection.execute(select(runs.c.canary_wait_ms)).scalar_one() is None
        assert books(connection).balanced


def test_a_canary_is_judged_whatever_its_size_and_the_rest_stays(engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, engine, CANARY)
    sent = send(engine, PEOPLE)
    assert len(sent) < 100
    hear(engine, sent[:3], MessageEventKind.BOUNCED)
    assert watch(engine, now=NOW + HOUR - timedelta(seconds=1)) == []
    assert len(watch(engine, now=NOW + HOUR)) == 1
    assert waiting(engine) == PEOPLE - len(sent)
    watch(engine, now=NOW + 9 * HOUR)
    assert waiting(engine) == PEOPLE - len(sent), "paused is paused"
    resume(engine, "hello", now=NOW + 9 * HOUR)
    watch(engine, now=NOW + 9 * HOUR)
    assert waiting(engine) == 0


def test_a_canary_that_a_gateway_put_off_does_not_hold_the_rest_up(sqlite_engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, sqlite_engine, CANARY)
    with writing(sqlite_engine) as connection:
        first = select(messages.c.id).where(messages.c.due_at < NOT_YET).order_by(messages.c.id).limit(1)
        one = connection.execute(first).scalar_one()
        connection.execute(
            update(messages).where(messages.c.id == one).values(attempts=1, due_at=NOW + timedelta(days=1))
        )
        others = messages.c.id != one
        connection.execute(
            update(messages).where(messages.c.due_at < NOT_YET, others).values(state="sent", sent_at=NOW, ended_at=NOW)
        )
    watch(sqlite_engine, now=NOW + HOUR)
    assert waiting(sqlite_engine) == 0


def test_a_plan_shows_when_the_rest_would_leave(sqlite_engine: Engine, tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "shop", hello=CANARY)
    for number in range(50):
        add_contact(sqlite_engine, f"c{number}", None)
    (found,) = plan(sqlite_engine, made, None, now=NOW - timedelta(days=1))
    assert found.last_send_at is not None
    assert found.last_send_at > NOW + HOUR


def test_each_run_draws_another_canary(sqlite_engine: Engine, tmp_path: Path) -> None:
    text = CANARY.replace('at: "2026-12-01 09:00"', 'cron: "0 9 * * *"')
    made = fired(tmp_path, sqlite_engine, text)
    fire_due(sqlite_engine, made, now=NOW + timedelta(days=1))
    with reading(sqlite_engine) as connection:
        query = select(messages.c.run_id, messages.c.contact_id).where(messages.c.due_at < NOT_YET)
        ahead: dict[int, set[int]] = {}
        for run_id, contact_id in connection.execute(query):
            ahead.setdefault(run_id, set()).add(contact_id)
    first, second = ahead.values()
    assert len(first & second) < len(first) / 2


def test_nobody_is_waited_for_for_ever_where_the_canary_is_empty(sqlite_engine: Engine, tmp_path: Path) -> None:
    fired(tmp_path, sqlite_engine, CANARY.replace("20%", "0.01%"), people=5)
    assert waiting(sqlite_engine) == 5
    watch(sqlite_engine, now=NOW + HOUR)
    assert waiting(sqlite_engine) == 0
    assert datetime.now(UTC) < NOT_YET
