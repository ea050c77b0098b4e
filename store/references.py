"""References that PostgreSQL guards from the side of what is referred to, not by a check of each row that refers.

A foreign key has two halves. One looks at each new row: is there what it names? For a run that is expanded to a
million people this is half of all work, and its answer is known, since the rows are made from what they name. The
other looks at what is deleted: does anything still name it? That half is kept, and costs nothing until somebody
deletes. SQLite, where a check is a look into one B-tree, keeps its foreign keys. docs/decisions/0018 tells why
nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, event

FUNCTION = """\
CREATE FUNCTION carillon_still_referred_to() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    referring CONSTANT text := quote_ident(TG_TABLE_SCHEMA) || '.' || quote_ident(TG_ARGV[0]);
    found boolean;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.id = OLD.id THEN
            RETURN NULL;
        END IF;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = 'rows of ' || TG_TABLE_NAME || ' are deleted in transactions that are READ COMMITTED only',
            HINT = 'Others see rows of ' || TG_ARGV[0] || ' that were written after they began too late.';
    END IF;
    -- Whoever is writing rows that refer to this one ends first; whoever wants to waits.
    EXECUTE 'LOCK TABLE ' || referring || ' IN SHARE MODE';
    EXECUTE 'SELECT EXISTS (SELECT FROM ' || referring || ' WHERE ' || quote_ident(TG_ARGV[1]) || ' = $1)'
        INTO found USING OLD.id;
    IF found THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = 'id ' || OLD.id || ' of ' || TG_TABLE_NAME || ' is still referred to by ' || TG_ARGV[0],
            HINT = 'What was planned and sent is kept: correct or anonymise the row instead.';
    END IF;
    RETURN NULL;
END $$"""
"""For AFTER DELETE OR UPDATE OF id; its arguments are the table that refers and its column."""


def guard_from_parents(metadata: MetaData, *columns: Column[Any], implied: tuple[Column[Any], ...] = ()) -> None:
    """Make columns' foreign keys ones of SQLite alone; on PostgreSQL what they name is guarded by triggers.

    Args:
        metadata: Whose `create_all` makes the triggers too.
        columns: Of foreign keys to columns `id`.
        implied: Columns whose references follow from others': their foreign keys go, and no trigger comes.
    """
    for column in (*columns, *implied):
        for key in column.foreign_keys:
            if key.constraint is not None:
                key.constraint.ddl_if(dialect="sqlite")

    def create(_target: MetaData, connection: Connection, **_options: Any) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(FUNCTION)
            for statement in _triggers(columns):
                connection.exec_driver_sql(statement)

    event.listen(metadata, "after_create", create)


def _triggers(columns: tuple[Column[Any], ...]) -> Iterator[str]:
    for column in columns:
        for key in column.foreign_keys:
            table, parent = column.table.name, key.column.table.name
            yield (
                f"CREATE TRIGGER tr_{table}_{column.name} AFTER DELETE OR UPDATE OF id ON {parent} FOR EACH ROW "
                f"EXECUTE FUNCTION carillon_still_referred_to('{table}', '{column.name}')"
            )


def about_to_refer(connection: Connection, *tables: Table) -> None:
    """Keep all that rows of these tables may refer to from being deleted, from now until this transaction ends.

    To be called before what they will refer to is read. What is read afterwards either is not deleted until these rows
    are there to say no, or had been deleted before.
    """
    if connection.dialect.name == "postgresql":
        names = ", ".join(map(connection.dialect.identifier_preparer.format_table, tables))
        connection.exec_driver_sql(f"LOCK TABLE {names} IN ROW EXCLUSIVE MODE")
