from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, delete

from kernel.vocabulary import FailReason, MessageEventKind, SkipReason, TouchKind, Verdict
from reports.attribution import attribute
from reports.funnel import Dimension, Funnel, breakdown, funnel
from store.engine import reading, writing
from store.tables import messages
from tests.reporting import World, days, spec

STEPS = [{"email": "winback"}, {"sms": "winback-sms", "wait": "3d"}]
GOAL = {"order": {}, "within": "14d", "touch": ["click", "open"]}
COST = {"fixed": "100.00", "per_email": "0.002", "per_sms": "0.07"}
TWO_STEPS = spec(steps=STEPS, goal=GOAL, cost=COST)
ONE_STEP = spec(goal=GOAL, cost=COST)


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def figures(world: World, **scope: Any) -> Funnel:
    with reading(world.engine) as connection:
        return funnel(connection, currency="GBP", **scope)


def test_every_place_of_the_audience_has_one_end(world: World) -> None:
    campaign = world.campaign("winback", ONE_STEP)
    run = world.run(campaign)
    account = world.account()
    for state in ("planned", "sent", "sent", "delivered", "bounced", "complained", "in_doubt", "held_out"):
        world.mailed(run, account, state=state)
    world.mailed(run, account, state="skipped", reason=SkipReason.NO_CONSENT)
    world.mailed(run, account, state="skipped", reason=SkipReason.NO_CONSENT)
    world.mailed(run, account, state="skipped", reason=SkipReason.EXCLUDED)
    world.mailed(run, account, state="failed", reason=FailReason.REFUSED)

    found = figures(world, campaign_id=campaign)
    assert found.balanced
    assert (found.audience, found.people) == (12, 12)
    assert found.skipped == {"excluded": 1, "no_consent": 2}
    assert found.failures == {"refused": 1}
    assert (found.sent, found.failed, found.held_out, found.pending, found.in_doubt) == (5, 1, 1, 1, 1)
    assert (found.delivered, found.bounced, found.complained) == (4, 1, 1)


def test_a_message_row_that_vanished_shows_in_the_balance(world: World) -> None:
    campaign = world.campaign("winback", ONE_STEP)
    run = world.run(campaign)
    lost, _ = world.mailed(run, world.account()), world.mailed(run, world.account())
    assert figures(world, campaign_id=campaign).balanced
    with writing(world.engine) as connection:
        connection.execute(delete(messages).where(messages.c.id == lost))
    assert not figures(world, campaign_id=campaign).balanced


def test_opens_and_clicks_count_messages_people_touched_and_show_machines_beside(world: World) -> None:
    campaign = world.campaign("winback", ONE_STEP)
    run = world.run(campaign)
    mails = [world.mailed(run, world.account()) for _ in range(5)]
    world.touch(mails[0], days(1), TouchKind.OPEN)
    world.touch(mails[0], days(2), TouchKind.OPEN)
    world.touch(mails[1], days(1), TouchKind.OPEN, Verdict.UNKNOWN)
    world.touch(mails[2], days(1), TouchKind.OPEN, Verdict.MACHINE)
    world.touch(mails[0], days(1))
    world.touch(mails[0], days(1), TouchKind.CLICK, Verdict.MACHINE)
    world.touch(mails[3], days(1), TouchKind.CLICK, Verdict.UNKNOWN)
    world.touch(mails[4], days(1), TouchKind.CLICK, Verdict.MACHINE)

    found = figures(world, campaign_id=campaign)
    assert (found.opened, found.opened_raw, found.machine_opens) == (2, 3, 1)
    assert (found.clicked, found.clicked_raw, found.machine_clicks) == (1, 3, 2)


def test_bounces_complaints_unsubscribes_and_replies_count_messages_once(world: World) -> None:
    campaign = world.campaign("winback", ONE_STEP)
    run = world.run(campaign)
    mails = [world.mailed(run, world.account()) for _ in range(4)]
    for _ in range(2):
        world.event_of(mails[0], MessageEventKind.BOUNCED)
        world.event_of(mails[1], MessageEventKind.UNSUBSCRIBED)
    world.event_of(mails[2], MessageEventKind.COMPLAINED)
    world.event_of(mails[2], MessageEventKind.REPLIED)

    found = figures(world, campaign_id=campaign)
    assert (found.sent, found.delivered, found.bounced) == (4, 3, 1)
    assert (found.unsubscribed, found.complained, found.replied) == (1, 1, 1)


def test_money_is_counted_in_minor_units_by_currency_and_set_against_cost(world: World) -> None:
    campaign = world.campaign("winback", TWO_STEPS)
    run = world.run(campaign)
    account = world.account()
    contact = world.contact(account)
    enrollment = world.enroll(run, contact, account)
    mail = world.message(run, contact, enrollment)
    world.message(run, contact, enrollment, step=2, channel="sms", parts=2, cost_micro=150_000)
    other = world.contact(account)
    unpriced = world.enroll(run, other, account)
    world.message(run, other, unpriced, state="planned")
    world.message(run, other, unpriced, step=2, channel="sms", parts=3)
    world.touch(mail, days(1))
    world.order(account, days(2), net_minor=30_000)
    world.order(account, days(3), net_minor=5_043)
    attribute(world.engine, now=days(30))

    found = figures(world, campaign_id=campaign)
    assert (found.converted, found.revenue) == (2, {"GBP": 35_043})
    # 100.00 for the firing, 0.002 for the e-mail, 0.15 charged by the gateway, 0.07 for each of 3 unpriced parts.
    assert found.cost_minor == 10_036
    assert found.roas == pytest.approx(35_043 / 10_036)
    assert found.roi == pytest.approx((35_043 - 10_036) / 10_036)


def test_roi_is_left_out_where_it_would_mislead(world: World) -> None:
    def roi(name: str, content: dict[str, Any], currency: str = "GBP") -> float | None:
        campaign = world.campaign(name, content)
        account = world.account()
        world.touch(world.mailed(world.run(campaign), account), days(1))
        world.order(account, days(2), currency=currency)
        attribute(world.engine, now=days(30))
        return figures(world, campaign_id=campaign).roi

    assert roi("plain", ONE_STEP) is not None
    assert roi("foreign", ONE_STEP, "EUR") is None
    assert roi("free", spec(goal=GOAL)) is None
    assert roi("aimless", spec(cost=COST)) is None


def test_breakdowns_add_up_to_the_whole(world: World) -> None:
    campaign = world.campaign("winback", TWO_STEPS)
    segments = [("at-risk", "at_risk", None), ("at-risk", "cant_lose", "b"), ("sleepers", None, "a")]
    for fired in (0, 7):
        run = world.run(campaign, days(fired))
        for segment, rfm_segment, variant in segments:
            account = world.account()
            contact = world.contact(account)
            enrollment = world.enroll(run, contact, account, segment=segment, rfm_segment=rfm_segment, variant=variant)
            mail = world.message(run, contact, enrollment, sent_at=days(fired))
            world.message(run, contact, enrollment, step=2, channel="sms", state="planned")
            world.touch(mail, days(fired + 1))
            world.order(account, days(fired + 2))
    attribute(world.engine, now=days(30))

    whole = figures(world, campaign_id=campaign)
    assert (whole.audience, whole.people, whole.converted) == (12, 6, 6)
    with reading(world.engine) as connection:
        tables = {by: breakdown(connection, by, campaign_id=campaign, currency="GBP") for by in Dimension}
    for rows in tables.values():
        for figure in ("audience", "sent", "pending", "clicked", "converted"):
            assert sum(getattr(row.funnel, figure) for row in rows) == getattr(whole, figure)
        assert all(row.funnel.balanced for row in rows)
    assert [(row.key, row.label) for row in tables[Dimension.STEP]] == [
        ("1", "1. email winback"),
        ("2", "2. sms winback-sms"),
    ]
    assert [row.label for row in tables[Dimension.RUN]] == ["2026-03-02 09:00", "2026-03-09 09:00"]
    assert [row.key for row in tables[Dimension.SEGMENT]] == ["at-risk", "sleepers"]
    assert [(row.key, row.label) for row in tables[Dimension.VARIANT]] == [("a", "a"), ("b", "b"), ("", "none")]
    # Each row rounds to whole pennies for itself: 2 × 100.006.
    assert whole.cost_minor == 20_001
    assert [row.funnel.cost_minor for row in tables[Dimension.RUN]] == [10_001, 10_001]


def test_a_run_is_counted_alone(world: World) -> None:
    campaign = world.campaign("winback", ONE_STEP)
    first, second = world.run(campaign), world.run(campaign, days(7))
    world.mailed(first, world.account())
    world.mailed(second, world.account(), state="planned")
    world.mailed(second, world.account(), state="planned")
    found = figures(world, run_id=second)
    assert (found.audience, found.pending, found.sent, found.cost_minor) == (2, 2, 0, 10_000)


def test_json_has_the_documented_keys(world: World) -> None:
    campaign = world.campaign("winback", ONE_STEP)
    world.mailed(world.run(campaign), world.account())
    found = figures(world, campaign_id=campaign).to_json()
    assert {
        "audience", "sent", "failed", "skipped", "held_out", "pending", "in_doubt", "delivered", "opened", "clicked",
        "converted", "revenue", "people", "cost", "roi", "roas", "bounced", "complained", "unsubscribed", "balanced",
    } <= set(found)  # fmt: skip
    assert found["cost"] == {"GBP": 10_000}


def test_a_campaign_that_never_fired_has_a_funnel_of_zeros(world: World) -> None:
    found = figures(world, campaign_id=world.campaign("later"))
    assert (found.audience, found.sent, found.cost_minor, found.balanced, found.roi) == (0, 0, 0, True, None)
    with reading(world.engine) as connection, pytest.raises(ValueError, match="campaign or a run"):
        funnel(connection)
