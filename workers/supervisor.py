"""`carillon up`: runs every process of a workspace, restarts what dies, and drains them all on SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kernel.errors import ConfigError
from kernel.settings import Workspace
from workers.app import ready_file
from workers.embedded import answers
from workers.inbound.receivers import smpp_receivers

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0
_QUIET_AFTER_S = 30.0
_PATIENCE_S = 40.0


@dataclass(slots=True)
class Child:
    """One process: its command, how it says that it is ready, and its restarts."""

    name: str
    arguments: list[str]
    ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None
    log_from: int = 0
    started: float = 0.0
    wait_s: float = _FIRST_WAIT_S
    next_start: float = field(default=0.0)


class Supervisor:
    """Starts the children in order, each once the one before it is ready."""

    def __init__(self, workspace: Workspace, *, concurrency: int, say: Callable[[str], None]) -> None:
        self._workspace = workspace
        self._say = say
        self._stopping = False
        self._logs = workspace.data_dir / "logs"
        self._logs.mkdir(exist_ok=True)
        self._children = self._plan(concurrency)

    def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            ConfigError: a process does not get ready; the end of its log is in the message.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        try:
            self._start_all()
            if not self._stopping:
                self._say(f"ready: {self._workspace.settings.web.public_url} (logs in {self._logs})")
            while not self._stopping:
                self._revive()
                time.sleep(0.2)
        finally:
            self._stop_all()

    def _plan(self, concurrency: int) -> list[Child]:
        root = self._workspace.root
        settings = self._workspace.settings
        children = []
        if self._workspace.embedded_broker:
            children.append(Child("redis", ["redis"], lambda: answers(self._workspace)))
        children.append(Child("web", ["web"], self._web_answers))
        if settings.inbound.smtp_port is not None or smpp_receivers(settings):
            children.append(Child("inbound", ["inbound"], lambda: self._said_ready("inbound")))
        children.append(
            Child("worker", ["worker", "--concurrency", str(concurrency)], lambda: self._said_ready("worker"))
        )
        children.append(Child("scheduler", ["scheduler"], lambda: self._said_ready("scheduler")))
        for child in children:
            child.arguments = [sys.executable, "-m", "cli.main", *child.arguments, "--workspace", str(root)]
        return children

    def _start_all(self) -> None:
        for child in self._children:
            self._start(child)
            ends = time.monotonic() + _PATIENCE_S
            while not child.ready() and not self._stopping:
                if child.process is not None and child.process.poll() is not None:
                    raise ConfigError(
                        f"`carillon {child.name}` ended with code {child.process.returncode}:\n{self._tail(child)}"
                    )
                if time.monotonic() > ends:
                    raise ConfigError(
                        f"`carillon {child.name}` is not ready after {_PATIENCE_S:.0f} s:\n{self._tail(child)}"
                    )
                time.sleep(0.05)
            self._say(f"{child.name} is up (pid {child.process.pid if child.process else '-'})")

    def _start(self, child: Child) -> None:
        ready_file(self._workspace.root, child.name).unlink(missing_ok=True)
        child.log = (self._logs / f"{child.name}.log").open("ab")
        child.log_from = child.log.tell()
        # A session of its own: Ctrl-C at the terminal reaches us alone, and we let each child drain.
        child.process = subprocess.Popen(  # noqa: S603 - our own command line
            child.arguments,
            stdin=subprocess.DEVNULL,
            stdout=child.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **self._workspace.environment},
        )
        child.started = time.monotonic()

    def _revive(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._say(
                    f"{child.name} ended (code {child.process.returncode}); starting it again in {child.wait_s:.1f} s"
                )
                if now - child.started > _QUIET_AFTER_S:
                    child.wait_s = _FIRST_WAIT_S
                child.next_start = now + child.wait_s
                child.wait_s = min(child.wait_s * 2, _LONGEST_WAIT_S)
                self._close(child)
            if child.process is None and now >= child.next_start:
                self._start(child)

    def _stop_all(self) -> None:
        """Stop in the reverse order, so that the broker goes last; each gets time to drain."""
        for child in reversed(self._children):
            if child.process is None or child.process.poll() is not None:
                self._close(child)
                continue
            child.process.terminate()
            try:
                child.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._say(f"{child.name} does not end; killing it")
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
            self._close(child)

    def _close(self, child: Child) -> None:
        child.process = None
        if child.log is not None:
            child.log.close()
            child.log = None

    def _ask_to_stop(self, *_: object) -> None:
        self._stopping = True

    def _said_ready(self, name: str) -> bool:
        return ready_file(self._workspace.root, name).exists()

    def _web_answers(self) -> bool:
        web = self._workspace.settings.web
        try:
            with urllib.request.urlopen(f"http://{web.host}:{web.port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _tail(self, child: Child) -> str:
        """Return the last lines the child has said since it was started: older ones tell of mended mistakes."""
        path: Path = self._logs / f"{child.name}.log"
        said = path.read_bytes()[child.log_from :].decode("utf-8", errors="replace")
        return "\n".join(said.splitlines()[-15:])
