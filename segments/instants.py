"""What follows from the instants of each subject's orders: first and last, days with an order, the usual gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segments.purchases import DAY_MS, Floats, Ints

_AT_ONCE = 1_000_000
"""Instants worked on together, so that memory stays small."""
_DAY_BITS = 24
"""Enough for every day of a calendar with years of four digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One position per subject; `twice_gap` is twice the median of the gaps between days with an order, in days.

    Twice, because the median of an even number of gaps may lie half-way between two days. It is 0 where there are
    fewer than two gaps.
    """

    first_ms: Ints
    last_ms: Ints
    days: Ints
    twice_gap: Ints


def timing(at_ms: Ints, counts: Ints) -> Timing:
    """Return what follows from instants in milliseconds since 1970 UTC.

    Args:
        at_ms: All instants, those of one subject together, in any order among themselves.
        counts: How many belong to each subject: at least one.
    """
    result = Timing(**{name: np.zeros(len(counts), np.int64) for name in Timing.__slots__})
    ends = np.cumsum(counts)
    for start, stop in _slices(ends):
        first = int(ends[start] - counts[start])
        part, lengths = at_ms[first : int(ends[stop - 1])], counts[start:stop]
        begins = np.cumsum(lengths) - lengths
        result.first_ms[start:stop] = np.minimum.reduceat(part, begins)
        result.last_ms[start:stop] = np.maximum.reduceat(part, begins)
        whose, day = distinct_days(np.repeat(np.arange(len(lengths)), lengths), part // DAY_MS)
        result.days[start:stop] = np.bincount(whose, minlength=len(lengths))
        result.twice_gap[start:stop] = twice_median_gap(whose, day, len(lengths))
    return result


def distinct_days(whose: Ints, day: Ints) -> tuple[Ints, Ints]:
    """Return each pair of a subject's position and a day once, both ascending."""
    earliest = int(day.min(initial=0))
    code = (whose << _DAY_BITS) | (day - earliest)
    if not np.all(code[1:] >= code[:-1]):
        code.sort()
    code = code[np.concatenate([[True], code[1:] != code[:-1]])] if len(code) else code
    return code >> _DAY_BITS, (code & ((1 << _DAY_BITS) - 1)) + earliest


def twice_median_gap(whose: Ints, day: Ints, subjects: int) -> Ints:
    """Return twice the median gap of each subject, from what `distinct_days` gave; 0 below two gaps."""
    same = whose[1:] == whose[:-1]
    # Sorted by subject and, within it, by length.
    code = (whose[1:][same] << _DAY_BITS) | np.diff(day)[same]
    code.sort()
    gap = code & ((1 << _DAY_BITS) - 1)
    lengths = np.bincount(code >> _DAY_BITS, minlength=subjects)
    begins = np.cumsum(lengths) - lengths
    found = np.zeros(subjects, np.int64)
    many = lengths >= 2
    low = begins[many] + (lengths[many] - 1) // 2
    high = begins[many] + lengths[many] // 2
    found[many] = gap[low] + gap[high]
    return found


def in_days(twice_gap: Ints, days: Ints) -> Floats:
    """Return median gaps in days, NaN below three days with an order."""
    return np.where(days >= 3, twice_gap / 2, np.nan)


def _slices(ends: Ints) -> Iterator[tuple[int, int]]:
    """Yield ranges of subjects with about `_AT_ONCE` instants together, at least one subject each."""
    start = 0
    while start < len(ends):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
        yield start, stop
        start = stop
