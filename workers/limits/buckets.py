"""Token buckets as a pure function: who may go now, and when it is the others' turn.

A bucket refills steadily and holds a moment's worth, at least one message. Who is over gets a turn of his own
after all turns already given, so that a queue of a hundred thousand is put off once and not again and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kernel.quantities import Rate

HORIZON_MS = 6 * 3_600_000.0
"""No turn is given further ahead: who is asked again then may find that others have dropped out."""
_ALMOST = 1e-6
"""Tokens are fractions: what lacks less than this to a whole one is a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A rate as a bucket: tokens a millisecond, and the most it holds."""

    per_ms: float
    burst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """So many messages that need one token each of every bucket named by its position."""

    count: int
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How many of an Ask may go now; the n-th of the others, from 0, after `wait_ms` + n × `step_ms`."""

    granted: int
    wait_ms: float = 0.0
    step_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a bucket held at an instant, and up to when turns are given."""

    tokens: float
    at_ms: float
    booked_ms: float


def flow_of(rate: Rate, *, ahead_s: float = 1.0) -> Flow:
    """Return the bucket that keeps a rate and holds what it lets through in `ahead_s` seconds, at least one message.

    It refills slower by what it may let through at once, so that no stretch of the rate's length, wherever it begins,
    sees more than `rate.count`: a bucket that holds B and refills r a second lets fewer than B + r·T through within T.
    Where that would cost more than a seventh of the rate (a second's worth of a rate by the second) it refills in
    full, and after a pause what it holds may go ahead.
    """
    per_ms = rate.per.total_seconds() * 1000
    burst = max(1.0, rate.count * 1000 * ahead_s / per_ms)
    strict = rate.count - burst + 1
    return Flow(per_ms=(strict if strict >= rate.count * 6 / 7 else rate.count) / per_ms, burst=burst)


def share_out(
    flows: Sequence[Flow], levels: Sequence[Level | None], asks: Sequence[Ask], now_ms: float
) -> tuple[list[Turn], list[Level]]:
    """Return each Ask's turn, in their order, and what the buckets hold then. A level of None is a full bucket."""
    tokens = []
    booked = []
    for flow, level in zip(flows, levels, strict=True):
        if level is None:
            tokens.append(flow.burst)
            booked.append(now_ms)
        else:
            passed = max(0.0, now_ms - level.at_ms)
            tokens.append(min(flow.burst, level.tokens + passed * flow.per_ms))
            booked.append(max(now_ms, level.booked_ms))
    turns = []
    for ask in asks:
        granted = max(0, min(ask.count, math.floor(min(tokens[at] for at in ask.buckets) + _ALMOST)))
        for at in ask.buckets:
            tokens[at] -= granted
        rest = ask.count - granted
        if not rest:
            turns.append(Turn(granted=granted))
            continue
        # The bucket that has a token last decides whose turns these are.
        begins = [
            max(booked[at], now_ms + (1 - tokens[at]) / flows[at].per_ms) if tokens[at] < 1 - _ALMOST else now_ms
            for at in ask.buckets
        ]
        begin = max(begins)
        decides = ask.buckets[begins.index(begin)]
        step = 1 / flows[decides].per_ms
        if begin > now_ms + HORIZON_MS:
            begin = now_ms + HORIZON_MS
        else:
            booked[decides] = begin + rest * step
        turns.append(Turn(granted=granted, wait_ms=begin - now_ms, step_ms=step))
    return turns, [
        Level(tokens=left, at_ms=now_ms, booked_ms=until) for left, until in zip(tokens, booked, strict=True)
    ]
