"""RFM of the buyers: from their figures to values, from values to frozen cut-offs, and from those to groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernel.errors import ConfigError
from kernel.quantities import to_minor
from kernel.settings import RfmSettings
from segments import rfm, rfm_maps
from segments.figures import Figures
from segments.models import Fit, ModelState
from segments.purchases import DAY_MS, Floats, Ints
from segments.rfm import Axes, Behaviour, Cutoffs
from segments.rfm_maps import GroupMap

GAP_UNIT = 1_000
"""Relative recency is counted in thousandths of the own median gap."""
_NOT_OF_THE_FIT = {"refit_every", "band"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RfmModel:
    """Frozen cut-offs, the map from scores to groups, and the gap of who has none of his own, in days."""

    cutoffs: Cutoffs
    map: GroupMap
    usual_gap_days: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values, which `from_json` reads back without loss."""
        return {
            "cutoffs": self.cutoffs.to_json(),
            "groups": list(self.map.names),
            "table": self.map.table.ravel().tolist(),
            "usual_gap_days": self.usual_gap_days,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        cutoffs = Cutoffs.from_json(data["cutoffs"])
        table = np.array(data["table"], dtype=np.int64).reshape((cutoffs.scores + 1,) * 3)
        table.flags.writeable = False
        group_map = GroupMap(names=tuple(data["groups"]), table=table, scores=cutoffs.scores)
        return cls(cutoffs=cutoffs, map=group_map, usual_gap_days=float(data["usual_gap_days"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What RFM is scored by: `positions` of the figures that bought within the window, and their values."""

    positions: NDArray[np.intp]
    behaviour: Behaviour


def options(settings: RfmSettings, currency: str | None) -> dict[str, Any]:
    """Return the settings a fit depends on, as kept with it."""
    return {**settings.model_dump(mode="json", exclude_none=True, exclude=_NOT_OF_THE_FIT), "currency": currency}


def same_values(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two fits measured the same things: by other cut-offs perhaps, but not by other values."""
    names = ("monetary", "recency", "window", "rollup", "currency")
    return all(one.get(name) == other.get(name) for name in names)


def measure(figures: Figures, settings: RfmSettings, *, usual_gap_days: float) -> Measured:
    """Return the values of everyone who bought within the window.

    Recency is in whole days rounded down, or in thousandths of the own median gap between days with an order; who
    has fewer than three such days is measured by the usual gap of all. An average is rounded to the nearest minor unit.
    """
    positions = np.flatnonzero(figures.window_orders > 0)
    frequency = figures.window_orders[positions]
    return Measured(
        positions=positions,
        behaviour=Behaviour(
            recency_days=_recency(figures, settings, usual_gap_days)[positions],
            frequency=frequency,
            monetary=_money(figures, settings, positions, frequency),
        ),
    )


def recency(last_ms: Ints, gap_days: Floats, *, at_ms: int, settings: RfmSettings, usual_gap_days: float) -> Ints:
    """Return what R is scored by, from the last order and the own median gap (NaN where there is none)."""
    waited_ms = at_ms - last_ms
    if settings.recency == "days":
        days: Ints = waited_ms // DAY_MS
        return days
    gaps = np.where(np.isnan(gap_days), usual_gap_days, gap_days)
    relative: Ints = np.floor(waited_ms * GAP_UNIT / (gaps * DAY_MS)).astype(np.int64)
    return relative


def usual_gap(gap_days: Floats) -> float:
    """Return the median of the own median gaps; 30 days where nobody has ordered on three days yet."""
    known = gap_days[~np.isnan(gap_days)]
    return float(np.median(known)) if len(known) else 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Cut-offs ready to be kept, the values they were fitted to, and the scores of `ties: first`, which part equals."""

    fit: Fit
    model: RfmModel
    measured: Measured
    first: Axes | None


def fit(figures: Figures, settings: RfmSettings, *, currency: str | None) -> Fitted:
    """Return cut-offs fitted to these buyers.

    Raises:
        ConfigError: thresholds missing or out of order, a map that does not fit the scheme, or margins without costs.
    """
    scores = rfm.scores_of(settings.scheme, settings.scores)
    group_map = rfm_maps.map_for(settings.map, scores)
    gap = usual_gap(figures.median_gap_days)
    measured = measure(figures, settings, usual_gap_days=gap)
    noun = f"{figures.subject}s"
    first: Axes | None = None
    if settings.ties == "first" and settings.scheme != "thresholds":
        if settings.scheme != "quintiles":
            raise ConfigError(f"ties: first is for scheme: quintiles, not {settings.scheme}; leave ties out")
        first = rfm.first_ranks(measured.behaviour)
        cutoffs = rfm.borders_of(measured.behaviour, first)
    else:
        cutoffs = rfm.fit(
            measured.behaviour, settings.scheme, scores=scores, thresholds=_thresholds(settings, scores, currency)
        )
    warnings = rfm.warnings(measured.behaviour, cutoffs, settings.scheme, noun)
    if first is not None:
        warnings.append("ties: first parts equal customers by their ids; only to compare with published tables")
    model = RfmModel(cutoffs=cutoffs, map=group_map, usual_gap_days=gap)
    made = Fit(
        state=ModelState.ACTIVE,
        fitted_on=len(measured.positions),
        options=options(settings, currency),
        parameters=model.to_json(),
        report={"warnings": warnings},
    )
    return Fitted(fit=made, model=model, measured=measured, first=first)


def _recency(figures: Figures, settings: RfmSettings, usual_gap_days: float) -> Ints:
    return recency(
        figures.purchases.last_ms,
        figures.median_gap_days,
        at_ms=figures.as_of_ms,
        settings=settings,
        usual_gap_days=usual_gap_days,
    )


def _money(figures: Figures, settings: RfmSettings, positions: NDArray[np.intp], frequency: Ints) -> Ints:
    if settings.monetary == "gross":
        return figures.window_gross_minor[positions]
    if settings.monetary == "margin":
        if figures.margin_minor is None:
            raise ValueError("the margin was not read")
        if len(positions) and not figures.costs_known:
            raise ConfigError(
                "carillon.yaml: rfm: monetary: margin, and no order line has a known cost, so that every margin would "
                "be 0: import order lines with `unit_cost` or a warehouse's cost, or set monetary: net"
            )
        return figures.margin_minor[positions]
    net = figures.window_net_minor[positions]
    return net if settings.monetary == "net" else (2 * net + frequency) // (2 * frequency)


def _thresholds(settings: RfmSettings, scores: int, currency: str | None) -> Cutoffs | None:
    """Return the fixed borders of the settings, where the scheme reads any."""
    unit = GAP_UNIT if settings.recency == "relative" else 1
    recency_days = tuple(days * unit for days in settings.recency_days or ())
    if settings.scheme == "thirds":
        if not recency_days:
            if settings.recency == "relative":
                raise ConfigError(
                    "carillon.yaml: rfm: scheme: thirds with recency: relative needs recency_days in own median gaps, "
                    "as [1, 2]"
                )
            return None
        return Cutoffs(scores=3, recency=recency_days, frequency=(None, None), monetary=(None, None))
    if settings.scheme != "thresholds":
        return None
    return Cutoffs(
        scores=scores,
        recency=recency_days,
        frequency=tuple(settings.orders or ()),
        monetary=tuple(to_minor(amount, currency or "EUR") for amount in settings.money or ()),
    )
