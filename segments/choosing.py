"""Which version of a model is applied: the one that stands, or a fit made now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kernel.quantities import parse_duration
from kernel.settings import Settings
from segments.bench import Bench
from segments.figures import Figures
from segments.model_kinds import SCORERS
from segments.models import IMPORTED, Fit, Model, ModelKind, ModelState
from segments.rfm_scorer import has_outgrown


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which model of a kind is applied: one that is kept, or a fit made now; `waiting` is a fit to be held."""

    kept: Model | None = None
    fit: Fit | None = None
    waiting: Fit | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What is applied; empty where nothing can be."""
        if self.fit is not None:
            return self.fit.parameters
        return self.kept.parameters if self.kept is not None else {}

    @property
    def applied(self) -> Model | None:
        """The kept version that is applied; None: the fit made now is, or nothing can be."""
        return self.kept if self.fit is None else None


def choose(bench: Bench, kind: ModelKind, figures: Figures, *, anew: bool, frozen: bool) -> Chosen:
    """Return which model to apply, fitting one where it must be.

    Args:
        bench: With the versions so far.
        kind: Of model.
        figures: Of the buyers; of all of them unless `frozen`.
        anew: Fit whatever the age.
        frozen: Apply what stands, if anything does, whatever its age.
    """
    scorer = SCORERS[kind]
    stands = bench.standing(kind)
    frozen = frozen and not _is_of_nobody(stands)
    as_it_is = not anew and (frozen or not _due(bench, kind, figures, stands))
    if stands is not None and as_it_is:
        return Chosen(kept=stands)
    options = scorer.options(bench.settings)
    if bench.labels is not None and kind is ModelKind.CLUSTERS:
        options[IMPORTED] = bench.labels.named
    fit = replace(scorer.fit(bench, figures), options=options)
    if fit.state is ModelState.HELD:
        return Chosen(kept=stands, waiting=fit)
    return Chosen(fit=fit)


def can_apply(bench: Bench, kind: ModelKind) -> bool:
    """Return whether a version stands that was fitted with the settings of now, to about as many buyers."""
    model = bench.standing(kind)
    if model is None or not is_current(model, bench.settings):
        return False
    return kind is not ModelKind.RFM or not has_outgrown(bench, model)


def is_current(model: Model, settings: Settings) -> bool:
    """Return whether a version was fitted with these settings, or came from elsewhere and knows none.

    RFM of nobody is current never: the first buyers must not wait until it is old.
    """
    return not _is_of_nobody(model) and _is_of_these(model, settings)


def _is_of_these(model: Model, settings: Settings) -> bool:
    return model.imported_as is not None or model.options == SCORERS[model.kind].options(settings)


def _is_of_nobody(model: Model | None) -> bool:
    return model is not None and model.kind is ModelKind.RFM and not model.parameters


def _due(bench: Bench, kind: ModelKind, figures: Figures, stands: Model | None) -> bool:
    scorer = SCORERS[kind]
    waiting = bench.held(kind)
    latest = max((model for model in (stands, waiting) if model), key=lambda model: model.version, default=None)
    if stands is None or latest is None:
        return True
    if stands.imported_as is not None:
        return False
    if not _is_of_these(latest, bench.settings):
        return True
    every = scorer.refit_every(bench.settings)
    if every is not None and latest.as_of <= bench.now - parse_duration(every):
        return True
    return waiting is None and scorer.drifted(bench, figures, stands)
