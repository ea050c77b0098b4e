"""The inbox: what came in, kept raw and answered for at once, read later by anyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select, update

from store.plain_text import clean_text
from store.sql import insert_into
from store.states import is_unread
from store.tables import inbox

BOUNCE_SOURCE = "bounce"
_GATEWAY_PREFIX = "gateway:"


class InboxState(StrEnum):
    NEW = "new"
    DONE = "done"
    UNCLASSIFIED = "unclassified"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """One thing that came in. `meta` holds what came beside the body: envelope, query, headers."""

    id: int
    source: str
    received_at: datetime
    meta: Mapping[str, Any]
    body: bytes

    @property
    def gateway(self) -> str | None:
        """Name of the gateway it came from; None for mail."""
        return self.source.removeprefix(_GATEWAY_PREFIX) if self.source.startswith(_GATEWAY_PREFIX) else None


def gateway_source(name: str) -> str:
    """Return the source of what a gateway calls back."""
    return f"{_GATEWAY_PREFIX}{name}"


def put(
    connection: Connection, *, key: str, source: str, body: bytes, meta: Mapping[str, Any], received_at: datetime
) -> bool:
    """Keep what came in; False where the same was kept before."""
    new = connection.execute(
        insert_into(connection, inbox)
        .values(key=key, source=source, body=body, meta=dict(meta), received_at=received_at, state=InboxState.NEW)
        .on_conflict_do_nothing()
        .returning(inbox.c.id)
    ).one_or_none()
    return new is not None


def unread(connection: Connection, *, after_id: int, limit: int) -> list[InboxRow]:
    """Return rows nobody has read yet, oldest first, from behind `after_id` on."""
    rows = connection.execute(
        select(inbox.c.id, inbox.c.source, inbox.c.received_at, inbox.c.meta, inbox.c.body)
        .where(is_unread(), inbox.c.id > after_id)
        .order_by(inbox.c.id)
        .limit(limit)
    )
    return [InboxRow(**row._mapping) for row in rows]


def hold_new(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Return those of the rows that are still new, held until the transaction ends; rows others hold are left out."""
    return set(
        connection.execute(
            select(inbox.c.id).where(inbox.c.id.in_(ids), is_unread()).with_for_update(skip_locked=True)
        ).scalars()
    )


def mark(connection: Connection, row_id: int, *, state: InboxState, note: str, at: datetime) -> None:
    """Write what became of a row."""
    connection.execute(
        update(inbox).where(inbox.c.id == row_id).values(state=state, note=clean_text(note, 500), processed_at=at)
    )
