"""Due times of a run: recipients' clocks, waits, windows and the rate, as a few pieces per zone. Pure.

Everybody of a zone is numbered from 0. A piece says: numbers `first` to `until` (open) are due from `start_ms` on,
`interval_ms` apart. A run of a million messages has a handful of pieces, so the database can do the rest by a join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from campaigns.calendar import Window, closes_at, earliest_send, local_due, zone_named
from campaigns.schema import CampaignSpec
from kernel.clock import from_ms, to_ms
from kernel.quantities import parse_duration, parse_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Due times of some of a zone's messages of one step; see the module."""

    zone: str
    step: int
    first: int
    until: int
    start_ms: int
    interval_ms: float


def place(spec: CampaignSpec, counts: Mapping[str, int], *, scheduled_for: datetime, now: datetime) -> list[Piece]:
    """Return the pieces of a run.

    The campaign's rate is shared among zones by their size, so that all of them together keep it.

    Args:
        spec: A resolved spec.
        counts: Messages of one step by zone name; names that are no zone count for the default zone's clock.
        scheduled_for: The run's slot.
        now: When it fires; a run that fires late starts then.
    """
    total = sum(counts.values())
    pieces: list[Piece] = []
    for name, count in sorted(counts.items()):
        zone = zone_named(name, spec.schedule.default_zone or "UTC")
        interval_ms = _interval_ms(spec, total / count if count else 1.0)
        due = max(local_due(spec.schedule, scheduled_for, zone), now.astimezone(UTC))
        earlier = [Piece(zone=name, step=0, first=0, until=max(count, 1), start_ms=to_ms(due), interval_ms=interval_ms)]
        for number, step in enumerate(spec.steps, start=1):
            window = Window.of(spec.window_of(number))
            earlier = _after(earlier, number, parse_duration(step.wait), zone, window)
            pieces.extend(earlier)
    return pieces


def _interval_ms(spec: CampaignSpec, share: float) -> float:
    if spec.rate is None:
        return 0.0
    rate = parse_rate(spec.rate)
    return rate.per.total_seconds() * 1000 / rate.count * share


def _after(earlier: Sequence[Piece], step: int, wait: timedelta, zone: ZoneInfo, window: Window) -> list[Piece]:
    """Lay a step's messages after the previous step's: nobody's wait is cut short, nobody's window left."""
    pieces: list[Piece] = []
    cursor = from_ms(0)
    for piece in earlier:
        cursor = max(cursor, from_ms(piece.start_ms) + wait)
        first = piece.first
        while first < piece.until:
            start = earliest_send(cursor, zone, window).astimezone(UTC)
            fits = _fitting(start, closes_at(start, zone, window), piece.interval_ms)
            until = piece.until if fits is None else min(piece.until, first + fits)
            pieces.append(
                Piece(
                    zone=piece.zone,
                    step=step,
                    first=first,
                    until=until,
                    start_ms=to_ms(start),
                    interval_ms=piece.interval_ms,
                )
            )
            cursor = start + timedelta(milliseconds=piece.interval_ms * (until - first))
            first = until
    return pieces


def _fitting(start: datetime, closing: datetime | None, interval_ms: float) -> int | None:
    if closing is None or interval_ms == 0:
        return None
    return int((to_ms(closing) - 1 - to_ms(start)) // interval_ms) + 1
