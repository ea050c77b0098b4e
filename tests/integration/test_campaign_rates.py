"""Rates at the moment of sending, shared by all workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy import Engine, func, select

from campaigns.rates import give_back, take
from kernel.quantities import Rate, parse_rate
from store.engine import reading, writing
from store.tables import rate_windows
from tests.integration.campaigning import NOW


def taken(engine: Engine, rate: Rate, wanted: int, now: datetime, key: str = "campaign:1") -> tuple[int, datetime]:
    with writing(engine) as connection:
        grant = take(connection, key, rate, wanted, now=now)
    return grant.granted, grant.next_at


def test_an_allowance_opens_bit_by_bit_and_never_exceeds_its_window(engine: Engine) -> None:
    rate = parse_rate("600/hour")
    assert taken(engine, rate, 1000, NOW) == (10, NOW + timedelta(minutes=1))
    assert taken(engine, rate, 5, NOW + timedelta(seconds=59)) == (0, NOW + timedelta(minutes=1))
    assert taken(engine, rate, 5, NOW + timedelta(minutes=1)) == (5, NOW + timedelta(minutes=1))
    assert taken(engine, rate, 1000, NOW + timedelta(minutes=59)) == (585, NOW + timedelta(hours=1))
    assert taken(engine, rate, 1, NOW + timedelta(minutes=59)) == (0, NOW + timedelta(hours=1))
    assert taken(engine, rate, 1, NOW + timedelta(hours=1)) == (1, NOW + timedelta(hours=1))


def test_a_slow_rate_lets_one_through_at_a_time(engine: Engine) -> None:
    rate = parse_rate("2/day")
    midnight = NOW.replace(hour=0)
    assert taken(engine, rate, 5, midnight) == (1, midnight + timedelta(hours=23, minutes=36))
    assert taken(engine, rate, 5, midnight + timedelta(hours=23, minutes=36))[0] == 1


def test_keys_have_allowances_of_their_own_and_old_windows_are_forgotten(engine: Engine) -> None:
    rate = parse_rate("10/second")
    for second in range(5):
        for key in ("lane:relay", "lane:texts"):
            assert taken(engine, rate, 10, NOW + timedelta(seconds=second), key)[0] == 10
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(rate_windows)).scalar_one() <= 4


def test_what_was_not_used_can_be_given_back(engine: Engine) -> None:
    rate = parse_rate("10/second")
    assert taken(engine, rate, 10, NOW)[0] == 10
    with writing(engine) as connection:
        give_back(connection, "campaign:1", rate, 4, now=NOW)
    assert taken(engine, rate, 10, NOW)[0] == 4
    with writing(engine) as connection:
        give_back(connection, "campaign:1", rate, 400, now=NOW)
    assert taken(engine, rate, 50, NOW)[0] == 10


def test_many_workers_together_get_no_more_than_one_would(engine: Engine) -> None:
    rate = parse_rate("100/second")
    with ThreadPoolExecutor(8) as workers:
        grants = list(workers.map(lambda _: taken(engine, rate, 7, NOW)[0], range(40)))
    assert sum(grants) == 100
