"""Conditions on states that partial indexes are made for.

The state stands in the statement itself, never as a parameter: a plan made for any value cannot use an index of some.
PostgreSQL makes such plans once a statement has been prepared, SQLite always.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam

from kernel.vocabulary import PENDING_STATES, MessageState
from store.tables import inbox, messages


def is_planned() -> ColumnElement[bool]:
    """Return whether a message is planned: what `ix_messages_due` holds, on PostgreSQL with what is claimed."""
    return and_(messages.c.ended_at.is_(None), messages.c.state == _written(MessageState.PLANNED.value))


def is_pending() -> ColumnElement[bool]:
    """Return whether a message has not ended: what `ix_messages_pending` holds, which goes by `ended_at`."""
    pending = messages.c.state.in_(_written([state.value for state in PENDING_STATES], expanding=True))
    return and_(messages.c.ended_at.is_(None), pending)


def is_unread() -> ColumnElement[bool]:
    """Return whether something in the inbox has not been read: what `ix_inbox_new` holds."""
    unread: ColumnElement[bool] = inbox.c.state == _written("new")
    return unread


def _written(value: Any, *, expanding: bool = False) -> Any:
    return bindparam(None, value, expanding=expanding, literal_execute=True)
