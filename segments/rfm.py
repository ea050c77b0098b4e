"""RFM scoring: recency, frequency and monetary value of buyers as scores from 1 to n, n the best.

Pure: NumPy arrays in, arrays out. A scheme is fitted to the buyers once and leaves cut-offs; cut-offs score anybody, at
any time, by looking at that one subject only. Every axis is scored on all subjects (independent sort, not nested).

Source:
    Hughes, Strategic Database Marketing: five equal cells per axis. Miglautsch, "Thoughts on RFM scoring",
    Journal of Database Marketing 8(1), 2000: buckets of equal behaviour, since equal cells split equal customers.
    Klaviyo's help article 17797937793179: the scheme of thirds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernel.errors import ConfigError

Ints = NDArray[np.int64]
Borders = tuple[int | None, ...]

SCORES = 5
FEWEST_SCORES, MOST_SCORES = 2, 10
THIRDS_RECENCY_DAYS = (180, 365)
"""Recency of the scheme of thirds: at most so many days score 3 and 2."""
CROWDED_SHARE = 0.2
"""One value that covers more subjects than a fifth makes equal cells of that axis a fiction."""
FEW = 500
VERY_FEW = 50

_CELLS = {"quintiles": "quintiles", "quantiles": "quantiles", "thirds": "thirds", "equal_behaviour": "equal buckets"}
"""What the cells of a fitted scheme are called in sentences."""
_LARGEST = 2**62
"""No border and no sum may be larger: int64 must hold it with a band added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What buyers did, one position per subject in all arrays of int64.

    `recency_days` are whole days since the last order (thousandths of the subject's own median gap, where recency is
    relative), `frequency` the number of orders (at least 1), `monetary` money in minor units, which may be negative
    where returns outweigh orders.
    """

    recency_days: Ints
    frequency: Ints
    monetary: Ints

    def __len__(self) -> int:
        return len(self.frequency)

    def take(self, positions: NDArray[Any]) -> Behaviour:
        """Return these positions, in their order."""
        return Behaviour(
            recency_days=self.recency_days[positions],
            frequency=self.frequency[positions],
            monetary=self.monetary[positions],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Scores from 1 to n per subject, n the best; 0 on every axis where there is no score yet."""

    r: Ints
    f: Ints
    m: Ints

    def __len__(self) -> int:
        return len(self.r)

    def take(self, positions: NDArray[Any]) -> Axes:
        """Return these positions, in their order."""
        return Axes(r=self.r[positions], f=self.f[positions], m=self.m[positions])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoffs:
    """The borders between `scores` scores: n-1 per axis, best first, for the scores n, n-1, … 2.

    A border belongs to the better score: at most so many days, at least so many orders, at least so much money in minor
    units. None where nobody gets that score; beyond the last border the score is 1.

    Raises:
        ConfigError: an axis has another number of borders, or they do not run from best to worst.
    """

    scores: int
    recency: Borders
    frequency: Borders
    monetary: Borders

    def __post_init__(self) -> None:
        if not FEWEST_SCORES <= self.scores <= MOST_SCORES:
            raise ConfigError(f"rfm.scores must lie between {FEWEST_SCORES} and {MOST_SCORES}, got {self.scores}")
        _check("recency_days", self.recency, self.scores, rising=True)
        _check("orders", self.frequency, self.scores, rising=False)
        _check("money", self.monetary, self.scores, rising=False)

    def to_json(self) -> dict[str, list[int | None]]:
        """Return the borders under the names thresholds have in carillon.yaml; money in minor units."""
        return {
            "recency_days": list(self.recency),
            "orders": list(self.frequency),
            "money_minor": list(self.monetary),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[int | None]]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            ConfigError: an axis is missing, or the borders are no cut-offs.
        """
        missing = [name for name in ("recency_days", "orders", "money_minor") if name not in data]
        if missing:
            raise ConfigError(f"cut-offs without {', '.join(missing)}: score anew to replace them")
        return cls(
            scores=len(data["recency_days"]) + 1,
            recency=tuple(data["recency_days"]),
            frequency=tuple(data["orders"]),
            monetary=tuple(data["money_minor"]),
        )


def scores_of(scheme: str, scores: int = SCORES) -> int:
    """Return how many scores an axis has under a scheme, given the setting `rfm.scores`.

    Raises:
        ConfigError: the scheme does not exist or has another fixed number.
    """
    if scheme == "quintiles" and scores != SCORES:
        raise ConfigError(f"rfm.scores is {scores}, but scheme: quintiles has {SCORES}; write scheme: quantiles")
    if scheme == "thirds":
        if scores not in (3, SCORES):
            raise ConfigError(f"rfm.scores is {scores}, but scheme: thirds has 3; leave rfm.scores out")
        return 3
    if scheme not in ("thresholds", *_CELLS):
        raise ConfigError(f"rfm.scheme {scheme!r} is unknown; known are {', '.join(_CELLS)} and thresholds")
    return scores


def fit(behaviour: Behaviour, scheme: str, *, scores: int = SCORES, thresholds: Cutoffs | None = None) -> Cutoffs:
    """Return the cut-offs of a scheme for these subjects. Equal values get equal scores under every scheme.

    - `quantiles`, and `quintiles` for five: equal headcount by the tie-stable rank. A value scores
      `1 + (rank - 1) * n // N`, the rank being the lowest among equals; recency is ranked from the latest buyer on and
      then turned round.
    - `equal_behaviour`: equal sums. A value scores `n - above * n // total`, at least 1, `above` being the sum of all
      larger values: the best buyers who together made the first n-th of the orders (the money) score n. Negative
      money counts as none. Days add up to nothing, so recency keeps equal headcount.
    - `thirds`: recency by fixed borders (`THIRDS_RECENCY_DAYS`, or those of `thresholds`, whose other axes are not
      read); frequency and money by tie-stable tertiles.
    - `thresholds`: the borders given.

    Args:
        behaviour: What the subjects did; may be empty, and then every fitted border is None.
        scheme: One of the above.
        scores: How many scores an axis has, from 2 to 10; quintiles and thirds have theirs.
        thresholds: Fixed borders for `thresholds` (required) and `thirds`.

    Raises:
        ConfigError: unknown scheme, wrong number of scores, thresholds missing, or sums beyond 64 bits.
    """
    scores = scores_of(scheme, scores)
    if thresholds is not None and scheme in ("thresholds", "thirds") and thresholds.scores != scores:
        raise ConfigError(f"rfm: {scores} scores need {scores - 1} borders an axis, got {thresholds.scores - 1}")
    if scheme == "thresholds":
        if thresholds is None:
            raise ConfigError(
                f"rfm: scheme: thresholds needs recency_days, orders and money, {scores - 1} borders each, best first"
            )
        return thresholds
    rule = _equal_sums if scheme == "equal_behaviour" else _equal_heads
    if scheme == "thirds":
        recency: Borders = thresholds.recency if thresholds else THIRDS_RECENCY_DAYS
    else:
        recency = _fit_recency(behaviour.recency_days, scores)
    return Cutoffs(
        scores=scores,
        recency=recency,
        frequency=_fit_larger_is_better(behaviour.frequency, scores, rule),
        monetary=_fit_larger_is_better(behaviour.monetary, scores, rule),
    )


def apply(cutoffs: Cutoffs, behaviour: Behaviour) -> Axes:
    """Return the scores by cut-offs: each subject's by its own values, whoever the others are.

    Cut-offs applied to the subjects they were fitted to give the scores of the scheme.
    """
    return Axes(
        r=_at_most(behaviour.recency_days, cutoffs.recency),
        f=_at_least(behaviour.frequency, cutoffs.frequency),
        m=_at_least(behaviour.monetary, cutoffs.monetary),
    )


def first_ranks(behaviour: Behaviour) -> Axes:
    """Score from 1 to 5 as the published notebooks do: equal frequencies are parted by the order of the subjects.

    R and M are pandas' `qcut(values, 5)`, F is `qcut(rank(method="first"), 5)`. For comparison with published
    tables only: who stands on which side of a border is decided by a customer number, so no cut-offs give these scores
    again.
    """
    order = np.argsort(behaviour.frequency, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(1, len(order) + 1)
    return Axes(
        r=SCORES + 1 - _fifth_of_value(behaviour.recency_days),
        f=_fifth_of_value(rank),
        m=_fifth_of_value(behaviour.monetary),
    )


def borders_of(behaviour: Behaviour, axes: Axes, scores: int = SCORES) -> Cutoffs:
    """Return the borders found in scores made by any rule, for the record.

    They are the most days, fewest orders and least money (minor units) of whoever has a score; None where nobody has.
    """
    wanted = range(scores, 1, -1)
    return Cutoffs(
        scores=scores,
        recency=tuple(_extreme(behaviour.recency_days[axes.r == score], most=True) for score in wanted),
        frequency=tuple(_extreme(behaviour.frequency[axes.f == score], most=False) for score in wanted),
        monetary=tuple(_extreme(behaviour.monetary[axes.m == score], most=False) for score in wanted),
    )


def warnings(behaviour: Behaviour, cutoffs: Cutoffs, scheme: str, noun: str) -> list[str]:
    """Return in words why the scores mean little for these subjects; empty where they are sound.

    Args:
        behaviour: What the subjects did.
        cutoffs: By which they are scored.
        scheme: The scheme that made the cut-offs.
        noun: What the subjects are called, in the plural.
    """
    count = len(behaviour)
    if not count:
        return []
    if scheme == "thresholds":
        return _idle_axes(behaviour, cutoffs, noun)
    cells = _CELLS[scheme]
    found = []
    if count < VERY_FEW:
        found.append(f"only {count} {noun} have bought: {cells} say nothing about so few; use scheme: thresholds")
    elif count < FEW:
        found.append(f"only {count} {noun} have bought: {cells} are coarse below {FEW}; consider scheme: thresholds")
    axes = {"frequency": (behaviour.frequency, cutoffs.frequency), "monetary": (behaviour.monetary, cutoffs.monetary)}
    if scheme != "thirds":
        axes = {"recency_days": (behaviour.recency_days, cutoffs.recency), **axes}
    for name, (values, borders) in axes.items():
        of_sum = scheme == "equal_behaviour" and name != "recency_days"
        value, share = _largest_share(values, of_sum=of_sum)
        if share > min(CROWDED_SHARE, 1 / cutoffs.scores):
            covers = f"makes up {share:.0%} of the sum over" if of_sum else f"covers {share:.0%} of"
            found.append(
                f"{name}: the value {value} {covers} {count:,} {noun}, so {cells} of it are not equal"
                f"{_nobody(borders, cutoffs.scores)}; consider scheme: thresholds"
            )
    return found


def group_means(behaviour: Behaviour, codes: Ints, names: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Return for each group, in the order of the names: n and the means of R (days), F (orders) and M (minor units).

    Args:
        behaviour: What the subjects did.
        codes: Each subject's group as a position in `names`.
        names: The groups.

    Returns:
        By name: `n`, `recency_mean`, `frequency_mean`, `monetary_mean`; the means are None where a group is empty.
    """
    size = len(names)
    n = np.bincount(codes, minlength=size)
    means = {
        name: np.bincount(codes, weights=values, minlength=size) / np.maximum(n, 1)
        for name, values in (
            ("recency_mean", behaviour.recency_days),
            ("frequency_mean", behaviour.frequency),
            ("monetary_mean", behaviour.monetary),
        )
    }
    return {
        word: {"n": int(n[i]), **{name: float(column[i]) if n[i] else None for name, column in means.items()}}
        for i, word in enumerate(names)
    }


# --- fitting -------------------------------------------------------------------------------------------------

Rule = Callable[[Ints, Ints, int], Ints]
"""From the distinct values, ascending, how often each occurs, and n, to the score of each."""


def _equal_heads(_values: Ints, counts: Ints, scores: int) -> Ints:
    total = int(counts.sum())
    below = np.cumsum(counts) - counts
    return 1 + below * scores // max(total, 1)


def _equal_sums(distinct: Ints, counts: Ints, scores: int) -> Ints:
    amounts = np.maximum(distinct, 0)
    if float(amounts.astype(np.float64) @ counts) * scores >= _LARGEST:
        raise ConfigError("rfm: the values add up to more than 64 bits hold; use scheme: quantiles or thresholds")
    sums = amounts * counts
    total = int(sums.sum())
    if not total:
        return np.ones_like(distinct)
    above = total - np.cumsum(sums)
    return np.maximum(scores - above * scores // total, 1)


def _fit_larger_is_better(values: Ints, scores: int, rule: Rule) -> Borders:
    distinct, counts = np.unique(values, return_counts=True)
    found = rule(distinct, counts, scores)
    return tuple(_extreme(distinct[found == score], most=False) for score in range(scores, 1, -1))


def _fit_recency(values: Ints, scores: int) -> Borders:
    distinct, counts = np.unique(values, return_counts=True)
    found = scores + 1 - _equal_heads(distinct, counts, scores)
    return tuple(_extreme(distinct[found == score], most=True) for score in range(scores, 1, -1))


def _extreme(values: Ints, *, most: bool) -> int | None:
    if not len(values):
        return None
    return int(values.max() if most else values.min())


def _fifth_of_value(values: NDArray[Any]) -> Ints:
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
    return 1 + np.searchsorted(edges, values, side="left").astype(np.int64)


# --- applying ------------------------------------------------------------------------------------------------


def _named(borders: Borders) -> list[tuple[int, int]]:
    """Return score and border, best first, of the scores somebody can have."""
    best = len(borders) + 1
    return [(best - i, border) for i, border in enumerate(borders) if border is not None]


def _at_most(values: Ints, borders: Borders) -> Ints:
    named = _named(borders)
    scores = np.array([score for score, _ in named] + [1], dtype=np.int64)
    return scores[np.searchsorted(np.array([border for _, border in named], dtype=np.int64), values, side="left")]


def _at_least(values: Ints, borders: Borders) -> Ints:
    named = _named(borders)[::-1]
    scores = np.array([1] + [score for score, _ in named], dtype=np.int64)
    return scores[np.searchsorted(np.array([border for _, border in named], dtype=np.int64), values, side="right")]


# --- checking and warning ------------------------------------------------------------------------------------


def _check(name: str, borders: Borders, scores: int, *, rising: bool) -> None:
    if len(borders) != scores - 1:
        raise ConfigError(
            f"rfm.{name} must list {scores - 1} borders, best first, for scores from {scores} to 1; got {len(borders)}"
        )
    given = [border for border in borders if border is not None]
    if any(b < a if rising else b > a for a, b in pairwise(given)):
        direction = "rise" if rising else "fall"
        raise ConfigError(f"rfm.{name} must {direction}, from the border of score {scores} to that of 2: {given}")
    if any(abs(border) >= _LARGEST for border in given):
        raise ConfigError(f"rfm.{name} has a border beyond 64 bits: {given}")


def _idle_axes(behaviour: Behaviour, cutoffs: Cutoffs, noun: str) -> list[str]:
    """Return a sentence for each axis whose fixed borders tell nobody from anybody."""
    axes = apply(cutoffs, behaviour)
    every = {"recency_days": axes.r, "orders": axes.f, "money": axes.m}
    return [
        f"rfm.{name}: all {len(found):,} {noun} score {found[0]}, so this axis tells nobody apart; move its thresholds"
        for name, found in every.items()
        if len(found) > 1 and (found == found[0]).all()
    ]


def _largest_share(values: Ints, *, of_sum: bool) -> tuple[int, float]:
    """Return the value that covers the largest share of the subjects, or of their sum, and that share."""
    distinct, counts = np.unique(values, return_counts=True)
    weights = counts * np.maximum(distinct, 0).astype(np.float64) if of_sum else counts
    top = int(np.argmax(weights))
    return int(distinct[top]), float(weights[top] / max(weights.sum(), 1))


def _nobody(borders: Borders, scores: int) -> str:
    empty = [str(scores - i) for i, border in enumerate(borders) if border is None]
    return f" and nobody scores {' or '.join(empty[::-1])}" if empty else ""
