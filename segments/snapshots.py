"""Snapshots of segments: every stay of a subject in a segment is a row, from when to when.

Who stays keeps the instant of entering; who leaves gets one of leaving; who comes back gets a new row. All writes are
slices of short transactions, so that sending never waits for long. The size kept with a segment moves with each
slice: killed between two, it is still the number of stays that are open.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import BigInteger, Connection, delete, literal, select, true, update

from kernel.clock import to_ms
from segments.kinship import read_ids, united
from segments.purchases import Ints
from store.columns import append_columns
from store.guard import Writer
from store.id_rows import id_rows
from store.ingest.bulk import among
from store.sql import insert_into
from store.tables import segment_members, segments

ROWS_PER_COMMIT = 25_000
"""Less than a tenth of a second of writing: how long sending may have to wait."""
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
    fresh: bool | None = None
    for part in _slices(entered, ROWS_PER_COMMIT):
        with writer() as connection:
            fresh = _has_no_stays(connection, segment_id) if fresh is None else fresh
            (_begin_first if fresh else _begin)(connection, segment_id, part, at)


def drop_stays(writer: Writer, segment_id: int) -> None:
    """Forget all stays, past ones too: those of a segment that is now about another kind of subject."""
    stays = segment_members.c
    mine = stays.segment_id == segment_id
    key = (stays.subject_id, stays.valid_from)
    while True:
        with writer() as connection:
            rows = connection.execute(
                select(*key, stays.valid_to).where(mine).order_by(*key).limit(ROWS_PER_COMMIT)
            ).all()
            if not rows:
                return
            last = rows[-1]
            later = (stays.subject_id == last.subject_id) & (stays.valid_from > last.valid_from)
            connection.execute(delete(segment_members).where(mine, stays.subject_id <= last.subject_id, ~later))
            _grow(connection, segment_id, -sum(row.valid_to is None for row in rows))


def _end(connection: Connection, segment_id: int, ids: Ints, at: datetime) -> None:
    stays = segment_members.c
    open_ = (
        stays.segment_id == segment_id,
        stays.valid_to.is_(None),
        among(connection, stays.subject_id, ids.tolist()),
    )
    connection.execute(update(segment_members).where(*open_).values(valid_to=at))
    _grow(connection, segment_id, -len(ids))


def _has_no_stays(connection: Connection, segment_id: int) -> bool:
    mine = select(segment_members.c.subject_id).where(segment_members.c.segment_id == segment_id)
    return connection.execute(mine.limit(1)).first() is None


def _begin_first(connection: Connection, segment_id: int, ids: Ints, at: datetime) -> None:
    """Begin stays in a segment that never had any: nothing can be in the way, so they are only appended."""
    columns = {
        "segment_id": np.full(len(ids), segment_id, dtype=np.int64),
        "subject_id": ids,
        "valid_from": np.full(len(ids), to_ms(at), dtype=np.int64),
    }
    append_columns(connection, segment_members, columns)
    _grow(connection, segment_id, len(ids))


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
