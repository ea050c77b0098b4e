"""`plan` says what firing and sending will do, and writes nothing."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from campaigns.applying import Change, apply
from campaigns.books import books
from campaigns.firing import fire_due
from campaigns.planning import Plan, plan
from cli.campaign_words import print_plan
from store.engine import reading, writing
from store.tables import allowances, enrollments, messages, metadata, suppressions
from tests.integration.campaigning import (
    CAMPAIGN,
    NOW,
    SETTINGS,
    add_account,
    add_contact,
    add_order,
    deliver_due,
    make_workspace,
    put,
)

RICH = """\
audience:
  segment: [british, everybody]
  exclude: finance
  roles: [owner, buyer, finance]
  per_account: 2
  holdout: "20%"
schedule: {at: "2026-12-01 09:00", zone: recipient, window: {hours: "09:00-17:00", days: [mon, tue, wed, thu, fri]}}
rate: 60/hour
cost: {fixed: "120.00", per_email: "0.002"}
steps:
  - email: hello
  - email: hello
    wait: 1d
  - sms: nudge
    wait: 2d
"""
CAPPED = SETTINGS + "limits: {caps: [{channel: email, messages: 1, within: 2d}]}\n"


def only(plans: list[Plan]) -> Plan:
    assert len(plans) == 1
    return plans[0]


def crowd(engine: Engine) -> None:
    """About 150 people with everything that can be wrong with an address book."""
    for number in range(40):
        account = add_account(engine, f"A{number}", country="GB" if number % 3 else "DE", timezone="Europe/Berlin")
        for place, role in enumerate(("buyer", "owner", "finance", "buyer")):
            values: dict[str, object] = {"role": role, "phone": f"+4470000{number:03}{place}"}
            values["timezone"] = ("Asia/Tokyo", None, "America/New_York", "Europe/London")[(number + place) % 4]
            if number % 7 == place:
                values["email"] = "Shared@Shop.example" if number % 2 else "shared@shop.example"
            if number % 9 == place:
                values["email"] = "not an address"
            if number % 11 == place:
                values["phone"] = None
            consent = () if number % 5 == place else ("email", "sms")
            add_contact(engine, f"c{number}-{place}", account, consent=consent, **values)
        if number % 8 == 0:  # An account nobody of which has agreed.
            quiet = add_account(engine, f"Q{number}", country="GB", timezone="Europe/Berlin")
            add_contact(engine, f"q{number}", quiet, consent=(), role="buyer")
    with writing(engine) as connection:
        for number in (3, 4, 5):
            address = f"c{number}-1@shop.example"
            connection.execute(suppressions.insert().values(channel="email", address=address, reason="manual", at=NOW))


def fingerprint(engine: Engine) -> dict[str, str]:
    with reading(engine) as connection:
        return {
            table.name: hashlib.sha256(repr(sorted(map(repr, connection.execute(table.select())))).encode()).hexdigest()
            for table in metadata.sorted_tables
        }


def test_a_plan_is_what_firing_and_sending_then_do(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, settings=CAPPED, rich=RICH)
    crowd(engine)
    start = NOW - timedelta(days=1)

    planned = only(plan(engine, workspace, None, now=start))
    apply(engine, workspace, None, now=start)
    assert planned.run_at is not None
    now = planned.run_at
    assert len(fire_due(engine, workspace, now=now)) == 1
    for _ in range(14 * 96):
        deliver_due(engine, now)
        now += timedelta(minutes=15)

    with reading(engine) as connection:
        real = books(connection)
        sent = dict(
            connection.execute(
                select(messages.c.channel, func.count()).where(messages.c.state == "sent").group_by(messages.c.channel)
            ).all()
        )
    assert real.pending == 0
    assert (planned.audience, planned.people, planned.held_out) == (real.audience, real.people, real.held_out)
    assert planned.skipped == real.skipped
    assert planned.messages == sent
    assert set(planned.skipped) >= {"excluded", "account_limit", "no_consent", "invalid_address", "suppressed"}
    assert set(planned.skipped) >= {"duplicate_address", "frequency_cap", "no_address"}
    assert planned.audience == sum(planned.messages.values()) + sum(planned.skipped.values()) + planned.held_out


def test_a_plan_writes_nothing_and_waits_for_nobody(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, rich=RICH)
    put(tmp_path, "segments/british.yaml", "subject: account\nwhere: {rfm: {r: {gte: 1}}}\n")
    crowd(engine)
    for number in range(1, 30):
        add_order(engine, f"O{number}", number, NOW - timedelta(days=number * 9), 10_000 * number)
    before = fingerprint(engine)

    with writing(engine):
        # Somebody else writes all the while: on SQLite a plan that took the write lock would wait for ever.
        planned = only(plan(engine, workspace, None, now=NOW - timedelta(days=1)))

    assert planned.segments["british"] == 29
    assert fingerprint(engine) == before


def test_a_plan_sees_the_scores_that_firing_will_compute(engine: Engine, tmp_path: Path) -> None:
    text = CAMPAIGN.replace("everybody", "champions")
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    put(tmp_path, "segments/champions.yaml", "subject: account\nwhere: {rfm: {segment: [champions, hibernating]}}\n")
    put(tmp_path, "campaigns/hello.yaml", text)
    for number in range(20):
        account = add_account(engine, f"A{number}")
        add_contact(engine, f"c{number}", account)
        for order in range(number // 4 + 1):
            at = NOW - timedelta(days=400 - 19 * number - order)
            add_order(engine, f"O{number}-{order}", account, at, 1000 * (number + 1))

    planned = only(plan(engine, workspace, None, now=NOW))
    apply(engine, workspace, None, now=NOW)
    fired = fire_due(engine, workspace, now=NOW)

    assert 0 < planned.people < 20
    assert planned.people == fired[0].people
    with reading(engine) as connection:
        groups = set(connection.execute(select(enrollments.c.rfm_segment)).scalars())
    assert groups == {"champions", "hibernating"}


def test_a_plan_tells_days_channels_cost_and_a_sample(engine: Engine, tmp_path: Path) -> None:
    text = """\
    audience: {segment: everybody}
    schedule: {at: "2026-12-01 23:30"}
    cost: {fixed: "10.00", per_email: "0.002"}
    steps:
      - email: hello
      - sms: nudge
        wait: 1d
    """
    workspace = make_workspace(tmp_path, hello=text)
    for number in range(100):
        add_contact(engine, f"c{number}", phone=f"+44700000{number:03}")

    planned = only(plan(engine, workspace, None, now=NOW))

    assert planned.messages == {"email": 100, "sms": 100}
    assert planned.per_day == {"2026-12-01": {"email": 100}, "2026-12-02": {"sms": 100}}
    assert planned.estimate.sms_parts == 100
    assert planned.estimate.cost == {"GBP": 1000 + 20 + 500}
    assert planned.first_send_at == NOW.replace(hour=23, minute=30)
    assert planned.last_send_at == NOW.replace(day=2, hour=23, minute=30)
    assert planned.sample is not None
    assert planned.sample.subject == "Hello c0"
    assert "Hello c0" in planned.sample.text


def test_a_plan_says_what_changed_and_whether_anything_comes(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    add_contact(engine, "c1")
    assert only(plan(engine, workspace, None, now=NOW)).state is Change.NEW
    apply(engine, workspace, None, now=NOW)
    assert only(plan(engine, workspace, None, now=NOW)).state is Change.UNCHANGED
    put(tmp_path, "campaigns/hello.yaml", CAMPAIGN.replace("- email: hello", "- sms: nudge"))
    put(tmp_path, "templates/nudge.txt", "Hi!\n")
    changed = only(plan(engine, workspace, None, now=NOW))
    assert changed.state is Change.CHANGED
    assert "steps[1].email: hello → nothing" in changed.changes
    assert "template nudge.txt added" in changed.changes

    fire_due(engine, workspace, now=NOW)
    after = only(plan(engine, workspace, None, now=NOW))
    assert (after.run_at, after.people, after.messages) == (None, 0, {})
    assert any("no run is to come" in note for note in after.warnings)


def test_a_plan_warns_of_an_audience_that_gets_nothing(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    empty = only(plan(engine, workspace, None, now=NOW))
    assert "segment 'everybody' has no members" in empty.warnings
    add_contact(engine, "c1", consent=())
    silent = only(plan(engine, workspace, None, now=NOW))
    assert silent.skipped == {"no_consent": 1}
    assert "nobody would get anything" in silent.warnings


RENEWED = "the others wait until it is renewed"


def people(engine: Engine, count: int, **values: object) -> None:
    account = add_account(engine, "A1", country="GB")
    for number in range(count):
        add_contact(engine, f"c{number}", account, phone=f"+4479000{number:05}", **values)


def test_a_plan_says_how_long_a_quota_takes_and_whom_it_makes_too_late(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SETTINGS.replace("tls: none}", "tls: none, quota: 10/day}")
    workspace = make_workspace(tmp_path, settings=settings, hello=CAMPAIGN + "limits: {max_age: 2d}\n")
    people(engine, 45)
    with writing(engine) as connection:
        connection.execute(allowances.insert().values(key="quota:relay:2026-12-01", used=4))
    found = only(plan(engine, workspace, None, now=NOW))
    (pace,) = found.pace
    # 6 on the first day, then at midnight 10, 10, 10 and 9.
    assert (pace.gateway, pace.messages, pace.limits) == ("relay", 45, ("quota 10/day",))
    assert pace.starts_at == datetime(2026, 12, 1, 9, tzinfo=UTC)
    assert pace.ends_at == datetime(2026, 12, 5, tzinfo=UTC)
    assert pace.too_late == 45 - 6 - 10 - 10
    late = "19 of 45 messages by relay (quota 10/day) would be skipped (too_late)"
    assert any(note.startswith(late) for note in found.warnings), found.warnings
    fit = "by relay (quota 10/day) the run does not fit into one day: it ends 4 days later than scheduled"
    assert fit in found.warnings
    print_plan(found)
    assert "by relay (quota 10/day) 45 messages take 4 days, until 2026-12-05 00:00 UTC" in capsys.readouterr().out


def test_a_rate_that_does_not_fit_into_the_window_is_warned_of(engine: Engine, tmp_path: Path) -> None:
    settings = SETTINGS.replace("tls: none}", "tls: none, rate: 10/hour}")
    window = CAMPAIGN.replace('"2026-12-01 09:00"', '"2026-12-01 09:00", window: {hours: "09:00-11:00"}')
    workspace = make_workspace(tmp_path, settings=settings, hello=window)
    people(engine, 45)
    found = only(plan(engine, workspace, None, now=NOW))
    (pace,) = found.pace
    assert pace.ends_at == datetime(2026, 12, 3, 9, 30, tzinfo=UTC)
    assert pace.too_late == 0
    fit = "does not fit into the window 09:00-11:00 of one day: it ends 2 days later than scheduled"
    assert f"by relay (rate 10/hour) the run {fit}" in found.warnings


def test_a_campaign_s_own_rate_that_does_not_fit_into_the_window_is_warned_of(engine: Engine, tmp_path: Path) -> None:
    window = CAMPAIGN.replace('"2026-12-01 09:00"', '"2026-12-01 09:00", window: {hours: "09:00-11:00"}')
    workspace = make_workspace(tmp_path, hello=window + "rate: 10/hour\n")
    people(engine, 45)
    found = only(plan(engine, workspace, None, now=NOW))
    fit = "step 1: at 10/hour 20 of 45 messages fit into the window 09:00-11:00 of one day; they take 3 days"
    assert fit in found.warnings


def test_a_warm_up_goes_day_by_day_and_a_route_shares_out(engine: Engine, tmp_path: Path) -> None:
    warm = 'tls: none, warmup: {start: "2026-12-01", first_day: 5, growth: 2, until: 1000}}'
    settings = SETTINGS.replace("tls: none}", warm)
    settings += "  fast: {type: smtp, host: 127.0.0.1, tls: none}\nroutes: {both: {gateways: {relay: 1, fast: 1}}}\n"
    workspace = make_workspace(tmp_path, settings=settings, hello=CAMPAIGN + "    gateway: both\n")
    people(engine, 70)
    (pace,) = only(plan(engine, workspace, None, now=NOW)).pace
    # 5, 10, and 20 on the third day.
    assert (pace.messages, pace.limits) == (35, ("warm-up since 2026-12-01",))
    assert pace.ends_at == datetime(2026, 12, 3, tzinfo=UTC)


def test_a_gateway_without_limits_has_no_pace_and_one_that_takes_years_no_end(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, hello=CAMPAIGN)
    people(engine, 370)
    assert only(plan(engine, workspace, None, now=NOW)).pace == ()
    slow = make_workspace(tmp_path, settings=SETTINGS.replace("tls: none}", "tls: none, quota: 1/day}"), hello=CAMPAIGN)
    found = only(plan(engine, slow, None, now=NOW))
    assert found.pace[0].ends_at is None
    assert "by relay (quota 1/day) the sending takes more than a year" in found.warnings


def test_a_plan_says_how_far_budgets_go(engine: Engine, tmp_path: Path) -> None:
    campaign = CAMPAIGN.replace("email: hello", "sms: nudge") + 'budget: {amount: "1.00"}\n'
    settings = SETTINGS + 'budget: {amount: "100", per: month}\n'
    workspace = make_workspace(tmp_path, settings=settings, hello=campaign)
    people(engine, 45)
    with writing(engine) as connection:
        connection.execute(allowances.insert().values(key="budget::2026-12", used=99_250_000))
    found = only(plan(engine, workspace, None, now=NOW))
    assert [(one.budget, one.messages, one.pays_for, one.pauses) for one in found.budgets] == [
        ("budget of GBP 100 a month for all campaigns", 45, 15, False),
        ("budget of GBP 1.00", 45, 20, True),
    ]
    assert found.warnings[-2:] == (
        f"the {found.budgets[0].budget} stops the run after about 15 of 45 SMS; {RENEWED}",
        "the budget of GBP 1.00 stops the run after about 20 of 45 SMS; then the campaign is paused",
    )


def test_a_role_that_nobody_has_is_warned_of(engine: Engine, tmp_path: Path) -> None:
    roles = CAMPAIGN.replace("{segment: everybody}", "{segment: everybody, roles: [byuer, buyer]}")
    workspace = make_workspace(tmp_path, hello=roles)
    people(engine, 2, role="buyer")
    notes = only(plan(engine, workspace, None, now=NOW)).warnings
    assert "audience.roles: no contact has the role 'byuer' (did you mean 'buyer'?)" in notes
