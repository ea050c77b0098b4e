"""Running `carillon` as a person would: real processes, with the demo's environment."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from rich.console import Console

from demo.stage import Stage
from kernel.errors import CarillonError

DONE = 0
SOME_ROWS_REJECTED = 3
_READY_PATIENCE_S = 60.0
_STOP_PATIENCE_S = 60.0
_TAIL_LINES = 12


class DemoFailed(CarillonError):
    """The demo cannot go on, or its books do not agree; the message says why."""


def environment_of(stage: Stage) -> dict[str, str]:
    """Return this process's environment with the demo's ports and tokens, and without settings of another Carillon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
    return {**kept, **stage.variables, "PYTHONUNBUFFERED": "1"}


class Commands:
    """Runs commands of the CLI in the demo's workspace, showing each as it would be typed."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self._stage = stage
        self._console = console

    def run(self, *arguments: str, allowed: tuple[int, ...] = (DONE,), show_output: bool = True) -> str:
        """Run `carillon ARGUMENTS`; its output goes to the terminal, or is returned where it is not shown.

        Raises:
            DemoFailed: another exit code than those allowed.
        """
        self._console.print(f"$ carillon {shlex.join(arguments)}", style="bold cyan", markup=False, highlight=False)
        self._console.file.flush()
        done = subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "cli.main", *arguments, "--workspace", str(self._stage.root)],
            env=environment_of(self._stage),
            stdin=subprocess.DEVNULL,
            stdout=None if show_output else subprocess.PIPE,
            stderr=None if show_output else subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode not in allowed:
            said = f":\n{done.stdout}" if done.stdout else ""
            raise DemoFailed(f"`carillon {shlex.join(arguments)}` ended with code {done.returncode}{said}")
        return done.stdout or ""


class Services:
    """`carillon up`, starting or running."""

    def __init__(self, stage: Stage, process: subprocess.Popen[bytes], log: Path) -> None:
        self._stage = stage
        self._process = process
        self._log = log

    def wait_until_ready(self) -> str:
        """Wait until every service answers; return what `carillon up` said.

        Raises:
            DemoFailed: it ended, or does not get ready in time.
        """
        ends = time.monotonic() + _READY_PATIENCE_S
        while "ready:" not in self._said() or not _healthy(self._stage):
            if self._process.poll() is not None:
                raise DemoFailed(f"`carillon up` ended with code {self._process.returncode}")
            if time.monotonic() > ends:
                raise DemoFailed(f"`carillon up` is not ready after {_READY_PATIENCE_S:.0f} s")
            time.sleep(0.1)
        return self._said()

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def services(stage: Stage, console: Console) -> Iterator[Services]:
    """Start `carillon up`, and stop it in order when the block ends. Does not wait until it is ready."""
    log_path = stage.root / "up.log"
    console.print("$ carillon up &", style="bold cyan", markup=False, highlight=False)
    with log_path.open("wb") as log:
        # A session of its own, so that Ctrl-C reaches the demo alone, which then stops it in order.
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "cli.main", "up", "--workspace", str(stage.root)],
            env=environment_of(stage),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Services(stage, process, log_path)
    finally:
        _stop(process)


def _healthy(stage: Stage) -> bool:
    try:
        return requests.get(f"{stage.base_url}/healthz", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def log_tails(stage: Stage) -> Iterator[tuple[Path, str]]:
    """Yield each log of the demo's processes and its last lines."""
    for path in [stage.root / "up.log", *sorted((stage.root / ".carillon" / "logs").glob("*.log"))]:
        if path.is_file() and path.stat().st_size:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            yield path, "\n".join(lines[-_TAIL_LINES:])
