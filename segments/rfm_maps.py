"""From RFM scores to named groups: the ten of the grid, the eleven, the six, and a shop's own.

A map is a table over all codes (r, f, m), so every code has exactly one group whatever the rules looked like.

Source:
    The grid: the map of nearly all public notebooks. The eleven: Putler's boxes over R and the average of F and M, as
    copied in the documentation of R's package `rfm`. The six: Klaviyo's help article 17797937793179.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from kernel.errors import ConfigError
from kernel.settings import RfmGroupRule, RfmMapSettings
from kernel.vocabulary import RFM_SEGMENTS
from segments.rfm import Axes, Ints

Code = tuple[int, int, int]

ELEVEN_SEGMENTS = (*RFM_SEGMENTS, "lost")
"""The groups of the map `eleven`: the names of the grid, and `lost`."""
SIX_SEGMENTS = ("champions", "loyal_customers", "recent", "need_attention", "at_risk", "inactive")
"""The groups of the map `six`, best first; where the grid has the idea, its word is kept."""

_TOLD = 5
"""So many codes are named in an error; the rest are counted."""

# Rows are R from 1 to 5, columns F from 1 to 5.
_GRID = (
    ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"),
    ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"),
    ("about_to_sleep", "about_to_sleep", "need_attention", "loyal_customers", "loyal_customers"),
    ("promising", "potential_loyalists", "potential_loyalists", "loyal_customers", "loyal_customers"),
    ("new_customers", "potential_loyalists", "potential_loyalists", "champions", "champions"),
)

# Lowest and highest R, lowest and highest mean of F and M; the first box that holds a code is its group. The boxes are
# the published ones, a bound of 0 read as 1, and they overlap. In the order they are usually listed in, new_customers,
# promising, cant_lose and lost lie wholly under boxes before them and nobody would ever be one, so those stand before
# the boxes that hide them. `lost` then equals `hibernating` (R 1-2, mean 1-2) but for its 0s, the very bottom: it
# keeps the bottom cell.
_ELEVEN = (
    ("champions", 4, 5, 4, 5),
    ("loyal_customers", 2, 5, 3, 5),
    ("new_customers", 4, 5, 1, 1),
    ("promising", 3, 4, 1, 1),
    ("potential_loyalists", 3, 5, 1, 3),
    ("need_attention", 2, 3, 2, 3),
    ("about_to_sleep", 2, 3, 1, 2),
    ("cant_lose", 1, 1, 4, 5),
    ("lost", 1, 1, 1, 1),
    ("hibernating", 1, 2, 1, 2),
    ("at_risk", 1, 2, 2, 5),
)

# As published, in the order of SIX_SEGMENTS.
_SIX = (
    "333 332 323",
    "321 322 331 232 233",
    "312 313 311 222 223",
    "213 221 123 132 133",
    "231 212 122 131 211",
    "111 112 113 121",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupMap:
    """Which group each code belongs to.

    `table` is an int64 array of the shape (scores + 1,) * 3, read as `table[r, f, m]`: a position in `names`, and -1
    where an index is 0, which is no score. It cannot be written to.
    """

    names: tuple[str, ...]
    table: Ints
    scores: int


@cache
def built_in(name: str) -> GroupMap:
    """Return `grid` (R and F, five scores), `eleven` (R and the mean of F and M, five) or `six` (all axes, three).

    The mean of F and M of `eleven` is rounded, halves up: F 1 and M 2 make 2.

    Raises:
        ConfigError: there is no such map.
    """
    if name == "grid":
        return _made(RFM_SEGMENTS, 5, (((r, f, m), _GRID[r - 1][f - 1]) for r, f, m in _codes(5)))
    if name == "eleven":
        return _made(ELEVEN_SEGMENTS, 5, ((code, _eleven_of(code)) for code in _codes(5)))
    if name == "six":
        pairs = zip(SIX_SEGMENTS, _SIX, strict=True)
        return _made(SIX_SEGMENTS, 3, ((_read(code), word) for word, codes in pairs for code in codes.split()))
    raise ConfigError(f"rfm.map {name!r} is unknown; known are grid, eleven and six, or a map of your own")


def own_map(settings: RfmMapSettings, scores: int) -> GroupMap:
    """Return a shop's own map for scores from 1 to `scores`.

    An axis a rule leaves out takes every score. Two rules may bear one name: the group is both together. Where the
    map is ordered, the first rule that fits is the one; else no code may fit two groups.

    Raises:
        ConfigError: a score that does not exist, codes of no group or of two, or a rule of an ordered map that the
            rules before it leave nothing; all problems at once, the first codes of each by name.
    """
    problems = list(_impossible_scores(settings, scores))
    names = tuple(dict.fromkeys(rule.name for rule in settings.groups))
    table = np.full((scores + 1,) * 3, -1, dtype=np.int64)
    for rule in settings.groups:
        box = _box(rule, scores)
        if settings.ordered:
            free = box & (table == -1)
            if box.any() and not free.any():
                problems.append(f"{rule.name} is never reached: all its codes fit groups before it; move it up")
            box = free
        else:
            problems.extend(_overlap(rule.name, names, table[box], np.argwhere(box), scores))
        table[box] = names.index(rule.name)
    uncovered = np.argwhere(table[1:, 1:, 1:] == -1) + 1
    if len(uncovered):
        problems.append(
            f"{_told(uncovered, scores)} of {scores**3} codes (r, f, m) fit no group; widen one, or end with "
            "ordered: true and a group without r, f and m"
        )
    if problems:
        raise ConfigError("carillon.yaml: rfm.map: " + "\n".join(problems))
    return _frozen(names, table, scores)


def map_for(setting: str | RfmMapSettings | None, scores: int) -> GroupMap:
    """Return the map a setting asks for; none: `six` for three scores, else the grid.

    Raises:
        ConfigError: the map reads another number of scores, or as `built_in` and `own_map`.
    """
    if isinstance(setting, RfmMapSettings):
        return own_map(setting, scores)
    name = setting or ("six" if scores == 3 else "grid")
    found = built_in(name)
    if found.scores != scores:
        raise ConfigError(
            f"carillon.yaml: rfm.map: {name} reads scores from 1 to {found.scores}, the scheme gives 1 to {scores}; "
            "grid and eleven need five scores, six needs three (scheme: thirds), any other number a map of your own"
        )
    return found


def groups(group_map: GroupMap, axes: Axes) -> Ints:
    """Return each subject's group as a position in the names of the map.

    Raises:
        ValueError: a score is 0 or beyond those of the map.
    """
    for name, scores in (("r", axes.r), ("f", axes.f), ("m", axes.m)):
        if len(scores) and not 1 <= int(scores.min()) <= int(scores.max()) <= group_map.scores:
            raise ValueError(f"{name} goes from {scores.min()} to {scores.max()}, the map from 1 to {group_map.scores}")
    return group_map.table[axes.r, axes.f, axes.m]


def _codes(scores: int) -> Iterator[Code]:
    every = range(1, scores + 1)
    return product(every, every, every)


def _read(text: str) -> Code:
    return int(text[0]), int(text[1]), int(text[2])


def _eleven_of(code: Code) -> str:
    r, f, m = code
    mean = (f + m + 1) // 2
    return next(name for name, r_low, r_high, low, high in _ELEVEN if r_low <= r <= r_high and low <= mean <= high)


def _made(names: tuple[str, ...], scores: int, pairs: Iterable[tuple[Code, str]]) -> GroupMap:
    table = np.full((scores + 1,) * 3, -1, dtype=np.int64)
    for code, word in pairs:
        table[code] = names.index(word)
    return _frozen(names, table, scores)


def _frozen(names: tuple[str, ...], table: Ints, scores: int) -> GroupMap:
    table.flags.writeable = False
    return GroupMap(names=names, table=table, scores=scores)


def _impossible_scores(settings: RfmMapSettings, scores: int) -> Iterator[str]:
    for rule in settings.groups:
        for axis, wanted in (("r", rule.r), ("f", rule.f), ("m", rule.m)):
            beyond = [score for score in wanted or [] if not 1 <= score <= scores]
            if beyond:
                yield f"{rule.name}: {axis}: scores go from 1 to {scores}, got {', '.join(map(str, beyond))}"


def _box(rule: RfmGroupRule, scores: int) -> NDArray[np.bool_]:
    """Return which codes fit a rule, in the shape of a map's table."""
    sides = []
    for wanted in (rule.r, rule.f, rule.m):
        side = np.zeros(scores + 1, dtype=np.bool_)
        side[1:] = wanted is None
        side[[score for score in wanted or [] if 1 <= score <= scores]] = True
        sides.append(side)
    return sides[0][:, None, None] & sides[1][:, None] & sides[2]


def _overlap(name: str, names: tuple[str, ...], holders: Ints, codes: Ints, scores: int) -> Iterator[str]:
    """Yield a problem for each other group that already holds some of the codes."""
    for position in np.unique(holders[holders >= 0]).tolist():
        if names[position] != name:
            told = _told(codes[holders == position], scores)
            yield f"{told} fit both {names[position]} and {name}; part them, or write ordered: true"


def _told(codes: Ints, scores: int) -> str:
    """Return the first few codes by name, and how many there are: "3 (111, 112, 113)"."""
    between = "" if scores < 10 else "-"
    words = [between.join(map(str, code)) for code in codes[:_TOLD].tolist()]
    return f"{len(codes)} ({', '.join(words)}{', …' if len(codes) > _TOLD else ''})"
