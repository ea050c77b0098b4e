"""Recipients' clocks: windows, firing times, and the two odd hours of the year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.calendar import (
    Window,
    closes_at,
    earliest_send,
    fire_times,
    local_due,
    next_fire_time,
    on_wall,
    zone_named,
)
from campaigns.crontab import parse_cron, wall_clocks
from campaigns.schema import Schedule
from kernel.fields import WindowSpec

BERLIN = ZoneInfo("Europe/Berlin")
APIA = ZoneInfo("Pacific/Apia")
OFFICE = Window.of(WindowSpec(hours="08:00-18:00", days=["mon", "tue", "wed", "thu", "fri"]))
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Africa/Casablanca",
    "UTC",
)
INSTANTS = st.datetimes(
    datetime.fromisoformat("2011-01-01"), datetime.fromisoformat("2030-01-01"), timezones=st.just(UTC)
)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("due", "sent"),
    [
        ("2026-12-01 09:00", "2026-12-01 09:00"),
        ("2026-12-01 08:00", "2026-12-01 08:00"),
        ("2026-12-01 07:59", "2026-12-01 08:00"),
        ("2026-12-01 17:59", "2026-12-01 17:59"),
        ("2026-12-01 18:00", "2026-12-02 08:00"),
        ("2026-12-04 18:00", "2026-12-07 08:00"),
        ("2026-12-05 12:00", "2026-12-07 08:00"),
    ],
)
def test_a_message_leaves_in_the_next_open_hour(due: str, sent: str) -> None:
    assert earliest_send(berlin(due), BERLIN, OFFICE) == berlin(sent)


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="timezone-aware"):
        earliest_send(datetime(2026, 12, 1), BERLIN, OFFICE)  # noqa: DTZ001 - that is the point


def test_the_window_is_read_on_the_recipients_clock() -> None:
    due = datetime(2026, 12, 1, 9, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert earliest_send(due, BERLIN, OFFICE).astimezone(UTC) == datetime(2026, 12, 1, 7, 0, tzinfo=UTC)


def test_an_opening_that_the_clock_change_leaves_out_is_the_next_valid_minute() -> None:
    window = Window.of(WindowSpec(hours="02:30-05:00"))
    found = earliest_send(berlin("2026-03-29 01:00"), BERLIN, window)
    assert found.astimezone(UTC) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert found.astimezone(UTC).astimezone(BERLIN).hour == 3


def test_a_window_that_the_clock_change_swallows_opens_the_next_day() -> None:
    window = Window.of(WindowSpec(hours="02:10-02:50"))
    assert earliest_send(berlin("2026-03-29 00:00"), BERLIN, window) == berlin("2026-03-30 02:10")


def test_in_the_hour_that_comes_twice_the_window_is_open_both_times() -> None:
    window = Window.of(WindowSpec(hours="02:15-02:45"))
    first, second = datetime(2026, 10, 25, 0, 20, tzinfo=UTC), datetime(2026, 10, 25, 1, 20, tzinfo=UTC)
    assert earliest_send(first, BERLIN, window).astimezone(UTC) == first
    assert earliest_send(second, BERLIN, window).astimezone(UTC) == second
    between = datetime(2026, 10, 25, 0, 50, tzinfo=UTC)
    assert earliest_send(between, BERLIN, window).astimezone(UTC) == datetime(2026, 10, 25, 1, 15, tzinfo=UTC)


@given(
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    due=INSTANTS,
    opens=st.integers(0, 23 * 60),
    length=st.integers(1, 24 * 60),
    days=st.frozensets(st.integers(0, 6), min_size=1),
)
def test_a_message_never_leaves_early_nor_outside_its_window(
    zone: ZoneInfo, due: datetime, opens: int, length: int, days: frozenset[int]
) -> None:
    window = Window(opens=opens, closes=min(opens + length, 24 * 60), days=days)
    found = earliest_send(due, zone, window).astimezone(UTC)
    assert found >= due
    assert window.holds(found.astimezone(zone))
    assert earliest_send(found, zone, window).astimezone(UTC) == found
    closing = closes_at(found, zone, window)
    if closing is not None:
        assert closing > found
        assert window.holds((closing - timedelta(milliseconds=1)).astimezone(zone))


# --- firing ------------------------------------------------------------------------------------------------


def schedule(**keys: Any) -> Schedule:
    return Schedule.model_validate(keys)


def fired(keys: dict[str, Any], after: str, until: str) -> list[str]:
    times = fire_times(schedule(**keys), "UTC", datetime.fromisoformat(after), datetime.fromisoformat(until))
    assert all(one.utcoffset() == timedelta(0) for one in times)
    return [f"{one:%m-%d %H:%M}" for one in times]


def test_at_fires_once_at_its_wall_clock() -> None:
    keys = {"at": "2026-07-01 09:00", "zone": "Europe/Berlin"}
    assert fired(keys, "2026-01-01T00:00Z", "2027-01-01T00:00Z") == ["07-01 07:00"]
    assert fired(keys, "2026-07-01T07:00Z", "2027-01-01T00:00Z") == []
    assert fired(keys, "2026-01-01T00:00Z", "2026-07-01T07:00Z") == ["07-01 07:00"]


def test_cron_keeps_its_wall_clock_through_the_year() -> None:
    keys = {"cron": "0 9 1 * *", "zone": "Europe/Berlin", "from": "2026-03-01", "until": "2026-05-01"}
    assert fired(keys, "2026-01-01T00:00Z", "2027-01-01T00:00Z") == ["03-01 08:00", "04-01 07:00", "05-01 07:00"]


def test_a_time_left_out_by_the_clock_change_fires_at_the_next_valid_minute_once() -> None:
    keys = {"cron": "30 2 * * *", "zone": "Europe/Berlin"}
    assert fired(keys, "2026-03-28T12:00Z", "2026-03-30T12:00Z") == ["03-29 01:00", "03-30 00:30"]
    often = {"cron": "*/20 * * * *", "zone": "Europe/Berlin"}
    assert fired(often, "2026-03-29T00:40Z", "2026-03-29T01:20Z") == ["03-29 01:00", "03-29 01:20"]


def test_a_time_that_comes_twice_fires_once() -> None:
    keys = {"cron": "30 2 * * *", "zone": "Europe/Berlin"}
    assert fired(keys, "2026-10-24T12:00Z", "2026-10-26T12:00Z") == ["10-25 00:30", "10-26 01:30"]


def test_asking_in_small_steps_gives_the_same_times_as_asking_at_once() -> None:
    keys = {"cron": "*/10 1-3 * * *", "zone": "Europe/Berlin"}
    for day in ("2026-03-29", "2026-10-25"):
        start = datetime.fromisoformat(f"{day}T00:00Z") - timedelta(hours=3)
        whole = fire_times(schedule(**keys), "UTC", start, start + timedelta(hours=9))
        steps = [start + timedelta(minutes=3) * number for number in range(181)]
        parts = [one for first, last in pairwise(steps) for one in fire_times(schedule(**keys), "UTC", first, last)]
        assert parts == whole


def test_recipients_own_zones_fire_when_the_first_zone_on_earth_is_there() -> None:
    keys = {"at": "2026-12-01 09:00", "zone": "recipient"}
    assert fired(keys, "2026-01-01T00:00Z", "2027-01-01T00:00Z") == ["11-30 19:00"]
    slot = datetime(2026, 11, 30, 19, 0, tzinfo=UTC)
    assert local_due(schedule(**keys), slot, ZoneInfo("Pacific/Honolulu")) == datetime(2026, 12, 1, 19, 0, tzinfo=UTC)


def test_the_next_firing_is_none_after_the_last_day() -> None:
    ended = schedule(cron="0 9 * * *", until="2026-01-31")
    assert next_fire_time(ended, "UTC", datetime(2026, 2, 1, tzinfo=UTC)) is None
    leap = schedule(cron="0 9 29 2 *")
    assert next_fire_time(leap, "UTC", datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, 9, tzinfo=UTC)


def test_the_day_samoa_left_out_is_passed_over() -> None:
    assert on_wall(datetime(2011, 12, 30, 9, 0), APIA).date() == date(2011, 12, 31)  # noqa: DTZ001 - a wall clock


def test_a_zone_that_does_not_exist_counts_as_unknown() -> None:
    assert zone_named("Mars/Base", "Europe/Berlin") == BERLIN
    assert zone_named(None, "Europe/Berlin") == BERLIN
    assert zone_named("../../etc/passwd", "Europe/Berlin") == BERLIN


# --- crontab -----------------------------------------------------------------------------------------------


def days_of(expression: str) -> list[str]:
    clocks = wall_clocks(expression, datetime(2026, 2, 28, 23, 59), datetime(2026, 3, 7, 23, 59))  # noqa: DTZ001
    return [f"{one:%a}".lower() for one in clocks]


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", ["sun"]),
        ("7", ["sun"]),
        ("1", ["mon"]),
        ("1-5", ["mon", "tue", "wed", "thu", "fri"]),
        ("5-7", ["sun", "fri", "sat"]),
        ("fri-mon", ["sun", "mon", "fri", "sat"]),
        ("mon,wed", ["mon", "wed"]),
        ("*/3", ["sun", "wed", "sat"]),
        ("1-5/2", ["mon", "wed", "fri"]),
        ("MON", ["mon"]),
    ],
)
def test_weekdays_are_those_of_cron(field: str, days: list[str]) -> None:
    assert days_of(f"0 9 * * {field}") == days


def test_either_day_field_matches_where_both_are_given() -> None:
    assert days_of("0 9 2 * wed") == ["mon", "wed"]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "0 9 * *",
        "0 9 * * mon extra",
        "60 9 * * *",
        "0 24 * * *",
        "0 9 32 * *",
        "0 9 * * 8",
        "0 9 * * mo",
        "0 9 30 2 *",
    ],
)
def test_what_cron_does_not_know_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"cron expression|weekday|never comes"):
        parse_cron(expression)
