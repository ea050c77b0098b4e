"""Every try that was not a plain acceptance is kept, in the transaction of its outcome, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from kernel.clock import to_ms
from store.attempts import write_attempts
from store.engine import reading, writing
from store.ledger import Ending, Outcome, claim
from store.tables import message_attempts, messages
from tests.integration.test_drain import abandon, make_workspace, run
from tests.seeding import SPEC, seed_messages, states
from tests.servers.smtp_sink import Sink, SinkServer
from workers.drain import Drain
from workers.recovery import recover

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def drain(engine: Engine, tmp_path: Path) -> Iterator[Drain]:
    with SinkServer(Sink()) as server:
        made = Drain(engine, make_workspace(tmp_path, server.port))
        yield made
        made.close()


def kept(engine: Engine, *columns: str) -> list[tuple[Any, ...]]:
    with reading(engine) as connection:
        chosen = [message_attempts.c[name] for name in columns]
        query = select(*chosen).order_by(message_attempts.c.message_id, message_attempts.c.number)
        return [tuple(row) for row in connection.execute(query)]


def come_due(engine: Engine) -> None:
    with writing(engine) as connection:
        waiting = messages.c.state == "planned"
        connection.execute(update(messages).where(waiting).values(due_at=datetime.now(UTC) - timedelta(seconds=1)))


def test_a_plain_acceptance_writes_no_attempt(engine: Engine, drain: Drain) -> None:
    seed_messages(engine, 3)
    run(drain)
    assert states(engine) == {"sent": 3}
    assert kept(engine, "message_id") == []


def test_each_deferral_is_kept_with_its_code_and_its_next_try(engine: Engine, drain: Drain) -> None:
    seed_messages(engine, 1, address="rcpt450+{n}@customer.example", spec={**SPEC, "limits": {"max_attempts": 2}})
    run(drain)
    come_due(engine)
    run(drain)
    assert states(engine) == {"failed": 1}
    assert kept(engine, "number", "ending", "code", "enhanced", "lane", "recovered") == [
        (1, "deferred", 450, "4.2.1", "relay", False),
        (2, "refused", 450, "4.2.1", "relay", False),
    ]
    [(first, first_retry), (second, second_retry)] = kept(engine, "at", "retry_at")
    assert first < second
    assert timedelta(minutes=1) < first_retry - first < timedelta(minutes=15)
    assert second_retry is None
    [one, other] = kept(engine, "claim_id", "reply")
    assert one[0] != other[0]
    assert "450 4.2.1 try later" in one[1]


def test_a_refusal_and_a_lost_answer_are_kept(engine: Engine, drain: Drain) -> None:
    seed_messages(engine, 1, address="rcpt550+{n}@customer.example")
    seed_messages(engine, 1, address="dotdrop+{n}@customer.example", name="other")
    run(drain)
    assert kept(engine, "message_id", "ending", "code", "enhanced") == [
        (1, "refused", 550, "5.1.1"),
        (2, "in_doubt", 0, ""),
    ]
    assert all(words for (words,) in kept(engine, "reply"))


def test_what_a_dead_worker_left_is_kept_as_recovered_acceptances_too(engine: Engine, tmp_path: Path) -> None:
    seed_messages(engine, 4)
    mine, recorder = abandon(engine, tmp_path, timedelta(hours=1))
    recorder.close(remove=False)
    assert recover(engine, make_workspace(tmp_path, 1).settings, tariffs={}) == 1
    assert kept(engine, "message_id", "ending", "code", "enhanced", "recovered", "claim_id") == [
        (1, "accepted", 250, "2.0.0", True, mine.id),
        (2, "in_doubt", 0, "", True, mine.id),
        (3, "refused", 550, "5.1.1", True, mine.id),
    ]


def test_a_worker_that_lost_its_claim_keeps_no_attempt(engine: Engine) -> None:
    seed_messages(engine, 1)
    with writing(engine) as connection:
        mine = claim(
            connection, lane="relay", limit=1, lease=timedelta(minutes=1), host="here", boot="b", recorder="/r"
        )
        assert mine is not None
    lost = Outcome(message_id=mine.messages[0].id, ending=Ending.REFUSED, at_ms=to_ms(NOW), reply="550 no")
    with writing(engine) as connection:
        write_attempts(connection, mine.id + 1, [lost], recovered=False)
    assert kept(engine, "message_id") == []
    with writing(engine) as connection:
        write_attempts(connection, mine.id, [lost], recovered=False)
    assert kept(engine, "message_id", "code") == [(1, 550)]
