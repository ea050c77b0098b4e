"""What clusters are made of: features of each buyer, from the figures, in units people read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kernel.quantities import minor_exponent
from segments.cluster_scaling import DEFAULT_FEATURES, Features
from segments.figures import Figures
from segments.purchases import DAY_MS, Floats
from store.columns import NULL_INT

MAKERS: Mapping[str, Callable[[Figures, int], Floats]] = {
    "recency_days": lambda figures, _unit: (figures.as_of_ms - figures.purchases.last_ms) / DAY_MS,
    "orders": lambda figures, _unit: figures.purchases.orders.astype(np.float64),
    "net": lambda figures, unit: figures.purchases.net_minor / unit,
    "average_order": lambda figures, unit: figures.purchases.net_minor / (figures.purchases.orders * unit),
    "gap_days": lambda figures, _unit: figures.median_gap_days,
    "products": lambda figures, _unit: np.where(figures.products == NULL_INT, np.nan, figures.products),
    "return_share": lambda figures, _unit: _return_share(figures),
    "tenure_days": lambda figures, _unit: (figures.as_of_ms - figures.purchases.first_ms) / DAY_MS,
}
"""Every feature there is. Money is in major units of the currency, a share lies in [0, 1] or above where more came back
than was ordered in the time known; NaN where there is no such number."""


def features_of(figures: Figures, names: Sequence[str] | None, *, currency: str) -> Features:
    """Return features of every scored unit, in the order of the figures; None: those clusters are usually made of."""
    unit = 10 ** minor_exponent(currency)
    chosen = tuple(names or DEFAULT_FEATURES)
    values = np.empty((len(figures), len(chosen)))
    for place, name in enumerate(chosen):
        values[:, place] = MAKERS[name](figures, unit)
    return Features(chosen, values)


def _return_share(figures: Figures) -> Floats:
    gross = figures.purchases.gross_minor
    share = np.zeros(len(gross))
    np.divide(figures.purchases.returned_minor, gross, out=share, where=gross > 0)
    return np.maximum(share, 0.0)
