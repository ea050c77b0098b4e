"""The revisions and the models give the same database, however many processes migrate at once."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, select, text

from kernel.errors import ConfigError
from store.engine import open_database, reading, writing
from store.schema import MIGRATIONS, head, installation, migrate, revision
from store.states import is_pending
from store.tables import messages, metadata

_CATALOGUE = (
    """
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    """,
    """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
    """,
    """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum), obj_description(c.oid)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
      AND c.relname <> 'alembic_version'
    """,
    """
    SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
    """,
    """
    SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    """,
    """
    SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
)
"""What PostgreSQL knows of indexes, constraints, columns with their comments, how tables are kept, and triggers."""
REMEDY = 'tables.py and the revisions differ: run `make migration SAYS="what changed"`'


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without a single table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def empty_engine(empty_url: str) -> Iterator[Engine]:
    engine = open_database(empty_url)
    yield engine
    engine.dispose()


def _structure(connection: Connection) -> list[Any]:
    """Everything the database itself knows about its tables, in its own words; Alembic's table left out."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT type, name, sql FROM sqlite_master WHERE tbl_name <> 'alembic_version'"))
        return sorted((kind, name, _clauses(sql)) for kind, name, sql in rows if not name.startswith("sqlite_"))
    return [sorted(tuple(map(str, row)) for row in connection.execute(text(query))) for query in _CATALOGUE]


def _clauses(sql: str | None) -> list[str]:
    """A CREATE statement without its line breaks; the order of constraints has no meaning."""
    one_line = " ".join((sql or "").split()).removesuffix(")").replace("( ", "(")
    opening, _, rest = one_line.partition("(")
    return [opening.strip(), *sorted(part.strip() for part in rest.split(", "))]


def _comparable(_item: object, name: str | None, kind: str, *_: object) -> bool:
    """Alembic compares neither indexes on expressions nor foreign keys of one dialect; `_structure` does."""
    return kind != "foreign_key_constraint" and not str(name).endswith("_lower")


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_migrations_and_models_give_the_same_database(
    empty_engine: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    migrate(empty_engine)
    with reading(empty_engine) as connection:
        options = {"compare_type": True, "include_object": _comparable}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == [], REMEDY
        by_revisions = _structure(connection)

    if empty_engine.dialect.name == "sqlite":
        models = open_database(f"sqlite:///{tmp_path / 'models.db'}")
    else:
        models = open_database(request.getfixturevalue("postgres").new_database())
    with writing(models) as connection:
        metadata.create_all(connection)
        by_models = _structure(connection)
    models.dispose()
    assert by_revisions == by_models, REMEDY


def test_the_newest_revision_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert [head()] == ScriptDirectory.from_config(config).get_heads()


def test_what_was_in_doubt_before_attempts_were_kept_keeps_its_last_words(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.schema._upgrade", lambda connection: _upgrade_to(connection, "0003"))
    migrate(empty_engine)
    monkeypatch.undo()
    with writing(empty_engine) as connection:
        for statement in _IN_DOUBT_BEFORE:
            connection.execute(text(statement))
    migrate(empty_engine)
    with reading(empty_engine) as connection:
        kept = connection.execute(text("SELECT message_id, number, at, lane, ending, reply FROM message_attempts"))
        assert [tuple(row) for row in kept] == [(1, 1, 7, "relay", "in_doubt", "no answer")]


_IN_DOUBT_BEFORE = (
    "INSERT INTO contacts (id, external_id) VALUES (1, 'C1')",
    "INSERT INTO campaigns (id, name, state, created_at, updated_at) VALUES (1, 'c', 'active', 0, 0)",
    (
        "INSERT INTO campaign_versions (id, campaign_id, number, digest, spec, files, segments, applied_at) "
        "VALUES (1, 1, 1, 'd', '{}', '{}', '{}', 0)"
    ),
    "INSERT INTO runs (id, campaign_id, version_id, scheduled_for, state, fired_at) VALUES (1, 1, 1, 0, 'open', 0)",
    "INSERT INTO enrollments (id, run_id, contact_id, segment, held_out) VALUES (1, 1, 1, 's', false)",
    (
        "INSERT INTO messages (id, run_id, step, enrollment_id, contact_id, channel, lane, state, planned_for, due_at, "
        "sent_at, reply) VALUES (1, 1, 1, 1, 1, 'email', 'relay', 'in_doubt', 0, 0, 7, 'no answer')"
    ),
    (
        "INSERT INTO messages (id, run_id, step, enrollment_id, contact_id, channel, lane, state, planned_for, due_at) "
        "VALUES (2, 1, 2, 1, 1, 'email', 'relay', 'sent', 0, 0)"
    ),
)


def test_what_was_pending_stays_pending_whatever_was_said_of_its_end(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.schema._upgrade", lambda connection: _upgrade_to(connection, "0006"))
    migrate(empty_engine)
    monkeypatch.undo()
    with writing(empty_engine) as connection:
        for statement in (*_IN_DOUBT_BEFORE, "UPDATE messages SET state = 'planned', ended_at = 7 WHERE id = 1"):
            connection.execute(text(statement))
    migrate(empty_engine)
    with reading(empty_engine) as connection:
        assert connection.execute(select(messages.c.id).where(is_pending())).scalars().all() == [1]


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def test_migrating_again_changes_nothing_and_takes_no_time(engine: Engine) -> None:
    with reading(engine) as connection:
        name, before = installation(connection), _structure(connection)
    migrate(engine)
    started = time.perf_counter()
    migrate(engine)
    took_s = time.perf_counter() - started
    with reading(engine) as connection:
        assert (installation(connection), _structure(connection)) == (name, before)
    assert took_s < 0.25, "a database at head is asked one question"


def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    processes = [context.Process(target=_migrate_at_the_bell, args=(empty_url, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    engine = open_database(empty_url)
    assert revision(engine) == head()
    engine.dispose()


def _migrate_at_the_bell(url: str, start: Any) -> None:
    engine = open_database(url)
    start.wait(30)
    migrate(engine)
    engine.dispose()


def test_a_failed_migration_leaves_nothing_behind(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OSError("the power went")

    monkeypatch.setattr("store.schema.new_installation", fail)
    with pytest.raises(OSError, match="the power went"):
        migrate(empty_engine)
    monkeypatch.undo()
    assert revision(empty_engine) is None
    migrate(empty_engine)
    assert revision(empty_engine) == head()


def test_a_database_with_someone_elses_tables_is_refused(empty_engine: Engine) -> None:
    with writing(empty_engine) as connection:
        connection.execute(text("CREATE TABLE orders (number INTEGER)"))
    with pytest.raises(ConfigError, match=r"already has tables named orders .* database of its own"):
        migrate(empty_engine)


def test_a_database_of_a_newer_carillon_is_refused(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="9999, which this Carillon does not know"):
        migrate(engine)
