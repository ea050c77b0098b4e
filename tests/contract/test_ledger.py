"""The ledger on both databases: claims, leases, fencing, outcomes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from kernel.clock import to_ms
from kernel.vocabulary import FailReason, SkipReason
from store.engine import reading, writing
from store.lanes import close_lane, open_lane
from store.ledger import (
    Claim,
    Ending,
    Outcome,
    UnsettledMessages,
    abandoned,
    claim,
    due_by_lane,
    fail,
    finish,
    lease_over,
    mark_sending,
    postpone,
    release,
    renew,
    sending_ids,
    skip,
)
from store.tables import campaigns, claims, messages
from tests.seeding import seed_messages, states

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def take(engine: Engine, limit: int = 10, lease: timedelta = MINUTE, lane: str = "relay") -> Claim | None:
    with writing(engine) as connection:
        return claim(connection, lane=lane, limit=limit, lease=lease, host="here", boot="b", recorder="/r")


def taken(engine: Engine, limit: int = 10, lease: timedelta = MINUTE) -> Claim:
    found = take(engine, limit, lease)
    assert found is not None
    return found


def outcome(message_id: int, ending: Ending, **more: object) -> Outcome:
    return Outcome(
        message_id=message_id, ending=ending, at_ms=to_ms(NOW), reply="250 ok", address="a@x.example", **more
    )  # type: ignore[arg-type]


def test_two_workers_never_claim_the_same_message(engine: Engine) -> None:
    seed_messages(engine, 60)
    found: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        while (mine := take(engine, 7)) is not None:
            with lock:
                found.extend(message.id for message in mine.messages)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    assert len(set(found)) == 60


def test_claims_take_the_oldest_first_and_nothing_that_is_not_due(engine: Engine) -> None:
    seed_messages(engine, 3, due_at=datetime.now(UTC) + timedelta(hours=1), name="later")
    seed_messages(engine, 3, due_at=datetime.now(UTC) - timedelta(hours=1), name="late")
    seed_messages(engine, 3, name="now")
    mine = taken(engine, 4)
    assert [message.planned_for < datetime.now(UTC) - timedelta(minutes=30) for message in mine.messages] == [
        True
    ] * 3 + [False]
    assert len(taken(engine).messages) == 2
    assert take(engine) is None


def test_paused_campaigns_keep_their_messages(engine: Engine) -> None:
    seed_messages(engine, 3)
    with writing(engine) as connection:
        connection.execute(update(campaigns).values(state="paused"))
        assert due_by_lane(connection) == {}
    assert take(engine) is None
    with writing(engine) as connection:
        connection.execute(update(campaigns).values(state="active"))
        assert due_by_lane(connection) == {"relay": 3}
    assert len(taken(engine).messages) == 3


def test_every_ending_is_written_and_the_claim_given_back(engine: Engine) -> None:
    seed_messages(engine, 8)
    mine = taken(engine)
    ids = [message.id for message in mine.messages]
    later = NOW + timedelta(hours=1)
    with writing(engine) as connection:
        skip(connection, mine.id, {ids[0]: SkipReason.NO_CONSENT}, NOW)
        fail(connection, mine.id, {ids[1]: (FailReason.TEMPLATE_ERROR, "boom")}, NOW)
        postpone(connection, mine.id, {ids[2]: later})
        assert mark_sending(connection, mine.id)
    with writing(engine) as connection:
        finish(
            connection,
            mine.id,
            [
                outcome(ids[3], Ending.ACCEPTED, gateway_id="g", parts=2, cost_micro=14),
                outcome(ids[4], Ending.REFUSED),
                outcome(ids[5], Ending.DEFERRED, retry_at=later),
                outcome(ids[6], Ending.IN_DOUBT),
                outcome(ids[7], Ending.UNTOUCHED),
            ],
        )
        rows = {row.id: row for row in connection.execute(select(messages))}
        assert connection.execute(select(claims)).all() == []
    got = {i: (rows[m].state, rows[m].reason, rows[m].attempts) for i, m in enumerate(ids)}
    assert got == {
        0: ("skipped", "no_consent", 0),
        1: ("failed", "template_error", 0),
        2: ("planned", None, 0),
        3: ("sent", None, 0),
        4: ("failed", "refused", 0),
        5: ("planned", None, 1),
        6: ("in_doubt", None, 0),
        7: ("planned", None, 0),
    }
    sent = rows[ids[3]]
    assert (sent.gateway_id, sent.parts, sent.cost_micro, sent.sent_at, sent.address) == (
        "g",
        2,
        14,
        NOW,
        "a@x.example",
    )
    assert rows[ids[5]].due_at == rows[ids[2]].due_at == later
    assert all(row.claim_id is None for row in rows.values())


def test_a_worker_whose_lease_ran_out_may_not_begin_to_send(engine: Engine) -> None:
    seed_messages(engine, 2)
    mine = taken(engine, lease=timedelta(0))
    with writing(engine) as connection:
        assert not mark_sending(connection, mine.id)
    assert states(engine) == {"claimed": 2}


def test_a_worker_that_lost_its_claim_writes_nothing(engine: Engine) -> None:
    seed_messages(engine, 1)
    old = taken(engine)
    message_id = old.messages[0].id
    with writing(engine) as connection:
        release(connection, old.id)
    new = taken(engine)
    assert new.id != old.id
    with writing(engine) as connection:
        assert not mark_sending(connection, old.id)
        assert mark_sending(connection, new.id)
        finish(connection, old.id, [outcome(message_id, Ending.ACCEPTED)])
        assert renew(connection, old.id, MINUTE) is None
    assert states(engine) == {"claimed": 1}
    with writing(engine) as connection:
        finish(connection, new.id, [outcome(message_id, Ending.REFUSED)])
    assert states(engine) == {"failed": 1}


def test_a_claim_is_not_given_back_with_messages_nobody_spoke_of(engine: Engine) -> None:
    seed_messages(engine, 2)
    mine = taken(engine)
    first, second = (message.id for message in mine.messages)
    with writing(engine) as connection:
        assert mark_sending(connection, mine.id)
        assert sending_ids(connection, mine.id) == {first, second}
        finish(connection, mine.id, [outcome(first, Ending.ACCEPTED)], last=False)
    with pytest.raises(UnsettledMessages), writing(engine) as connection:
        finish(connection, mine.id, [])
    with writing(engine) as connection:
        assert sending_ids(connection, mine.id) == {second}
        finish(connection, mine.id, [outcome(second, Ending.IN_DOUBT)])
        assert connection.execute(select(claims)).all() == []
    assert states(engine) == {"sent": 1, "in_doubt": 1}


def test_what_a_worker_of_an_earlier_version_held_is_found_too(engine: Engine) -> None:
    seed_messages(engine, 3)
    mine = taken(engine)
    first, *rest = [message.id for message in mine.messages]
    with writing(engine) as connection:
        connection.execute(update(claims).values(message_ids=None))
        assert mark_sending(connection, mine.id)
        finish(connection, mine.id, [outcome(first, Ending.ACCEPTED)], last=False)
        assert sending_ids(connection, mine.id) == set(rest)
        release(connection, mine.id)
        assert connection.execute(select(claims)).all() == []
    assert states(engine) == {"sent": 1, "planned": 2}


def test_no_index_names_what_a_claim_writes() -> None:
    """Else PostgreSQL would write every index of the table for it: docs/decisions/0017."""
    for index in messages.indexes:
        where = str(index.dialect_options["postgresql"]["where"])
        named = {column.name for column in index.columns} | {c for c in ("state", "claim_id") if c in where}
        assert not named & {"state", "claim_id"}, index.name


def test_fencing_tokens_are_never_used_again(engine: Engine) -> None:
    seed_messages(engine, 1)
    tokens = []
    for _ in range(3):
        mine = taken(engine)
        tokens.append(mine.id)
        with writing(engine) as connection:
            release(connection, mine.id)
    assert tokens == sorted(set(tokens))


def test_a_lease_is_renewed_on_the_databases_clock(engine: Engine) -> None:
    seed_messages(engine, 1)
    mine = taken(engine, lease=timedelta(0))
    with writing(engine) as connection:
        assert lease_over(connection, mine.id)
        assert renew(connection, mine.id, MINUTE) is not None
        assert not lease_over(connection, mine.id)


def test_a_host_sees_its_own_claims_at_once_and_others_after_the_grace(engine: Engine) -> None:
    seed_messages(engine, 2)
    mine = taken(engine, 1)
    with reading(engine) as connection:
        assert [c.id for c in abandoned(connection, "here")] == [mine.id]
        assert abandoned(connection, "elsewhere") == []
    with writing(engine) as connection:
        connection.execute(update(claims).values(lease_until=NOW - timedelta(days=365)))
        assert [c.foreign_grace_over for c in abandoned(connection, "elsewhere")] == [True]


def test_a_closed_lane_gives_nothing_out_until_its_time(engine: Engine) -> None:
    seed_messages(engine, 1)
    with writing(engine) as connection:
        waits = [
            close_lane(
                connection, "relay", reason="down", first_wait=timedelta(seconds=5), longest=timedelta(seconds=15)
            )
            for _ in range(3)
        ]
        assert waits == [timedelta(seconds=5), timedelta(seconds=10), timedelta(seconds=15)]
        assert due_by_lane(connection) == {}
    assert take(engine) is None
    with writing(engine) as connection:
        assert open_lane(connection, "relay")
        assert not open_lane(connection, "relay")
    assert len(taken(engine).messages) == 1
