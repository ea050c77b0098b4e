"""Which cluster of today is which of last time, whether the picture has changed too much, and who moved where.

K-means numbers its clusters anew with every fit: without matching, most customers would change their number each month
with no change in what they do. So clusters carry keys, and a key goes on with the cluster that holds the same people.

Pure: arrays in, numbers out.

Source:
    Hubert and Arabie, "Comparing partitions", Journal of Classification 2 (1985), 193-218: the adjusted Rand index.
    Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2 (1955), 83-97.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segments.cluster_scaling import Floats, Ints

SAME = 0.25
"""A key goes on where at least this share of both clusters together (Jaccard) is in both of them."""
LEAST_AGREEMENT = 0.6
LARGEST_CENTROID_MOVE_SD = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """The keys of new clusters.

    Attributes:
        keys: One per new cluster.
        next_key: The number of the next key never given yet.
    """

    keys: tuple[str, ...]
    next_key: int


def overlap(before: Ints, after: Ints, before_size: int, after_size: int) -> Ints:
    """Return the counts of subjects by their position before (rows) and after (columns); who has −1 is left out."""
    both = (before >= 0) & (after >= 0)
    if not both.all():
        before, after = before[both], after[both]
    counts = np.bincount(before * after_size + after, minlength=before_size * after_size)
    return counts.reshape(before_size, after_size).astype(np.int64)


def adjusted_rand(counts: Ints) -> float:
    """Return how well two partitions agree: 1 where they are the same, about 0 where they agree by chance.

    Args:
        counts: Contingency table of the two.
    """

    def pairs(sizes: NDArray[Any]) -> float:
        sizes = sizes.astype(np.float64)
        return float((sizes * (sizes - 1) / 2).sum())

    together, rows, columns = pairs(counts), pairs(counts.sum(axis=1)), pairs(counts.sum(axis=0))
    everything = pairs(counts.sum(keepdims=True))
    expected = rows * columns / everything if everything else 0.0
    most = (rows + columns) / 2
    # Both all in one group, or both all apart: the same partition, and the formula would divide 0 by 0.
    return 1.0 if most == expected else (together - expected) / (most - expected)


def match(old_keys: Sequence[str], counts: Ints, *, next_key: int, distances: Floats | None = None) -> Matching:
    """Return which key each new cluster bears.

    Pairs are chosen so that the most subjects stay (Hungarian method); where counts tie, the nearer centroids pair. A
    pair with too little in common is parted again: the new cluster gets a key of its own, and the old key is gone.

    Args:
        old_keys: Keys of the old clusters, the rows of `counts`.
        counts: Subjects in the old (row) and the new (column) cluster. All 0 where nobody is in both: then the
            distances decide alone, or, without distances, nothing goes on.
        next_key: The number of the next new key.
        distances: Squared distances of old (row) and new (column) centroids, where they live in one space.
    """
    from scipy.optimize import linear_sum_assignment

    keys = [""] * counts.shape[1]
    if counts.size:
        nearness = (
            np.zeros(counts.shape) if distances is None else distances / (2 * distances.max() * counts.size or 1.0)
        )
        for old, new in zip(*linear_sum_assignment(nearness - counts), strict=True):
            if _same(counts, int(old), int(new)) or (distances is not None and not counts.any()):
                keys[int(new)] = old_keys[int(old)]
    for position, key in enumerate(keys):
        if not key:
            keys[position] = _fresh(next_key, old_keys)
            next_key = int(keys[position][1:]) + 1
    return Matching(keys=tuple(keys), next_key=next_key)


def largest_moves(
    old_keys: Sequence[str], old: Floats, new_keys: Sequence[str], new: Floats, names: Sequence[str]
) -> dict[str, tuple[str, float]]:
    """Return for each key in both how far its centroid moved along the feature in which it moved most.

    Returns:
        By key: the feature, and the move in standard deviations of that feature, its sign kept.
    """
    moves = {}
    for position, key in enumerate(new_keys):
        if key in old_keys:
            move = new[position] - old[list(old_keys).index(key)]
            most = int(np.argmax(np.abs(move)))
            moves[key] = (names[most], float(move[most]))
    return moves


def compare(
    old_keys: Sequence[str],
    before: Ints | None,
    new_keys: Sequence[str],
    after: Ints,
    *,
    moves: Mapping[str, tuple[str, float]],
    largest_move: float,
    other_features: tuple[Sequence[str], Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Return what changed between two clusterings, and in words why campaigns should wait until somebody has looked.

    Args:
        old_keys: Keys of the previous clusters.
        before: Position in them of each subject, −1 where it had none; None where that is not known.
        new_keys: Keys of the new clusters.
        after: Position in them of each subject.
        moves: How far centroids moved (see `largest_moves`); empty where they cannot be compared.
        largest_move: Share of the subjects in both that may change their key without a question.
        other_features: Names of the features then and now, where they differ.

    Returns:
        Plain values: `keys` (kept, new, gone), `previous` (common, moved, moved_share, agreement, centroid_moves) and
        `held`, None or the reasons in words.
    """
    was = np.full(len(after), -1, dtype=np.int64) if before is None else before
    counts = overlap(was, after, len(old_keys), len(new_keys))
    common = int(counts.sum())
    stayed = sum(int(counts[row, list(new_keys).index(key)]) for row, key in enumerate(old_keys) if key in new_keys)
    agreement = adjusted_rand(counts) if common else None
    moved_share = (common - stayed) / common if common else None
    keys = {
        "kept": [key for key in new_keys if key in old_keys],
        "new": [key for key in new_keys if key not in old_keys],
        "gone": [key for key in old_keys if key not in new_keys],
    }
    reasons = []
    if other_features:
        then, now = (", ".join(names) for names in other_features)
        reasons.append(f"the features or their transforms changed (then {then}; now {now})")
    if len(old_keys) != len(new_keys):
        reasons.append(f"there were {len(old_keys)} clusters and are {len(new_keys)} now")
    if keys["gone"]:
        reasons.append(f"no cluster of today holds the buyers of {', '.join(keys['gone'])}")
    if agreement is not None and agreement < LEAST_AGREEMENT:
        reasons.append(f"agreement with the previous clusters is {agreement:.2f}, below {LEAST_AGREEMENT}")
    if moved_share is not None and moved_share > largest_move:
        reasons.append(f"{moved_share:.0%} of the buyers would change their cluster, more than {largest_move:.0%}")
    for key, (name, move) in moves.items():
        if abs(move) > LARGEST_CENTROID_MOVE_SD:
            reasons.append(f"the centre of {key} moved by {move:+.1f} standard deviations of {name}")
    return {
        "keys": keys,
        "previous": {
            "common": common,
            "moved": common - stayed,
            "moved_share": moved_share,
            "agreement": agreement,
            "centroid_moves": {key: {"feature": name, "sd": move} for key, (name, move) in moves.items()},
        },
        "held": "; ".join(reasons) or None,
    }


def migration(before: NDArray[Any], after: NDArray[Any]) -> dict[str, Any]:
    """Return who moved from which cluster to which.

    Args:
        before: The key of each subject then; "" or None where it had none.
        after: The key of the same subject now; likewise.

    Returns:
        Plain values: `before` and `after` (keys in order), `counts` (a row per key before), `common` subjects in both,
        `moved` of them, `moved_share` (None where there are none), `joined` by key after, `left` by key before.
    """
    before_keys, was = _positions(before)
    after_keys, now = _positions(after)
    return migration_of_positions(was, now, before_keys, after_keys)


def migration_of_positions(
    was: Ints, now: Ints, before_keys: Sequence[str], after_keys: Sequence[str]
) -> dict[str, Any]:
    """Return the same as `migration`, from positions in two lists of keys (−1: none): far quicker for a million."""
    counts = overlap(was, now, len(before_keys), len(after_keys))
    stayed = sum(
        int(counts[row, list(after_keys).index(key)]) for row, key in enumerate(before_keys) if key in after_keys
    )
    common = int(counts.sum())
    joined = np.bincount(now[(was < 0) & (now >= 0)], minlength=len(after_keys))
    left = np.bincount(was[(was >= 0) & (now < 0)], minlength=len(before_keys))
    return {
        "before": list(before_keys),
        "after": list(after_keys),
        "counts": counts.tolist(),
        "common": common,
        "moved": common - stayed,
        "moved_share": (common - stayed) / common if common else None,
        "joined": dict(zip(after_keys, joined.tolist(), strict=True)),
        "left": dict(zip(before_keys, left.tolist(), strict=True)),
    }


def key_order(key: str) -> tuple[int, str]:
    """Return what keys are sorted by: c2 stands before c10."""
    return len(key), key


def _same(counts: Ints, old: int, new: int) -> bool:
    both = int(counts[old, new])
    either = int(counts[old].sum()) + int(counts[:, new].sum()) - both
    return both > 0 and both >= SAME * either


def _fresh(number: int, taken: Sequence[str]) -> str:
    while f"c{number}" in taken:
        number += 1
    return f"c{number}"


def _positions(keys: NDArray[Any]) -> tuple[list[str], Ints]:
    words = np.array(["" if key is None else str(key) for key in keys.tolist()], dtype=np.str_)
    found, inverse = np.unique(words, return_inverse=True)
    order = sorted((key for key in found.tolist() if key), key=key_order)
    place = {key: position for position, key in enumerate(order)}
    return order, np.array([place.get(key, -1) for key in found.tolist()], dtype=np.int64)[inverse]
