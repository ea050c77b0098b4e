"""Runs come about once, with everybody in them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select

from campaigns.applying import Change, apply
from campaigns.audience import held_out
from campaigns.books import books
from campaigns.control import cancel, close_finished_runs, find_run, list_runs, pause, resume
from campaigns.firing import Fired, fire_due
from kernel.settings import Workspace
from kernel.vocabulary import MessageState, RunState
from store.engine import reading, writing
from store.tables import campaigns, enrollments, holdouts, messages, runs, suppressions
from tests.integration.campaigning import CAMPAIGN, NOW, add_account, add_contact, ledger, make_workspace, put

WEEKLY = CAMPAIGN.replace('at: "2026-12-01 09:00"', 'cron: "0 9 * * tue"')


def started(engine: Engine, workspace: Workspace, *, now: datetime = NOW) -> list[Fired]:
    apply(engine, workspace, None, now=now)
    return fire_due(engine, workspace, now=now)


def test_a_campaign_whose_time_has_come_fires_once(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    account = add_account(engine, "A1")
    for number in range(3):
        add_contact(engine, f"c{number}", account)

    fired = started(engine, workspace)

    assert [(run.campaign, run.scheduled_for, run.people, run.places) for run in fired] == [("hello", NOW, 3, 3)]
    assert fire_due(engine, workspace, now=NOW + timedelta(days=1)) == []
    assert ledger(engine, "state", "step", "lane", "channel", "due_at") == [("planned", 1, "relay", "email", NOW)] * 3
    with reading(engine) as connection:
        assert books(connection).balanced


def test_a_campaign_waits_for_its_time(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    add_contact(engine, "c1")
    assert started(engine, workspace, now=NOW - timedelta(seconds=1)) == []
    assert len(fire_due(engine, workspace, now=NOW)) == 1


def test_a_campaign_applied_after_its_time_fires_at_once_and_sends_from_then_on(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    add_contact(engine, "c1")
    late = NOW + timedelta(days=30)
    assert len(started(engine, workspace, now=late)) == 1
    assert ledger(engine, "due_at") == [(late,)]


def test_many_schedulers_fire_a_run_once(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN, weekly=WEEKLY)
    for number in range(20):
        add_contact(engine, f"c{number}")
    apply(engine, workspace, None, now=NOW - timedelta(days=1))

    with ThreadPoolExecutor(8) as schedulers:
        rounds = list(schedulers.map(lambda _: fire_due(engine, workspace, now=NOW), range(16)))

    assert sorted(run.campaign for fired in rounds for run in fired) == ["hello", "weekly"]
    assert len(ledger(engine, "id")) == 40


def test_a_recurring_campaign_fires_each_time_but_not_for_the_time_before_it_was_applied(
    engine: Engine, tmp_path: Path
) -> None:
    workspace = make_workspace(tmp_path, weekly=WEEKLY)
    add_contact(engine, "c1")
    assert started(engine, workspace, now=NOW) == []
    for week in (1, 2):
        now = NOW + timedelta(weeks=week)
        assert [run.scheduled_for for run in fire_due(engine, workspace, now=now)] == [now]


@pytest.mark.parametrize(
    ("catch_up", "fired", "missed"),
    [("latest", ["22"], ["08", "15"]), ("all", ["08", "15", "22"], []), ("skip", [], ["08", "15", "22"])],
)
def test_after_downtime_catch_up_decides(
    engine: Engine, tmp_path: Path, catch_up: str, fired: list[str], missed: list[str]
) -> None:
    text = WEEKLY.replace("cron:", f"catch_up: {catch_up}, cron:")
    workspace = make_workspace(tmp_path, weekly=text)
    add_contact(engine, "c1")
    apply(engine, workspace, None, now=NOW)

    fire_due(engine, workspace, now=NOW + timedelta(days=23))

    with reading(engine) as connection:
        found = list_runs(connection)
    days = {state: sorted(f"{run.scheduled_for:%d}" for run in found if run.state is state) for state in RunState}
    assert (days[RunState.OPEN], days[RunState.MISSED]) == (fired, missed)
    assert len(ledger(engine, "id")) == len(fired)
    assert fire_due(engine, workspace, now=NOW + timedelta(days=23)) == []


def test_skip_still_fires_a_slot_that_is_only_minutes_late(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, weekly=WEEKLY.replace("cron:", "catch_up: skip, cron:"))
    apply(engine, workspace, None, now=NOW)
    now = NOW + timedelta(weeks=1, minutes=5)
    assert [run.state for run in fire_due(engine, workspace, now=now)] == [RunState.DONE]


def test_an_empty_audience_is_a_run_that_is_done_and_says_so(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    assert [(run.state, run.people) for run in started(engine, workspace)] == [(RunState.DONE, 0)]
    with reading(engine) as connection:
        run = find_run(connection, "hello")
        assert run.note == "its audience was empty"
        assert books(connection, run_id=run.id).audience == 0


def test_contacts_come_through_their_accounts_and_roles_and_each_once(engine: Engine, tmp_path: Path) -> None:
    text = CAMPAIGN.replace("{segment: everybody}", "{segment: [british, everybody], roles: [buyer, owner]}")
    workspace = make_workspace(tmp_path, hello=text)
    british = add_account(engine, "A1", country="GB")
    for role in ("buyer", "owner", "finance"):
        add_contact(engine, role, british, role=role)
    add_contact(engine, "alone", role="buyer")

    started(engine, workspace)

    with reading(engine) as connection:
        segments = connection.execute(select(enrollments.c.segment).order_by(enrollments.c.contact_id)).scalars().all()
    assert segments == ["british", "british", "everybody"]


def test_the_account_limit_prefers_the_first_role_and_counts_excluded_people_out(
    engine: Engine, tmp_path: Path
) -> None:
    text = CAMPAIGN.replace(
        "{segment: everybody}", "{segment: everybody, exclude: finance, roles: [owner, buyer, finance], per_account: 1}"
    )
    workspace = make_workspace(tmp_path, hello=text)
    for name in ("A1", "A2"):
        account = add_account(engine, name)
        for role in ("buyer", "finance", "owner"):
            add_contact(engine, f"{name}-{role}", account, role=role)
    for number in range(2):
        add_contact(engine, f"alone-{number}", role="buyer")

    started(engine, workspace)

    assert ledger(engine, "state", "reason") == [
        *[("skipped", "account_limit"), ("skipped", "excluded"), ("planned", None)] * 2,
        *[("planned", None)] * 2,
    ]


def test_who_cannot_be_reached_takes_no_colleagues_place(engine: Engine, tmp_path: Path) -> None:
    text = CAMPAIGN.replace("{segment: everybody}", "{segment: everybody, roles: [owner, buyer], per_account: 1}")
    workspace = make_workspace(tmp_path, hello=text)
    silent, mute, gone = (add_account(engine, name) for name in ("A1", "A2", "A3"))
    add_contact(engine, "A1-owner", silent, role="owner", consent=())
    add_contact(engine, "A1-buyer", silent, role="buyer")
    add_contact(engine, "A2-owner", mute, role="owner", email=None)
    add_contact(engine, "A2-buyer", mute, role="buyer")
    add_contact(engine, "A3-owner", gone, role="owner", email="Gone@shop.example")
    add_contact(engine, "A3-buyer", gone, role="buyer")
    with writing(engine) as connection:
        connection.execute(
            suppressions.insert().values(channel="email", address="gone@shop.example", reason="hard_bounce", at=NOW)
        )

    started(engine, workspace)

    assert ledger(engine, "state", "reason") == [("skipped", "account_limit"), ("planned", None)] * 3


def test_whole_accounts_are_held_out_by_a_lasting_draw(engine: Engine, tmp_path: Path) -> None:
    text = CAMPAIGN.replace("{segment: everybody}", '{segment: everybody, holdout: "30%"}')
    workspace = make_workspace(tmp_path, hello=text)
    names = {add_account(engine, f"A{number}"): f"A{number}" for number in range(60)}
    for account, name in names.items():
        for person in "xy":
            add_contact(engine, f"{name}{person}", account)
    alone = {add_contact(engine, f"alone{number}"): f"alone{number}" for number in range(40)}

    started(engine, workspace)

    drawn = {name for name in [*names.values(), *alone.values()] if held_out("hello", name, 0.3)}
    assert 15 < len(drawn) < 45
    with reading(engine) as connection:
        rows = connection.execute(
            select(enrollments.c.account_id, enrollments.c.contact_id, enrollments.c.held_out)
        ).all()
        kept = set(connection.execute(select(holdouts.c.account_id)).scalars())
        count = books(connection)
    assert all(row.held_out == ((names.get(row.account_id) or alone[row.contact_id]) in drawn) for row in rows)
    assert kept == {account for account, name in names.items() if name in drawn}
    assert count.held_out == sum(row.held_out for row in rows)
    assert count.balanced


def test_recipients_get_it_at_their_own_nine_o_clock_within_the_window(engine: Engine, tmp_path: Path) -> None:
    text = CAMPAIGN.replace(
        'schedule: {at: "2026-12-01 09:00"}',
        'schedule: {at: "2026-12-01 09:00", zone: recipient, window: {hours: "10:00-18:00", days: [tue, wed]}}',
    )
    workspace = make_workspace(tmp_path, hello=text)
    account = add_account(engine, "A1", timezone="America/New_York")
    zones = ["Asia/Tokyo", "Europe/London", None, "Mars/Base", ""]
    for number, zone in enumerate(zones):
        add_contact(engine, f"c{number}", account if zone is None else None, timezone=zone)
    apply(engine, workspace, None, now=NOW - timedelta(days=7))
    kiritimati = datetime(2026, 12, 1, 9, 0, tzinfo=ZoneInfo("Pacific/Kiritimati")).astimezone(UTC)

    assert fire_due(engine, workspace, now=kiritimati - timedelta(seconds=1)) == []
    assert len(fire_due(engine, workspace, now=kiritimati)) == 1

    def ten_in(zone: str) -> tuple[datetime]:
        return (datetime(2026, 12, 1, 10, 0, tzinfo=ZoneInfo(zone)).astimezone(UTC),)

    assert ledger(engine, "due_at") == [
        ten_in("Asia/Tokyo"),
        ten_in("Europe/London"),
        ten_in("America/New_York"),
        ten_in("Europe/London"),
        ten_in("Europe/London"),
    ]


def test_a_rate_spreads_the_messages_over_open_hours_and_keeps_waits(engine: Engine, tmp_path: Path) -> None:
    text = """\
    audience: {segment: everybody}
    schedule: {at: "2026-12-01 09:00", window: {hours: "09:00-11:00"}}
    rate: 60/hour
    steps:
      - email: hello
      - sms: nudge
        wait: 1d
    """
    workspace = make_workspace(tmp_path, hello=text)
    for number in range(150):
        add_contact(engine, f"c{number}")

    started(engine, workspace)

    first = [row.due_at for row in ledger(engine, "step", "due_at") if row.step == 1]
    second = [row.due_at for row in ledger(engine, "step", "due_at") if row.step == 2]
    assert first[:2] == [NOW, NOW + timedelta(minutes=1)]
    assert first[119:121] == [NOW + timedelta(minutes=119), NOW + timedelta(days=1)]
    assert all(9 <= due.hour < 11 for due in first + second)
    assert all(later - earlier >= timedelta(days=1) for earlier, later in zip(first, second, strict=True))
    for dues in (first, second):
        assert max(Counter(f"{due:%d %H}" for due in dues).values()) <= 60


def test_a_file_edited_after_apply_changes_nothing_until_applied_again(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, weekly=WEEKLY)
    add_contact(engine, "c1")
    apply(engine, workspace, None, now=NOW)
    put(tmp_path, "campaigns/weekly.yaml", WEEKLY.replace("email: hello", "sms: nudge"))
    put(tmp_path, "segments/everybody.yaml", "subject: contact\nwhere: {attribute: {name: role, eq: nobody}}\n")

    week = timedelta(weeks=1)
    fire_due(engine, workspace, now=NOW + week)
    assert ledger(engine, "channel") == [("email",)]
    applied = apply(engine, workspace, None, now=NOW + week)
    assert [(one.change, one.version) for one in applied] == [(Change.CHANGED, 2)]
    fire_due(engine, workspace, now=NOW + 2 * week)

    assert ledger(engine, "channel") == [("email",)]
    with reading(engine) as connection:
        versions = [run.version for run in list_runs(connection)]
        assert versions == [2, 1]
        assert books(connection).balanced


def test_a_changed_campaign_that_has_run_runs_again_only_for_a_time_still_ahead(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    add_contact(engine, "c1")
    started(engine, workspace)
    hour = timedelta(hours=1)

    put(tmp_path, "campaigns/hello.yaml", CAMPAIGN.replace("09:00", "09:30"))
    assert started(engine, workspace, now=NOW + hour) == []
    put(tmp_path, "campaigns/hello.yaml", CAMPAIGN.replace("09:00", "10:30"))
    assert started(engine, workspace, now=NOW + hour) == []
    assert len(fire_due(engine, workspace, now=NOW + 2 * hour)) == 1


def test_a_paused_campaign_does_not_fire_and_catches_up_when_resumed(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, weekly=WEEKLY)
    add_contact(engine, "c1")
    apply(engine, workspace, None, now=NOW)
    pause(engine, "weekly", now=NOW)
    later = NOW + timedelta(weeks=2)
    assert fire_due(engine, workspace, now=later) == []
    resume(engine, "weekly", now=later)
    assert [run.scheduled_for for run in fire_due(engine, workspace, now=later) if run.state is RunState.OPEN] == [
        later
    ]


def test_cancelling_skips_what_is_planned_and_leaves_what_was_sent(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    for number in range(3):
        add_contact(engine, f"c{number}")
    started(engine, workspace)
    with writing(engine) as connection:
        connection.execute(
            messages.update().where(messages.c.contact_id == 1).values(state=MessageState.SENT, sent_at=NOW)
        )

    assert cancel(engine, "hello", now=NOW) == 2

    assert ledger(engine, "state", "reason") == [("sent", None), *[("skipped", "cancelled")] * 2]
    with reading(engine) as connection:
        assert find_run(connection, "hello").state is RunState.CANCELLED
        assert books(connection).balanced


def test_what_comes_back_from_a_gateway_after_a_cancellation_is_skipped_too(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    for number in range(2):
        add_contact(engine, f"c{number}")
    started(engine, workspace)

    def set_state(before: MessageState, after: MessageState, claim: int | None) -> None:
        with writing(engine) as connection:
            moved = messages.update().where(messages.c.contact_id == 1, messages.c.state == before)
            connection.execute(moved.values(state=after, claim_id=claim))

    set_state(MessageState.PLANNED, MessageState.SENDING, 1)
    assert cancel(engine, "hello", now=NOW) == 1
    assert close_finished_runs(engine, NOW) == 0
    set_state(MessageState.SENDING, MessageState.PLANNED, None)
    assert close_finished_runs(engine, NOW) == 1
    assert ledger(engine, "state", "reason") == [("skipped", "cancelled")] * 2


def test_a_run_is_closed_when_every_message_has_ended(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    for number in range(2):
        add_contact(engine, f"c{number}")
    started(engine, workspace)
    with writing(engine) as connection:
        connection.execute(messages.update().where(messages.c.contact_id == 1).values(state=MessageState.SENT))
    assert close_finished_runs(engine, NOW) == 0
    with writing(engine) as connection:
        connection.execute(messages.update().where(messages.c.contact_id == 2).values(state=MessageState.IN_DOUBT))
    assert close_finished_runs(engine, NOW) == 1
    with reading(engine) as connection:
        assert connection.execute(select(runs.c.state, runs.c.finished_at)).one() == (RunState.DONE, NOW)


def test_one_campaign_that_cannot_fire_does_not_hold_up_the_others(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, broken=CAMPAIGN, hello=CAMPAIGN)
    add_contact(engine, "c1")
    apply(engine, workspace, None, now=NOW)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE campaign_versions SET segments = '{}' WHERE campaign_id = 1")

    with pytest.raises(Exception, match="campaign 'broken' cannot fire") as caught:
        fire_due(engine, workspace, now=NOW)

    assert type(caught.value).__name__ == "FiringFailed"
    with reading(engine) as connection:
        assert [run.campaign for run in list_runs(connection)] == ["hello"]
        reasons = dict(connection.execute(select(campaigns.c.name, campaigns.c.state_reason)).all())
    assert reasons["broken"].startswith("cannot fire: ")
    assert reasons["hello"] == ""
