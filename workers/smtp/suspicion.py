"""Telling a letter that makes the relay hang up from a relay that hangs up on everybody."""

from __future__ import annotations

from enum import Enum, auto

_MOST_REMEMBERED = 10_000
_LOSSES_IN_A_ROW = 5


class Blame(Enum):
    """Whose fault a closed connection is."""

    NOBODY = auto()
    """Try the letter again, after the others."""
    LETTER = auto()
    """Others were accepted meanwhile, and this one was hung up on again."""
    RELAY = auto()


class Suspicion:
    """What a pool remembers of closed connections between acceptances."""

    __slots__ = ("_accepted", "_losses", "_strikes", "_suspected")

    def __init__(self) -> None:
        self._accepted = 0
        self._losses = 0
        self._strikes: dict[int, tuple[int, int]] = {}
        """Of each letter hung up on: how often, and how many had been accepted at the first time."""
        self._suspected = False

    def cleared(self) -> None:
        """The relay accepted something."""
        self._accepted += 1
        self._losses = 0
        self._suspected = False

    def closed(self, key: int, *, others_live: bool, others_wait: bool) -> Blame:
        """The relay closed a connection at a letter before its body was out.

        Args:
            key: The letter.
            others_live: Other connections go on.
            others_wait: Other letters could be tried over a fresh connection.
        """
        if len(self._strikes) > _MOST_REMEMBERED:
            self._strikes.clear()
        count, accepted = self._strikes.get(key, (0, self._accepted))
        self._strikes[key] = (count + 1, accepted)
        if count and self._accepted > accepted:
            del self._strikes[key]
            return Blame.LETTER
        if others_live:
            return Blame.NOBODY
        if count and others_wait and not self._suspected:
            self._suspected = True
            return Blame.NOBODY
        return Blame.RELAY

    def lost(self) -> bool:
        """A connection died under a letter; returns whether that has become the relay's habit."""
        self._losses += 1
        return self._losses >= _LOSSES_IN_A_ROW
