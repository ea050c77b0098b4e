"""What a customer's order is worth: Gamma-Gamma, by maximum likelihood.

The value of an order varies about the customer's own mean (gamma with shape p and a scale of their own), and the
scales vary between customers (gamma: q, v). The model holds where value and number of orders have little to do with
each other: give `value_correlation` beside whatever follows from it. Pure: NumPy arrays in, arrays out; money in any
one unit.

Source:
    Fader, Hardie and Lee, "RFM and CLV: Using Iso-Value Curves for Customer Base Analysis", Journal of Marketing
    Research 42(4), 2005, and Fader and Hardie, "The Gamma-Gamma Model of Monetary Value", 2013, equations 1a and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernel.errors import ConfigError
from segments.histories import BLOCK, checked_weights, order_by
from segments.likelihood import Floats, as_tuples, doubts, maximise, standard_errors

NAMES = ("p", "q", "v")
_START = (1.0, 1.0, 1.0)
_SAMPLE = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GammaGamma:
    """A fitted model of order values. `v` is in the unit of money it was fitted in.

    `covariance` is that of the logarithms of p, q, v, from the curvature of the log-likelihood; None where that is
    not a peak. `at_bound` names parameters that ran away, `slope` is what is left of the gradient.
    """

    p: float
    q: float
    v: float
    loglik: float
    subjects: float
    covariance: tuple[tuple[float, ...], ...] | None = None
    at_bound: tuple[str, ...] = ()
    slope: float = 0.0

    @property
    def values(self) -> tuple[float, float, float]:
        """The parameters in the order of `NAMES`."""
        return self.p, self.q, self.v

    @property
    def population_mean(self) -> float:
        """The mean value of an order of a customer of whom nothing is known; infinite where q <= 1."""
        return self.v * self.p / (self.q - 1) if self.q > 1 else float("inf")

    @property
    def standard_errors(self) -> dict[str, float] | None:
        """The standard error of each parameter, by the delta method; None without a covariance."""
        return standard_errors(NAMES, self.values, self.covariance)

    def doubts(self) -> list[str]:
        """Return the reasons not to trust the fit, as sentences; none where it may be used."""
        found = doubts("order values", self.at_bound, self.covariance, self.slope, self.loglik)
        if not found and self.q <= 1:
            found.append(f"the model of order values has no mean: q = {self.q:.3g}, and it must be above 1")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the model as plain values, from which `from_json` makes an equal one."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GammaGamma:
        """Return the model that `to_json` wrote, also after a way through JSON text."""
        return cls(**as_tuples(value))


def fit_gamma_gamma(n: ArrayLike, mean: ArrayLike, weights: ArrayLike | None = None) -> GammaGamma:
    """Return the model with the largest likelihood. Look at its `doubts()` before using it.

    Whether the first purchase is counted is the caller's choice, the same for `n` and `mean`, and the same again when
    the model is asked.

    Args:
        n: Transactions each customer's mean is taken over, whole numbers from 1.
        mean: Mean value of the transactions; positive.
        weights: How many customers a row stands for; None: one each.

    Raises:
        ConfigError: there are no rows, or one of them cannot be.
    """
    counts, values = _checked(n, mean)
    mass = None if weights is None else checked_weights(weights, len(counts))
    scale = 1 / float(np.average(values, weights=mass))
    rows = _Values.of(counts, values * scale, mass)
    found = maximise(rows, _START, part=rows.every(len(counts) // _SAMPLE) if len(counts) >= 2 * _SAMPLE else None)
    p, q, v = (float(value) for value in np.exp(found.parameters))
    return GammaGamma(
        p=p,
        q=q,
        v=v / scale,
        loglik=found.loglik + rows.size * float(np.log(scale)),
        subjects=rows.size,
        covariance=found.covariance,
        at_bound=tuple(NAMES[i] for i in found.at_bound),
        slope=found.slope,
    )


def expected_value(model: GammaGamma, n: ArrayLike, mean: ArrayLike) -> Floats:
    """Return the expected value of a customer's orders: their own mean, drawn towards everybody's.

    The more transactions, the less it is drawn. Where n is 0 it is the population mean, whatever `mean` says there.

    Source:
        Fader and Hardie (2013), equation 5: (q-1)/(pn+q-1) × vp/(q-1) + pn/(pn+q-1) × mean.
    """
    counts = np.asarray(n, dtype=np.float64)
    spent = np.where(counts > 0, counts * np.asarray(mean, dtype=np.float64), 0.0)
    return np.asarray(model.p * (model.v + spent) / (model.p * counts + model.q - 1))


def value_correlation(n: ArrayLike, mean: ArrayLike) -> float | None:
    """Return the correlation of number and mean value of orders, which the model takes to be 0.

    None where either does not vary.
    """
    counts, values = np.asarray(n, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    if len(counts) < 2 or counts.min() == counts.max() or values.min() == values.max():
        return None
    return float(np.corrcoef(counts, values)[0, 1])


@dataclass(frozen=True, slots=True)
class _Values:
    """Rows in ascending order of n.

    `spent` is n × mean. `starts` is where each distinct n, of `sizes`, begins; `heads` are its customers and `logs` the
    sum of log(n × mean) over them. `own` is the sum of log(mean) over all.
    """

    spent: Floats
    mass: Floats | None
    starts: NDArray[np.intp]
    sizes: Floats
    heads: Floats
    logs: Floats
    own: float
    size: float

    @classmethod
    def of(cls, n: NDArray[np.int64], mean: Floats, mass: Floats | None) -> _Values:
        order = order_by(n)
        ordered = n[order]
        return cls._sorted(ordered, mean[order] * ordered, None if mass is None else mass[order])

    @classmethod
    def _sorted(cls, n: NDArray[np.int64], spent: Floats, mass: Floats | None) -> _Values:
        starts = np.flatnonzero(np.concatenate(([True], n[1:] != n[:-1])))
        logs = np.log(spent)
        if mass is None:
            heads = np.diff(np.append(starts, len(n))).astype(np.float64)
        else:
            heads, logs = np.add.reduceat(mass, starts), logs * mass
        sizes = n[starts].astype(np.float64)
        by_size = np.add.reduceat(logs, starts)
        own = float(by_size.sum() - heads @ np.log(sizes))
        return cls(spent, mass, starts, sizes, heads, by_size, own, float(heads.sum()))

    def every(self, step: int) -> _Values:
        """Return every step-th row: as n ascends, all n in their proportion."""
        lengths = np.diff(np.append(self.starts, len(self.spent)))
        n = np.repeat(self.sizes, lengths).astype(np.int64)[::step]
        return _Values._sorted(n, self.spent[::step], None if self.mass is None else self.mass[::step])

    def loglik(self, theta: Floats) -> tuple[float, Floats]:
        """Return the log-likelihood and its gradient in the logarithms of p, q, v (equation 1a)."""
        from scipy.special import digamma, gammaln

        p, q, v = np.exp(theta)
        logs, inverses = self._sums(v)
        shape = p * self.sizes
        log_v = np.log(v)
        level = self.heads @ (gammaln(shape + q) - gammaln(shape)) + self.size * (q * log_v - gammaln(q))
        level += p * (self.sizes @ self.logs) - self.own - (shape + q) @ logs
        both = digamma(shape + q)
        in_p = self.sizes @ (self.heads * (both - digamma(shape)) + self.logs - logs)
        in_q = self.heads @ both + self.size * (log_v - digamma(q)) - logs.sum()
        in_v = self.size * q / v - (shape + q) @ inverses
        return float(level), np.array([p * in_p, q * in_q, v * in_v])

    def _sums(self, v: float) -> tuple[Floats, Floats]:
        """Return the sums of log(v + n × mean) and of its inverse, by distinct n."""
        logs, inverses = np.zeros(len(self.sizes)), np.zeros(len(self.sizes))
        for begin in range(0, len(self.spent), BLOCK):
            end = begin + BLOCK
            total = v + self.spent[begin:end]
            log, inverse = np.log(total), 1 / total
            if self.mass is not None:
                log *= self.mass[begin:end]
                inverse *= self.mass[begin:end]
            first = int(np.searchsorted(self.starts, begin, side="right")) - 1
            last = int(np.searchsorted(self.starts, end, side="left"))
            cuts = np.maximum(self.starts[first:last] - begin, 0)
            logs[first:last] += np.add.reduceat(log, cuts)
            inverses[first:last] += np.add.reduceat(inverse, cuts)
        return logs, inverses


def _checked(n: ArrayLike, mean: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    given = np.atleast_1d(np.asarray(n, dtype=np.float64))
    values = np.atleast_1d(np.asarray(mean, dtype=np.float64))
    if not len(given):
        raise ConfigError("no customers with money: there is nothing to fit a model of order values to")
    if len(given) != len(values):
        raise ConfigError(f"n and mean differ in length: {len(given)}, {len(values)}")
    counts = np.nan_to_num(given, nan=0.0, posinf=0.0, neginf=0.0).astype(np.int64)
    fits = (counts == given) & (counts >= 1) & (values > 0) & np.isfinite(values)
    if not fits.all():
        i = int(np.argmin(fits))
        raise ConfigError(
            f"row {i}: n={given[i]:g}, mean={values[i]:g} cannot be: n must be whole, from 1, and mean positive; "
            "leave out who has returned everything"
        )
    return counts, values
