"""Profiles for a plan, without writing them: a temporary table that stands before the real one.

Firing refreshes profiles that are old. A plan may write nothing, yet must see what firing will see; so it scores in
memory and puts the result into a temporary table of the same name, which both databases look up first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, select, text, true

from kernel.clock import to_ms
from kernel.settings import Settings
from kernel.vocabulary import Subject
from segments.definitions import Definition, needs
from segments.profiles import KEYS, as_columns, as_rows, deletion
from segments.scoring import HERE, Computed, compute, stale_kinds
from segments.staging import staged
from store.sql import insert_into
from store.tables import profiles

SCORES_MAX_AGE = timedelta(hours=1)
"""Profiles older than this are computed again before a run that asks for them."""

_PENDING = "pending_profiles"


@contextmanager
def scores_as_of(
    connection: Connection,
    settings: Settings,
    definitions: Mapping[str, Definition],
    *,
    at: datetime,
    root: Path = HERE,
) -> Iterator[None]:
    """Make `profiles` on this connection what it will be when a run with these segments fires at an instant."""
    asked = needs(definitions)
    stale = {
        subject: kinds
        for subject in Subject
        if (kinds := stale_kinds(connection, settings, asked, subject=subject, since=at - SCORES_MAX_AGE, root=root))
    }
    if not stale:
        yield
        return
    computed = [
        compute(connection, settings, subject=subject, now=at, kinds=kinds, root=root)
        for subject, kinds in stale.items()
    ]
    # Filled under a name of its own: under its final name it would hide the table it is filled from.
    _shadow(_PENDING).create(connection, checkfirst=False)
    pending = _shadow(_PENDING)
    names = [column.name for column in profiles.columns]
    connection.execute(pending.insert().from_select(names, select(*profiles.columns)))
    for one in computed:
        _change(connection, pending, one)
    connection.execute(text(f"ALTER TABLE {_PENDING} RENAME TO {profiles.name}"))
    yield
    # Found before the real table by both databases, so this is the shadow.
    _shadow(profiles.name).drop(connection, checkfirst=False)


def _shadow(name: str) -> Table:
    columns = [
        Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
        for column in profiles.columns
    ]
    return Table(name, MetaData(), *columns, prefixes=["TEMPORARY"])


def _change(connection: Connection, pending: Table, computed: Computed) -> None:
    """Bring the rows to what the scoring found; models that are not kept yet have the id -1."""
    rows = computed.difference.rows
    columns = as_columns(computed.subject, rows, computed.words, now_ms=to_ms(computed.now))
    names = list(columns)
    with staged(connection, profiles, names, as_rows(columns)) as fresh:
        statement: Any = insert_into(connection, pending)
        query = select(*fresh.c).where(true())
        changed = {name: statement.excluded[name] for name in names if name not in KEYS}
        connection.execute(
            statement.from_select(names, query).on_conflict_do_update(index_elements=list(KEYS), set_=changed)
        )
    if len(computed.difference.gone):
        connection.execute(deletion(connection, pending, computed.subject, computed.difference.gone))
