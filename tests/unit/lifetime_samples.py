"""Customers to fit lifetime models to: the CDNOW sample, and simulated ones whose truth is known."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from segments.histories import Floats, Ints
from segments.purchases import DAY_MS, Purchases

AS_OF_MS = 1_790_000_000_000


@dataclass(frozen=True)
class Cdnow:
    """2,357 customers up to 1997-09-30, times in weeks, and what they bought in the 39 weeks after."""

    x: Ints
    t_x: Floats
    T: Floats
    held_out: Ints


def dataset(name: str) -> Path:
    """A file shipped with the package `lifetimes`, found without importing it."""
    spec = find_spec("lifetimes")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "datasets" / name


def summary() -> Floats:
    """Columns ID, x, t_x, T: the published summary, times in weeks and rounded to two digits."""
    return np.loadtxt(dataset("cdnow_customers_summary.csv"), delimiter=",", skiprows=1)


def summary_with_values() -> Floats:
    """Columns ID, x, t_x, T, mean value of repeat transactions."""
    return np.loadtxt(dataset("cdnow_customers_summary_with_transactions.csv"), delimiter=",", skiprows=1)


def cdnow() -> Cdnow:
    """The sample counted from its transactions, those of one day being one."""
    days: dict[str, set[np.datetime64]] = defaultdict(set)
    for line in dataset("CDNOW_sample.txt").read_text(encoding="ascii").splitlines():
        customer, day = line.split()[1:3]
        days[customer].add(np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}"))
    end = np.datetime64("1997-09-30")
    rows = []
    for _, dates in sorted(days.items()):
        before = sorted(day for day in dates if day <= end)
        week = np.timedelta64(7, "D")
        rows.append(
            (
                len(before) - 1,
                (before[-1] - before[0]) / week,
                (end - before[0]) / week,
                len(dates) - len(before),
            )
        )
    x, t_x, age, held_out = np.array(rows).T
    return Cdnow(x.astype(np.int64), t_x, age, held_out.astype(np.int64))


def simulated(
    truth: tuple[float, float, float, float], age: Floats, seed: int, *, mbg: bool = False
) -> tuple[Ints, Floats]:
    """Return x and t_x of customers who buy and stop by chance just as the models say, one for each age."""
    rng = np.random.default_rng(seed)
    r, alpha, a, b = truth
    rate = rng.gamma(r, 1 / alpha, len(age))
    stop = rng.beta(a, b, len(age))
    x, t_x, now = np.zeros(len(age), dtype=np.int64), np.zeros(len(age)), np.zeros(len(age))
    there = np.flatnonzero(rng.random(len(age)) >= stop) if mbg else np.arange(len(age))
    while len(there):
        now[there] += rng.exponential(1, len(there)) / np.maximum(rate[there], 1e-300)
        there = there[now[there] <= age[there]]
        x[there] += 1
        t_x[there] = now[there]
        there = there[rng.random(len(there)) >= stop[there]]
    return x, t_x


def purchases(x: Ints, t_x_days: Floats, age_days: Floats, net_minor: Ints) -> Purchases:
    """Return what such customers bought, as of `AS_OF_MS`."""
    first = (AS_OF_MS - age_days * DAY_MS).astype(np.int64)
    zero = np.zeros(len(x), dtype=np.int64)
    return Purchases(
        ids=np.arange(1, len(x) + 1, dtype=np.int64),
        first_ms=first,
        last_ms=first + (t_x_days * DAY_MS).astype(np.int64),
        orders=x + 1,
        days=x + 1,
        net_minor=net_minor,
        gross_minor=np.maximum(net_minor, 0),
        returned_minor=zero,
    )


def simulated_purchases(size: int, seed: int) -> Purchases:
    """Return customers after the truth of CDNOW in days, and of its order values in minor units."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(30, 1000, size)
    x, t_x = simulated((0.6, 40.0, 0.8, 2.4), age, seed)
    scale = rng.gamma(3.74, 1 / 1544, size)
    spent = rng.gamma(6.25 * (x + 1), 1 / scale)
    return purchases(x, t_x, age, np.maximum(np.rint(spent), 1).astype(np.int64))
