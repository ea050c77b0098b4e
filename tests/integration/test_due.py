"""What is due in a lane: run by run, by age; and no run is closed over a message that is planned again meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, event, select, update

from campaigns.control import close_finished_runs
from kernel.clock import to_ms
from store.doubts import Settlement, settle
from store.due import waiting_runs
from store.engine import reading, writing
from store.ledger import Claim, claim, due_in_lane
from store.tables import campaigns, messages, runs
from tests.acceptance.processes import wait_for
from tests.seeding import seed_messages

NOW = datetime.now(UTC)
AN_HOUR_AGO = NOW - timedelta(hours=1)


def claimed(engine: Engine, limit: int, lane: str = "relay") -> Claim | None:
    with writing(engine) as connection:
        lease = timedelta(minutes=1)
        return claim(connection, lane=lane, limit=limit, lease=lease, host="h", boot="b", recorder="r")


def due_at(engine: Engine, when: datetime, *ids: int) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id.in_(ids)).values(due_at=when))


def set_state(engine: Engine, campaign: str, state: str) -> None:
    with writing(engine) as connection:
        connection.execute(update(campaigns).where(campaigns.c.name == campaign).values(state=state))


def test_runs_go_by_their_oldest_message_and_messages_by_age(engine: Engine) -> None:
    seed_messages(engine, 3, name="first", due_at=AN_HOUR_AGO)  # 1 to 3
    seed_messages(engine, 3, name="second", due_at=AN_HOUR_AGO)  # 4 to 6
    due_at(engine, AN_HOUR_AGO - timedelta(minutes=5), 5)
    due_at(engine, AN_HOUR_AGO + timedelta(minutes=5), 1)
    due_at(engine, NOW + timedelta(hours=1), 6)
    found = claimed(engine, 4)
    assert found is not None
    assert [message.id for message in found.messages] == [5, 4, 2, 3]
    assert [message.campaign_id for message in found.messages] == [2, 2, 1, 1]
    assert [message.version_id for message in found.messages] == [2, 2, 1, 1]
    rest = claimed(engine, 4)
    assert rest is not None
    assert [message.id for message in rest.messages] == [1]
    assert claimed(engine, 4) is None


def test_a_paused_backlog_is_not_asked_for(engine: Engine) -> None:
    seed_messages(engine, 5, name="paused", due_at=AN_HOUR_AGO)
    active = seed_messages(engine, 3, name="active")
    seed_messages(engine, 2, name="elsewhere", lane="another", due_at=AN_HOUR_AGO)
    set_state(engine, "paused", "paused")
    asked: list[object] = []

    def note(_conn: object, _cursor: object, statement: str, parameters: object, *_rest: object) -> None:
        if "messages.step" in statement:
            asked.append(parameters)

    event.listen(engine, "before_cursor_execute", note)
    with reading(engine) as connection:
        assert [run.id for run in waiting_runs(connection, "relay", now_ms=to_ms(datetime.now(UTC)))] == [active]
        assert due_in_lane(connection, "relay", most=10) == 3
    found = claimed(engine, 10)
    assert found is not None
    assert {message.run_id for message in found.messages} == {active}
    assert len(asked) == 1
    set_state(engine, "paused", "active")
    found = claimed(engine, 10)
    assert found is not None
    assert len(found.messages) == 5


def in_doubt_alone(engine: Engine) -> int:
    """Leave one message, in doubt, in an open run; return the run's id."""
    run_id = seed_messages(engine, 1)
    with writing(engine) as connection:
        ended = {"state": "in_doubt", "sent_at": AN_HOUR_AGO, "ended_at": AN_HOUR_AGO}
        connection.execute(update(messages).values(**ended, address="a@customer.example"))
    return run_id


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work)
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()


def waits_for_a_lock(engine: Engine) -> bool:
    with reading(engine) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.exec_driver_sql(query).scalar_one())


def test_a_run_is_not_closed_over_a_message_that_is_just_planned_again(postgres_engine: Engine) -> None:
    """SQLite's writers exclude each other anyway."""
    run_id = in_doubt_alone(postgres_engine)
    closed: list[int] = []
    with writing(postgres_engine) as connection:
        assert settle(connection, 1, Settlement.RESEND, at=AN_HOUR_AGO, words="by ann")
        with in_background(lambda: closed.append(close_finished_runs(postgres_engine, NOW))):
            wait_for(lambda: waits_for_a_lock(postgres_engine), "the closing to wait for the settling")
            connection.commit()
    assert closed == [0]
    found = claimed(postgres_engine, 5)
    assert found is not None
    assert found.messages[0].run_id == run_id


def test_a_run_that_was_just_closed_is_open_again_with_its_message(postgres_engine: Engine) -> None:
    run_id = in_doubt_alone(postgres_engine)

    def plan_again() -> None:
        with writing(postgres_engine) as other:
            assert settle(other, 1, Settlement.RESEND, at=AN_HOUR_AGO, words="by ann")

    with writing(postgres_engine) as connection:
        connection.execute(select(runs.c.id).where(runs.c.id == run_id).with_for_update())
        with in_background(plan_again):
            wait_for(lambda: waits_for_a_lock(postgres_engine), "the settling to wait for the closing")
            connection.execute(update(runs).values(state="done", finished_at=NOW))
            connection.commit()
    with reading(postgres_engine) as connection:
        assert connection.execute(select(runs.c.state, runs.c.finished_at)).one() == ("open", None)
    assert claimed(postgres_engine, 5) is not None
