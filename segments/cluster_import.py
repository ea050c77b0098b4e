"""Clusters made elsewhere: labels come in, and get the same model, profiles, matching and drift gate as our own.

Pure: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kernel.errors import ConfigError
from segments.cluster_matching import compare, key_order, largest_moves
from segments.cluster_model import ClusterModel, assign
from segments.cluster_scaling import Features, Floats, Ints, Transform, apply_scales, canonical_order, fit_scales
from segments.clusters import Fitted, centroids_in, size_warnings

MOST_LABELS = 100
FAITHFUL = 0.8


def adopt(
    features: Features,
    labels: Sequence[str | None],
    *,
    previous: ClusterModel | None = None,
    previous_labels: Ints | None = None,
    largest_move: float = 0.5,
    transforms: Mapping[str, Transform] | None = None,
) -> Fitted:
    """Return a model whose clusters are these labels: each centroid is the mean of those who bear its label.

    The labels themselves are the keys, and stay as given; only who comes later, unlabelled, is assigned by nearest
    centroid. `report["reproduced"]` is the share of the labelled whom the nearest centroid gives the label they have.

    Args:
        features: One row per buyer.
        labels: One per row; None or "" where the other system gave none.
        previous: The model in force, ours or an earlier import.
        previous_labels: For each row its position in `previous.keys`, −1 where it had none; None: what the previous
            model says of these rows, if it knows their features.
        largest_move: An import that moves a larger share of the buyers is to be held.
        transforms: Instead of the usual ones, by feature.

    Returns:
        As `fit`; labels are positions in the sorted keys, −1 where none was given.

    Raises:
        ConfigError: labels and rows differ in number, fewer than two labels or too many, or no feature says anything.
    """
    if len(labels) != len(features):
        raise ConfigError(
            f"{len(labels)} labels were given for {len(features)} buyers; give one for each, empty for none"
        )
    keys = tuple(sorted({label for label in labels if label}, key=key_order))
    if not 2 <= len(keys) <= MOST_LABELS:
        raise ConfigError(
            f"the labels name {len(keys)} different clusters; an import needs from 2 to {MOST_LABELS} "
            "(is the right column named?)"
        )
    place = {key: position for position, key in enumerate(keys)}
    given = np.array([place[label] if label else -1 for label in labels], dtype=np.int64)
    order = canonical_order(features.values)
    order = order[given[order] >= 0]
    labelled, own = features.take(order), given[order]
    scales, dropped = fit_scales(labelled, transforms or {}, previous.scales if previous else ())
    if not scales:
        raise ConfigError(
            f"no feature tells these buyers apart: {'; '.join(dropped)}; choose others in clusters.features"
        )
    scaled = apply_scales(scales, labelled)
    places = _means(scaled, own, len(keys))
    model = ClusterModel(
        scales=scales,
        keys=keys,
        centroids=tuple(tuple(row) for row in places.tolist()),
        next_key=previous.next_key if previous else 1,
        seed=0,
        inertia=float(((scaled - places[own]) ** 2).sum()),
        rows=len(own),
    )
    reproduced = float((assign(model, labelled) == own).mean())
    sizes = dict(zip(keys, np.bincount(own, minlength=len(keys)).tolist(), strict=True))
    report = {
        "k": len(keys),
        "how": "imported",
        "choices": [],
        "features": list(model.names),
        "rows": model.rows,
        "start": "imported",
        "inertias": {"imported": model.inertia},
        "explained": 1 - model.inertia / float(((scaled - scaled.mean(axis=0)) ** 2).sum()),
        "rescaled": False,
        "sizes": sizes,
        "unlabelled": len(features) - len(own),
        "reproduced": reproduced,
        **_changes(model, given, features, previous, previous_labels, largest_move),
    }
    return Fitted(
        model=model, labels=given, report=report, warnings=dropped + size_warnings(sizes) + _doubts(reproduced)
    )


def _means(scaled: Floats, own: Ints, count: int) -> Floats:
    sizes = np.bincount(own, minlength=count)
    return np.column_stack([np.bincount(own, weights=column, minlength=count) / sizes for column in scaled.T])


def _changes(
    model: ClusterModel,
    given: Ints,
    features: Features,
    previous: ClusterModel | None,
    previous_labels: Ints | None,
    largest_move: float,
) -> dict[str, Any]:
    if previous is None:
        return {"keys": {"kept": [], "new": list(model.keys), "gone": []}, "previous": None, "held": None}
    old = centroids_in(previous, model.scales)
    if previous_labels is None and old is not None:
        previous_labels = assign(previous, features)
    return compare(
        previous.keys,
        previous_labels,
        model.keys,
        given,
        moves={} if old is None else largest_moves(previous.keys, old, model.keys, model.places, model.names),
        largest_move=largest_move,
    )


def _doubts(reproduced: float) -> list[str]:
    doubt = (
        f"the features here give back only {reproduced:.0%} of the imported labels: made from other facts, they are "
        "better imported anew often than left to the assignment of new buyers by these features"
    )
    return [doubt] if reproduced < FAITHFUL else []
