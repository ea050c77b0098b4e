"""Lifetime value as a kind of model: fitted weekly, tested against the past, refused where the data cannot carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kernel.clock import from_ms
from kernel.quantities import parse_duration
from kernel.settings import Settings
from segments.bench import Bench
from segments.calibration import back_test
from segments.figures import Figures
from segments.models import Fit, Model, ModelState
from segments.predictions import LifetimeModels, Refusal, fit_models, predict
from segments.profiles import Column, Rows, Words
from segments.purchases import DAY_MS, Ints
from store.columns import NULL_INT

TESTED_BUYERS = 20_000
"""The test against the past looks at a random sample of so many buyers."""
HELD_OUT_SHARE = 1 / 3
"""The latest part of the time there are orders of is held out, at most the horizon."""


class LifetimeScorer:
    """Probability to be still there, orders to come and what they are worth."""

    def options(self, settings: Settings) -> dict[str, Any]:
        """Return the lifetime settings but for the age, the currency, and who counts as one buyer."""
        own = settings.lifetime.model_dump(mode="json", exclude={"refit_every"})
        return {**own, "currency": settings.currency, "rollup": settings.rfm.rollup}

    def refit_every(self, settings: Settings) -> str | None:
        """Return the setting."""
        return settings.lifetime.refit_every

    def fit(self, bench: Bench, figures: Figures) -> Fit:
        """Return both models, and how they would have done; or why there are none."""
        found = fit_models(figures.purchases, figures.as_of_ms, bench.settings.lifetime.model)
        if isinstance(found, Refusal):
            return Fit(
                state=ModelState.REFUSED,
                fitted_on=len(figures),
                options={},
                parameters={},
                report=found.to_json(),
                note="; ".join(found.reasons),
            )
        return Fit(
            state=ModelState.ACTIVE,
            fitted_on=len(figures),
            options={},
            parameters=found.to_json(),
            report={**found.summary(), "warnings": list(found.report.warnings), "calibration": _tested(bench, figures)},
        )

    def drifted(self, bench: Bench, figures: Figures, model: Model) -> bool:
        """Return False: parameters move slowly, and a week is soon over."""
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
        """Return the predictions; none for anybody where the model is refused."""
        size = len(figures.subject_ids)
        if not parameters:
            no_number, no_count = np.full(size, np.nan), np.full(size, NULL_INT, dtype=np.int64)
            return {
                "p_alive": no_number,
                "expected_orders": no_number,
                "order_value_minor": no_count,
                "clv_minor": no_count,
                "next_order_at": no_count,
            }
        models = LifetimeModels.from_json(parameters)
        found = predict(figures.purchases, figures.as_of_ms, models.bg, models.gg, **horizon(bench.settings))
        units = figures.units
        return {
            "p_alive": found.p_alive[units],
            "expected_orders": found.expected_orders[units],
            "order_value_minor": found.order_value_minor[units],
            "clv_minor": found.clv_minor[units],
            "next_order_at": found.next_order_ms[units],
        }


def horizon(settings: Settings) -> dict[str, float]:
    """Return how far ahead to look and what the money is worth, as the models' functions take it."""
    own = settings.lifetime
    days = parse_duration(own.horizon).total_seconds() * 1000 / DAY_MS
    return {"horizon_days": days, "margin": own.margin, "annual_discount": own.annual_discount}


def _tested(bench: Bench, figures: Figures) -> dict[str, Any]:
    """Return how models of an earlier date would have done since; a reason where there is too little to test on."""
    span_ms = int(HELD_OUT_SHARE * (figures.as_of_ms - int(figures.purchases.first_ms.min())))
    span_ms = min(span_ms, int(horizon(bench.settings)["horizon_days"] * DAY_MS))
    # A midnight, so that no day with orders lies on both sides.
    before_ms = (figures.as_of_ms - span_ms) // DAY_MS * DAY_MS
    sample = _sample(len(figures))
    after = figures.purchases.take(sample)
    earlier = bench.figures(as_of=from_ms(before_ms), only=after.ids)
    kind = bench.settings.lifetime.model
    tested = back_test(earlier.purchases, before_ms, after, figures.as_of_ms, kind)
    head = {"sampled": len(sample), "from_ms": before_ms, "to_ms": figures.as_of_ms}
    return {**head, **tested.to_json()}


def _sample(count: int) -> Ints:
    if count <= TESTED_BUYERS:
        return np.arange(count)
    return np.sort(np.random.default_rng(1).choice(count, TESTED_BUYERS, replace=False))
