"""Many rows at once, by way of a temporary table: filled as fast as the driver can, merged by one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table

from store.ingest.bulk import insert_rows


@contextmanager
def staged(
    connection: Connection, like: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Iterator[Table]:
    """Yield a temporary table with some columns of another, holding the rows; it is gone afterwards.

    Args:
        connection: In a writing transaction.
        like: The table whose columns' types it has.
        columns: Which columns, in the order of the rows' values.
        rows: Plain values; instants in milliseconds.
    """
    table = Table(
        f"new_{like.name}",
        MetaData(),
        *(Column(name, like.c[name].type) for name in columns),
        prefixes=["TEMPORARY"],
    )
    table.create(connection, checkfirst=False)
    insert_rows(connection, table, columns, rows)
    yield table
    table.drop(connection, checkfirst=False)  # After an error the transaction's rollback takes it away.
