"""K-means by scikit-learn, and how many clusters there should be: as many as come out again, and none too small.

The silhouette is reported and decides nothing: on raw figures it prefers two clusters, one of them of a few buyers.

Pure: scaled rows in canonical order and a seed in, the same answer out. scikit-learn is imported where it is used,
because that takes a second.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kernel.errors import ConfigError
from segments.cluster_matching import adjusted_rand, overlap
from segments.cluster_scaling import Floats, Ints

STABLE = 0.85
"""The least mean agreement (adjusted Rand index) of bootstrap fits with the fit on all that counts as stable."""
SMALLEST_SHARE = 0.03
BOOTSTRAPS = 20
MOST_BOOTSTRAPS = 60
CHOICE_ROWS = 10_000
START_ROWS = 50_000
_SILHOUETTE_ROWS = 3_000
_STARTS = 10
_BOOTSTRAP_STARTS = 3
_STEPS = 500
_TOLERANCE = 1e-7
_BLOCK = 8_192
_FEW_DISTINCT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How one number of clusters fared.

    Attributes:
        k: The number.
        stability_mean: Mean adjusted Rand index of the bootstrap fits, 1 where everybody falls as before.
        stability_min: The worst of them.
        bootstraps: How many there were: more where the mean stands near the border.
        smallest_share: Of the smallest cluster.
        silhouette: Mean silhouette on a sample; None where it is not defined. For information only.
        accepted: Stable enough, and no cluster too small.
    """

    k: int
    stability_mean: float
    stability_min: float
    bootstraps: int
    smallest_share: float
    silhouette: float | None
    accepted: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread.

    Sums then come in one order, so that results repeat, and workers side by side do not fight for cores.
    """
    # Only libraries that are loaded can be held, and scikit-learn brings OpenMP with it.
    import sklearn.cluster  # noqa: F401
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no type hints

    with threadpool_limits(limits=1):
        yield


def distinct_rows(scaled: Floats, enough: int) -> int:
    """Return how many different rows there are, or at least `enough` where there are as many.

    Quick where equal rows stand together, as they do in canonical order.
    """
    begins = np.ones(len(scaled), dtype=bool)
    begins[1:] = (scaled[1:] != scaled[:-1]).any(axis=1)
    candidates = scaled[begins]
    few = len(np.unique(candidates[: 50 * enough], axis=0))
    return few if few >= enough or len(candidates) <= 50 * enough else len(np.unique(candidates, axis=0))


@one_thread()
def cold_centroids(scaled: Floats, k: int, seed: int) -> Floats:
    """Return the centroids of the best of ten fits from fresh starts.

    Above 50,000 rows the ten compete on a sample of as many, and the best of them is carried to its end on all rows.
    """
    if len(scaled) <= START_ROWS:
        return _k_means(scaled, k, seed=seed, starts=_STARTS)
    return warm_centroids(scaled, _k_means(_sample(scaled, START_ROWS, seed), k, seed=seed, starts=_STARTS))


@one_thread()
def warm_centroids(scaled: Floats, start: Floats) -> Floats:
    """Return the centroids that k-means comes to from these."""
    return _k_means(scaled, len(start), init=start)


def nearest(columns: Sequence[Floats], centroids: Floats) -> tuple[Ints, Floats]:
    """Return for each row the position of its nearest centroid, the first among equals, and the squared distance.

    Feature by feature and in plain arithmetic, so that a row's answer does not depend on where it stands.

    Args:
        columns: Scaled features, one array each.
        centroids: One row each, in scaled space.
    """
    rows = len(columns[0])
    best = np.zeros(rows, dtype=np.int64)
    least = np.full(rows, np.inf)
    for start in range(0, rows, _BLOCK):
        block = slice(start, start + _BLOCK)
        parts = [column[block] for column in columns]
        for position, centroid in enumerate(centroids):
            distance = np.zeros(len(parts[0]))
            for part, place in zip(parts, centroid, strict=True):
                gap = part - place
                gap *= gap
                distance += gap
            np.copyto(best[block], position, where=distance < least[block])
            np.minimum(least[block], distance, out=least[block])
    return best, least


@one_thread()
def choose_k(scaled: Floats, candidates: Iterable[int], seed: int) -> tuple[int, list[Choice], list[str]]:
    """Return the largest number of clusters that is stable and has none too small, how all fared, and warnings.

    For each number: k-means on a sample of at most 10,000 rows, then on bootstrap samples of the same size, each
    compared on all rows of the sample by the adjusted Rand index. A mean within two standard errors of the border gets
    more bootstraps, up to 60.

    Args:
        scaled: Rows in canonical order.
        candidates: Numbers of clusters to try.
        seed: Of everything drawn.

    Raises:
        ConfigError: there are fewer different rows than the least candidate.
    """
    sample = _sample(scaled, CHOICE_ROWS, seed)
    _, kind = np.unique(sample, axis=0, return_inverse=True)
    distinct = int(kind.max()) + 1
    wanted = sorted(set(candidates))
    possible = [k for k in wanted if k <= distinct]
    if not possible:
        raise ConfigError(
            f"the data hold only {distinct} different buyers, too few for {wanted[0]} clusters; "
            "give k: yourself, or wait for more buyers"
        )
    choices = [_try(sample, kind, k, seed) for k in possible]
    accepted = [choice for choice in choices if choice.accepted]
    if accepted:
        return accepted[-1].k, choices, []
    large_enough = [choice for choice in choices if choice.smallest_share >= SMALLEST_SHARE]
    best = max(large_enough or choices, key=lambda choice: choice.stability_mean)
    doubt = (
        f"no number of clusters from {possible[0]} to {possible[-1]} is stable (agreement {STABLE} or better) without "
        f"clusters below {SMALLEST_SHARE:.0%}: took {best.k}, agreement {best.stability_mean:.2f}, smallest "
        f"{best.smallest_share:.1%}; other features may part these buyers better"
    )
    return best.k, choices, [doubt]


def _try(sample: Floats, kind: Ints, k: int, seed: int) -> Choice:
    centroids = _k_means(sample, k, seed=seed, starts=_STARTS)
    columns = list(sample.T.copy())
    labels, _ = nearest(columns, centroids)
    random = np.random.default_rng([seed, k])
    scores: list[float] = []
    while len(scores) < MOST_BOOTSTRAPS and (len(scores) < BOOTSTRAPS or _undecided(scores)):
        scores += [_agreement(sample, columns, kind, labels, k, random) for _ in range(BOOTSTRAPS)]
    smallest = float(np.bincount(labels, minlength=k).min() / len(labels))
    mean = float(np.mean(scores))
    return Choice(
        k=k,
        stability_mean=mean,
        stability_min=min(scores),
        bootstraps=len(scores),
        smallest_share=smallest,
        silhouette=_silhouette(sample, labels, seed),
        accepted=mean >= STABLE and smallest >= SMALLEST_SHARE,
    )


def _undecided(scores: list[float]) -> bool:
    error = float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
    return abs(float(np.mean(scores)) - STABLE) < 2 * error


def _agreement(
    sample: Floats, columns: list[Floats], kind: Ints, labels: Ints, k: int, random: np.random.Generator
) -> float:
    """Return how well a fit on a bootstrap sample agrees with the labels; 0 where the sample cannot hold k clusters."""
    drawn = random.integers(0, len(sample), len(sample))
    seed = int(random.integers(2**31))
    if kind.max() < _FEW_DISTINCT and len(np.unique(kind[drawn])) < k:
        return 0.0
    again, _ = nearest(columns, _k_means(sample[drawn], k, seed=seed, starts=_BOOTSTRAP_STARTS, tolerance=1e-4))
    return adjusted_rand(overlap(labels, again, k, k))


def _silhouette(sample: Floats, labels: Ints, seed: int) -> float | None:
    from sklearn.metrics import silhouette_score

    drawn = np.random.default_rng(seed).permutation(len(sample))[:_SILHOUETTE_ROWS]
    groups = len(np.unique(labels[drawn]))
    if not 2 <= groups < len(drawn):
        return None
    return float(silhouette_score(sample[drawn], labels[drawn]))


def _sample(scaled: Floats, size: int, seed: int) -> Floats:
    if len(scaled) <= size:
        return scaled
    drawn: Floats = scaled[np.sort(np.random.default_rng(seed).choice(len(scaled), size, replace=False))]
    return drawn


def _k_means(
    rows: Floats,
    k: int,
    *,
    seed: int = 0,
    starts: int = 1,
    init: Floats | None = None,
    tolerance: float = _TOLERANCE,
) -> Floats:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(
        k,
        init="k-means++" if init is None else init,
        n_init=starts,
        max_iter=_STEPS,
        tol=tolerance,
        random_state=seed % 2**32,
        algorithm="lloyd",
    )
    with warnings.catch_warnings():
        # Among many equal rows a start may end with an empty cluster; the caller counts its clusters itself.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows)
    return np.asarray(model.cluster_centers_, dtype=np.float64)
