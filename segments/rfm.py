"""RFM scoring: recency, frequency and monetary value of buyers as scores from 1 to 5, 5 the best.

Pure: NumPy arrays in, arrays out. Every axis is scored on all subjects (independent sort, not nested).

Source:
    Hughes, Strategic Database Marketing: five equal cells per axis. Miglautsch, "Thoughts on RFM scoring",
    Journal of Database Marketing 8(1), 2000: why equal cells split equal customers, which `stable` avoids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernel.vocabulary import RFM_SEGMENTS

Ints = NDArray[np.int64]

SCORES = 5
CROWDED_SHARE = 0.2
"""One value that covers more subjects than a fifth makes quintiles of that axis a fiction."""
FEW = 500
VERY_FEW = 50

# Rows are R from 1 to 5, columns F from 1 to 5.
_GRID_WORDS = (
    ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"),
    ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"),
    ("about_to_sleep", "about_to_sleep", "need_attention", "loyal_customers", "loyal_customers"),
    ("promising", "potential_loyalists", "potential_loyalists", "loyal_customers", "loyal_customers"),
    ("new_customers", "potential_loyalists", "potential_loyalists", "champions", "champions"),
)
_GRID = np.array([[RFM_SEGMENTS.index(word) for word in row] for row in _GRID_WORDS], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What buyers did, one position per subject in all arrays, in the order of their external ids.

    `recency_days` are whole days since the last order, `frequency` the number of orders (at least 1),
    `monetary` money in minor units, which may be negative where returns outweigh orders.
    """

    recency_days: Ints
    frequency: Ints
    monetary: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores from 1 to 5 per subject; `group` is a position in `RFM_SEGMENTS`."""

    r: Ints
    f: Ints
    m: Ints
    group: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Four borders per axis, best first: within the first is a 5, beyond the last a 1. Borders belong to the better."""

    recency_days: Sequence[int]
    orders: Sequence[int]
    money_minor: Sequence[int]


def segment_of(r: int, f: int) -> str:
    """Return the one group of the R×F grid for scores from 1 to 5."""
    return RFM_SEGMENTS[int(_GRID[r - 1, f - 1])]


def by_stable_rank(behaviour: Behaviour) -> Scores:
    """Score by quintiles of the tie-stable rank: equal behaviour always gets equal scores.

    The score of a value is `1 + (rank - 1) * 5 // n`, the rank being the lowest among equals. Recency is ranked
    from the latest buyer and then turned round, so that here too 5 is best.
    """
    return _scores(
        r=SCORES + 1 - _fifth_of_rank(behaviour.recency_days),
        f=_fifth_of_rank(behaviour.frequency),
        m=_fifth_of_rank(behaviour.monetary),
    )


def by_first_rank(behaviour: Behaviour) -> Scores:
    """Score as the published notebooks do: equal frequencies are parted by the order of the subjects.

    R and M are pandas' `qcut(values, 5)`, F is `qcut(rank(method="first"), 5)`. For comparison with published
    tables only: who stands on which side of a border is decided by a customer number.
    """
    order = np.argsort(behaviour.frequency, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(1, len(order) + 1)
    return _scores(
        r=SCORES + 1 - _fifth_of_value(behaviour.recency_days),
        f=_fifth_of_value(rank),
        m=_fifth_of_value(behaviour.monetary),
    )


def by_thresholds(behaviour: Behaviour, thresholds: Thresholds) -> Scores:
    """Score by fixed borders: a subject moves by its own doing only, and small shops are scored sensibly."""
    return _scores(
        r=_above(-behaviour.recency_days, [-days for days in thresholds.recency_days]),
        f=_above(behaviour.frequency, thresholds.orders),
        m=_above(behaviour.monetary, thresholds.money_minor),
    )


def cutoffs(behaviour: Behaviour, scores: Scores) -> dict[str, list[int | None]]:
    """Return the borders found, four per axis, best first, in the form thresholds are given in.

    For scores 5, 4, 3 and 2: the most days, fewest orders and least money (minor units) of whoever has that score;
    None where nobody has.
    """
    return {
        "recency_days": [_border(behaviour.recency_days, scores.r, score, most=True) for score in (5, 4, 3, 2)],
        "orders": [_border(behaviour.frequency, scores.f, score, most=False) for score in (5, 4, 3, 2)],
        "money_minor": [_border(behaviour.monetary, scores.m, score, most=False) for score in (5, 4, 3, 2)],
    }


def quintile_warnings(behaviour: Behaviour, noun: str) -> list[str]:
    """Return in words why quintiles mean little for these subjects; empty where they are sound.

    Args:
        behaviour: What the subjects did.
        noun: What they are called, in the plural.
    """
    count = len(behaviour.frequency)
    found = []
    if 0 < count < VERY_FEW:
        found.append(f"only {count} {noun} have bought: quintiles say nothing about so few; use scheme: thresholds")
    elif 0 < count < FEW:
        found.append(f"only {count} {noun} have bought: quintiles are coarse below {FEW}; consider scheme: thresholds")
    axes = {
        "recency_days": behaviour.recency_days,
        "frequency": behaviour.frequency,
        "monetary": behaviour.monetary,
    }
    for name, values in axes.items():
        value, share = _commonest(values)
        if share > CROWDED_SHARE:
            found.append(
                f"{name}: the value {value} covers {share:.0%} of {count:,} {noun}, so quintiles of it are not "
                "fifths; consider scheme: thresholds"
            )
    return found


def group_means(behaviour: Behaviour, scores: Scores) -> dict[str, dict[str, float | int | None]]:
    """Return for each of the ten groups, best first: n and the means of R (days), F (orders) and M (minor units).

    Means are None where a group is empty.
    """
    size = len(RFM_SEGMENTS)
    n = np.bincount(scores.group, minlength=size)
    means = {
        name: np.bincount(scores.group, weights=values, minlength=size) / np.maximum(n, 1)
        for name, values in (
            ("recency_mean", behaviour.recency_days),
            ("frequency_mean", behaviour.frequency),
            ("monetary_mean", behaviour.monetary),
        )
    }
    return {
        word: {"n": int(n[i]), **{name: float(column[i]) if n[i] else None for name, column in means.items()}}
        for i, word in enumerate(RFM_SEGMENTS)
    }


def _scores(*, r: Ints, f: Ints, m: Ints) -> Scores:
    return Scores(r=r, f=f, m=m, group=_GRID[r - 1, f - 1])


def _fifth_of_rank(values: Ints) -> Ints:
    rank_from_0 = np.searchsorted(np.sort(values), values, side="left").astype(np.int64)
    return 1 + rank_from_0 * SCORES // max(len(values), 1)


def _fifth_of_value(values: NDArray[Any]) -> Ints:
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
    return 1 + np.searchsorted(edges, values, side="left").astype(np.int64)


def _above(values: Ints, borders_best_first: Sequence[int]) -> Ints:
    return 1 + np.searchsorted(np.array(borders_best_first[::-1]), values, side="right").astype(np.int64)


def _border(values: Ints, scores: Ints, score: int, *, most: bool) -> int | None:
    having = values[scores == score]
    if not len(having):
        return None
    return int(having.max() if most else having.min())


def _commonest(values: Ints) -> tuple[int, float]:
    if not len(values):
        return 0, 0.0
    distinct, counts = np.unique(values, return_counts=True)
    top = int(np.argmax(counts))
    return int(distinct[top]), float(counts[top]) / len(values)
