"""Running the real command line as real processes, and waiting for conditions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0, every_s: float = 0.05) -> None:
    """Return once the condition holds; fail after `seconds`, saying what was waited for."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(every_s)


class Processes:
    """Carillon processes of one workspace, each in a session of its own."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self.environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "default", **environment}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = root / "logs"
        self.logs.mkdir(exist_ok=True)

    def start(
        self, name: str, *arguments: str, module: str = "cli.main", workspace: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a process and keep it under a name."""
        command = [sys.executable, "-m", module, *arguments]
        if workspace:
            command += ["--workspace", str(self.root)]
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                cwd=self.root,
            )
        self.running[name] = process
        return process

    def kill(self, name: str) -> None:
        """SIGKILL a process and all its children."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def terminate(self, name: str, seconds: float = 40.0) -> int:
        """SIGTERM a process and return its exit code."""
        process = self.running[name]
        process.terminate()
        code = process.wait(seconds)
        del self.running[name]  # Not before: what does not end is left to `stop_all`.
        return code

    def stop_all(self) -> None:
        """End whatever still runs."""
        for process in self.running.values():
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for process in self.running.values():
            process.wait(10)
        self.running.clear()

    def log(self, name: str) -> str:
        """Return what a process has said."""
        path = self.logs / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def run(self, *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments, "--workspace", str(self.root)],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.environment,
            cwd=self.root,
            check=False,
        )
