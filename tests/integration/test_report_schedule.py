from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from kernel.vocabulary import RunState
from reports.schedule import plan_reports
from store.engine import reading, writing
from store.tables import campaigns, reports, runs
from tests.reporting import ORDERS_FROM_100, START, World, days, spec

TO = ["boss@acme.example"]


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def planned(world: World) -> list[Any]:
    with reading(world.engine) as connection:
        return list(connection.execute(select(reports).order_by(reports.c.due_at)))


def close_runs(world: World) -> None:
    with writing(world.engine) as connection:
        connection.execute(update(runs).values(state=RunState.DONE))


def test_a_report_after_each_run_is_planned_once(world: World) -> None:
    campaign = world.campaign("weekly", spec(report={"to": TO, "after": "7d"}))
    world.run(campaign)
    assert plan_reports(world.engine, now=days(0)) == 1
    assert plan_reports(world.engine, now=days(1)) == 0
    world.run(campaign, days(7))
    assert plan_reports(world.engine, now=days(7)) == 1
    assert [(row.due_at, row.state, row.recipients) for row in planned(world)] == [
        (days(7), "planned", TO),
        (days(14), "planned", TO),
    ]


def test_a_run_keeps_the_report_it_was_applied_with(world: World) -> None:
    campaign = world.campaign("weekly", spec(report={"to": TO, "after": "7d"}))
    world.run(campaign)
    world.version(campaign, spec(report={"to": ["other@acme.example"], "after": "1d"}))
    plan_reports(world.engine, now=days(8))
    assert [(row.due_at, row.recipients) for row in planned(world)] == [(days(7), TO)]


def test_no_report_is_planned_for_what_never_ran(world: World) -> None:
    campaign = world.campaign("weekly", spec(report={"to": TO, "after": "7d"}))
    missed = world.run(campaign)
    with writing(world.engine) as connection:
        connection.execute(update(runs).where(runs.c.id == missed).values(state=RunState.MISSED))
    world.run(world.campaign("silent", spec()))
    assert plan_reports(world.engine, now=days(30)) == 0


def test_a_recurring_report_is_planned_for_the_latest_slot_only(world: World) -> None:
    world.run(world.campaign("winback", spec(report={"to": TO, "every": "0 8 * * mon"}, goal=ORDERS_FROM_100)))
    assert plan_reports(world.engine, now=days(1)) == 0  # This week's slot lay before the run.
    assert plan_reports(world.engine, now=days(7)) == 1
    assert plan_reports(world.engine, now=days(8)) == 0
    assert plan_reports(world.engine, now=days(29)) == 1  # Two slots went by while nobody looked.
    assert [row.due_at for row in planned(world)] == [
        datetime(2026, 3, 9, 8, tzinfo=UTC),
        datetime(2026, 3, 30, 8, tzinfo=UTC),
    ]


def test_slots_are_read_on_the_campaigns_wall_clock(world: World) -> None:
    schedule = {"at": "2026-03-02 09:00", "zone": "recipient", "default_zone": "Europe/London"}
    world.run(world.campaign("winback", spec(report={"to": TO, "every": "0 8 * * mon"}, schedule=schedule)))
    plan_reports(world.engine, now=START + timedelta(days=28))
    # London is an hour ahead of UTC from 29 March 2026.
    assert [row.due_at for row in planned(world)] == [datetime(2026, 3, 30, 7, tzinfo=UTC)]


def test_a_recurring_report_ends_with_the_first_slot_at_which_all_figures_are_final(world: World) -> None:
    content = spec(report={"to": TO, "every": "0 8 * * mon"}, goal=ORDERS_FROM_100)  # within: 14d
    world.run(world.campaign("winback", content))
    close_runs(world)
    for number in range(60):
        plan_reports(world.engine, now=days(number))
    assert [row.due_at.date().isoformat() for row in planned(world)] == ["2026-03-09", "2026-03-16", "2026-03-23"]


def test_a_cancelled_campaign_is_not_reported_on_for_ever(world: World) -> None:
    campaign = world.campaign("winback", spec(report={"to": TO, "every": "0 8 * * mon"}))
    world.run(campaign)
    with writing(world.engine) as connection:
        connection.execute(update(campaigns).where(campaigns.c.id == campaign).values(state="cancelled"))
    assert plan_reports(world.engine, now=days(30)) == 0
