"""Bringing a database to the present schema."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from kernel.errors import ConfigError
from kernel.ids import new_installation
from store.engine import reading, writing
from store.sql import insert_into
from store.tables import meta, metadata

MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = MIGRATIONS / "versions"
_LOCK = 0x6361_7269_6C6C_6F6E
"""The key of the advisory lock on PostgreSQL: "carillon" in ASCII."""


def migrate(engine: Engine) -> None:
    """Create or upgrade every table. Safe to call from several processes at once; cheap where nothing is to do.

    Raises:
        ConfigError: the database belongs to a newer Carillon, or to something else.
    """
    newest = head()
    if revision(engine) == newest:
        return
    with writing(engine) as connection:
        # On SQLite `writing` already holds the only write lock.
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        present = _revision(connection)
        if present == newest:
            return
        _refuse_strangers(connection, present)
        _upgrade(connection)
        connection.execute(
            insert_into(connection, meta).values(key="installation", value=new_installation()).on_conflict_do_nothing()
        )


def head() -> str | None:
    """Return the newest revision there is: the number its file begins with. None: there is none yet."""
    return max((path.name.split("_")[0] for path in VERSIONS.glob("[0-9]*.py")), default=None)


def revision(engine: Engine) -> str | None:
    """Return the revision the database stands at; None where it has never been migrated."""
    try:
        with reading(engine) as connection:
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    except (OperationalError, ProgrammingError):
        # No such table, or no database to ask: then the caller's next step says so in full.
        return None


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _refuse_strangers(connection: Connection, present: str | None) -> None:
    if present is None:
        taken = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
        if taken:
            raise ConfigError(
                f"the database already has tables named {', '.join(taken[:5])} that Carillon did not make;"
                " give Carillon a database of its own (CARILLON_DATABASE_URL)"
            )
    elif not list(VERSIONS.glob(f"{present}_*.py")):
        raise ConfigError(
            f"the database stands at revision {present}, which this Carillon does not know;"
            " it was upgraded by a newer one: upgrade this one too, or restore a backup"
        )


def _upgrade(connection: Connection) -> None:
    # Imported here: a database already at head, the usual case, needs no Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def installation(connection: Connection) -> str:
    """Return this database's own random name, which stands in every Message-ID."""
    return str(connection.execute(select(meta.c.value).where(meta.c.key == "installation")).scalar_one())
