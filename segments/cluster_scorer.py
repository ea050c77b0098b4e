"""Clusters as a kind of model: fitted now and then, assigned daily, held where a fit changes the picture too much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from kernel.errors import ConfigError
from kernel.settings import Settings
from segments import clusters
from segments.bench import Bench
from segments.cluster_import import adopt
from segments.cluster_matching import migration_of_positions
from segments.cluster_model import ClusterModel, assign
from segments.cluster_names import profile, tree_rules
from segments.cluster_scaling import Features
from segments.features import features_of
from segments.figures import Figures
from segments.models import Fit, Model, ModelKind, ModelState
from segments.profiles import Column, Rows, Words, places
from segments.purchases import Ints
from store.columns import NULL_INT
from store.tables import profiles

DRIFTED_SHARE = 0.15
"""Clusters are fitted anew when this share of the buyers would have to change clusters for the sizes of the fit."""
_NOT_OF_THE_FIT = {"refit_every", "largest_move"}


class ClusterScorer:
    """Lasting keys of clusters."""

    def options(self, settings: Settings) -> dict[str, Any]:
        """Return the cluster settings but for the age and the gate, the currency, and who counts as one buyer."""
        own = settings.clusters.model_dump(mode="json", exclude_none=True, exclude=_NOT_OF_THE_FIT)
        return {**own, "currency": settings.currency, "rollup": settings.rfm.rollup}

    def refit_every(self, settings: Settings) -> str | None:
        """Return the setting."""
        return settings.clusters.refit_every

    def fit(self, bench: Bench, figures: Figures) -> Fit:
        """Return clusters of these buyers that carry on the keys of the last ones; refused where there can be none."""
        settings = bench.settings.clusters
        features = _features(bench, figures)
        last = bench.last_applied(ModelKind.CLUSTERS)
        previous = ClusterModel.from_json(last.parameters) if last else None
        labels = None if last is None or previous is None else _labels_before(bench, figures, features, last, previous)
        gate: dict[str, Any] = {"previous": previous, "previous_labels": labels, "largest_move": settings.largest_move}
        try:
            if bench.labels is not None:
                fitted = adopt(features, bench.labels.of(figures), **gate)
            else:
                fitted = clusters.fit(features, k=settings.k, seed=settings.seed, **gate)
        except ConfigError as error:
            if bench.labels is not None:
                raise
            return Fit(
                state=ModelState.REFUSED, fitted_on=len(figures), options={}, parameters={}, report={}, note=str(error)
            )
        held = None if bench.labels is not None and bench.labels.approved else fitted.report["held"]
        if held and bench.labels is not None:
            raise ConfigError(f"{held}; look at the labels, and import them with --approve to take them over")
        return Fit(
            state=ModelState.HELD if held else ModelState.ACTIVE,
            fitted_on=len(figures),
            options={},
            parameters=fitted.model.to_json(),
            report={
                "fit": fitted.report,
                "profiles": [one.to_json() for one in _profiles(fitted, features, figures)],
                "migration": _migration(previous, labels, fitted),
                "tree": tree_rules(fitted.model, fitted.labels, features, seed=settings.seed).to_json(),
                "warnings": fitted.warnings,
            },
            note=held or "",
        )

    def drifted(self, bench: Bench, figures: Figures, model: Model) -> bool:
        """Return whether the sizes of the clusters are far from those of the fit."""
        sizes = model.report.get("fit", {}).get("sizes")
        if not sizes or not len(figures):
            return False
        frozen = ClusterModel.from_json(model.parameters)
        now = np.bincount(assign(frozen, _features(bench, figures)), minlength=frozen.k) / len(figures)
        then = np.array([sizes.get(key, 0) for key in frozen.keys], dtype=np.float64)
        return bool(np.abs(now - then / max(then.sum(), 1)).sum() / 2 > DRIFTED_SHARE)

    def apply(
        self,
        bench: Bench,
        figures: Figures,
        parameters: Mapping[str, Any],
        *,
        kept: Model | None,
        facts: Mapping[str, Column],
        held: Rows,
        words: Words,
    ) -> dict[str, Column]:
        """Return everybody's key; nobody has one where there are no clusters.

        Imported labels stay with whom they were given to; only who came later is assigned by nearest centroid.
        """
        nobody = np.full(len(figures.subject_ids), NULL_INT, dtype=np.int64)
        if not parameters:
            return {"cluster": nobody}
        model = ClusterModel.from_json(parameters)
        positions = words.position("cluster", model.keys)
        own = positions[assign(model, _features(bench, figures))][figures.units] if len(figures) else nobody
        if bench.labels is not None and kept is None:
            given = bench.labels.positions(figures, words)
            own = np.where(given == NULL_INT, own, given)
        elif kept is not None and kept.imported_as is not None and len(held):
            at, known = places(held, figures.subject_ids)
            lasting: NDArray[np.bool_] = known & (held.columns["cluster_model_id"][at] == kept.id)
            own = np.where(lasting, held.columns["cluster"][at], own)
        return {"cluster": own.astype(np.int64)}


def _features(bench: Bench, figures: Figures) -> Features:
    return features_of(figures, bench.settings.clusters.features, currency=bench.settings.currency)


def _labels_before(
    bench: Bench, figures: Figures, features: Features, last: Model, previous: ClusterModel
) -> Ints | None:
    """Return where the previous model puts the buyers of today, as positions in its keys; None where it cannot say.

    Imported labels are those that were given; what our features would say of them is another matter.
    """
    if last.imported_as is None:
        return assign(previous, features) if set(previous.names) <= set(features.names) else None
    place = {key: position for position, key in enumerate(previous.keys)}
    mine = (profiles.c.subject == bench.subject, profiles.c.cluster_model_id == last.id)
    query = select(profiles.c.subject_id, profiles.c.cluster).where(*mine)
    given = {row.subject_id: row.cluster for row in bench.connection.execute(query)}
    return np.array([place.get(given.get(one, ""), -1) for one in figures.purchases.ids.tolist()], dtype=np.int64)


def _migration(previous: ClusterModel | None, labels: Ints | None, fitted: clusters.Fitted) -> dict[str, Any] | None:
    """Return who is where by this model and was where by the one before, of the buyers of today."""
    if previous is None or labels is None:
        return None
    return migration_of_positions(labels, fitted.labels, previous.keys, fitted.model.keys)


def _profiles(fitted: clusters.Fitted, features: Features, figures: Figures) -> list[Any]:
    bought = figures.purchases
    return list(profile(fitted.model, fitted.labels, features, bought.net_minor, ids=bought.ids))
