"""What clusters are, in words and figures a marketer can check: names from facts, profiles, a shallow tree of rules.

Nothing here is guessed. A name says in which features a cluster stands apart from all buyers; the tree says how far a
few plain rules reproduce the clusters, and its fidelity is that of the rules as printed, thresholds rounded and all.

Pure: arrays in, plain values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernel.errors import ConfigError
from segments.cluster_model import ClusterModel
from segments.cluster_scaling import Features, Floats, Ints, canonical_order

Flags = NDArray[np.bool_]

NOTABLE_SD = 0.4
STRONG_SD = 1.2
TREE_DEPTH = 3
_TREE_ROWS = 50_000
_TOP = 3
_AVERAGE = "average"
_BLOCK = 65_536

_WORDS: Mapping[str, tuple[str, str, str, str]] = {
    "orders": ("very infrequent", "infrequent", "frequent", "very frequent"),
    "net": ("very low value", "low value", "high value", "very high value"),
    "average_order": ("very small orders", "small orders", "large orders", "very large orders"),
    "recency_days": ("just bought", "recent", "lapsing", "lapsed"),
    "gap_days": ("very short gaps", "short gaps", "long gaps", "very long gaps"),
    "products": ("very narrow range", "narrow range", "broad range", "very broad range"),
    "return_share": ("very few returns", "few returns", "many returns", "very many returns"),
    "tenure_days": ("very new", "new", "long-standing", "very long-standing"),
}
"""Far below, below, above and far above all buyers; a name reads in the order of this table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterProfile:
    """The facts about one cluster.

    Attributes:
        key: Of the cluster.
        name: In words, from the features in which it stands apart; different for every cluster.
        size: Subjects in it.
        share: Of all subjects in any cluster.
        revenue_minor: What they brought, in minor units.
        revenue_share: Of what all brought; None where that is not above 0.
        medians: Of the raw features; None where nobody has a value.
        gaps: By how many standard deviations (of the scaled feature) its mean differs from that of all subjects.
        top: The three features of the widest gaps, widest first.
        examples: Subjects nearest to the centre, at most three.
    """

    key: str
    name: str
    size: int
    share: float
    revenue_minor: int
    revenue_share: float | None
    medians: dict[str, float | None]
    gaps: dict[str, float]
    top: list[str]
    examples: list[int]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One leaf of the tree.

    Attributes:
        key: The cluster most of its subjects belong to.
        conditions: All must hold, as "orders > 3"; none means everybody.
        size: Subjects it catches.
        share: Of all subjects.
        right: Share of the caught that are in the cluster.
    """

    key: str
    conditions: list[str]
    size: int
    share: float
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRules:
    """A few plain rules that come near the clusters.

    Attributes:
        fidelity: Share of all subjects whom the rules put into the cluster they are in.
        rules: Largest first. Every subject meets exactly one.
        unreached: Keys no rule leads to.
    """

    fidelity: float
    rules: list[Rule]
    unreached: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def profile(
    model: ClusterModel, labels: Ints, features: Features, revenue: Ints, *, ids: Ints | None = None
) -> list[ClusterProfile]:
    """Return the facts about every cluster, in the order of `model.keys`, empty clusters too.

    Args:
        model: The model the labels belong to.
        labels: Position in `model.keys` of each subject; −1 is in no cluster and counts nowhere.
        features: Of the same subjects.
        revenue: Of the same subjects, in minor units; may be negative.
        ids: Names the examples; default: the positions of the rows.
    """
    _check(model, labels, features, revenue)
    sizes = np.bincount(labels[labels >= 0], minlength=model.k)
    gaps, distances = _gaps(model, labels, features)
    earned = [int(revenue[labels == position].sum()) for position in range(model.k)]
    total, everybody = sum(earned), max(int(sizes.sum()), 1)
    names = _names(model, gaps, sizes)
    numbers = np.arange(len(labels)) if ids is None else ids
    profiles = []
    for position, key in enumerate(model.keys):
        own = dict(zip(model.names, gaps[position].tolist(), strict=True))
        profiles.append(
            ClusterProfile(
                key=key,
                name=names[position],
                size=int(sizes[position]),
                share=float(sizes[position] / everybody),
                revenue_minor=earned[position],
                revenue_share=earned[position] / total if total > 0 else None,
                medians=_medians(features, labels == position),
                gaps=own,
                top=_widest(own)[:_TOP] if sizes[position] else [],
                examples=_nearest(numbers, distances, labels == position),
            )
        )
    return profiles


def tree_rules(
    model: ClusterModel, labels: Ints, features: Features, *, depth: int = TREE_DEPTH, seed: int = 1
) -> TreeRules:
    """Return rules on raw features that come near the clusters, and how near.

    A decision tree is grown on at most 50,000 subjects, missing values filled as the model fills them; its thresholds
    are rounded to three digits, and then everybody is judged by the rules as they read.

    Args:
        model: The model the labels belong to.
        labels: Position in `model.keys` of each subject, −1 for none.
        features: Of the same subjects.
        depth: Questions a subject is asked at most.
        seed: Of the sample and of ties in the tree.

    Raises:
        ConfigError: nobody is in any cluster.
    """
    from sklearn.tree import DecisionTreeClassifier

    _check(model, labels, features, labels)
    own = np.flatnonzero(labels >= 0)
    if not len(own):
        raise ConfigError("nobody is in any cluster, so there is nothing to explain; assign clusters first")
    raw = np.column_stack(
        [
            np.where(np.isnan(column), scale.fill, column)[own]
            for scale, column in zip(model.scales, features.columns(model.names), strict=True)
        ]
    )
    known = labels[own]
    order = canonical_order(np.column_stack([raw, known]))
    if len(order) > _TREE_ROWS:
        order = order[np.sort(np.random.default_rng(seed).choice(len(order), _TREE_ROWS, replace=False))]
    grown = DecisionTreeClassifier(max_depth=depth, random_state=seed % 2**32).fit(raw[order], known[order])
    rules: list[Rule] = []
    right = 0
    for conditions, caught in _leaves(grown.tree_, model.names, raw):
        counts = np.bincount(known[caught], minlength=model.k)
        size, most = int(counts.sum()), int(np.argmax(counts))
        if not size:
            # Rounding a threshold may leave nobody on one side of it.
            continue
        right += int(counts[most])
        hit = float(counts[most] / size)
        rules.append(Rule(key=model.keys[most], conditions=conditions, size=size, share=size / len(own), right=hit))
    return TreeRules(
        fidelity=right / len(own),
        rules=sorted(rules, key=lambda rule: -rule.size),
        unreached=[key for key in model.keys if key not in {rule.key for rule in rules}],
    )


def word(feature: str, gap_sd: float) -> str:
    """Return what a gap is called, as "frequent" for many orders."""
    plain = feature.replace("_", " ")
    words = _WORDS.get(feature, (f"very low {plain}", f"low {plain}", f"high {plain}", f"very high {plain}"))
    if gap_sd < 0:
        return words[0 if gap_sd <= -STRONG_SD else 1]
    return words[3 if gap_sd >= STRONG_SD else 2]


def _check(model: ClusterModel, labels: Ints, features: Features, revenue: Ints) -> None:
    if not len(labels) == len(features) == len(revenue):
        raise ConfigError(
            f"{len(labels)} labels, {len(features)} rows of features and {len(revenue)} revenues were given; "
            "they must be of the same subjects"
        )
    if len(labels) and not -1 <= labels.min() <= labels.max() < model.k:
        raise ConfigError(f"a label lies outside the {model.k} clusters of the model; assign the clusters anew")


def _gaps(model: ClusterModel, labels: Ints, features: Features) -> tuple[Floats, Floats]:
    """Return the z-gaps (a row per cluster) and each subject's squared distance from the centre of its cluster."""
    columns = features.columns(model.names)
    sums = np.zeros((model.k + 1, len(columns)))
    distances = np.zeros(len(labels))
    # Who is in no cluster is put in one more row, and measured from nowhere.
    places = np.vstack([model.places, np.zeros(len(columns))])
    rows = np.where(labels < 0, model.k, labels)
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        for position, (scale, column) in enumerate(zip(model.scales, columns, strict=True)):
            scaled = scale.apply(column[block])
            sums[:, position] += np.bincount(rows[block], weights=scaled, minlength=model.k + 1)
            distances[block] += (scaled - places[rows[block], position]) ** 2
    sizes = np.bincount(rows, minlength=model.k + 1)[: model.k, None]
    everybody = sums[: model.k].sum(axis=0) / max(int(sizes.sum()), 1)
    return np.where(sizes > 0, sums[: model.k] / np.maximum(sizes, 1) - everybody, 0.0), distances


def _medians(features: Features, mine: Flags) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, column in zip(features.names, features.values.T, strict=True):
        own = column[mine]
        own = own[~np.isnan(own)]
        found[name] = float(np.median(own)) if len(own) else None
    return found


def _nearest(numbers: Ints, distances: Floats, mine: Flags) -> list[int]:
    own = np.flatnonzero(mine)
    if not len(own):
        return []
    last = min(_TOP, len(own)) - 1
    close = own[distances[own] <= np.partition(distances[own], last)[last]]
    found: list[int] = numbers[close[np.lexsort((numbers[close], distances[close]))][:_TOP]].tolist()
    return found


def _widest(gaps: Mapping[str, float]) -> list[str]:
    return sorted(gaps, key=lambda name: -abs(gaps[name]))


def _names(model: ClusterModel, gaps: Floats, sizes: Ints) -> list[str]:
    """Return a different name for each cluster: three words, more where two would be called the same."""
    own = [dict(zip(model.names, row.tolist(), strict=True)) for row in gaps]
    names = [_name(row, _TOP, NOTABLE_SD) if size else "empty" for row, size in zip(own, sizes, strict=True)]
    for more in range(_TOP + 1, len(model.names) + 1):
        twice = [name for name in names if names.count(name) > 1]
        names = [
            _name(row, more, NOTABLE_SD / 2) if name in twice and name != "empty" else name
            for row, name in zip(own, names, strict=True)
        ]
    return [f"{name} ({key})" if names.count(name) > 1 else name for name, key in zip(names, model.keys, strict=True)]


def _name(gaps: Mapping[str, float], most: int, least_sd: float) -> str:
    order = [*_WORDS, *(name for name in gaps if name not in _WORDS)]
    told = [name for name in _widest(gaps)[:most] if abs(gaps[name]) >= least_sd]
    return ", ".join(word(name, gaps[name]) for name in sorted(told, key=order.index)) or _AVERAGE


def _leaves(tree: Any, names: Sequence[str], raw: Floats) -> list[tuple[list[str], Flags]]:
    """Return each leaf's conditions in words, and whom they catch, thresholds rounded."""
    whole = [bool((column == np.floor(column)).all()) for column in raw.T]
    leaves = []

    def walk(node: int, bounds: dict[int, tuple[float, float]], caught: Flags) -> None:
        if tree.children_left[node] < 0:
            leaves.append((_conditions(names, bounds), caught))
            return
        column = int(tree.feature[node])
        border = _rounded(float(tree.threshold[node]), whole=whole[column])
        low, high = bounds.get(column, (-np.inf, np.inf))
        below = raw[:, column] <= border
        walk(int(tree.children_left[node]), {**bounds, column: (low, min(high, border))}, caught & below)
        walk(int(tree.children_right[node]), {**bounds, column: (max(low, border), high)}, caught & ~below)

    walk(0, {}, np.ones(len(raw), dtype=bool))
    return leaves


def _rounded(border: float, *, whole: bool) -> float:
    return float(np.floor(border)) if whole else float(f"{border:.3g}")


def _conditions(names: Sequence[str], bounds: Mapping[int, tuple[float, float]]) -> list[str]:
    found = []
    for column, (low, high) in bounds.items():
        if np.isfinite(low):
            found.append(f"{names[column]} > {_shown(low)}")
        if np.isfinite(high):
            found.append(f"{names[column]} <= {_shown(high)}")
    return found


def _shown(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"
