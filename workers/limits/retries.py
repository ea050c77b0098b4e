"""When a deferred message is tried again: later each time, and never a whole chunk in one instant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from kernel.fields import duration
from kernel.settings import Limits, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a deferred message is tried again, and when no more."""

    first: timedelta
    longest: timedelta
    attempts: int
    max_age: timedelta

    def next_try(
        self, *, now: datetime, planned_for: datetime, attempts: int, spread: float, at_least_s: float
    ) -> datetime | None:
        """Return when to try again after one more failure, or None where attempts or age are used up.

        The wait lies anywhere between the first one and twice that after the first failure, four times that after
        the second, and so on; a try that would come too late by chance comes at the last instant instead.

        Args:
            now: The present instant.
            planned_for: When the message was first due.
            attempts: Failures before this one.
            spread: A number in [0, 1): where between the shortest and the longest wait.
            at_least_s: What the gateway asked for, in seconds.

        Source:
            RFC 5321 section 4.5.4.1 (wait, then back off); RFC 6647 (greylisting lets a retry pass after minutes,
            hence no wait shorter than the first).
        """
        if attempts + 1 >= self.attempts:
            return None
        longest: timedelta = max(self.first, min(self.first * 2 ** min(attempts + 1, 16), self.longest))
        shortest: timedelta = max(self.first, timedelta(seconds=at_least_s))
        latest: datetime = planned_for + self.max_age
        if now + shortest > latest:
            return None
        return min(now + max(shortest, self.first + (longest - self.first) * spread), latest)


def retry_policy(settings: Settings, limits: Limits | None) -> RetryPolicy:
    """Return when a campaign's deferred messages are tried again; its own limits go before the workspace's."""
    limits = limits or settings.limits
    return RetryPolicy(
        first=duration(limits.first_retry),
        longest=duration(limits.longest_retry),
        attempts=limits.max_attempts,
        max_age=duration(limits.max_age),
    )


def spread_of(message_id: int, attempts: int) -> float:
    """Return a number in [0, 1) that differs from message to message and from try to try, and is always the same."""
    return ((message_id * 2_654_435_761 + attempts * 40_503_001) % 2**32) / 2**32
