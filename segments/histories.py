"""Histories of purchases: checked, packed, and how likely they are under BG/NBD and MBG/NBD.

`x` counts repeat purchases, `t_x` is the time from the first purchase to the last, `T` that from the first purchase
to now, all in one unit of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernel.errors import ConfigError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = Literal["bg_nbd", "mbg_nbd"]
KINDS: tuple[Kind, ...] = get_args(Kind)

BLOCK = 8_192
"""Rows worked on at a time: what fits into a processor's own cache, and below what BLAS shares among threads."""


@dataclass(frozen=True)
class Histories:
    """Histories in ascending order of x.

    `where` leads from a row to its place among the distinct x, `repeats`; `heads` is the number of customers with
    each. `flips` is how many chances to stop a customer with x repeats has survived, if still there.
    """

    where: NDArray[np.int32]
    last: Floats
    age: Floats
    mass: Floats | None
    repeats: Floats
    flips: Floats

    @classmethod
    def of(cls, x: Ints, last: Floats, age: Floats, mass: Floats | None, kind: Kind) -> Histories:
        order = order_by(x)
        ordered = x[order]
        new = np.ones(len(x), dtype=bool)
        new[1:] = ordered[1:] != ordered[:-1]
        repeats = ordered[new].astype(np.float64)
        return cls(
            where=(np.cumsum(new) - 1).astype(np.int32),
            last=last[order],
            age=age[order],
            mass=None if mass is None else mass[order],
            repeats=repeats,
            flips=repeats + (kind == "mbg_nbd"),
        )

    @cached_property
    def heads(self) -> Floats:
        return np.bincount(self.where, weights=self.mass, minlength=len(self.repeats)).astype(np.float64)

    @cached_property
    def size(self) -> float:
        return float(self.heads.sum())

    def every(self, step: int) -> Histories:
        """Return every step-th row: as x ascends, all x in their proportion."""
        mass = None if self.mass is None else self.mass[::step]
        return Histories(self.where[::step], self.last[::step], self.age[::step], mass, self.repeats, self.flips)

    def loglik(self, theta: Floats) -> tuple[float, Floats]:
        """Return the log-likelihood and its gradient in the logarithms of r, alpha, a, b."""
        from scipy.special import digamma, gammaln

        r, alpha, a, b = np.exp(theta)
        k, heads, size = self.flips, self.heads, self.size
        tables = gammaln(r + self.repeats) + gammaln(b + k) - gammaln(a + b + k)
        level = heads @ tables + size * (gammaln(a + b) - gammaln(b) - gammaln(r) + r * np.log(alpha))
        tail = digamma(a + b + k)
        slopes = np.array(
            [
                heads @ digamma(r + self.repeats) + size * (np.log(alpha) - digamma(r)),
                size * r / alpha,
                size * digamma(a + b) - heads @ tail,
                size * (digamma(a + b) - digamma(b)) + heads @ (digamma(b + k) - tail),
            ]
        )
        flipped = np.where(k > 0, b + k - 1, np.inf)
        for start in range(0, len(self.where), BLOCK):
            more, steeper = self._block(slice(start, start + BLOCK), r, alpha, a, flipped)
            level += more
            slopes += steeper
        return float(level), slopes * (r, alpha, a, b)

    def _block(self, block: slice, r: float, alpha: float, a: float, flipped: Floats) -> tuple[float, Floats]:
        """Return what depends on times: the two-term sum of equation 6, as alive × (1 + dead/alive).

        The odds dead/alive are a/(b+k-1) × ((alpha+T)/(alpha+t_x))^(r+x), and none where no chance to stop has come
        (`flipped`, the b+k-1 of each distinct x, is without end there).
        """
        where = self.where[block]
        mass = None if self.mass is None else self.mass[block]
        orders = (r + self.repeats)[where]
        now = alpha + self.age[block]
        log_now = np.log(now)
        if np.isinf(flipped[where[-1]]):
            alone = _total(log_now, mass)
            return -r * alone, np.array([-alone, -r * _total(1 / now, mass), 0.0, 0.0])
        then = alpha + self.last[block]
        gap = log_now - np.log(then)
        log_odds = (np.log(a) - np.log(flipped))[where] + orders * gap
        small = np.exp(-np.abs(log_odds))
        dead = np.where(log_odds > 0, 1.0, small) / (1.0 + small)
        level = np.maximum(log_odds, 0.0) + np.log(1.0 + small) - orders * log_now
        in_alpha = orders * (dead * (1 / now - 1 / then) - 1 / now)
        lost = dead if mass is None else dead * mass
        return _total(level, mass), np.array(
            [
                float(lost @ gap) - _total(log_now, mass),
                _total(in_alpha, mass),
                float(lost.sum()) / a,
                -float(lost @ (1 / flipped)[where]),
            ]
        )


def _total(values: Floats, mass: Floats | None) -> float:
    return float(values.sum() if mass is None else values @ mass)


def order_by(whole: Ints) -> NDArray[np.intp]:
    """Return the positions that sort whole numbers; the sort is linear where they fit in 16 bits."""
    narrow = whole.astype(np.int16) if whole.size and whole.min() >= 0 and whole.max() < 2**15 else whole
    return np.argsort(narrow, kind="stable")


def checked_history(x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> tuple[Ints, Floats, Floats]:  # noqa: N803
    """Return the three as arrays of one length.

    Raises:
        ConfigError: no rows, other than equal lengths, or a history that cannot be; the first one is named.
    """
    given = np.atleast_1d(np.asarray(x, dtype=np.float64))
    last = np.atleast_1d(np.asarray(t_x, dtype=np.float64))
    age = np.atleast_1d(np.asarray(T, dtype=np.float64))
    if not len(given):
        raise ConfigError("no customers: there is nothing to fit a lifetime model to")
    if not len(given) == len(last) == len(age):
        raise ConfigError(f"x, t_x and T differ in length: {len(given)}, {len(last)}, {len(age)}")
    counts = np.nan_to_num(given, nan=-1.0, posinf=-1.0, neginf=-1.0).astype(np.int64)
    fits = (counts == given) & (counts >= 0) & (last >= 0) & (last <= age) & np.isfinite(age)
    fits &= (counts > 0) | (last == 0)
    if not fits.all():
        i = int(np.argmin(fits))
        raise ConfigError(
            f"row {i}: x={given[i]:g}, t_x={last[i]:g}, T={age[i]:g} is no history of purchases: x must be whole "
            "and 0 <= t_x <= T, with t_x = 0 where x = 0; was something bought after the date asked about?"
        )
    return counts, last, age


def checked_weights(weights: ArrayLike, length: int) -> Floats:
    """Return weights as an array.

    Raises:
        ConfigError: another length, or a weight that is not positive.
    """
    mass = np.atleast_1d(np.asarray(weights, dtype=np.float64))
    if len(mass) != length or not (np.isfinite(mass) & (mass > 0)).all():
        raise ConfigError(f"weights must be {length} positive numbers")
    return mass


def merged(x: Ints, last: Floats, age: Floats, mass: Floats | None) -> tuple[Ints, Floats, Floats, Floats | None]:
    """Return equal rows merged into one with their joint weight, where times are whole (days, say).

    Instants to the millisecond hardly ever coincide, and looking for them costs more than it saves.
    """
    span = int(age.max()) + 1
    if mass is not None or int(x.max() + 1) * span * span >= 2**62:
        return x, last, age, mass
    if not ((last[:1000] % 1 == 0).all() and (age % 1 == 0).all() and (last % 1 == 0).all()):
        return x, last, age, mass
    keys, heads = np.unique((x * span + last.astype(np.int64)) * span + age.astype(np.int64), return_counts=True)
    pairs, ages = np.divmod(keys, span)
    counts, lasts = np.divmod(pairs, span)
    return counts, lasts.astype(np.float64), ages.astype(np.float64), heads.astype(np.float64)
