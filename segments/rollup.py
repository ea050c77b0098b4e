"""Who is scored as whom: children by themselves, together with their parent, or with the topmost account above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import Connection, select

from kernel.errors import ConfigError
from segments.purchases import Ints
from store.columns import read_columns
from store.ingest.bulk import among
from store.tables import accounts

Level = Literal["none", "parent", "top"]
_DEEPEST = 64
"""Doublings of the way up: more than any tree has levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """Accounts scored as another one: `members`, ascending, and for each the account it is scored as.

    Who is not among the members is scored as itself, alone or with members of its own.
    """

    members: Ints
    heads: Ints

    def head_of(self, ids: Ints) -> Ints:
        """Return for each account the one it is scored as."""
        if not len(self.members):
            return ids
        place = np.minimum(np.searchsorted(self.members, ids), len(self.members) - 1)
        return np.where(self.members[place] == ids, self.heads[place], ids)

    def everyone_of(self, heads: Ints) -> Ints:
        """Return the accounts scored as one of these, ascending: themselves and their members."""
        inside = np.isin(self.heads, heads)
        return np.union1d(heads, self.members[inside])


NO_FAMILIES = Families(members=np.zeros(0, np.int64), heads=np.zeros(0, np.int64))


def read_families(connection: Connection, level: Level) -> Families:
    """Return who is scored as whom.

    `parent`: an account without children is scored as its parent; one with children as itself, so that an order
    counts once and in one account. `top`: every account is scored as the topmost one above it.

    Raises:
        ConfigError: for `top`, accounts that belong to each other in a circle.
    """
    if level == "none":
        return NO_FAMILIES
    query = select(accounts.c.id, accounts.c.parent_id).where(accounts.c.parent_id.is_not(None))
    found = read_columns(connection, query)
    order = np.argsort(found["id"])
    members, parents = found["id"][order], found["parent_id"][order]
    if level == "parent":
        lowest = ~np.isin(members, parents) & (members != parents)
        return Families(members=members[lowest], heads=parents[lowest])
    heads = parents
    for _ in range(_DEEPEST):
        above = Families(members=members, heads=heads).head_of(heads)
        if np.array_equal(above, heads):
            break
        heads = above
    # Twice as far up each time: after 64 times only a circle is left, or an account that is its own parent.
    lost = np.isin(heads, members)
    if lost.any():
        raise ConfigError(
            _circle(connection, int(heads[lost][0]), dict(zip(members.tolist(), parents.tolist(), strict=True)))
        )
    return Families(members=members, heads=heads)


def _circle(connection: Connection, start: int, parent: Mapping[int, int]) -> str:
    way = [start]
    while way[-1] not in way[:-1]:
        way.append(parent[way[-1]])
    way = way[way.index(way[-1]) :]
    asked = select(accounts.c.id, accounts.c.external_id).where(among(connection, accounts.c.id, way))
    names = {row[0]: row[1] for row in connection.execute(asked)}
    shown = " → ".join(repr(names[one]) for one in way[:9])
    return (
        f"accounts belong to each other in a circle, so that none is on top: {shown}{' → …' if len(way) > 9 else ''}; "
        "import one of them without a parent, or set rfm.rollup to parent or none"
    )
