"""A message's life told back: why then, every try, what came back, how it stands; found by whatever one has of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from campaigns.life import Life, find, life_of
from kernel.clock import system_clock
from kernel.gateways import HttpGateway
from kernel.limits import Warmup
from kernel.settings import Workspace
from kernel.vocabulary import Channel, SuppressionReason, TouchKind, Verdict
from store.engine import reading, writing
from store.feedback import record_touch, suppress, unsubscribe
from store.lanes import close_lane
from store.ledger import claim, mark_sending
from store.schema import installation
from store.tables import allowances, campaign_versions, campaigns, messages, runs
from tests.integration.test_doubts import come_into_doubt
from tests.integration.test_drain import make_workspace, run
from tests.seeding import SPEC, seed_messages
from tests.servers.smtp_sink import Sink, SinkServer
from workers.drain import Drain

SOON = timedelta(minutes=1)


@pytest.fixture
def server() -> Iterator[SinkServer]:
    with SinkServer(Sink()) as running:
        yield running


@pytest.fixture
def shop(tmp_path: Path, server: SinkServer) -> Workspace:
    return make_workspace(tmp_path, server.port)


@pytest.fixture
def drain(engine: Engine, shop: Workspace) -> Iterator[Drain]:
    made = Drain(engine, shop)
    yield made
    made.close()


def told(engine: Engine, shop: Workspace, message_id: int = 1, now: datetime | None = None) -> Life:
    with reading(engine) as connection:
        name = installation(connection)
        life = life_of(connection, message_id, shop.settings, name, now=now or system_clock())
    assert life is not None
    return life


def whats(life: Life) -> list[str]:
    return [event.what for event in life.events]


def come_due(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).values(due_at=datetime.now(UTC) - timedelta(seconds=1)))


def test_put_off_then_sent_clicked_and_unsubscribed(engine: Engine, shop: Workspace, drain: Drain) -> None:
    seed_messages(engine, 1, address="once450+{n}@customer.example")
    run(drain)
    come_due(engine)
    run(drain)
    now = system_clock()
    with writing(engine) as connection:
        record_touch(
            connection,
            message_id=1,
            kind=TouchKind.CLICK,
            link_id=None,
            at=now + SOON,
            method="GET",
            ip="192.0.2.7",
            user_agent="Firefox",
            verdict=Verdict.HUMAN,
            reasons=[],
        )
        unsubscribe(connection, message_id=1, at=now + 2 * SOON, key="u:1")
    life = told(engine, shop)
    assert whats(life)[:2] in (["planned", "due"], ["due", "planned"])
    assert whats(life)[2:5] == ["try 1", "accepted", "click"]
    assert sorted(whats(life)[5:]) == ["suppression", "unsubscribed"]
    by_what = {event.what: event.detail for event in life.events}
    assert by_what["try 1"].startswith("put off by relay: ")
    assert "450 4.7.1 greylisted" in by_what["try 1"]
    assert "; next try 20" in by_what["try 1"]
    assert "queued" in by_what["accepted"]
    assert by_what["click"] == "human from 192.0.2.7, Firefox"
    assert by_what["suppression"].startswith("once450+1@customer.example: unsubscribe added because of this message")
    assert life.now.startswith("sent:")


def test_why_it_was_planned_and_due_then(engine: Engine, shop: Workspace) -> None:
    due = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    spec = {**SPEC, "schedule": {"at": "2026-03-02 09:00", "window": {"hours": "08:00-18:00", "days": ["mon", "tue"]}}}
    seed_messages(engine, 1, due_at=due, spec={**spec, "rate": "600/hour"})
    life = told(engine, shop)
    by_what = {event.what: event for event in life.events}
    assert re.match(
        r"run 1 of hello \(version 1, scheduled for .*\): step 1 of 1, email hello, for segment everyone",
        by_what["planned"].detail,
    )
    assert by_what["due"].at == due
    assert by_what["due"].detail == (
        "the run's time; window 08:00-18:00 mon,tue in UTC, where it was Mon 09:00; spread by the rate 600/hour"
    )


def test_a_planned_message_says_what_it_waits_for(engine: Engine, shop: Workspace) -> None:
    seed_messages(engine, 1)
    assert "nothing holds it back but a free worker" in told(engine, shop).now
    with writing(engine) as connection:
        connection.execute(update(campaigns).values(state="paused", state_reason="Ann asked"))
        close_lane(connection, "relay", reason="535 wrong password", first_wait=SOON, longest=SOON)
        suppress(
            connection,
            channel=Channel.EMAIL,
            address="user1@customer.example",
            reason=SuppressionReason.COMPLAINT,
            at=system_clock(),
        )
    now = told(engine, shop).now
    assert "the campaign is paused: Ann asked" in now
    assert "the gateway relay is closed until" in now
    assert "535 wrong password" in now
    assert "as things stand it will be skipped (suppressed: the address is suppressed" in now


def limited(shop: Workspace, **limits: object) -> Workspace:
    relay = shop.settings.gateways["relay"].model_copy(update=limits)
    settings = {"type": "http", "url": "http://127.0.0.1:9/", "form": {"to": "{to}{text}"}, "price": "0.30"}
    texts = HttpGateway.model_validate({**settings, "budget": {"amount": "1", "per": "month"}})
    return replace(shop, settings=shop.settings.model_copy(update={"gateways": {"relay": relay, "texts": texts}}))


def test_the_quota_or_budget_a_message_waits_for_is_named(engine: Engine, shop: Workspace) -> None:
    now = datetime(2026, 11, 26, 15, tzinfo=UTC)
    seed_messages(engine, 1)
    texts = {**SPEC, "steps": [{"sms": "note", "gateway": "texts"}], "budget": {"amount": "0.50"}}
    seed_messages(engine, 1, name="texting", lane="texts", channel="sms", spec=texts)
    with writing(engine) as connection:
        connection.execute(update(messages).values(due_at=now - SOON, planned_for=now - SOON))
        used = {"quota:relay:2026-11-26": 50, "budget:texts:2026-11": 800_000, "budget:campaign 2": 250_000}
        connection.execute(allowances.insert(), [{"key": key, "used": units} for key, units in used.items()])
        campaign_version = select(campaign_versions.c.id).where(campaign_versions.c.campaign_id == campaigns.c.id)
        connection.execute(update(campaigns).values(version_id=campaign_version.scalar_subquery()))
    full, some, warm = (
        limited(shop, quota="50/day"),
        limited(shop, quota="51/day"),
        Warmup(start="2026-11-25", first_day=30, until=1000),
    )
    waits = "the gateway relay waits: quota of 50 a day is used up; there is more from 2026-11-27 00:00"
    assert waits in told(engine, full, now=now).now
    assert "nothing holds it back but a free worker" in told(engine, some, now=now).now
    assert "warm-up: 45 on 2026-11-26 are sent" in told(engine, limited(shop, warmup=warm), now=now).now
    assert "its turn: the gateway relay takes 5/second" in told(engine, limited(shop, rate="5/second"), now=now).now
    text = told(engine, full, 2, now=now).now
    assert "it waits: budget of EUR 1 a month for gateway texts is used up; there is more from 2026-12" in text
    assert "it waits: budget of EUR 0.50 is used up" in text


def test_who_was_skipped_when_the_run_fired_was_never_due(engine: Engine, shop: Workspace) -> None:
    seed_messages(engine, 1)
    with reading(engine) as connection:
        fired_at = connection.execute(select(runs.c.fired_at)).scalar_one()
    with writing(engine) as connection:
        connection.execute(update(messages).values(state="skipped", reason="excluded", ended_at=fired_at))
    life = told(engine, shop)
    assert sorted(whats(life)) == ["planned", "skipped"]
    assert life.now == "not sent, and will not be (excluded: the person is in a segment the campaign excludes)"


def test_in_a_workers_hands_it_says_whether_it_may_be_out(engine: Engine, shop: Workspace) -> None:
    seed_messages(engine, 1)
    with writing(engine) as connection:
        mine = claim(connection, lane="relay", limit=1, lease=SOON, host="here", boot="b", recorder="/r")
        assert mine is not None
    assert "in the hands of a worker on here since" in told(engine, shop).now
    assert "nothing has left yet" in told(engine, shop).now
    with writing(engine) as connection:
        assert mark_sending(connection, mine.id)
    assert "may be out" in told(engine, shop).now
    assert "the lease is over" in told(engine, shop, now=system_clock() + timedelta(hours=1)).now


def test_refused_and_in_doubt_are_told_once_each(engine: Engine, shop: Workspace, drain: Drain) -> None:
    seed_messages(engine, 1, address="rcpt550+{n}@customer.example")
    seed_messages(engine, 1, address="dotdrop+{n}@customer.example", name="other")
    run(drain)
    refused, doubtful = told(engine, shop, 1), told(engine, shop, 2)
    assert [w for w in whats(refused) if w not in ("planned", "due")] == ["try 1", "failed", "suppression"]
    assert sum("no such user" in event.detail for event in refused.events if event.what != "suppression") == 1
    assert refused.now == "not sent, and will not be (refused: the gateway refused it for good)"
    assert [w for w in whats(doubtful) if w not in ("planned", "due")] == ["try 1"]
    assert "may or may not have been sent" in doubtful.now


def test_it_is_found_by_whatever_one_has_of_it(
    engine: Engine, shop: Workspace, drain: Drain, server: SinkServer
) -> None:
    seed_messages(engine, 2)
    run(drain)
    [body] = [body for body in server.sink.bodies if b"user2@customer.example" in body]
    [sender] = [sender for _, sender, to in server.sink.accepted if to.startswith("user2@")]
    header = re.search(rb"^Message-ID: (<\S+>)", body, re.MULTILINE)
    unsubscribe_link = re.search(rb"^List-Unsubscribe: <(\S+)>", body, re.MULTILINE)
    assert header is not None
    assert unsubscribe_link is not None
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == 1).values(gateway_id="SM0001"))
        connection.execute(
            update(messages).where(messages.c.id == 2).values(reply="250 2.0.0 Ok: queued as 4ZxYkL0Qb2")
        )
    words = {
        "2": [2],
        header[1].decode(): [2],
        header[1].decode().strip("<>"): [2],
        sender: [2],
        sender.upper(): [2],
        unsubscribe_link[1].decode(): [2],
        "SM0001": [1],
        "4ZxYkL0Qb2": [2],
        "USER2@customer.example": [2],
        "+447900000002": [2],
        "nobody@customer.example": [],
        "<m2.000000000000@acme.example>": [],
        "bounce+aaaa@acme.example": [],
        "9999999999999999999999": [],
        "999": [],
        "%": [],
    }
    with reading(engine) as connection:
        name = installation(connection)
        found = {word: find(connection, word, shop.settings, shop.signer(), name) for word in words}
        assert told(engine, shop, 2).message_id_header == header[1].decode()
    assert found == words


def test_a_doubt_that_was_sent_again_shows_both(engine: Engine, shop: Workspace) -> None:
    seed_messages(engine, 1)
    come_into_doubt(engine, 1)
    with writing(engine) as connection:
        connection.execute(update(messages).values(resends=1))
    life = told(engine, shop)
    assert (life.state, life.resends) == ("in_doubt", 1)
    assert "sent again 1×" in life.now
    with reading(engine) as connection:
        assert connection.execute(select(messages.c.reply)).scalar_one() == "lost"
