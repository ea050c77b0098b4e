"""Runs `carillon` with its patience cut short, for faults that must outlast a lease or a visibility timeout.

FAULTS_LEASE_S replaces the lease of a claim, FAULTS_VISIBILITY_S the broker's visibility timeout. Nothing else differs
from the command.
"""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from typing import Any

import workers.app
from cli.main import main
from kernel.settings import Workspace


def shorten() -> None:
    """Put the shorter times in place."""
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


if __name__ == "__main__":
    shorten()
    main()
