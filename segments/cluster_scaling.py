"""How features of buyers become comparable numbers: transformed, clipped, standardised, and frozen.

Counts, days and money are skewed a hundredfold: on raw figures k-means finds the two or twenty largest buyers and
calls them a cluster. So each feature is first bent (`log1p`, or `asinh` where values may be zero or negative), then
clipped at its 0.1 % and 99.9 % quantiles, then given mean 0 and standard deviation 1. What was found is kept, so that
next month's buyers are measured by the same rule.

Pure: NumPy arrays in, arrays out. Every step works on one value at a time, so a buyer's numbers depend on no neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernel.errors import ConfigError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Transform = Literal["log1p", "asinh", "none"]

TRANSFORMS: Mapping[str, Transform] = {
    "recency_days": "log1p",
    "orders": "log1p",
    "net": "asinh",
    "average_order": "asinh",
    "gap_days": "log1p",
    "products": "log1p",
    "return_share": "asinh",
    "tenure_days": "log1p",
}
"""How each known feature is bent; one that is not listed takes `asinh`, which every number can bear."""

DEFAULT_FEATURES = ("recency_days", "orders", "net", "gap_days", "products", "return_share")
CLIPPED = (0.001, 0.999)
UNIT_QUANTILE = 0.25
"""`asinh` is taken of value / unit, the unit being the lower quartile of the sizes that are not zero: below it the
curve is nearly straight, above it logarithmic, and it makes no difference whether money comes in cents or euros."""
_WIDEST = 1e12
"""No unit is so small that the largest value divided by it loses its meaning."""
LARGEST_SHIFT_SD = 0.5
LARGEST_STRETCH = 2.0


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of each subject: one row per subject, one column per name.

    NaN means that there is no such number (a buyer of one order has no gap between orders); infinity is refused.
    """

    names: tuple[str, ...]
    values: Floats

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise ConfigError(
                f"{len(self.names)} features are named, but the values have the shape {self.values.shape}"
            )
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"a feature is named twice: {', '.join(self.names)}; name each once")
        for name, column in zip(self.names, self.values.T, strict=True):
            if np.isinf(column).any():
                raise ConfigError(f"feature {name} holds an infinite value; leave it empty (NaN) where it is not known")

    def __len__(self) -> int:
        return len(self.values)

    def columns(self, names: Sequence[str]) -> list[Floats]:
        """Return these columns, in this order.

        Raises:
            ConfigError: one of them is not there.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise ConfigError(
                f"the clusters were made with {', '.join(missing)}, which is not among the features given "
                f"({', '.join(self.names)}); give it, or fit anew"
            )
        return [self.values[:, self.names.index(name)] for name in names]

    def select(self, names: Sequence[str]) -> Features:
        """Return these features only, in this order."""
        return Features(tuple(names), np.column_stack(self.columns(names)) if names else np.empty((len(self), 0)))

    def take(self, positions: NDArray[np.intp]) -> Features:
        """Return these rows, in this order."""
        return Features(self.names, self.values[positions])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The frozen rule of one feature.

    Attributes:
        name: The feature.
        transform: How a value is bent.
        unit: What a value is divided by before `asinh`; 1 for the others.
        fill: The raw value that stands for a missing one: the median of those that were there at the fit.
        low: Lower border, on bent values.
        high: Upper border, on bent values.
        mean: Of the bent and clipped values at the fit.
        sd: Standard deviation of the same (population); above 0.
    """

    name: str
    transform: Transform
    unit: float
    fill: float
    low: float
    high: float
    mean: float
    sd: float

    def bend(self, column: Floats) -> Floats:
        """Return the values with gaps filled, transformed and clipped."""
        return np.clip(_bent(np.where(np.isnan(column), self.fill, column), self), self.low, self.high)

    def apply(self, column: Floats) -> Floats:
        """Return the values in standard deviations from the mean of the fit."""
        return (self.bend(column) - self.mean) / self.sd

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def from_json(data: Mapping[str, Any]) -> Scale:
    """Return the rule that `to_json` wrote.

    Raises:
        ConfigError: a part is missing, not finite, or the standard deviation is not above 0.
    """
    try:
        numbers = {key: float(data[key]) for key in ("unit", "fill", "low", "high", "mean", "sd")}
        name, transform = str(data["name"]), data["transform"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"a feature of the saved cluster model cannot be read ({error!r}); fit the clusters anew"
        ) from error
    if transform not in ("log1p", "asinh", "none") or not np.isfinite(list(numbers.values())).all():
        raise ConfigError(f"feature {name} of the saved cluster model is damaged; fit the clusters anew")
    if numbers["sd"] <= 0 or numbers["unit"] <= 0:
        raise ConfigError(f"feature {name} of the saved cluster model has no spread; fit the clusters anew")
    return Scale(name=name, transform=transform, **numbers)


def fit_scales(
    features: Features, transforms: Mapping[str, Transform], previous: Sequence[Scale] = ()
) -> tuple[tuple[Scale, ...], list[str]]:
    """Return the rule of every feature that says anything, and in words which were dropped.

    A feature is dropped where every value is missing, or where clipping leaves one value only.

    Args:
        features: Of everybody the clusters are fitted on.
        transforms: By name; other names take the default of `TRANSFORMS`.
        previous: Rules whose unit of `asinh` is kept, so that old centroids can be carried over exactly.

    Raises:
        ConfigError: a value cannot bear its transform.
    """
    units = {scale.name: scale.unit for scale in previous}
    found: list[Scale] = []
    dropped: list[str] = []
    for name, column in zip(features.names, features.values.T, strict=True):
        scale = _fit_scale(name, column, transforms.get(name, TRANSFORMS.get(name, "asinh")), units.get(name))
        if isinstance(scale, Scale):
            found.append(scale)
        else:
            dropped.append(scale)
    return tuple(found), dropped


def apply_scales(scales: Sequence[Scale], features: Features) -> Floats:
    """Return all rows in scaled space, one column per rule."""
    scaled = np.empty((len(features), len(scales)))
    for position, (scale, column) in enumerate(zip(scales, features.columns([s.name for s in scales]), strict=True)):
        scaled[:, position] = scale.apply(column)
    return scaled


def still_fit(scaled: Floats) -> bool:
    """Return whether data scaled by an old rule still lie about 0 with a spread about 1.

    No mean further off than half a standard deviation, no spread halved or doubled.
    """
    spread = scaled.std(axis=0)
    return bool(
        (np.abs(scaled.mean(axis=0)) <= LARGEST_SHIFT_SD).all()
        and (spread <= LARGEST_STRETCH).all()
        and (spread >= 1 / LARGEST_STRETCH).all()
    )


def carry_over(centroids: Floats, old: Sequence[Scale], new: Sequence[Scale]) -> Floats:
    """Return centroids of one scaled space in another of the same features, transforms and units."""
    old_mean, old_sd = (np.array([getattr(scale, part) for scale in old]) for part in ("mean", "sd"))
    new_mean, new_sd = (np.array([getattr(scale, part) for scale in new]) for part in ("mean", "sd"))
    carried: Floats = (centroids * old_sd + old_mean - new_mean) / new_sd
    return carried


def canonical_order(values: Floats) -> NDArray[np.intp]:
    """Return an order of the rows that depends on what they hold, not on where they stand.

    Whatever is drawn or summed in this order is the same however the rows were sorted. Equal rows stand together; the
    order itself is that of a 64-bit mix of the row's bits and means nothing.
    """
    mixed = np.zeros(len(values), dtype=np.uint64)
    for column in values.T:
        bits = np.where(np.isnan(column), np.nan, column + 0.0).view(np.uint64)
        mixed = (mixed ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
    return np.argsort(mixed, kind="stable")


def _bent(column: Floats, scale: Scale) -> Floats:
    if scale.transform == "log1p":
        return np.log1p(column)
    if scale.transform == "asinh":
        return np.arcsinh(column / scale.unit)
    return column


def _fit_scale(name: str, column: Floats, transform: Transform, unit: float | None) -> Scale | str:
    """Return the rule, or in words why there is none."""
    known = column[~np.isnan(column)]
    if not len(known):
        return f"{name} is missing everywhere and was left out"
    if transform == "log1p" and known.min() <= -1:
        raise ConfigError(
            f"feature {name} holds {known.min():g}, and log1p needs values above -1; correct the data or use asinh"
        )
    if unit is None:
        sizes = np.abs(known[known != 0]) if transform == "asinh" else known[:0]
        unit = max(float(np.quantile(sizes, UNIT_QUANTILE)), float(sizes.max()) / _WIDEST) if len(sizes) else 1.0
    fill = float(np.median(known))
    loose = Scale(name=name, transform=transform, unit=unit, fill=fill, low=-np.inf, high=np.inf, mean=0.0, sd=1.0)
    bent = loose.bend(column)
    low, high = (float(border) for border in np.quantile(bent, CLIPPED, method="nearest"))
    clipped = np.clip(bent, low, high)
    mean, sd = float(clipped.mean()), float(clipped.std())
    if low == high or sd == 0:
        return f"{name} is the same for nearly everybody ({fill:g}) and was left out"
    return replace(loose, low=low, high=high, mean=mean, sd=sd)
