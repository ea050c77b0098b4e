"""RFM as a kind of model: cut-offs, fitted now and then, applied daily."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sqlalchemy import func, select

from kernel.quantities import parse_duration
from kernel.settings import Settings
from kernel.vocabulary import OrderKind, Subject
from segments import rfm_applying, rfm_scoring
from segments.bench import Bench
from segments.buyers import counted, subject_column
from segments.figures import Figures
from segments.models import Fit, Model, ModelKind, ModelState
from segments.profiles import Column, Rows, Words
from segments.rfm_applying import Past
from segments.rfm_scoring import RfmModel
from store.columns import NULL_INT
from store.tables import accounts, contacts, orders

FEW_BUYERS = 50
"""Cut-offs of fewer buyers than these are fitted anew as soon as there is one more."""
GROWTH = 2
"""Cut-offs are fitted anew when so many times as many have bought as they were fitted to."""


class RfmScorer:
    """Scores, groups, and why somebody's group is another."""

    def options(self, settings: Settings) -> dict[str, Any]:
        """Return the RFM settings but for the band and the age, and the currency."""
        return rfm_scoring.options(settings.rfm, settings.currency)

    def refit_every(self, settings: Settings) -> str | None:
        """Return the setting; fixed thresholds never grow old."""
        return None if settings.rfm.scheme == "thresholds" else settings.rfm.refit_every

    def fit(self, bench: Bench, figures: Figures) -> Fit:
        """Return cut-offs of these buyers; refused where nobody has bought and borders are not fixed."""
        fit = rfm_scoring.fit(figures, bench.settings.rfm, currency=bench.settings.currency).fit
        if not fit.fitted_on and not _fixed(bench.settings):
            note = f"no {bench.subject} has bought: import orders; cut-offs are fitted as soon as there are buyers"
            return replace(fit, state=ModelState.REFUSED, parameters={}, report={}, note=note)
        stands = bench.standing(ModelKind.RFM)
        if stands is None or not self.drifted(bench, figures, stands):
            return fit
        grown = f"fitted anew: {fit.fitted_on:,} have bought, and version {stands.version} was fitted on "
        warnings = [*fit.report["warnings"], f"{grown}{stands.fitted_on:,}"]
        return replace(fit, report={**fit.report, "warnings": warnings})

    def drifted(self, bench: Bench, figures: Figures, model: Model) -> bool:
        """Return whether there are so many more buyers that the cut-offs speak of others.

        That they no longer part the same buyers in equal cells is what freezing is for.
        """
        return not _fixed(bench.settings) and int((figures.window_orders > 0).sum()) >= _too_many(model)

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
        """Return scores, values, groups and reasons; none for anybody where the model is refused."""
        if not parameters:
            nothing = np.full(len(figures.subject_ids), NULL_INT, dtype=np.int64)
            names = ("r", "f", "m", "monetary_minor", "rfm_segment", "rfm_moved_by")
            return {**dict.fromkeys(names, nothing), "frequency": np.zeros_like(nothing)}
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


def has_outgrown(bench: Bench, model: Model) -> bool:
    """Return whether so many more have bought since the fit that some cannot be scored by it alone.

    Asked of our own orders, before any figures are read, and of no more of them than the answer needs. Where orders
    are elsewhere or families are scored as one, that is found when everybody is scored: at least once a day.
    """
    rfm = bench.settings.rfm
    if _fixed(bench.settings) or not bench.origin.source.own or rfm.rollup != "none":
        return False
    enough = _too_many(model)
    # There cannot be more buyers than there are subjects: a count that takes no walk through all orders.
    everyone = accounts if bench.subject is Subject.ACCOUNT else contacts
    if bench.connection.execute(select(func.count()).select_from(everyone)).scalar_one() < enough:
        return False
    key = subject_column(bench.subject)
    bought = select(key).where(key.is_not(None), counted(orders, bench.now), orders.c.kind == OrderKind.ORDER)
    if rfm.window:
        bought = bought.where(orders.c.ordered_at >= bench.now - parse_duration(rfm.window))
    some = bought.distinct().limit(enough).subquery()
    return bool(bench.connection.execute(select(func.count()).select_from(some)).scalar_one() >= enough)


def _fixed(settings: Settings) -> bool:
    """Tell whether all borders are those of the settings."""
    return settings.rfm.scheme == "thresholds"


def _too_many(model: Model) -> int:
    """Return for how many buyers the cut-offs of a version are no longer good enough."""
    few = model.fitted_on < FEW_BUYERS
    return model.fitted_on + 1 if few else GROWTH * model.fitted_on
