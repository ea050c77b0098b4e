"""Every kind of model, with what is special about it."""

from __future__ import annotations

from segments.bench import Scorer
from segments.cluster_scorer import ClusterScorer
from segments.lifetime_scorer import LifetimeScorer
from segments.models import ModelKind
from segments.rfm_scorer import RfmScorer

SCORERS: dict[ModelKind, Scorer] = {
    ModelKind.RFM: RfmScorer(),
    ModelKind.CLUSTERS: ClusterScorer(),
    ModelKind.LIFETIME: LifetimeScorer(),
}
