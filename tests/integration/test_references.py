"""What a run refers to cannot be deleted, on SQLite by foreign keys, on PostgreSQL by what guards their other half."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, Engine, Table, delete, func, select, update
from sqlalchemy.exc import IntegrityError, NotSupportedError

from store.engine import reading, writing
from store.references import about_to_refer
from store.tables import accounts, consents, contacts, enrollments, messages, runs
from tests.seeding import seed_messages

_PARENTS = pytest.mark.parametrize("parent", [accounts, contacts, runs, enrollments], ids=lambda table: table.name)


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


def test_a_deletion_waits_for_the_run_that_is_fired_and_is_refused(postgres_engine: Engine) -> None:
    seed_messages(postgres_engine, 1)
    contact_id = _new_contact(postgres_engine)
    refused: list[IntegrityError] = []

    def forget() -> None:
        try:
            with writing(postgres_engine) as connection:
                _forget(connection, contact_id)
        except IntegrityError as error:
            refused.append(error)

    deleting = threading.Thread(target=forget)
    with writing(postgres_engine) as connection:
        about_to_refer(connection, enrollments, messages)
        deleting.start()
        deleting.join(0.5)
        assert deleting.is_alive(), "it waits, although nothing refers to the contact yet"
        assert _enroll_whoever_is_there(connection, contact_id) == 1
    deleting.join(30)
    assert [type(error.orig).__name__ for error in refused] == ["ForeignKeyViolation"]


def test_a_run_that_is_fired_waits_for_a_deletion_and_does_without(postgres_engine: Engine) -> None:
    seed_messages(postgres_engine, 1)
    contact_id = _new_contact(postgres_engine)
    enrolled: list[int] = []

    def fire() -> None:
        with writing(postgres_engine) as connection:
            about_to_refer(connection, enrollments, messages)
            enrolled.append(_enroll_whoever_is_there(connection, contact_id))

    firing = threading.Thread(target=fire)
    with writing(postgres_engine) as connection:
        _forget(connection, contact_id)
        firing.start()
        firing.join(0.5)
        assert firing.is_alive()
    firing.join(30)
    assert enrolled == [0]


def test_a_deletion_that_could_not_see_a_new_run_is_refused(postgres_engine: Engine) -> None:
    contact_id = _new_contact(postgres_engine)
    with (
        postgres_engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        pytest.raises(NotSupportedError, match="READ COMMITTED only"),
    ):
        _forget(connection, contact_id)
