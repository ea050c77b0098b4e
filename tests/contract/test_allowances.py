"""Quotas and budgets on both databases: taken whole, given back once, never overspent."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, func, select

from store.allowances import Allowance, Want, reserve, settle
from store.engine import reading, writing
from store.tables import allowances, reservations

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def allowance(key: str = "quota:relay:2026-11-21", limit: int = 10, renews_at: datetime | None = None) -> Allowance:
    return Allowance(key=key, limit=limit, reason="used up", renews_at=renews_at)


def take(engine: Engine, claim_id: int, units: dict[int, dict[str, int]], *limits: Allowance) -> list[int]:
    wants = [Want(message_id=message_id, units=needs) for message_id, needs in units.items()]
    with writing(engine) as connection:
        refused = reserve(connection, claim_id, wants, {one.key: one for one in limits}, now=NOW)
    return sorted(units.keys() - refused.keys())


def used(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        return {row.key: row.used for row in connection.execute(select(allowances))}


def test_a_message_takes_of_all_its_allowances_or_of_none(engine: Engine) -> None:
    day, month = allowance("day", 10), allowance("month", 25)
    needs = {number: {"day": 4, "month": 4} for number in range(1, 4)}
    assert take(engine, 1, needs, day, month) == [1, 2]
    assert used(engine) == {"day": 8, "month": 8}
    # A smaller one still fits; a larger one before it does not take its place away.
    assert take(engine, 2, {4: {"day": 3, "month": 3}, 5: {"day": 2, "month": 2}}, day, month) == [5]
    assert used(engine) == {"day": 10, "month": 10}


def test_what_was_not_spent_is_given_back_once(engine: Engine) -> None:
    one = allowance()
    taken = take(engine, 7, {number: {one.key: 1} for number in range(1, 13)}, one)
    assert len(taken) == 10
    with writing(engine) as connection:
        settle(connection, 7, {1: True, 2: False, 3: False})
        settle(connection, 7, {1: False, 2: False, 99: False})
    assert used(engine) == {one.key: 8}
    with writing(engine) as connection:
        settle(connection, 7, dict.fromkeys(range(1, 13), True))
        settle(connection, 7, dict.fromkeys(range(1, 13), False))
    assert used(engine) == {one.key: 8}
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(reservations)).scalar_one() == 0


def test_a_smaller_limit_than_what_is_used_lets_nothing_through(engine: Engine) -> None:
    assert take(engine, 1, {1: {"k": 8}}, allowance("k", 10)) == [1]
    assert take(engine, 2, {2: {"k": 1}}, allowance("k", 5)) == []
    assert take(engine, 3, {3: {"k": 1}}, allowance("k", 0)) == []


def test_what_others_have_taken_may_come_back(engine: Engine) -> None:
    one = allowance("k", 10)
    take(engine, 1, {1: {"k": 10}}, one)
    want = [Want(message_id=2, units={"k": 1})]
    with writing(engine) as connection:
        assert reserve(connection, 2, want, {"k": one}, now=NOW)[2].may_change
        settle(connection, 1, {1: True})
        assert not reserve(connection, 2, want, {"k": one}, now=NOW)[2].may_change


def test_periods_that_are_over_are_forgotten(engine: Engine) -> None:
    take(engine, 1, {1: {"yesterday": 1}}, allowance("yesterday", 5, NOW - timedelta(hours=12)))
    take(engine, 2, {2: {"ever": 1}}, allowance("ever", 5))
    take(engine, 3, {3: {"today": 1}}, allowance("today", 5, NOW + timedelta(hours=12)))
    assert used(engine) == {"ever": 1, "today": 1}


def test_eight_workers_taking_and_giving_back_never_overspend(engine: Engine) -> None:
    shared, own = allowance("shared", 100), allowance("own", 60)
    highest: list[int] = []

    def work(number: int) -> None:
        lot = random.Random(number)
        for turn in range(6):
            claim_id = number * 100 + turn
            first = claim_id * 100
            needs = {first + at: {"shared": lot.randint(1, 5), "own": lot.randint(1, 3)} for at in range(10)}
            taken = take(engine, claim_id, needs, shared, own)
            highest.append(max(used(engine).values(), default=0))
            with writing(engine) as connection:
                settle(connection, claim_id, {one: lot.random() < 0.2 for one in taken})

    workers = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(highest) == 48
    assert max(highest) <= 100
    assert used(engine)["own"] <= 60
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(reservations)).scalar_one() == 0
