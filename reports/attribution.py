"""Last-touch attribution: each order, stage or event credited once, over all campaigns, to the last touch before it.

The database finds the candidates and picks the winners; only what differs from the conversions on record is written.
Everything follows from rows that are never deleted, so recomputing gives the same answer whatever the order in which
touches, orders, returns and revised verdicts came in.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, delete, select, type_coerce

from kernel.clock import to_ms
from reports.credits import winners
from reports.terms import Goal, load_terms
from store.engine import reading, writing
from store.sql import in_slices, insert_into
from store.tables import conversions, runs

_COLUMNS = ("kind", "source_id", "at", "account_id", "value_minor", "currency")
_CREDITED = ("campaign_id", "run_id", "message_id", "touch_id")
_ROWS_PER_STATEMENT = 1000

Row = tuple[Any, ...]


def attribute(engine: Engine, *, now: datetime) -> int:
    """Bring the conversions up to date and return how many rows were written or removed; 0 where nothing changed.

    Reads first and writes the differences in one short transaction, so that senders are not held up. What arrives in
    between is found by the next call.

    Args:
        engine: The database.
        now: Orders after it, and cancellations that take effect after it, are not seen yet.
    """
    with reading(engine) as connection:
        wanted = _wanted(connection, now)
        known = _known(connection)
    changed = [row for key, row in wanted.items() if known.get(key) != row]
    gone = [key for key in known if key not in wanted]
    if changed or gone:
        with writing(engine) as connection:
            _remove(connection, gone)
            _write(connection, changed)
    return len(changed) + len(gone)


def goals_by_version(connection: Connection) -> dict[int, Goal]:
    """Return the goals of every version that has fired; editing a file changes no run that was pinned before."""
    fired = connection.execute(select(runs.c.version_id).distinct()).scalars()
    return {version_id: terms.goal for version_id, terms in load_terms(connection, fired).items() if terms.goal}


def _wanted(connection: Connection, now: datetime) -> dict[Row, Row]:
    goals = goals_by_version(connection)
    found: dict[Row, Row] = {}
    for query in winners(connection, goals, to_ms(now)):
        found.update(((row.kind, row.source_id), tuple(row)) for row in connection.execute(query))
    return found


def _known(connection: Connection) -> dict[Row, Row]:
    columns = [_plain(conversions.c[name]) for name in (*_COLUMNS, *_CREDITED)]
    return {(row.kind, row.source_id): tuple(row) for row in connection.execute(select(*columns))}


def _plain(column: Any) -> Any:
    return type_coerce(column, BigInteger).label("at") if column.name == "at" else column


def _remove(connection: Connection, gone: Iterable[Row]) -> None:
    by_kind: dict[str, list[int]] = {}
    for kind, source_id in gone:
        by_kind.setdefault(kind, []).append(source_id)
    for kind, source_ids in by_kind.items():
        for slice_ in in_slices(source_ids, _ROWS_PER_STATEMENT):
            connection.execute(
                delete(conversions).where(conversions.c.kind == kind, conversions.c.source_id.in_(slice_))
            )


def _write(connection: Connection, changed: Iterable[Row]) -> None:
    names = (*_COLUMNS, *_CREDITED)
    for slice_ in in_slices(changed, _ROWS_PER_STATEMENT):
        statement = insert_into(connection, conversions).values([dict(zip(names, row, strict=True)) for row in slice_])
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["kind", "source_id"],
                set_={name: statement.excluded[name] for name in names[2:]},
            )
        )
