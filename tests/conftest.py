"""Fixtures every folder of tests shares: databases, a workspace."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from kernel.settings import Workspace, load_workspace
from store.engine import open_database
from store.schema import migrate
from tests.servers.postgres import PostgresServer, start_postgres

WORKSPACE_YAML = """\
brand: {name: Acme Wholesale, postal_address: "1 Dock Road, Leeds LS1 1AA, UK"}
currency: GBP
timezone: Europe/London
senders:
  default: {name: Acme Wholesale, email: hello@acme.example}
gateways:
  relay: {type: smtp, host: 127.0.0.1, port: 2525, tls: none}
"""


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server with a migrated template database."""
    server = start_postgres()
    url = server.new_database()
    engine = open_database(url)
    migrate(engine)
    engine.dispose()
    server.template = str(make_url(url).database)
    yield server
    server.drop_all()
    server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated SQLite database to copy: migrating one for each test would take longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "carillon.db"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty, migrated database; the test runs once on each kind."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "carillon.db")
        yield f"sqlite:///{tmp_path / 'carillon.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database(server.template)
    yield url
    server.drop_database(url)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on an empty, migrated database of each kind."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Engine]:
    """An engine on an empty, migrated SQLite database, for what does not depend on the kind."""
    shutil.copy(migrated_sqlite, tmp_path / "carillon.db")
    engine = open_database(f"sqlite:///{tmp_path / 'carillon.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_engine(postgres: PostgresServer) -> Iterator[Engine]:
    """An engine on an empty, migrated PostgreSQL database, for what only its concurrent writers or its plans show."""
    url = postgres.new_database(postgres.template)
    engine = open_database(url)
    yield engine
    engine.dispose()
    postgres.drop_database(url)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A small workspace with one sender and one e-mail gateway; nothing listens there."""
    root = tmp_path / "workspace"
    for name in ("campaigns", "segments", "templates"):
        (root / name).mkdir(parents=True)
    (root / "carillon.yaml").write_text(WORKSPACE_YAML, encoding="utf-8")
    return load_workspace(root, {"CARILLON_SECRET_KEY": "k" * 64})
