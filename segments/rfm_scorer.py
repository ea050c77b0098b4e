"""RFM as a kind of model: cut-offs, fitted now and then, applied daily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernel.settings import Settings
from segments import rfm_applying, rfm_scoring
from segments.bench import Bench
from segments.figures import Figures
from segments.models import Fit, Model, ModelKind
from segments.profiles import Column, Rows, Words
from segments.rfm_applying import Past
from segments.rfm_scoring import RfmModel


class RfmScorer:
    """Scores, groups, and why somebody's group is another."""

    def options(self, settings: Settings) -> dict[str, Any]:
        """Return the RFM settings but for the band and the age, and the currency."""
        return rfm_scoring.options(settings.rfm, settings.currency)

    def refit_every(self, settings: Settings) -> str | None:
        """Return the setting; fixed thresholds never grow old."""
        return None if settings.rfm.scheme == "thresholds" else settings.rfm.refit_every

    def fit(self, bench: Bench, figures: Figures) -> Fit:
        """Return cut-offs of these buyers."""
        return rfm_scoring.fit(figures, bench.settings.rfm, currency=bench.settings.currency).fit

    def drifted(self, bench: Bench, figures: Figures, model: Model) -> bool:
        """Return False: cut-offs that no longer part the buyers in equal cells are what freezing is for."""
        return False

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
        """Return scores, values, groups and reasons."""
        versions = {model.id: model for model in bench.kept if model.kind is ModelKind.RFM}
        return rfm_applying.apply(
            figures,
            bench.settings.rfm,
            RfmModel.from_json(parameters),
            currency=bench.settings.currency,
            facts=facts,
            past=Past(held=held, versions=versions),
            words=words,
        )
