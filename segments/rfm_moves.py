"""Changes of RFM scores and groups: the band that keeps noise from moving anybody, and why somebody moved.

Pure: NumPy arrays in, arrays out; one position per subject, the same subject in the same place of all arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from segments.rfm import Axes, Behaviour, Borders, Cutoffs, Ints, apply
from segments.rfm_maps import GroupMap, groups


class MovedBy(StrEnum):
    """Why a subject's group is another than at the last scoring; see `moved_by`."""

    NEW = "new"
    OWN_ACTION = "own_action"
    TIME = "time"
    CUTOFF = "cutoff"


REASONS = tuple(MovedBy)
STAYED = -1
"""In place of a position in `REASONS`: the group is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All that turns values into groups; `band` is a share in [0, 0.5)."""

    cutoffs: Cutoffs
    map: GroupMap
    band: float = 0.0


def settle(old: Axes, behaviour: Behaviour, cutoffs: Cutoffs, band: float) -> Axes:
    """Return the scores after hysteresis: one changes only where the value passed the border by the band.

    The band of a border is that share of the border itself, rounded down to whole days, orders or minor units, so that
    a band of 0.1 is 3 days at 30 days, 50.00 at 500.00, and nothing at 2 orders: a second order is no noise. A score
    rises to the highest border the value exceeds by at least the band, and falls once the value is short of the border
    of the present score by more than the band. Between the two it stays. With a band of 0 these are the scores of
    `apply`. A band lets two subjects of equal values have unequal scores, each by its own past.

    Args:
        old: The scores held so far, by the same number of scores; 0 where there are none, and then the band is idle.
        behaviour: The values now.
        cutoffs: The borders now; where they have moved since `old` the band covers that too.
        band: A share in [0, 0.5).

    Raises:
        ValueError: the band is out of its range, or `old` holds scores these cut-offs do not know.
    """
    if not 0 <= band < 0.5:
        raise ValueError(f"band must lie in [0, 0.5), got {band}")
    fresh = apply(cutoffs, behaviour)
    if not band:
        return fresh
    if len(old) and max(int(axis.max()) for axis in (old.r, old.f, old.m)) > cutoffs.scores:
        raise ValueError(f"the old scores go beyond {cutoffs.scores}; a change of scheme starts anew, with zeros")
    sure = apply(_shifted(cutoffs, band, harder=True), behaviour)
    possible = apply(_shifted(cutoffs, band, harder=False), behaviour)
    return Axes(
        r=np.where(old.r == 0, fresh.r, np.clip(old.r, sure.r, possible.r)),
        f=np.where(old.f == 0, fresh.f, np.clip(old.f, sure.f, possible.f)),
        m=np.where(old.m == 0, fresh.m, np.clip(old.m, sure.m, possible.m)),
    )


def waited(before: Behaviour, now: Behaviour, *, acted: NDArray[np.bool_], recency_gain: Ints | int) -> Behaviour:
    """Return what the values would be now, had nobody done anything since the last scoring.

    Who did nothing has the values of now: only time has passed, also where a window let old orders go or recency is
    relative. Who acted has the orders and money of before, and the recency of before with the time added.

    Args:
        before: The values at the last scoring; anything where there was none.
        now: The values now.
        acted: Whether an order, return, cancellation or adjustment of the subject became known since.
        recency_gain: Days between the two scorings, rounded down; in thousandths of the own gap for relative recency.
    """
    return Behaviour(
        recency_days=np.where(acted, before.recency_days + recency_gain, now.recency_days),
        frequency=np.where(acted, before.frequency, now.frequency),
        monetary=np.where(acted, before.monetary, now.monetary),
    )


def moved_by(
    old: Axes,
    rules: Rules,
    *,
    now: Behaviour,
    had_waited: Behaviour,
    codes: Ints,
    names: Sequence[str],
) -> Ints:
    """Return why each subject's group is another than before, as positions in `REASONS`, or `STAYED`.

    What if the rules had stayed as they were? The old rules (cut-offs, map and band) are applied once to the values of
    now and once to those of somebody who only waited. The first that holds is the reason:

    - `new`: the subject had no scores before.
    - `cutoff`: by the old rules the group would be the old one still. The rules changed, not the subject.
    - `time`: by the old rules, waiting alone leads to the same group as what was done: nothing was done, or nothing
      that mattered.
    - `own_action`: the rest. An order, a return or a cancellation made the difference, even where the cut-offs moved
      besides.

    With unchanged rules nobody moves by `cutoff`; who did nothing never moves by `own_action`.

    Args:
        old: The scores at the last scoring; 0 where there were none.
        rules: The rules of the last scoring.
        now: The values now.
        had_waited: What `waited` returns.
        codes: The group now, a position in `names`.
        names: The groups of the map now; groups are the same where their names are.
    """
    reasons = np.full(len(codes), STAYED, dtype=np.int64)
    reasons[old.r == 0] = REASONS.index(MovedBy.NEW)
    known = np.flatnonzero(old.r)
    past = old.take(known)
    held = groups(rules.map, past)
    there = np.array([rules.map.names.index(name) if name in rules.map.names else -1 for name in names], dtype=np.int64)
    differs = there[codes[known]] != held
    moved, past, held = known[differs], past.take(differs), held[differs]
    by_values = _group_of(past, now.take(moved), rules)
    by_waiting = _group_of(past, had_waited.take(moved), rules)
    reasons[moved] = np.select(
        [by_values == held, by_values == by_waiting],
        [REASONS.index(MovedBy.CUTOFF), REASONS.index(MovedBy.TIME)],
        default=REASONS.index(MovedBy.OWN_ACTION),
    )
    return reasons


def _group_of(past: Axes, behaviour: Behaviour, rules: Rules) -> Ints:
    return groups(rules.map, settle(past, behaviour, rules.cutoffs, rules.band))


def _shifted(cutoffs: Cutoffs, band: float, *, harder: bool) -> Cutoffs:
    """Return the borders moved by the band, to where better scores are harder, or easier, to get."""
    # The decimal number as it was written: 0.29 of 100 is 29, while in binary it is a little less.
    share = Decimal(str(band))

    def moved(borders: Borders, *, up: bool) -> Borders:
        sign = 1 if up else -1
        return tuple(None if border is None else border + sign * int(share * abs(border)) for border in borders)

    return Cutoffs(
        scores=cutoffs.scores,
        recency=moved(cutoffs.recency, up=not harder),
        frequency=moved(cutoffs.frequency, up=harder),
        monetary=moved(cutoffs.monetary, up=harder),
    )
