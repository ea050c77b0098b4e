"""How PostgreSQL finds a chunk's rows: by their keys and in an index's order, in tables it knows nothing about yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from kernel.settings import Workspace
from store.engine import reading
from store.ledger import due_in_lane
from tests.seeding import seed_messages
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
def plans(postgres_engine: Engine) -> dict[str, str]:
    """Plans by statement, as PostgreSQL made them in the very transactions that asked."""
    found: dict[str, str] = {}

    def explain(_conn: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        for name in (CLAIM, RECIPIENTS, HOLD, OUTCOMES, DUE):
            if name in statement and name not in found:
                with cursor.connection.cursor() as other:
                    other.execute(f"EXPLAIN {statement}", parameters)
                    found[name] = "\n".join(row[0] for row in other.fetchall())

    event.listen(postgres_engine, "before_cursor_execute", explain)
    return found


def test_a_chunk_reads_no_more_than_its_own_rows(
    postgres_engine: Engine, workspace: Workspace, plans: dict[str, str]
) -> None:
    seed_messages(postgres_engine, 3_000, due_at=datetime.now(UTC) - timedelta(minutes=1))
    chunk = Chunk.take(postgres_engine, workspace, "relay", limit=1_000, lease=timedelta(minutes=1))
    assert chunk is not None
    chunk.carry(Preparer(postgres_engine, workspace), TakesAll(), lambda: False)
    assert chunk.accepted == 1_000
    with reading(postgres_engine) as connection:
        assert due_in_lane(connection, "relay", most=800) == 800
    assert set(plans) == {CLAIM, RECIPIENTS, HOLD, OUTCOMES, DUE}
    # The oldest first without sorting all that is pending, which with a million would be done a thousand times.
    assert "ix_messages_due" in plans[CLAIM]
    assert "Sort" not in plans[CLAIM]
    for plan in plans.values():
        for table in ("messages", "contacts", "consents"):
            assert f"Seq Scan on {table}" not in plan, plan
