"""How many random worlds a law is tried on: a few in `make test`, many times more in `make test-laws`."""

from __future__ import annotations

import os


def seeds(few: int) -> range:
    """Return seeds for a law: `few`, or as many times more as $CARILLON_TEST_WORLDS says."""
    return range(few * int(os.environ.get("CARILLON_TEST_WORLDS", "1")))
