"""Warm-ups and retries: how much on which day, and when again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from campaigns.warmup import warmup_quota
from kernel.limits import Warmup
from workers.limits.retries import RetryPolicy, spread_of

WARMUP = Warmup(start="2026-11-01", first_day=200, growth=1.5, until=50_000)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
POLICY = RetryPolicy(first=timedelta(minutes=5), longest=timedelta(hours=4), attempts=8, max_age=timedelta(days=3))


@pytest.mark.parametrize(
    ("day", "quota"),
    [
        (date(2026, 10, 31), 0),
        (date(2026, 11, 1), 200),
        (date(2026, 11, 2), 300),
        (date(2026, 11, 3), 450),
        (date(2026, 11, 4), 675),
        (date(2026, 11, 5), 1_012),
        (date(2026, 11, 14), 38_923),
        (date(2026, 11, 15), None),
        (date(2099, 1, 1), None),
    ],
)
def test_a_warm_up_grows_day_by_day_until_there_is_no_limit(day: date, quota: int | None) -> None:
    assert warmup_quota(WARMUP, day) == quota


def test_a_warm_up_that_is_over_before_it_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match="until: 100 must be more than first_day: 100"):
        Warmup(start="2026-11-01", first_day=100, until=100)


@given(attempts=st.integers(0, 20), spread=st.floats(0, 0.999), asked=st.floats(0, 400_000))
def test_a_retry_comes_neither_too_soon_nor_too_late(attempts: int, spread: float, asked: float) -> None:
    again = POLICY.next_try(now=NOW, planned_for=NOW, attempts=attempts, spread=spread, at_least_s=asked)
    if attempts + 1 >= POLICY.attempts or asked > POLICY.max_age.total_seconds():
        assert again is None
        return
    assert again is not None
    wait = again - NOW
    assert max(POLICY.first, timedelta(seconds=asked)) <= wait <= POLICY.max_age
    assert wait <= max(min(POLICY.first * 2 ** (attempts + 1), POLICY.longest), timedelta(seconds=asked))


def test_a_chunk_that_was_put_off_comes_back_bit_by_bit() -> None:
    again = [
        POLICY.next_try(now=NOW, planned_for=NOW, attempts=2, spread=spread_of(number, 2), at_least_s=0)
        for number in range(1_000)
    ]
    quarters = [0] * 4
    for at in again:
        assert at is not None
        quarters[int((at - NOW - POLICY.first) / (timedelta(minutes=35) / 4))] += 1
    assert all(200 < count < 300 for count in quarters)


def test_the_next_try_draws_another_lot() -> None:
    lots = [[spread_of(number, attempts) for number in range(100)] for attempts in range(2)]
    assert all(0 <= lot < 1 for drawn in lots for lot in drawn)
    assert lots[0] != lots[1]
