"""How PostgreSQL finds a chunk's rows: by their keys and in an index's order, in tables it knows nothing about yet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from kernel.settings import Workspace
from store.engine import open_database, reading
from store.ledger import due_in_lane
from tests.seeding import seed_messages
from tests.servers.postgres import PostgresServer
from workers.channels.port import Channel, Flight, Parcel, Receipt
from workers.chunk import Chunk
from workers.preparing import Preparer

CLAIM = "FOR UPDATE OF messages SKIP LOCKED"
RECIPIENTS = "AS clear"
HOLD = "UPDATE messages SET state="
OUTCOMES = "UPDATE messages SET reply"
DUE = "SELECT count(*)"


class TakesAll(Channel):
    def deliver(self, parcels: Any, flight: Flight, keep_going: Any) -> frozenset[int]:
        parcel: Parcel
        for parcel in parcels:
            flight.commit(parcel.index)
            flight.accepted(parcel.index, Receipt("250 taken", code=250))
        return frozenset()

    def close(self) -> None:
        pass


@pytest.fixture
def fresh(postgres: PostgresServer) -> Iterator[Engine]:
    url = postgres.new_database(postgres.template)
    engine = open_database(url)
    yield engine
    engine.dispose()
    postgres.drop_database(url)


@pytest.fixture
def plans(fresh: Engine) -> dict[str, str]:
    """Plans by statement, as PostgreSQL made them in the very transactions that asked."""
    found: dict[str, str] = {}

    def explain(_conn: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        for name in (CLAIM, RECIPIENTS, HOLD, OUTCOMES, DUE):
            if name in statement and name not in found:
                with cursor.connection.cursor() as other:
                    other.execute(f"EXPLAIN {statement}", parameters)
                    found[name] = "\n".join(row[0] for row in other.fetchall())

    event.listen(fresh, "before_cursor_execute", explain)
    return found


def test_a_chunk_reads_no_more_than_its_own_rows(fresh: Engine, workspace: Workspace, plans: dict[str, str]) -> None:
    seed_messages(fresh, 3_000, due_at=datetime.now(UTC) - timedelta(minutes=1))
    chunk = Chunk.take(fresh, workspace, "relay", limit=1_000, lease=timedelta(minutes=1))
    assert chunk is not None
    chunk.carry(Preparer(fresh, workspace), TakesAll(), lambda: False)
    assert chunk.accepted == 1_000
    with reading(fresh) as connection:
        assert due_in_lane(connection, "relay", most=800) == 800
    assert set(plans) == {CLAIM, RECIPIENTS, HOLD, OUTCOMES, DUE}
    # The oldest first without sorting all that is pending, which with a million would be done a thousand times.
    assert "ix_messages_due" in plans[CLAIM]
    assert "Sort" not in plans[CLAIM]
    for plan in plans.values():
        for table in ("messages", "contacts", "consents"):
            assert f"Seq Scan on {table}" not in plan, plan
