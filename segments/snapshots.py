"""Snapshots of segments: every stay of a subject in a segment is a row, from when to when.

Who stays keeps the instant of entering; who leaves gets one of leaving; who comes back gets a new row. All writes are
slices of short transactions, so that sending never waits for long. The size kept with a segment moves with each
slice: killed between two, it is still the number of stays that are open.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, delete, literal, select, true, update

from kernel.clock import to_ms
from segments.kinship import read_ids, united
from segments.purchases import Ints
from store.guard import Writer
from store.id_rows import id_rows
from store.ingest.bulk import among
from store.sql import insert_into
from store.tables import segment_members, segments

ROWS_PER_COMMIT = 50_000
"""Some tenths of a second of writing: how long sending may have to wait."""
_IDS_PER_QUESTION = 20_000


def present_members(connection: Connection, segment_id: int, *, only: Ints | None = None) -> Ints:
    """Return who is in a segment by its snapshot, ascending; of some ids only where they are given."""
    stays = segment_members.c
    query = select(stays.subject_id).where(stays.segment_id == segment_id, stays.valid_to.is_(None))
    if only is None:
        return united(read_ids(connection, query))
    parts = (among(connection, stays.subject_id, part.tolist()) for part in _slices(only, _IDS_PER_QUESTION))
    return united(*(read_ids(connection, query.where(part)) for part in parts))


def members_at(segment_id: int, instant: datetime) -> Any:
    """Return the query of a segment's members at an instant: one column `id`."""
    stays = segment_members.c
    return select(stays.subject_id.label("id")).where(
        stays.segment_id == segment_id,
        stays.valid_from <= instant,
        stays.valid_to.is_(None) | (stays.valid_to > instant),
    )


def write_stays(writer: Writer, segment_id: int, *, entered: Ints, left: Ints, at: datetime) -> None:
    """Begin and end stays at an instant. To be called only by whoever holds the lock on segments.

    Args:
        writer: Opens writing transactions.
        segment_id: Of `segments`.
        entered: Who has no open stay and gets one, ascending.
        left: Who has one and leaves, ascending.
        at: When; nobody's stay ends before it began.
    """
    for part in _slices(left, ROWS_PER_COMMIT):
        with writer() as connection:
            _end(connection, segment_id, part, at)
    for part in _slices(entered, ROWS_PER_COMMIT):
        with writer() as connection:
            _begin(connection, segment_id, part, at)


def drop_stays(writer: Writer, segment_id: int) -> None:
    """Forget all stays, past ones too: those of a segment that is now about another kind of subject."""
    with writer() as connection:
        connection.execute(delete(segment_members).where(segment_members.c.segment_id == segment_id))
        connection.execute(update(segments).where(segments.c.id == segment_id).values(size=0))


def _end(connection: Connection, segment_id: int, ids: Ints, at: datetime) -> None:
    stays = segment_members.c
    open_ = (
        stays.segment_id == segment_id,
        stays.valid_to.is_(None),
        among(connection, stays.subject_id, ids.tolist()),
    )
    connection.execute(update(segment_members).where(*open_).values(valid_to=at))
    _grow(connection, segment_id, -len(ids))


def _begin(connection: Connection, segment_id: int, ids: Ints, at: datetime) -> None:
    columns = ["segment_id", "subject_id", "valid_from"]
    given = id_rows(connection, ids.tolist())
    rows = select(literal(segment_id, BigInteger), given, literal(to_ms(at), BigInteger)).where(true())
    # Who entered and left at this very instant, and enters again, never was away.
    connection.execute(
        insert_into(connection, segment_members)
        .from_select(columns, rows)
        .on_conflict_do_update(index_elements=columns, set_={"valid_to": None})
    )
    _grow(connection, segment_id, len(ids))


def _grow(connection: Connection, segment_id: int, by: int) -> None:
    mine = segments.c.id == segment_id
    connection.execute(update(segments).where(mine).values(size=segments.c.size + by))


def _slices(ids: Ints, size: int) -> Iterator[Ints]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
