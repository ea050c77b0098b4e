"""A frozen cluster model, and who is nearest to which of its centroids.

Pure: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kernel.errors import ConfigError
from segments import cluster_scaling
from segments.cluster_choice import nearest
from segments.cluster_matching import key_order
from segments.cluster_scaling import Features, Floats, Ints, Scale

FORMAT = 1
_BLOCK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterModel:
    """Frozen clusters: how features are scaled, where the centroids lie, and the keys they bear.

    Attributes:
        scales: The rule of each feature.
        keys: One per cluster, as c1; a key is never given to another cluster again.
        centroids: One row per key, in scaled space.
        next_key: The number of the next new key.
        seed: Of the fit.
        inertia: Sum of squared distances to the nearest centroid at the fit, in scaled space.
        rows: How many subjects it was fitted on.
    """

    scales: tuple[Scale, ...]
    keys: tuple[str, ...]
    centroids: tuple[tuple[float, ...], ...]
    next_key: int
    seed: int
    inertia: float
    rows: int

    @property
    def k(self) -> int:
        return len(self.keys)

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order of the scaled space."""
        return tuple(scale.name for scale in self.scales)

    @property
    def places(self) -> Floats:
        """The centroids as an array, one row per key."""
        return np.array(self.centroids, dtype=np.float64).reshape(self.k, len(self.scales))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, which `from_json` reads back without loss."""
        return {
            "format": FORMAT,
            "k": self.k,
            "features": [scale.to_json() for scale in self.scales],
            "keys": list(self.keys),
            "centroids": [list(place) for place in self.centroids],
            "next_key": self.next_key,
            "seed": self.seed,
            "inertia": self.inertia,
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClusterModel:
        """Return the model that `to_json` wrote.

        Raises:
            ConfigError: it is of another format, or damaged.
        """
        if data.get("format") != FORMAT:
            raise ConfigError(
                f"the saved cluster model has format {data.get('format')!r}, not {FORMAT}; fit the clusters anew"
            )
        try:
            model = cls(
                scales=tuple(cluster_scaling.from_json(feature) for feature in data["features"]),
                keys=tuple(str(key) for key in data["keys"]),
                centroids=tuple(tuple(float(value) for value in place) for place in data["centroids"]),
                next_key=int(data["next_key"]),
                seed=int(data["seed"]),
                inertia=float(data["inertia"]),
                rows=int(data["rows"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the saved cluster model cannot be read ({error!r}); fit the clusters anew") from error
        whole = {len(place) for place in model.centroids} == {len(model.scales)} and len(model.centroids) == model.k
        if not whole or len(set(model.keys)) != model.k or not np.isfinite(model.places).all():
            raise ConfigError(
                "the saved cluster model is damaged (keys and centroids do not fit); fit the clusters anew"
            )
        return model


def assign(model: ClusterModel, features: Features) -> Ints:
    """Return for each subject the position in `model.keys` of its nearest centroid; of equally near ones the first key.

    Args:
        model: Any, as old as it may be: scaler and centroids are its own.
        features: At least those of the model, in any order.

    Raises:
        ConfigError: a feature of the model is not there.
    """
    order = sorted(range(model.k), key=lambda position: key_order(model.keys[position]))
    places = model.places[order]
    columns = features.columns(model.names)
    found = np.empty(len(features), dtype=np.int64)
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[block], _ = nearest(
            [scale.apply(column[block]) for scale, column in zip(model.scales, columns, strict=True)], places
        )
    return np.array(order, dtype=np.int64)[found]


def by_key(model: ClusterModel) -> ClusterModel:
    """Return the same model with its keys in order."""
    order = sorted(range(model.k), key=lambda position: key_order(model.keys[position]))
    return replace(model, keys=tuple(model.keys[i] for i in order), centroids=tuple(model.centroids[i] for i in order))
