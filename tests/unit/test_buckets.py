"""Token buckets as sums: no stretch of time sees more than the rate, and everybody gets a turn of his own."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.quantities import parse_rate
from workers.limits.buckets import HORIZON_MS, Ask, Flow, Level, flow_of, share_out


@given(
    rate=st.sampled_from(
        ["1/second", "3/second", "50/second", "999/second", "7/minute", "600/hour", "36000/hour", "2/day", "100000/day"]
    ),
    steps=st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 500)), min_size=1, max_size=60),
)
def test_no_stretch_of_time_sees_more_than_the_rate(rate: str, steps: list[tuple[float, int]]) -> None:
    limit = parse_rate(rate)
    per_ms = limit.per.total_seconds() * 1000
    flow = flow_of(limit, ahead_s=0.1)
    level: Level | None = None
    now = 0.0
    granted: list[tuple[float, int]] = []
    for share, wanted in steps:
        now += share * per_ms
        (turn,), (level,) = share_out([flow], [level], [Ask(count=wanted, buckets=(0,))], now)
        granted.append((now, turn.granted))
    times = [at for at, _ in granted]
    for position, (at, _) in enumerate(granted):
        inside = granted[bisect_left(times, at - per_ms + 1e-3) : position + 1]
        assert sum(count for _, count in inside) <= limit.count


def test_a_steady_queue_gets_the_whole_rate() -> None:
    flow = flow_of(parse_rate("36000/hour"))
    level: Level | None = None
    total = 0
    for tick in range(7_201):
        (turn,), (level,) = share_out([flow], [level], [Ask(count=500, buckets=(0,))], tick * 500.0)
        total += turn.granted
    assert 35_900 <= total <= 36_010


def test_who_is_over_gets_a_turn_of_his_own_after_all_turns_given() -> None:
    flow = Flow(per_ms=0.01, burst=10)
    (first, second), levels = share_out(
        [flow], [None], [Ask(count=30, buckets=(0,)), Ask(count=5, buckets=(0,))], 1_000.0
    )
    assert (first.granted, first.wait_ms, first.step_ms) == (10, pytest.approx(100), pytest.approx(100))
    assert (second.granted, second.wait_ms) == (0, pytest.approx(100 + 20 * 100))
    (later,), _ = share_out([flow], levels, [Ask(count=20, buckets=(0,))], 2_000.0)
    assert (later.granted, later.wait_ms) == (10, pytest.approx(100 + 25 * 100 - 1_000))


def test_turns_are_not_given_for_ever() -> None:
    flow = flow_of(parse_rate("1/day"))
    (turn, other), _ = share_out([flow], [None], [Ask(count=9, buckets=(0,)), Ask(count=1, buckets=(0,))], 0.0)
    assert (turn.granted, turn.wait_ms, other.wait_ms) == (1, HORIZON_MS, HORIZON_MS)


def test_the_tightest_of_several_buckets_decides_and_no_token_is_lost_to_the_others() -> None:
    lane, domain = Flow(per_ms=0.1, burst=100), Flow(per_ms=0.003, burst=3)
    asks = [Ask(count=50, buckets=(0, 1)), Ask(count=60, buckets=(0,))]
    turns, levels = share_out([lane, domain], [None, None], asks, 0.0)
    assert [turn.granted for turn in turns] == [3, 60]
    assert [level.tokens for level in levels] == [37, 0]


def test_a_second_ahead_keeps_rates_by_the_minute_and_longer_exactly_and_those_by_the_second_on_average() -> None:
    minute, second = flow_of(parse_rate("600/minute")), flow_of(parse_rate("50/second"))
    assert minute.burst + minute.per_ms * 60_000 == pytest.approx(601)
    assert (second.burst, second.per_ms) == (50, 0.05)
