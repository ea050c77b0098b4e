"""What differs between the SQL dialects, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

Item = TypeVar("Item")


def insert_into(connection: Connection, table: Table) -> Any:
    """Return the dialect's INSERT, which knows ON CONFLICT on both databases."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def in_slices(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in lists of at most `size`, so that no statement has too many parameters."""
    slice_: list[Item] = []
    for item in items:
        slice_.append(item)
        if len(slice_) == size:
            yield slice_
            slice_ = []
    if slice_:
        yield slice_
