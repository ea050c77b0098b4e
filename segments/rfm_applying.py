"""Applying RFM cut-offs to the buyers: scores after hysteresis, groups, and why a group is another than before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernel.settings import RfmSettings
from segments import rfm_maps, rfm_moves
from segments.figures import Figures
from segments.models import Model
from segments.profiles import Column, Rows, Words, places
from segments.purchases import Ints
from segments.rfm import Axes, Behaviour
from segments.rfm_moves import REASONS, MovedBy, Rules
from segments.rfm_scoring import RfmModel, measure, options, recency, same_values
from store.columns import NULL_INT

Mask = NDArray[np.bool_]

_ACTS = ("last_order_at", "orders", "days", "net_minor", "returned_minor")
"""Facts by which one sees that a buyer has done something since the last scoring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The profiles held, and the RFM models their scores come from, by id."""

    held: Rows
    versions: Mapping[int, Model]


def apply(
    figures: Figures,
    settings: RfmSettings,
    model: RfmModel,
    *,
    currency: str | None,
    facts: Mapping[str, Column],
    past: Past,
    words: Words,
) -> dict[str, Column]:
    """Return the RFM columns of everybody who gets a profile, in the order of `figures.subject_ids`.

    Who bought, but not within the window, has no scores and no group. Groups are positions among the words; why the
    group is another (`rfm_moved_by`) means nothing where it is the same.

    Args:
        figures: Of the buyers.
        settings: The values and the band; the model was fitted to the same values.
        model: The frozen cut-offs.
        currency: The workspace's.
        facts: The fresh facts of the profiles, to see who has done something.
        past: For hysteresis, and for why somebody moved.
        words: Where the names of groups stand.
    """
    measured = measure(figures, settings, usual_gap_days=model.usual_gap_days)
    place = np.full(len(figures), -1, dtype=np.intp)
    place[measured.positions] = np.arange(len(measured.positions))
    inside = np.flatnonzero(place[figures.units] >= 0)
    now = measured.behaviour.take(place[figures.units[inside]])
    at, known = places(past.held, figures.subject_ids)
    acted = _acted(past.held, at, known, facts)
    reasons = np.where(acted, REASONS.index(MovedBy.OWN_ACTION), REASONS.index(MovedBy.TIME))
    at, known, acted = at[inside], known[inside], acted[inside]
    old = _axes(past.held, at, known)
    if settings.window is None and len(past.held):
        acted = acted | (old.r > 0) & _values_differ(past.held, at, now)
    groups_of_rules = list(_rules(past, at, old, options(settings, currency), model, settings.band))
    comparable = np.zeros(len(inside), dtype=np.bool_)
    for mine, _, _ in groups_of_rules:
        comparable[mine] = True
    banded = Axes(r=old.r * comparable, f=old.f * comparable, m=old.m * comparable)
    axes = rfm_moves.settle(banded, now, model.cutoffs, settings.band)
    codes = rfm_maps.groups(model.map, axes)
    why = np.where(old.r > 0, REASONS.index(MovedBy.CUTOFF), REASONS.index(MovedBy.NEW))
    for mine, rules, usual_gap_days in groups_of_rules:
        before = _before(figures, settings, past.held, at[mine], usual_gap_days)
        why[mine] = rfm_moves.moved_by(
            old.take(mine),
            rules,
            now=now.take(mine),
            had_waited=rfm_moves.waited(before, now.take(mine), acted=acted[mine], recency_gain=0),
            codes=codes[mine],
            names=model.map.names,
        )
    reasons[inside] = why
    columns: dict[str, Column] = {
        "r": axes.r,
        "f": axes.f,
        "m": axes.m,
        "frequency": now.frequency,
        "monetary_minor": now.monetary,
        "rfm_segment": words.position("rfm_segment", model.map.names)[codes],
    }
    spread = {name: _spread(column, inside, len(figures.subject_ids)) for name, column in columns.items()}
    spread["frequency"][spread["frequency"] == NULL_INT] = 0
    return {**spread, "rfm_moved_by": reasons}


def _acted(held: Rows, at: NDArray[np.intp], known: Mask, facts: Mapping[str, Column]) -> Mask:
    acted = np.zeros(len(at), dtype=np.bool_)
    if len(held):
        for name in _ACTS:
            acted |= held.columns[name][at] != facts[name]
    return acted & known


def _axes(held: Rows, at: NDArray[np.intp], known: Mask) -> Axes:
    """Return the scores held; 0 where there are none."""
    if not len(held):
        none = np.zeros(len(at), dtype=np.int64)
        return Axes(r=none, f=none, m=none)
    scored = known & (held.columns["r"][at] != NULL_INT)
    r, f, m = (np.where(scored, held.columns[axis][at], 0).astype(np.int64) for axis in ("r", "f", "m"))
    return Axes(r=r, f=f, m=m)


def _values_differ(held: Rows, at: NDArray[np.intp], now: Behaviour) -> Mask:
    differ: Mask = (held.columns["frequency"][at] != now.frequency) | (
        held.columns["monetary_minor"][at] != now.monetary
    )
    return differ


def _rules(
    past: Past, at: NDArray[np.intp], old: Axes, wanted: Mapping[str, object], model: RfmModel, band: float
) -> Iterator[tuple[NDArray[np.intp], Rules, float]]:
    """Yield by which old rules whose scores were made, where those rules can judge the values of now.

    They cannot where something else was measured then, or by another number of scores: a change of scheme.
    """
    if not len(past.held):
        return
    model_ids = np.where(old.r > 0, past.held.columns["rfm_model_id"][at], NULL_INT)
    for model_id in np.unique(model_ids).tolist():
        version = past.versions.get(model_id)
        if version is None or not same_values(version.options, wanted):
            continue
        then = RfmModel.from_json(version.parameters)
        if then.cutoffs.scores == model.cutoffs.scores:
            rules = Rules(cutoffs=then.cutoffs, map=then.map, band=band)
            yield np.flatnonzero(model_ids == model_id), rules, then.usual_gap_days


def _before(
    figures: Figures, settings: RfmSettings, held: Rows, at: NDArray[np.intp], usual_gap_days: float
) -> Behaviour:
    """Return the values held, recency as it would be by now without another order."""
    return Behaviour(
        recency_days=recency(
            held.columns["last_order_at"][at].astype(np.int64),
            held.columns["median_gap_days"][at].astype(np.float64),
            at_ms=figures.as_of_ms,
            settings=settings,
            usual_gap_days=usual_gap_days,
        ),
        frequency=held.columns["frequency"][at].astype(np.int64),
        monetary=held.columns["monetary_minor"][at].astype(np.int64),
    )


def _spread(column: Column, inside: NDArray[np.intp], size: int) -> Ints:
    found = np.full(size, NULL_INT, dtype=np.int64)
    found[inside] = column
    return found
