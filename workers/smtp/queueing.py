"""The letters that wait for a connection, and how many each recipient domain may have under way.

One slow domain must not hold every connection: while letters for others wait or are under way, a domain has at most
its share; and a domain that is slow now has no more than its share even when it is alone, for others may come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from workers.smtp.letters import Batch, Letter


class Waiting:
    """A queue that keeps the order of arrival, except where a domain has its share already."""

    __slots__ = ("_held", "_parked", "_queue", "_under_way", "share", "slow")

    def __init__(self) -> None:
        self._queue: deque[Letter] = deque()
        self._parked: deque[Letter] = deque()
        """Letters passed over because their domain had its share."""
        self._held: dict[str, int] = {}
        """Letters under way, by domain."""
        self._under_way = 0
        self.share = 1
        self.slow: Collection[str] = ()
        """Domains whose answers are long in coming."""

    def __len__(self) -> int:
        return len(self._queue) + len(self._parked)

    def add(self, batch: Batch) -> None:
        """Put a batch's letters at the end."""
        batch.waiting = len(batch.letters)
        self._queue.extend(batch.letters)

    def put_back(self, letter: Letter, *, first: bool) -> None:
        """Take a letter again that was not sent."""
        letter.batch.waiting += 1
        if first:
            self._queue.appendleft(letter)
        else:
            self._queue.append(letter)

    def take(self) -> Letter | None:
        """Return the next letter that may leave; it counts as under way until `free`."""
        queue, held, share = self._queue, self._held, self.share
        while queue:
            letter = queue.popleft()
            count = held.get(letter.domain, 0)
            if count < share:
                return self._taken(letter, count)
            self._parked.append(letter)
        return self._parked_letter() if self._parked else None

    def free(self, letter: Letter) -> None:
        """A letter is no longer under way."""
        self._under_way -= 1
        count = self._held[letter.domain] - 1
        if count:
            self._held[letter.domain] = count
        else:
            del self._held[letter.domain]

    def withdraw(self, batch: Batch) -> None:
        """Take a batch's letters out again."""
        if batch.waiting:
            self._queue = deque(letter for letter in self._queue if letter.batch is not batch)
            self._parked = deque(letter for letter in self._parked if letter.batch is not batch)
            batch.left -= batch.waiting
            batch.waiting = 0

    def _parked_letter(self) -> Letter | None:
        """Nobody else waits: a domain may have more than its share if it is quite alone, and not slow."""
        for _ in range(len(self._parked)):
            letter = self._parked.popleft()
            count = self._held.get(letter.domain, 0)
            if count < self.share or (count == self._under_way and letter.domain not in self.slow):
                return self._taken(letter, count)
            self._parked.append(letter)
        return None

    def _taken(self, letter: Letter, count: int) -> Letter:
        self._held[letter.domain] = count + 1
        self._under_way += 1
        letter.batch.waiting -= 1
        return letter
