"""Clusters of buyers: k-means on scaled features, refitted so that clusters keep their keys and nobody moves in vain.

`fit` makes a model, `assign` says by a frozen model which cluster each subject is nearest to. A refit starts from the
centroids it has (warm) and from scratch (cold), and takes the cold result only where it is clearly better; the new
clusters are matched to the old ones, and where too much has changed the report says why the model should be held.

Pure: arrays in, arrays out. Results depend on what the rows hold and on the seed, never on the order of the rows.

Source:
    Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28 (1982), 129-137. Arthur and
    Vassilvitskii, "k-means++", SODA 2007. Both as scikit-learn has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kernel.errors import ConfigError
from segments.cluster_choice import (
    SMALLEST_SHARE,
    Choice,
    choose_k,
    cold_centroids,
    distinct_rows,
    nearest,
    warm_centroids,
)
from segments.cluster_matching import compare, largest_moves, match, overlap
from segments.cluster_model import ClusterModel, assign, by_key
from segments.cluster_scaling import (
    DEFAULT_FEATURES,
    TRANSFORMS,
    Features,
    Floats,
    Ints,
    Scale,
    Transform,
    apply_scales,
    canonical_order,
    carry_over,
    fit_scales,
    still_fit,
)

__all__ = ["DEFAULT_FEATURES", "TRANSFORMS", "ClusterModel", "Features", "Fitted", "assign", "fit"]

COLD_GAIN = 0.02
"""A fit from scratch replaces the clusters we have only where it leaves this share less unexplained."""
WARM_GAIN = 1e-4
"""A refit that leaves less than this share less unexplained changes nothing: nobody moves for a rounding error."""
FEW_BUYERS = 200
_WORTH = ("net", "average_order", "orders")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a fit brings: the model, everybody's position in `model.keys`, plain facts about the fit, and warnings."""

    model: ClusterModel
    labels: Ints
    report: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refit:
    """Centroids found, before they bear keys, and how they were found."""

    places: Floats
    start: str
    inertias: dict[str, float]


def fit(
    features: Features,
    *,
    k: int | None,
    seed: int,
    previous: ClusterModel | None = None,
    ids: Ints | None = None,
    previous_labels: Ints | None = None,
    largest_move: float = 0.5,
    choose: Iterable[int] = range(3, 9),
    transforms: Mapping[str, Transform] | None = None,
) -> Fitted:
    """Return clusters of these subjects, carrying on the keys of the previous model.

    Args:
        features: One row per buyer. A feature that says nothing is left out with a warning.
        k: How many clusters. None: as many as the previous model has; without one, chosen among `choose`.
        seed: Of everything drawn.
        previous: The model in force; None at the first fit. With other features than these it lends its keys only.
        ids: Of the rows; checked to be different. Who somebody is decides nobody's cluster.
        previous_labels: For each row its position in `previous.keys`, −1 where it had none; None: what the previous
            model says of these rows.
        largest_move: A fit that moves a larger share of the buyers is to be held.
        choose: Numbers of clusters to choose among.
        transforms: Instead of the usual ones, by feature.

    Returns:
        `report["held"]` is None, or in words why campaigns should not act on the new model before somebody has
        approved it.

    Raises:
        ConfigError: nobody is there, an id twice, no feature says anything, fewer different buyers than clusters, or a
            value that its transform cannot bear.
    """
    _check(features, ids, previous, previous_labels)
    ordered = features.take(canonical_order(features.values))
    previous, previous_labels = _by_key(previous, previous_labels)
    scales, rescaled, warnings = _scales(ordered, previous, transforms or {})
    scaled = apply_scales(scales, ordered)
    del ordered
    old = centroids_in(previous, scales)
    size, how, choices, doubts = _how_many(scaled, k, None if old is None else len(old), choose, seed)
    found = _refit(scaled, scales, size, seed, old)
    bare = ClusterModel(
        scales=scales,
        keys=tuple(f"c{number}" for number in range(1, size + 1)),
        centroids=tuple(tuple(place) for place in found.places.tolist()),
        next_key=size + 1,
        seed=seed,
        inertia=found.inertias[found.start],
        rows=len(scaled),
    )
    model, drift = _carry_keys(bare, features, previous, old, previous_labels, largest_move)
    labels = assign(model, features)
    sizes = dict(zip(model.keys, np.bincount(labels, minlength=size).tolist(), strict=True))
    report = {
        "k": size,
        "how": how,
        "choices": [choice.to_json() for choice in choices],
        "features": list(model.names),
        "rows": model.rows,
        "start": found.start,
        "inertias": found.inertias,
        "explained": 1 - model.inertia / float(((scaled - scaled.mean(axis=0)) ** 2).sum()),
        "rescaled": rescaled,
        "sizes": sizes,
        **drift,
    }
    return Fitted(model=model, labels=labels, report=report, warnings=warnings + doubts + size_warnings(sizes))


def size_warnings(sizes: Mapping[str, int]) -> list[str]:
    """Return in words where clusters, or all of them together, are too small to mean much."""
    rows = sum(sizes.values())
    found = [f"only {rows} buyers: clusters of fewer than {FEW_BUYERS} say little"] if rows < FEW_BUYERS else []
    small = [f"{key} ({count:,})" for key, count in sizes.items() if count < SMALLEST_SHARE * rows]
    if small:
        found.append(
            f"clusters of less than {SMALLEST_SHARE:.0%} of the buyers: {', '.join(small)}; consider a lower k"
        )
    return found


def centroids_in(previous: ClusterModel | None, scales: tuple[Scale, ...]) -> Floats | None:
    """Return the previous centroids in the space of these scales; None where there are none of the same features."""
    if previous is None or not _alike(previous.scales, scales):
        return None
    return previous.places if previous.scales == scales else carry_over(previous.places, previous.scales, scales)


def _check(features: Features, ids: Ints | None, previous: ClusterModel | None, labels: Ints | None) -> None:
    if not len(features):
        raise ConfigError("nobody has bought yet, so there is nobody to group; import orders first")
    if ids is not None and len(np.unique(ids)) != len(features):
        raise ConfigError(f"{len(features)} buyers were given, but {len(np.unique(ids))} different ids; give each once")
    if labels is not None and (previous is None or len(labels) != len(features) or labels.max() >= previous.k):
        raise ConfigError(
            "previous labels need the previous model, and one position in its keys (or -1) for each buyer"
        )


def _by_key(previous: ClusterModel | None, labels: Ints | None) -> tuple[ClusterModel | None, Ints | None]:
    """Return the previous model with its keys in order, and labels that follow it there."""
    if previous is None:
        return None, None
    ordered = by_key(previous)
    if labels is None:
        return ordered, None
    place = np.array([*(ordered.keys.index(key) for key in previous.keys), -1], dtype=np.int64)
    return ordered, place[np.maximum(labels, -1)]


def _scales(
    ordered: Features, previous: ClusterModel | None, transforms: Mapping[str, Transform]
) -> tuple[tuple[Scale, ...], bool, list[str]]:
    """Return the scaler, whether it replaces another of the same features, and which features were left out."""
    old = previous.scales if previous else ()
    fitted, dropped = fit_scales(ordered, {**{scale.name: scale.transform for scale in old}, **transforms}, old)
    if not fitted:
        raise ConfigError(
            f"no feature tells these buyers apart: {'; '.join(dropped)}; choose others in clusters.features"
        )
    if not _alike(old, fitted):
        return fitted, False, dropped
    fitted = tuple(sorted(fitted, key=lambda scale: [o.name for o in old].index(scale.name)))
    # The scaler stays frozen while it fits, so that clusters of two fits lie in one space.
    if still_fit(apply_scales(old, ordered)):
        return old, False, dropped
    return fitted, True, dropped


def _alike(one: Sequence[Scale], other: Sequence[Scale]) -> bool:
    return {(scale.name, scale.transform) for scale in one} == {(scale.name, scale.transform) for scale in other}


def _how_many(
    scaled: Floats, k: int | None, kept: int | None, choose: Iterable[int], seed: int
) -> tuple[int, str, list[Choice], list[str]]:
    """Return the number of clusters, whether it was given, kept or chosen, and with what doubts."""
    size = k or kept
    if size is None:
        chosen, choices, doubts = choose_k(scaled, choose, seed)
        return chosen, "chosen", choices, doubts
    distinct = distinct_rows(scaled, size)
    if size < 2 or distinct < size:
        raise ConfigError(
            f"{size} clusters cannot be made of {len(scaled):,} buyers of whom {distinct:,} differ; "
            f"set clusters.k to a number from 2 to that"
        )
    return size, "given" if k else "kept", [], []


def _refit(scaled: Floats, scales: tuple[Scale, ...], size: int, seed: int, old: Floats | None) -> _Refit:
    """Return where the centroids lie: fresh, moved on from the old ones, or the old ones as they are."""
    columns = list(scaled.T.copy())

    def inertia(places: Floats) -> float:
        return float(nearest(columns, places)[1].sum())

    cold = _by_worth(cold_centroids(scaled, size, seed), scales)
    inertias = {"cold": inertia(cold)}
    if old is None or len(old) != size:
        return _Refit(places=cold, start="cold", inertias=inertias)
    warm = warm_centroids(scaled, old)
    inertias |= {"warm": inertia(warm), "unchanged": inertia(old)}
    if inertias["cold"] < (1 - COLD_GAIN) * inertias["warm"]:
        return _Refit(places=cold, start="cold", inertias=inertias)
    if inertias["warm"] < (1 - WARM_GAIN) * inertias["unchanged"]:
        return _Refit(places=warm, start="warm", inertias=inertias)
    return _Refit(places=old, start="unchanged", inertias=inertias)


def _by_worth(places: Floats, scales: tuple[Scale, ...]) -> Floats:
    """Return fresh centroids with the one of most money first, so that c1 of a first fit is the most valuable."""
    names = [scale.name for scale in scales]
    first = next((names.index(name) for name in _WORTH if name in names), 0)
    return places[np.lexsort((*places.T[::-1], -places[:, first]))]


def _carry_keys(
    bare: ClusterModel,
    features: Features,
    previous: ClusterModel | None,
    old: Floats | None,
    previous_labels: Ints | None,
    largest_move: float,
) -> tuple[ClusterModel, dict[str, Any]]:
    """Return the model with the keys of the previous one where clusters go on, and what changed."""
    if previous is None:
        return bare, {"keys": {"kept": [], "new": list(bare.keys), "gone": []}, "previous": None, "held": None}
    labels = assign(bare, features)
    # In one space both models are asked about the same rows of today: what differs is the models' doing, nobody else's.
    # Where the space changed, the old model misreads today's rows, and who was where says more.
    one_space = old is not None and bare.scales == previous.scales
    said = (
        previous_labels
        if old is None or (not one_space and previous_labels is not None)
        else assign(previous, features)
    )
    none = np.full(len(labels), -1, dtype=np.int64)
    matching = match(
        previous.keys,
        overlap(none if said is None else said, labels, previous.k, bare.k),
        next_key=previous.next_key,
        distances=None if old is None else ((old[:, None, :] - bare.places[None, :, :]) ** 2).sum(axis=2),
    )
    drift = compare(
        previous.keys,
        said if previous_labels is None else previous_labels,
        matching.keys,
        labels,
        moves={} if old is None else largest_moves(previous.keys, old, matching.keys, bare.places, bare.names),
        largest_move=largest_move,
        other_features=None if old is not None else (previous.names, bare.names),
    )
    return by_key(replace(bare, keys=matching.keys, next_key=matching.next_key)), drift
