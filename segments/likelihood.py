"""The largest likelihood of a few positive parameters: found, and how sharply it is determined.

Shared by the models of order counts and of order values. Parameters are searched as logarithms, so that they stay
positive, between bounds that stand for "as good as nothing" and "as good as without end".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Covariance = tuple[tuple[float, ...], ...]


class Rows(Protocol):
    """Observations whose likelihood is sought."""

    @property
    def size(self) -> float:
        """How many there are, by weight."""

    def loglik(self, theta: Floats) -> tuple[float, Floats]:
        """Return their log-likelihood and its gradient in the log-parameters."""


BOUND = 9.0
"""Log-parameters are searched in [-BOUND, BOUND]: a factor of 8,100 either way, in scaled units."""
_NEAR = 0.05
_STEP = 1e-5
_CLOSE = 1e-7
_APPROACHES = 8
_FLAT = 1e-5
"""The largest slope per observation, in log-parameters, at what may be called a maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """Where the search ended.

    `covariance` is that of the log-parameters, from the curvature of the log-likelihood; None where the curvature is
    not that of a peak. `at_bound` are positions of parameters that ran into a bound. `slope` is the largest
    absolute slope left, per observation.
    """

    parameters: Floats
    loglik: float
    covariance: Covariance | None
    at_bound: tuple[int, ...]
    slope: float


def maximise(rows: Rows, start: Sequence[float], *, part: Rows | None = None) -> Optimum:
    """Return the optimum of a log-likelihood with closed-form gradient, by L-BFGS-B and a last Newton step.

    Args:
        rows: All observations.
        start: First guess of the log-parameters.
        part: Some of the observations, where there are very many: they are climbed first, which leaves few passes
            over all. The result is the optimum of `rows` all the same.
    """
    theta = np.array(start, dtype=np.float64)
    if part is not None:
        theta = _climb(part, theta)
        theta = _approach(rows, theta, _curvature(part, theta, part.loglik(theta)[1]) * (rows.size / part.size))
    if part is None or np.abs(rows.loglik(theta)[1]).max() > _CLOSE * rows.size:
        theta = _climb(rows, theta)
    loglik, gradient = rows.loglik(theta)
    curvature = _curvature(rows, theta, gradient)
    theta, loglik, gradient = _newton(rows, theta, loglik, gradient, curvature)
    runaway = np.abs(theta) > BOUND - _NEAR
    covariance = None if runaway.any() else _inverse(curvature)
    return Optimum(
        parameters=theta,
        loglik=loglik,
        covariance=None if covariance is None else tuple(map(tuple, covariance.tolist())),
        at_bound=tuple(int(position) for position in np.flatnonzero(runaway)),
        slope=float(np.abs(gradient[~runaway]).max(initial=0.0) / rows.size),
    )


def standard_errors(
    names: Sequence[str], values: Sequence[float], covariance: Covariance | None
) -> dict[str, float] | None:
    """Return the standard errors of parameters from the covariance of their logarithms, by the delta method."""
    if covariance is None:
        return None
    return {name: values[i] * covariance[i][i] ** 0.5 for i, name in enumerate(names)}


def doubts(what: str, at_bound: Sequence[str], covariance: Covariance | None, slope: float, loglik: float) -> list[str]:
    """Return why a fit must not be used, as sentences; none where it may be."""
    if not np.isfinite(loglik):
        return [f"the model of {what} has no finite likelihood on these data"]
    if at_bound:
        return [f"the model of {what} does not fit: {', '.join(at_bound)} ran to a bound, the data do not determine it"]
    if covariance is None or slope > _FLAT:
        return [f"the search for the model of {what} found no clear maximum of the likelihood"]
    return []


def as_tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's JSON form with `covariance` and `at_bound` as tuples, which JSON turns into lists."""
    covariance = value["covariance"]
    return {
        **value,
        "covariance": None if covariance is None else tuple(tuple(row) for row in covariance),
        "at_bound": tuple(value["at_bound"]),
    }


def _climb(rows: Rows, start: Floats) -> Floats:
    from scipy.optimize import minimize

    def descent(theta: Floats) -> tuple[float, Floats]:
        loglik, gradient = rows.loglik(theta)
        return -loglik / rows.size, -gradient / rows.size

    found = minimize(
        descent,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-BOUND, BOUND)] * len(start),
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-7},
    )
    return np.asarray(found.x, dtype=np.float64)


def _approach(rows: Rows, theta: Floats, curvature: Floats) -> Floats:
    """Return theta after steps up with a curvature that is about right, as long as they lead up.

    The curvature of a sample of 40,000 is right to about a hundredth, so each step leaves a hundredth of the way.
    """
    inverse = _inverse(curvature)
    if inverse is None:
        return theta
    loglik, gradient = rows.loglik(theta)
    for _ in range(_APPROACHES):
        if np.abs(gradient).max() <= _CLOSE * rows.size:
            break
        better = np.clip(theta + np.asarray(inverse) @ gradient, -BOUND, BOUND)
        risen, level = rows.loglik(better)
        if not _risen(risen, loglik):
            break
        theta, loglik, gradient = better, risen, level
    return theta


def _curvature(rows: Rows, theta: Floats, gradient: Floats) -> Floats:
    """Return minus the matrix of second derivatives, from differences of the gradient."""
    matrix = np.array([(gradient - rows.loglik(theta + step)[1]) / _STEP for step in np.eye(len(theta)) * _STEP])
    return np.asarray((matrix + matrix.T) / 2)


def _newton(
    rows: Rows, theta: Floats, loglik: float, gradient: Floats, curvature: Floats
) -> tuple[Floats, float, Floats]:
    """Return where one Newton step leads if it leads up, with log-likelihood and gradient there; else stay."""
    inverse = _inverse(curvature)
    if inverse is None:
        return theta, loglik, gradient
    better = np.clip(theta + inverse @ gradient, -BOUND, BOUND)
    risen, level = rows.loglik(better)
    if _risen(risen, loglik):
        return better, risen, level
    return theta, loglik, gradient


def _risen(now: float, before: float) -> bool:
    """Return whether a log-likelihood is higher than before, or lower by no more than its rounding."""
    return bool(np.isfinite(now) and now >= before - 1e-12 * abs(before))


def _inverse(curvature: Floats) -> Floats | None:
    """Return the inverse of a positive definite matrix; None for any other."""
    if not np.isfinite(curvature).all() or np.linalg.eigvalsh(curvature)[0] <= 0:
        return None
    return np.asarray(np.linalg.inv(curvature), dtype=np.float64)
