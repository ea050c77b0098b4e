"""How often customers will buy again: BG/NBD and MBG/NBD, by maximum likelihood.

A customer buys at random at a rate of their own (gamma: r, alpha) and after a purchase may stop for good, with a
probability of their own (beta: a, b). In BG/NBD nobody stops after the very first purchase; in MBG/NBD anybody may.
Pure: NumPy arrays in, arrays out. Time is in any one unit, that of `T`; everything else follows it. Throughout,
`x` counts repeat purchases (the first one left out), `t_x` is the time from the first purchase to the last, 0 where
x is 0, and `T` that from the first purchase to now.

Source:
    Fader, Hardie and Lee, "Counting Your Customers the Easy Way", Marketing Science 24(2), 2005, equations 6 to 10
    (BG/NBD). Batislam, Denizel and Filiztekin, "Empirical validation and comparison of models for customer base
    analysis", International Journal of Research in Marketing 24, 2007 (MBG/NBD).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kernel.errors import ConfigError
from segments.histories import KINDS, Floats, Histories, Kind, checked_history, checked_weights, merged
from segments.likelihood import Optimum, as_tuples, doubts, maximise, standard_errors

NAMES = ("r", "alpha", "a", "b")
_START = (-1.0, 0.0, 0.0, 0.5)
_LONGEST = 10.0
"""Times are scaled so that the longest is this: the search works on numbers near 1."""
_SAMPLE = 40_000
_SINGULAR = 0.01
"""The closed form divides by a - 1. This close to 1 it is interpolated between values of a further off."""
_NODES = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class BgNbd:
    """A fitted model of order counts. `alpha` is in the unit of time it was fitted in.

    `covariance` is that of the logarithms of r, alpha, a, b, from the curvature of the log-likelihood; None where
    that is not a peak. `at_bound` names parameters that ran away, `slope` is what is left of the gradient.
    """

    kind: Kind
    r: float
    alpha: float
    a: float
    b: float
    loglik: float
    subjects: float
    covariance: tuple[tuple[float, ...], ...] | None = None
    at_bound: tuple[str, ...] = ()
    slope: float = 0.0

    @property
    def values(self) -> tuple[float, float, float, float]:
        """The parameters in the order of `NAMES`."""
        return self.r, self.alpha, self.a, self.b

    @property
    def first_chance(self) -> int:
        """Whether the first purchase, too, is a chance to stop: x repeats make x + first_chance chances."""
        return int(self.kind == "mbg_nbd")

    @property
    def standard_errors(self) -> dict[str, float] | None:
        """The standard error of each parameter, by the delta method; None without a covariance."""
        return standard_errors(NAMES, self.values, self.covariance)

    def doubts(self) -> list[str]:
        """Return the reasons not to trust the fit, as sentences; none where it may be used."""
        found = doubts("order counts", self.at_bound, self.covariance, self.slope, self.loglik)
        return found or list(self._undetermined())

    def _undetermined(self) -> Iterator[str]:
        """Yield that the data do not tell how buyers stop: the likelihood is all but flat along these parameters."""
        errors = self.standard_errors or {}
        for name, value in (("a", self.a), ("b", self.b)):
            error = errors.get(name, 0.0)
            if error > value:
                yield (
                    f"order counts: {name} is {value:.3g} with a standard error of {error:.3g}, so the data do not "
                    "tell how buyers stop; a longer history is needed"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the model as plain values, from which `from_json` makes an equal one."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BgNbd:
        """Return the model that `to_json` wrote, also after a way through JSON text."""
        return cls(**as_tuples(value))


def fit_bgnbd(
    x: ArrayLike,
    t_x: ArrayLike,
    T: ArrayLike,  # noqa: N803
    weights: ArrayLike | None = None,
    *,
    kind: Kind = "bg_nbd",
) -> BgNbd:
    """Return the model with the largest likelihood. Look at its `doubts()` before using it.

    Args:
        x: Repeat purchases of each customer, whole numbers.
        t_x: Time from the first purchase to the last; 0 where x is 0.
        T: Time from the first purchase to now.
        weights: How many customers a row stands for; None: one each.
        kind: Whether the first purchase, too, may be the last: `mbg_nbd`.

    Raises:
        ConfigError: there are no rows, or one of them cannot be.
    """
    if kind not in KINDS:
        raise ConfigError(f"lifetime model {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    counts, last, age = checked_history(x, t_x, T)
    mass = None if weights is None else checked_weights(weights, len(counts))
    counts, last, age, mass = merged(counts, last, age, mass)
    scale = _LONGEST / age.max() if age.max() > 0 else 1.0
    rows = Histories.of(counts, last * scale, age * scale, mass, kind)
    found = maximise(rows, _START, part=rows.every(len(counts) // _SAMPLE) if len(counts) >= 2 * _SAMPLE else None)
    return _model(found, rows, scale, kind)


def _model(found: Optimum, rows: Histories, scale: float, kind: Kind) -> BgNbd:
    """Return the optimum in the caller's unit of time, in which also the likelihood of the instants is counted."""
    r, alpha, a, b = (float(value) for value in np.exp(found.parameters))
    return BgNbd(
        kind=kind,
        r=r,
        alpha=alpha / float(scale),
        a=a,
        b=b,
        loglik=found.loglik + float(rows.repeats @ rows.heads) * float(np.log(scale)),
        subjects=rows.size,
        covariance=found.covariance,
        at_bound=tuple(NAMES[i] for i in found.at_bound),
        slope=found.slope,
    )


def log_likelihood(
    model: BgNbd,
    x: ArrayLike,
    t_x: ArrayLike,
    T: ArrayLike,  # noqa: N803
    weights: ArrayLike | None = None,
) -> float:
    """Return the log-likelihood of histories under a model, summed over customers."""
    counts, last, age = checked_history(x, t_x, T)
    mass = None if weights is None else checked_weights(weights, len(counts))
    return Histories.of(counts, last, age, mass, model.kind).loglik(np.log(model.values))[0]


def p_alive(model: BgNbd, x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> Floats:  # noqa: N803
    """Return the probability that a customer with this history still buys.

    In BG/NBD it is 1 for everybody with one purchase, however long ago: a known weakness, which MBG/NBD mends.
    """
    counts, last, age = (np.asarray(values, dtype=np.float64) for values in (x, t_x, T))
    flips = counts + model.first_chance
    with np.errstate(divide="ignore", over="ignore"):
        chance = np.log(np.where(flips > 0, model.a / np.maximum(model.b + flips - 1, 1e-300), 0.0))
        odds = np.exp(chance + (model.r + counts) * np.log((model.alpha + age) / (model.alpha + last)))
    return np.asarray(1 / (1 + odds))


def expected_orders(
    model: BgNbd,
    t: ArrayLike,
    x: ArrayLike,
    t_x: ArrayLike,
    T: ArrayLike,  # noqa: N803
) -> Floats:
    """Return the expected number of purchases within the next `t`, whether or not the customer is still there.

    Source:
        Fader, Hardie and Lee (2005), equation 10.
    """
    return p_alive(model, x, t_x, T) * orders_if_alive(model, t, x, T)


def orders_if_alive(model: BgNbd, t: ArrayLike, x: ArrayLike, T: ArrayLike) -> Floats:  # noqa: N803
    """Return the expected number of purchases within the next `t` of a customer who is still there.

    It depends on the history by x and T only. With a = 1 the closed form is 0/0, and with thousands of purchases it
    overflows; both are answered otherwise, to a billionth.
    """
    ahead, counts, age = (np.asarray(values, dtype=np.float64) for values in (t, x, T))
    ahead, counts, age = np.broadcast_arrays(ahead, counts, age)
    if abs(model.a - 1) < _SINGULAR:
        found = _around_one(model, ahead, counts, age)
    else:
        found = _closed(model, model.a, ahead, counts, age)
    broken = ~np.isfinite(found)
    for count in np.unique(counts[broken]):
        chosen = broken & (counts == count)
        found[chosen] = _quadrature(model, ahead[chosen], count, age[chosen])
    return found


def _closed(model: BgNbd, a: float, t: Floats, x: Floats, age: Floats) -> Floats:
    """Return equation 10 without the probability of being alive; not finite where its factors overflow."""
    from scipy.special import hyp2f1

    b = model.b + x + model.first_chance
    orders = model.r + x
    until = model.alpha + age + t
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        stays = ((model.alpha + age) / until) ** orders * hyp2f1(orders, b, a + b - 1, t / until)
        return np.asarray((a + b - 1) / (a - 1) * (1 - stays))


def _around_one(model: BgNbd, t: Floats, x: Floats, age: Floats) -> Floats:
    """Return the same for a near 1, from the polynomial through eight values of a on both sides.

    The expectation is analytic in a > 0, so the error is about the product of the eight distances, 6e-14 at most.
    """
    places = 1 + _SINGULAR * np.array([-4, -3, -2, -1, 1, 2, 3, 4])
    found = np.zeros(t.shape)
    for i, place in enumerate(places):
        others = np.delete(places, i)
        weight = float(np.prod((model.a - others) / (place - others)))
        with np.errstate(invalid="ignore"):
            found += weight * _closed(model, float(place), t, x, age)
    return found


def _quadrature(model: BgNbd, t: Floats, x: float, age: Floats) -> Floats:
    """Return the mean of (1 - (1 + p t/(alpha+T))^-(r+x)) / p over p ~ Beta(a, b+k), by Gauss and Jacobi.

    The nodes are eigenvalues of the recurrence of the Jacobi polynomials (Golub and Welsch, 1969), which stays finite
    for any a and b.
    """
    from scipy.linalg import eigh_tridiagonal

    one, other = model.b + x + model.first_chance - 1, model.a - 1
    n = np.arange(_NODES, dtype=np.float64)
    both = 2 * n + one + other
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (other**2 - one**2) / (both * (both + 2))
        m = n[1:]
        beside = 4 * m * (m + one) * (m + other) * (m + one + other) / (both[1:] ** 2 * (both[1:] ** 2 - 1))
    middle[0] = (other - one) / (one + other + 2)
    beside[0] = 4 * (1 + one) * (1 + other) / ((2 + one + other) ** 2 * (3 + one + other))
    nodes, vectors = eigh_tridiagonal(middle, np.sqrt(beside))
    p = (nodes[:, None] + 1) / 2
    values = -np.expm1(-(model.r + x) * np.log1p(p * (t / (model.alpha + age)))) / p
    weights: Floats = vectors[0] ** 2
    return np.asarray(weights @ values)


def next_order_in(model: BgNbd, x: ArrayLike, T: ArrayLike, share: float = 0.5) -> Floats:  # noqa: N803
    """Return the time from now until a share of such customers, if still there, will have bought again.

    The default is the median wait. It is a statement about a customer who is still there: read it beside `p_alive`.
    It grows without end as r + x goes to 0.

    Source:
        The rate of who is still there is gamma(r + x, alpha + T), so nobody has bought by s with probability
        ((alpha + T)/(alpha + T + s))^(r + x).
    """
    counts, age = np.asarray(x, dtype=np.float64), np.asarray(T, dtype=np.float64)
    with np.errstate(over="ignore"):
        return np.asarray((model.alpha + age) * np.expm1(-np.log1p(-share) / (model.r + counts)))


def count_probabilities(model: BgNbd, t: float, x: float, t_x: float, T: float, most: int) -> Floats:  # noqa: N803
    """Return the probabilities of 0, 1, … `most` purchases of one customer within the next `t`.

    Source:
        Fader, Hardie and Lee (2005), equation 8, with the parameters the history leads to: r+x, alpha+T, a, b+k.
    """
    from scipy.special import betaln
    from scipy.stats import nbinom

    n = np.arange(most + 1, dtype=np.float64)
    b = model.b + x + model.first_chance
    orders = model.r + x
    stays = (model.alpha + T) / (model.alpha + T + t)
    goes_on = np.exp(betaln(model.a, b + n) - betaln(model.a, b)) * nbinom.pmf(n, orders, stays)
    stops = np.zeros(most + 1)
    stops[1:] = np.exp(betaln(model.a + 1, b + n[1:] - 1) - betaln(model.a, b)) * nbinom.sf(n[1:] - 1, orders, stays)
    alive = float(p_alive(model, x, t_x, T))
    found: Floats = alive * (goes_on + stops)
    found[0] += 1 - alive
    return found
