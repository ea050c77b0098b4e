"""How much a gateway that is being warmed up may send on a day; a pure function of the date."""

from __future__ import annotations

import math
from datetime import date

from kernel.limits import Warmup


def warmup_quota(warmup: Warmup, day: date) -> int | None:
    """Return the most messages of a day; 0 before the start, None once it is warm: then there is no limit."""
    days = (day - date.fromisoformat(warmup.start)).days
    if days < 0:
        return 0
    # By logarithms, so that a warm-up of long ago asks for no power too large for a float.
    if math.log(warmup.first_day) + days * math.log(warmup.growth) >= math.log(warmup.until) - 1e-12:
        return None
    return math.floor(warmup.first_day * warmup.growth**days + 1e-9)
