"""What a run refers to cannot be deleted, on SQLite by foreign keys, on PostgreSQL by what guards their other half."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, Table, delete, func, select, update
from sqlalchemy.exc import IntegrityError, NotSupportedError

from store.engine import open_database, reading, writing
from store.references import about_to_refer
from store.tables import accounts, consents, contacts, enrollments, messages, runs
from tests.seeding import seed_messages
from tests.servers.postgres import PostgresServer

_PARENTS = pytest.mark.parametrize("parent", [accounts, contacts, runs, enrollments], ids=lambda table: table.name)


@pytest.fixture
def on_postgres(postgres: PostgresServer) -> Iterator[Engine]:
    url = postgres.new_database(postgres.template)
    engine = open_database(url)
    yield engine
    engine.dispose()
    postgres.drop_database(url)


def _forget(connection: Connection, contact_id: int) -> None:
    """Delete a contact and what is kept of it beside runs."""
    connection.execute(delete(consents).where(consents.c.contact_id == contact_id))
    connection.execute(delete(contacts).where(contacts.c.id == contact_id))


def _new_contact(engine: Engine) -> int:
    with writing(engine) as connection:
        added = contacts.insert().values(id=1_000, external_id="new")
        connection.execute(added)
    return 1_000


def _enroll_whoever_is_there(connection: Connection, contact_id: int) -> int:
    """Do what firing does, of one contact: read, then refer to what was read. Return how many were there."""
    found = connection.execute(select(contacts.c.id).where(contacts.c.id == contact_id)).scalars().all()
    for one in found:
        run_id = connection.execute(select(func.max(runs.c.id))).scalar_one()
        row = {"id": 1_000, "run_id": run_id, "contact_id": one, "segment": "everyone", "held_out": False}
        connection.execute(enrollments.insert().values(row))
    return len(found)


@_PARENTS
def test_what_a_run_refers_to_is_not_deleted(engine: Engine, parent: Table) -> None:
    seed_messages(engine, 2)
    with writing(engine) as connection, pytest.raises(IntegrityError):
        connection.execute(delete(parent))
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(messages)).scalar_one() == 2


@_PARENTS
def test_what_a_run_refers_to_keeps_its_id(engine: Engine, parent: Table) -> None:
    seed_messages(engine, 2)
    with writing(engine) as connection, pytest.raises(IntegrityError):
        connection.execute(update(parent).values(id=parent.c.id + 1_000))


def test_what_nothing_refers_to_may_go(engine: Engine) -> None:
    seed_messages(engine, 2)
    contact_id = _new_contact(engine)
    with writing(engine) as connection:
        connection.execute(update(contacts).values(id=contacts.c.id, first_name="Ann"))
        _forget(connection, contact_id)
        assert connection.execute(select(func.count()).select_from(contacts)).scalar_one() == 2


def test_a_deletion_waits_for_the_run_that_is_fired_and_is_refused(on_postgres: Engine) -> None:
    seed_messages(on_postgres, 1)
    contact_id = _new_contact(on_postgres)
    refused: list[IntegrityError] = []

    def forget() -> None:
        try:
            with writing(on_postgres) as connection:
                _forget(connection, contact_id)
        except IntegrityError as error:
            refused.append(error)

    deleting = threading.Thread(target=forget)
    with writing(on_postgres) as connection:
        about_to_refer(connection, enrollments, messages)
        deleting.start()
        deleting.join(0.5)
        assert deleting.is_alive(), "it waits, although nothing refers to the contact yet"
        assert _enroll_whoever_is_there(connection, contact_id) == 1
    deleting.join(30)
    assert [type(error.orig).__name__ for error in refused] == ["ForeignKeyViolation"]


def test_a_run_that_is_fired_waits_for_a_deletion_and_does_without(on_postgres: Engine) -> None:
    seed_messages(on_postgres, 1)
    contact_id = _new_contact(on_postgres)
    enrolled: list[int] = []

    def fire() -> None:
        with writing(on_postgres) as connection:
            about_to_refer(connection, enrollments, messages)
            enrolled.append(_enroll_whoever_is_there(connection, contact_id))

    firing = threading.Thread(target=fire)
    with writing(on_postgres) as connection:
        _forget(connection, contact_id)
        firing.start()
        firing.join(0.5)
        assert firing.is_alive()
    firing.join(30)
    assert enrolled == [0]


def test_a_deletion_that_could_not_see_a_new_run_is_refused(on_postgres: Engine) -> None:
    contact_id = _new_contact(on_postgres)
    with (
        on_postgres.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        pytest.raises(NotSupportedError, match="READ COMMITTED only"),
    ):
        _forget(connection, contact_id)
