"""Due times of whole runs, as a few pieces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from campaigns.calendar import Window
from campaigns.placing import Piece, place
from campaigns.schema import CampaignSpec
from kernel.clock import from_ms
from kernel.fields import WindowSpec

START = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
INSTANTS = st.datetimes(
    datetime.fromisoformat("2026-01-01"), datetime.fromisoformat("2027-01-01"), timezones=st.just(UTC)
)


def spec(steps: list[dict[str, Any]] | None = None, rate: str | None = None, **schedule: Any) -> CampaignSpec:
    return CampaignSpec.model_validate(
        {
            "audience": {"segment": "everybody"},
            "schedule": {"at": "2026-12-01 09:00", "zone": "UTC", "default_zone": "UTC", **schedule},
            "steps": steps or [{"email": "hello"}],
            "rate": rate,
        }
    )


def dues(pieces: list[Piece], zone: str, step: int) -> list[datetime]:
    """Lay out every number of a zone and step."""
    found: list[datetime] = []
    for piece in pieces:
        if (piece.zone, piece.step) == (zone, step):
            assert piece.first == len(found)
            found += [
                from_ms(round(piece.start_ms + number * piece.interval_ms))
                for number in range(piece.until - piece.first)
            ]
    return found


def test_without_a_rate_everybody_of_a_zone_is_due_at_once() -> None:
    pieces = place(spec(), {"UTC": 1_000_000}, scheduled_for=START, now=START)
    assert [(piece.first, piece.until, from_ms(piece.start_ms)) for piece in pieces] == [(0, 1_000_000, START)]


def test_a_run_that_fires_late_starts_when_it_fires() -> None:
    now = START + timedelta(days=3)
    (piece,) = place(spec(), {"UTC": 1}, scheduled_for=START, now=now)
    assert from_ms(piece.start_ms) == now


def test_zones_share_the_rate_by_their_size() -> None:
    pieces = place(spec(rate="60/hour"), {"Europe/Berlin": 30, "UTC": 90}, scheduled_for=START, now=START)
    assert dues(pieces, "Europe/Berlin", 1)[1] - START == timedelta(minutes=4)
    assert dues(pieces, "UTC", 1)[3] - START == timedelta(minutes=4)
    assert max(dues(pieces, "UTC", 1)) < START + timedelta(hours=2)


def test_a_zone_where_nobody_is_sent_to_still_has_a_place() -> None:
    assert len(dues(place(spec(rate="1/day"), {"UTC": 0}, scheduled_for=START, now=START), "UTC", 1)) == 1


@given(
    count=st.integers(1, 300),
    rate=st.sampled_from([None, "1/day", "7/hour", "60/hour", "10/minute", "100/second"]),
    waits=st.lists(st.sampled_from(["0s", "45min", "1d", "3d"]), min_size=1, max_size=3),
    hours=st.sampled_from(["00:00-24:00", "08:00-18:00", "23:30-24:00", "01:00-03:00"]),
    zone=st.sampled_from(["Europe/Berlin", "Pacific/Apia", "America/St_Johns"]),
    start=INSTANTS,
)
def test_nobodys_wait_is_cut_short_nobodys_window_left_and_the_rate_is_kept(
    count: int, rate: str | None, waits: list[str], hours: str, zone: str, start: datetime
) -> None:
    window = WindowSpec(hours=hours, days=["mon", "wed", "thu", "sun"])
    steps: list[dict[str, Any]] = [{"email": "hello", "wait": wait} for wait in waits]
    campaign = spec(steps, rate, window=window)
    pieces = place(campaign, {zone: count}, scheduled_for=start, now=start)
    lengths = {"0s": timedelta(0), "45min": timedelta(minutes=45), "1d": timedelta(days=1), "3d": timedelta(days=3)}
    apart = {None: 0.0, "1/day": 86_400, "7/hour": 3600 / 7, "60/hour": 60, "10/minute": 6, "100/second": 0.01}[rate]

    earlier = [start - timedelta(milliseconds=1)] * count
    for number, wait in enumerate(waits, start=1):
        found = dues(pieces, zone, number)
        assert len(found) == count
        assert all(
            due - before >= lengths[wait] - timedelta(milliseconds=2)
            for due, before in zip(found, earlier, strict=True)
        )
        assert all(Window.of(window).holds(due.astimezone(ZoneInfo(zone))) for due in found)
        gaps = [(later - due).total_seconds() for due, later in pairwise(found)]
        assert all(gap >= apart - 0.002 for gap in gaps)
        earlier = found
