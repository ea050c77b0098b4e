"""How many connections a relay bears: more with every success, fewer when it says so.

As TCP does it: the number doubles with every round of successes until the first refusal, then grows by one a round;
a refusal brings it down to what the relay holds now, and closes the door for a while that doubles.

Source:
    Postfix's per-destination concurrency feedback (SCHEDULER_README), which starts at 5 and ends at 20 too.
"""

from __future__ import annotations

_FIRST = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class Sizing:
    """The number of connections to have at most now."""

    __slots__ = ("_closed_until", "_most", "_pause_s", "_slowly", "_successes", "target")

    def __init__(self, most: int) -> None:
        self._most = most
        self.target = min(_FIRST, most)
        self._successes = 0
        self._slowly = False
        self._pause_s = _FIRST_PAUSE_S
        self._closed_until = 0.0

    @property
    def full(self) -> bool:
        """Whether there is nothing to grow to."""
        return self.target >= self._most

    def succeeded(self, now: float) -> bool:
        """A connection was let in or a letter accepted; returns whether one more connection may be opened."""
        self._successes += 1
        if self._successes < (self.target if self._slowly else 1) or now < self._closed_until:
            return False
        self._successes = 0
        self.target += 1
        self._pause_s = max(_FIRST_PAUSE_S, self._pause_s / 2)
        return True

    def refused(self, alive: int, now: float) -> None:
        """The relay would not have one more connection beside the `alive` ones, or closed one."""
        if now >= self._closed_until:
            self._closed_until = now + self._pause_s
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        self.target = max(1, min(alive, self._most))
        self._slowly = True
        self._successes = 0

    def open(self, now: float) -> bool:
        """Whether a connection may be opened now."""
        return now >= self._closed_until
