"""What each buyer bought up to an instant: plain columns of numbers, one position per subject."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchases:
    """Everyone with at least one order; one position per subject in all arrays, ascending by id.

    Instants are milliseconds since 1970 UTC, money is in minor units of one currency. `days` counts the distinct
    UTC days with an order, so that one delivery billed in three parts counts once where timing matters. `net_minor`
    is over orders, returns, cancellations and adjustments, `gross_minor` over orders only, and `returned_minor`, never
    negative, is what the other kinds took away.
    """

    ids: Ints
    first_ms: Ints
    last_ms: Ints
    orders: Ints
    days: Ints
    net_minor: Ints
    gross_minor: Ints
    returned_minor: Ints

    def __len__(self) -> int:
        return len(self.ids)

    def recency_days(self, as_of_ms: int) -> Ints:
        """Return whole days, rounded down, from the last order to an instant."""
        return (as_of_ms - self.last_ms) // DAY_MS

    def take(self, positions: NDArray[np.intp] | Ints) -> Purchases:
        """Return these positions, in their order."""
        return Purchases(**{field.name: getattr(self, field.name)[positions] for field in fields(self)})
