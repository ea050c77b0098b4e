"""Runs `carillon` with its patience cut short, for faults that must outlast a lease or a visibility timeout.

FAULTS_LEASE_S replaces the lease of a claim, FAULTS_VISIBILITY_S the broker's visibility timeout. FAULTS_POISON names
an address: a process that composes an e-mail to it dies, as of a fault in some library. Nothing else differs from the
command: a worker still checks everything first and then becomes a program of its own, this one.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import workers.main
from cli.main import main
from kernel.settings import Workspace

_BECOME = "become-worker"


def become_worker(workspace: Workspace, *, concurrency: int, queues: tuple[str, ...], log_json: bool) -> None:
    """See workers.main.become_worker; the new program is this module again."""
    sys.stdout.flush()
    sys.stderr.flush()
    words = [_BECOME, str(workspace.root), str(concurrency), ",".join(queues), *(["json"] if log_json else [])]
    environment = {"MALLOC_ARENA_MAX": "1", **os.environ}
    os.execve(sys.executable, [sys.executable, "-m", "tests.faults.under_test", *words], environment)


def shorten() -> None:
    """Put the shorter times in place."""
    import templates.mail
    import workers.app

    lease = os.environ.get("FAULTS_LEASE_S")
    if lease:
        workers.app.Drain = functools.partial(  # type: ignore[misc, assignment]
            workers.app.Drain, lease=timedelta(seconds=float(lease))
        )
    visibility = os.environ.get("FAULTS_VISIBILITY_S")
    if visibility:
        usual = workers.app.configure

        def configure(workspace: Workspace) -> Any:
            app = usual(workspace)
            app.conf.broker_transport_options["visibility_timeout"] = float(visibility)
            return app

        workers.app.configure = configure
    poison = os.environ.get("FAULTS_POISON")
    if poison:
        templates.mail.MailStep.compose = _deadly(templates.mail.MailStep.compose, poison)  # type: ignore[method-assign]


def _deadly(usual: Any, poison: str) -> Any:
    def compose(self: Any, **words: Any) -> Any:
        if words["address"] == poison:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, **words)

    return compose


if __name__ == "__main__":
    shorten()
    workers.main.become_worker = become_worker
    if sys.argv[1:2] == [_BECOME]:
        workers.main.main(sys.argv[2:])
    else:
        main()
