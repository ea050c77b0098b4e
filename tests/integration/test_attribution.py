from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from kernel.vocabulary import OrderKind, TouchKind, Verdict
from reports.attribution import attribute
from store.engine import reading, writing
from store.tables import conversions, orders, touches
from tests.reporting import START, World, days, spec

NOW = days(60)
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def credited(world: World) -> dict[int, Any]:
    """Recompute, and return the conversions by the id of their order, stage or event."""
    attribute(world.engine, now=NOW)
    return stored(world)


def stored(world: World) -> dict[int, Any]:
    with reading(world.engine) as connection:
        return {row.source_id: row for row in connection.execute(select(conversions))}


def with_goal(**goal: Any) -> dict[str, Any]:
    return spec(goal={"within": "14d", "touch": ["click", "open"], **goal})


def test_an_order_after_a_click_is_credited_with_its_value_to_the_message(world: World) -> None:
    campaign = world.campaign("winback")
    run = world.run(campaign)
    account = world.account()
    message = world.mailed(run, account)
    touch = world.touch(message, days(1))
    order = world.order(account, days(2), net_minor=12_345)

    found = credited(world)[order]
    assert (found.kind, found.value_minor, found.currency, found.at) == ("order", 12_345, "GBP", days(2))
    assert (found.campaign_id, found.run_id, found.message_id, found.touch_id) == (campaign, run, message, touch)
    assert found.account_id == account


@pytest.mark.parametrize(
    ("ordered_at", "counts"),
    [
        (days(1) - MILLISECOND, False),
        (days(1), True),
        (days(15), True),
        (days(15) + MILLISECOND, False),
    ],
)
def test_the_window_reaches_from_the_touch_to_its_last_millisecond(world: World, ordered_at: Any, counts: bool) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    order = world.order(account, ordered_at)
    assert (order in credited(world)) is counts


def test_of_two_campaigns_the_last_touch_takes_the_whole_order(world: World) -> None:
    account = world.account()
    early = world.mailed(world.run(world.campaign("early")), account)
    late = world.mailed(world.run(world.campaign("late")), account)
    world.touch(early, days(1))
    world.touch(late, days(3))
    world.touch(early, days(2), TouchKind.OPEN)
    before, after = world.order(account, days(2.5)), world.order(account, days(4))

    found = credited(world)
    assert {before: found[before].message_id, after: found[after].message_id} == {before: early, after: late}
    assert len(found) == 2


def test_touches_of_the_same_instant_are_told_apart_by_the_higher_id(world: World) -> None:
    account = world.account()
    first = world.mailed(world.run(world.campaign("first")), account)
    second = world.mailed(world.run(world.campaign("second")), account)
    world.touch(second, days(1))
    world.touch(first, days(1))
    order = world.order(account, days(2))
    assert credited(world)[order].message_id == first


def test_a_colleagues_order_counts_for_the_one_who_clicked_and_a_strangers_does_not(world: World) -> None:
    account, stranger = world.account(), world.account()
    colleague = world.contact(account)
    message = world.mailed(world.run(world.campaign("winback")), account)
    world.touch(message, days(1))
    order = world.order(account, days(2), contact_id=colleague)
    world.order(stranger, days(2))
    assert {key: row.message_id for key, row in credited(world).items()} == {order: message}


def test_a_contact_without_an_account_converts_by_their_own_order(world: World) -> None:
    run = world.run(world.campaign("winback"))
    contact, other = world.contact(None), world.contact(None)
    message = world.message(run, contact, world.enroll(run, contact, None))
    world.touch(message, days(1))
    mine = world.order(None, days(2), contact_id=contact)
    world.order(None, days(2), contact_id=other)
    assert set(credited(world)) == {mine}


@pytest.mark.parametrize(
    ("kind", "verdict", "counts"),
    [
        (TouchKind.CLICK, Verdict.HUMAN, True),
        (TouchKind.CLICK, Verdict.UNKNOWN, False),
        (TouchKind.CLICK, Verdict.MACHINE, False),
        (TouchKind.OPEN, Verdict.HUMAN, True),
        (TouchKind.OPEN, Verdict.UNKNOWN, True),
        (TouchKind.OPEN, Verdict.MACHINE, False),
    ],
)
def test_a_machine_earns_nothing(world: World, kind: TouchKind, verdict: Verdict, counts: bool) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1), kind, verdict)
    order = world.order(account, days(2))
    assert (order in credited(world)) is counts


def test_a_verdict_revised_later_takes_the_credit_away(world: World) -> None:
    account = world.account()
    touch = world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    order = world.order(account, days(2))
    assert order in credited(world)
    with writing(world.engine) as connection:
        connection.execute(update(touches).where(touches.c.id == touch).values(verdict=Verdict.MACHINE))
    assert credited(world) == {}


def test_only_the_kinds_of_touch_the_goal_names_count(world: World) -> None:
    account = world.account()
    run = world.run(world.campaign("clicks-only", with_goal(order={"min_value": "1"}, touch=["click"])))
    message = world.mailed(run, account)
    world.touch(message, days(1), TouchKind.OPEN)
    order = world.order(account, days(2))
    assert credited(world) == {}
    world.touch(message, days(1.5))
    assert order in credited(world)


def test_being_sent_the_message_is_a_touch_where_the_goal_says_so(world: World) -> None:
    account = world.account()
    run = world.run(world.campaign("sms", with_goal(order={}, touch=["sent", "click"])))
    message = world.mailed(run, account, channel="sms")
    world.mailed(run, account, state="failed")
    order = world.order(account, days(2))
    world.order(account, START - MILLISECOND)
    found = credited(world)
    assert set(found) == {order}
    assert (found[order].message_id, found[order].touch_id) == (message, None)


def test_an_order_before_the_message_left_never_counts(world: World) -> None:
    account = world.account()
    message = world.mailed(world.run(world.campaign("winback")), account, sent_at=days(3))
    world.touch(message, days(1))  # A clock that runs wrong somewhere.
    world.order(account, days(2))
    counted = world.order(account, days(3))
    assert set(credited(world)) == {counted}


def test_an_order_below_the_least_value_earns_nothing_in_any_currency(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    world.order(account, days(2), net_minor=9_999)
    enough = world.order(account, days(3), net_minor=10_000)
    world.order(account, days(4), net_minor=99, currency="JPY")
    enough_yen = world.order(account, days(5), net_minor=100, currency="JPY")
    assert set(credited(world)) == {enough, enough_yen}


def test_returns_cancellations_and_adjustments_are_no_conversions(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    for kind in (OrderKind.RETURN, OrderKind.CANCELLATION, OrderKind.ADJUSTMENT):
        world.order(account, days(2), kind=kind)
    assert credited(world) == {}


def test_a_cancelled_order_loses_its_credit(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    order = world.order(account, days(2))
    assert order in credited(world)
    with writing(world.engine) as connection:
        connection.execute(update(orders).where(orders.c.id == order).values(cancelled_at=days(5)))
    assert credited(world) == {}


def test_a_corrected_order_is_credited_with_its_new_value(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    order = world.order(account, days(2), net_minor=30_000)
    assert credited(world)[order].value_minor == 30_000
    with writing(world.engine) as connection:
        connection.execute(update(orders).where(orders.c.id == order).values(net_minor=25_000))
    assert attribute(world.engine, now=NOW) == 1
    assert stored(world)[order].value_minor == 25_000


def test_a_return_reduces_the_last_order_before_it_and_takes_the_credit_when_too_little_is_left(world: World) -> None:
    account, other = world.account(), world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    first = world.order(account, days(2), net_minor=30_000)
    second = world.order(account, days(4), net_minor=40_000)
    world.order(account, days(5), net_minor=-15_000, kind=OrderKind.RETURN)
    world.order(account, days(3), net_minor=-1_000, kind=OrderKind.CANCELLATION)
    world.order(other, days(5), net_minor=-9_000, kind=OrderKind.RETURN)
    world.order(account, days(5), net_minor=-9_000, kind=OrderKind.RETURN, currency="EUR")
    assert {key: row.value_minor for key, row in credited(world).items()} == {first: 29_000, second: 25_000}

    world.order(account, days(30), net_minor=-15_001, kind=OrderKind.RETURN)  # Leaves 99.99 of at least 100.00.
    assert {key: row.value_minor for key, row in credited(world).items()} == {first: 29_000}


def test_a_wholly_returned_order_earns_nothing_even_without_a_least_value(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("any", with_goal(order={}))), account), days(1))
    world.order(account, days(2), net_minor=5_000)
    world.order(account, days(3), net_minor=-5_000, kind=OrderKind.RETURN)
    free = world.order(account, days(4), net_minor=0)
    assert {key: row.value_minor for key, row in credited(world).items()} == {free: 0}


def test_computing_again_changes_nothing(world: World) -> None:
    account = world.account()
    message = world.mailed(world.run(world.campaign("winback")), account)
    world.touch(message, days(1))
    world.touch(message, days(1), TouchKind.OPEN)
    world.order(account, days(2))
    assert attribute(world.engine, now=NOW) == 1
    before = stored(world)
    assert attribute(world.engine, now=NOW) == 0
    assert stored(world) == before


def test_what_arrives_out_of_order_ends_as_if_it_had_come_in_order(world: World) -> None:
    account = world.account()
    early = world.mailed(world.run(world.campaign("early")), account)
    late = world.mailed(world.run(world.campaign("late")), account)
    world.touch(early, days(1))
    second = world.order(account, days(6))
    assert credited(world)[second].message_id == early

    first = world.order(account, days(3))
    touch = world.touch(late, days(5))
    found = credited(world)
    assert (found[first].message_id, found[second].message_id) == (early, late)
    assert found[second].touch_id == touch


def test_what_lies_in_the_future_is_not_seen_yet(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("winback")), account), days(1))
    order = world.order(account, days(3))
    assert attribute(world.engine, now=days(2)) == 0
    assert attribute(world.engine, now=days(3)) == 1
    assert set(stored(world)) == {order}


def test_an_edited_goal_changes_no_run_that_fired_before(world: World) -> None:
    campaign = world.campaign("winback")
    account, newcomer = world.account(), world.account()
    world.touch(world.mailed(world.run(campaign), account), days(1))
    world.version(campaign, with_goal(order={"min_value": "500.00"}))
    world.touch(world.mailed(world.run(campaign, days(7)), newcomer, sent_at=days(7)), days(8))
    order = world.order(account, days(9), net_minor=10_000)
    world.order(newcomer, days(9), net_minor=10_000)
    assert set(credited(world)) == {order}


def test_a_campaign_without_a_goal_earns_nothing(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("news", spec())), account), days(1))
    world.order(account, days(2))
    assert credited(world) == {}


def test_an_opportunity_is_credited_once_when_it_first_enters_the_stage(world: World) -> None:
    account = world.account()
    world.touch(world.mailed(world.run(world.campaign("sales", with_goal(opportunity_stage="won"))), account), days(1))
    stages = world.opportunity(
        account, ("offer", days(2)), ("won", days(3)), ("offer", days(4)), ("won", days(5)), value_minor=750_000
    )
    found = credited(world)
    assert set(found) == {stages[1]}
    assert (found[stages[1]].kind, found[stages[1]].value_minor, found[stages[1]].currency) == (
        "opportunity_stage",
        750_000,
        "GBP",
    )


def test_an_event_of_the_goals_name_is_credited_by_account_or_contact(world: World) -> None:
    run = world.run(world.campaign("demo", with_goal(event="demo_requested")))
    account = world.account()
    world.touch(world.mailed(run, account), days(1))
    alone = world.contact(None)
    world.touch(world.message(run, alone, world.enroll(run, alone, None)), days(1))
    by_account = world.happening("demo_requested", days(2), account_id=account)
    by_contact = world.happening("demo_requested", days(2), contact_id=alone)
    world.happening("page_view", days(2), account_id=account)
    found = credited(world)
    assert set(found) == {by_account, by_contact}
    assert (found[by_account].kind, found[by_account].value_minor, found[by_account].currency) == ("event", 0, "")


def test_goals_of_different_kinds_live_side_by_side(world: World) -> None:
    account = world.account()
    message = world.mailed(world.run(world.campaign("shop")), account)
    world.touch(message, days(1))
    sales = world.mailed(world.run(world.campaign("sales", with_goal(opportunity_stage="won"))), account)
    world.touch(sales, days(2))
    world.order(account, days(3))
    world.opportunity(account, ("won", days(3)))
    attribute(world.engine, now=NOW)
    with reading(world.engine) as connection:
        rows = connection.execute(select(conversions.c.kind, conversions.c.message_id)).all()
    assert sorted(tuple(row) for row in rows) == [("opportunity_stage", sales), ("order", message)]
