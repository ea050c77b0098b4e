"""Stays in segments, and the lock that keeps refreshes apart."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from segments import snapshots
from segments.snapshots import drop_stays, members_at, present_members, write_stays
from store.engine import open_database, reading, writing
from store.guard import Writer, alone
from store.tables import segment_members, segments

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    with writing(engine) as connection:
        values = {"id": 1, "name": "a", "subject": "account", "definition": {}, "digest": "", "size": 0}
        connection.execute(segments.insert(), [values, {**values, "id": 2, "name": "b"}])
    with alone(engine, "segments", patience_s=0) as given_writer:
        assert given_writer is not None
        yield given_writer


def ids(values: Any) -> Any:
    return np.array(sorted(values), dtype=np.int64)


def at_instants(engine: Engine, instants: list[datetime]) -> list[set[int]]:
    with reading(engine) as connection:
        return [set(connection.execute(members_at(1, at)).scalars()) for at in instants]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(memberships=st.lists(st.sets(st.integers(1, 9)), min_size=1, max_size=6))
def test_the_members_of_every_hour_can_be_told_later(
    engine: Engine, writer: Writer, memberships: list[set[int]]
) -> None:
    drop_stays(writer, 1)
    before: set[int] = set()
    for hour, members in enumerate(memberships):
        at = START + hour * HOUR
        write_stays(writer, 1, entered=ids(members - before), left=ids(before - members), at=at)
        before = members
    hours = [START + hour * HOUR for hour in range(len(memberships))]
    assert at_instants(engine, hours) == memberships
    assert at_instants(engine, [hour + HOUR / 2 for hour in hours]) == memberships
    with reading(engine) as connection:
        assert present_members(connection, 1).tolist() == sorted(before)
        assert present_members(connection, 1, only=ids([2, 3, 50])).tolist() == sorted(before & {2, 3})
        assert present_members(connection, 2).tolist() == []
        assert connection.execute(select(segments.c.size).where(segments.c.id == 1)).scalar_one() == len(before)


def test_many_are_written_in_slices_of_short_transactions(
    engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "ROWS_PER_COMMIT", 400)
    opened = 0

    def counting() -> Any:
        nonlocal opened
        opened += 1
        return writer()

    write_stays(counting, 1, entered=ids(range(1, 1001)), left=ids([]), at=START)
    assert opened == 3
    write_stays(counting, 1, entered=ids([]), left=ids(range(1, 801)), at=START + HOUR)
    assert opened == 5
    with reading(engine) as connection:
        assert present_members(connection, 1).tolist() == list(range(801, 1001))


def test_stays_of_one_segment_leave_those_of_another_alone(engine: Engine, writer: Writer) -> None:
    for segment in (1, 2):
        write_stays(writer, segment, entered=ids([1, 2]), left=ids([]), at=START)
    write_stays(writer, 1, entered=ids([]), left=ids([1]), at=START + HOUR)
    drop_stays(writer, 1)
    with reading(engine) as connection:
        rows = connection.execute(select(segment_members.c.segment_id, segment_members.c.subject_id)).all()
    assert {tuple(row) for row in rows} == {(2, 1), (2, 2)}


def test_stays_are_dropped_in_slices_and_the_size_moves_with_each(
    engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "ROWS_PER_COMMIT", 4)
    write_stays(writer, 1, entered=ids(range(1, 11)), left=ids([]), at=START)
    write_stays(writer, 1, entered=ids([]), left=ids([2, 3]), at=START + HOUR)
    write_stays(writer, 1, entered=ids([3]), left=ids([]), at=START + 2 * HOUR)
    sizes = []

    @contextmanager
    def measured() -> Iterator[Any]:
        with writer() as connection:
            yield connection
            open_ = select(func.count()).where(segment_members.c.segment_id == 1, segment_members.c.valid_to.is_(None))
            size = connection.execute(select(segments.c.size).where(segments.c.id == 1)).scalar_one()
            assert size == connection.execute(open_).scalar_one()
            sizes.append(size)

    drop_stays(measured, 1)
    assert sizes == [7, 3, 0, 0]


# --- the lock ------------------------------------------------------------------------------------------------


def test_the_lock_is_held_by_one_at_a_time_and_by_name(engine: Engine) -> None:
    with alone(engine, "a", patience_s=0) as first, alone(engine, "b", patience_s=0) as other:
        assert first is not None
        assert other is not None
        with alone(engine, "a", patience_s=0.3) as second:
            assert second is None
    # PostgreSQL lets go a moment after the connection is closed.
    with alone(engine, "a", patience_s=5.0) as again:
        assert again is not None


def test_an_error_lets_go_of_the_lock(engine: Engine) -> None:
    def failing() -> None:
        with alone(engine, "a", patience_s=0):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    with alone(engine, "a", patience_s=2.0) as again:
        assert again is not None


def _hold(url: str, held: Any) -> None:
    engine = open_database(url)
    with alone(engine, "a", patience_s=0):
        held.set()
        time.sleep(60)


def test_a_killed_process_lets_go_of_the_lock(engine: Engine, database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(database_url, held), daemon=True)
    process.start()
    assert held.wait(30)
    with alone(engine, "a", patience_s=0) as mine:
        assert mine is None
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with alone(engine, "a", patience_s=10.0) as mine:
        assert mine is not None


def test_what_is_written_under_the_lock_is_committed_or_rolled_back_as_a_whole(engine: Engine, writer: Writer) -> None:
    def failing() -> None:
        with writer() as connection:
            connection.execute(segments.update().values(size=7))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    with reading(engine) as connection:
        assert set(connection.execute(select(segments.c.size)).scalars()) == {0}
