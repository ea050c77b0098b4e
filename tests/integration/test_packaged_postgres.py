"""The last resort of the tests: a PostgreSQL from the package index, for machines that have none."""

from __future__ import annotations

from sqlalchemy import select

from store.engine import open_database, reading
from store.schema import installation, migrate
from store.types import database_now
from tests.servers.postgres import start_packaged


def test_the_packaged_postgres_serves_a_migrated_database() -> None:
    server = start_packaged()
    try:
        engine = open_database(server.new_database())
        migrate(engine)
        with reading(engine) as connection:
            assert len(installation(connection)) == 12
            assert connection.execute(select(database_now())).scalar_one() > 1_700_000_000_000
        engine.dispose()
    finally:
        server.drop_all()
        server.stop()
