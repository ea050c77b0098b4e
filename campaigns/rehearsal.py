"""A run played through in memory: each message judged at its due time, as if everything before it had gone well."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, FromClause, Integer, Select, case, false, func, literal, select, type_coerce

from campaigns import audience
from campaigns.eligibility import CHUNK, case_of, case_rows
from campaigns.evidence import gather
from campaigns.judging import Case, Contactable, Evidence, Go, Skip, Wait, judge
from campaigns.versions import PinnedCampaign
from kernel.clock import to_ms
from kernel.vocabulary import Channel, MessageState, SkipReason
from store.types import Instant

_FIRST_ID = -(2**62)
"""Rehearsed messages have ids far below any real one's, so that no evidence of another message meets them."""
_MOST_WAITS = 5


@dataclass(slots=True, kw_only=True)
class Rehearsed:
    """What a run would come to.

    `hours` counts messages by the full hour they leave in and by channel, `leaving` by step and hour. `sample` is step
    and contact of the first message that would leave; `texting` has contacts and numbers of those that would be SMS, by
    step.
    """

    people: int
    held_out: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    hours: Counter[tuple[datetime, str]] = field(default_factory=Counter)
    leaving: Counter[tuple[int, datetime]] = field(default_factory=Counter)
    first_at: datetime | None = None
    last_at: datetime | None = None
    sample: tuple[int, int] | None = None
    texting: dict[int, list[tuple[int, str]]] = field(default_factory=dict)


def rehearse(connection: Connection, pinned: PinnedCampaign, *, at: datetime) -> Rehearsed:
    """Play through the run whose audience stands in the temporary tables; reads only.

    Args:
        connection: The one that holds the temporary tables.
        pinned: The campaign.
        at: When the run fires.
    """
    people = connection.execute(select(func.count()).select_from(audience.audience)).scalar_one()
    rehearsed = Rehearsed(people=people)
    places = _places()
    skipped = select(places.c.skip_reason, places.c.held_out, func.count()).where(
        places.c.state != MessageState.PLANNED
    )
    for reason, held, count in connection.execute(skipped.group_by(places.c.skip_reason, places.c.held_out)):
        if reason is None and held:
            rehearsed.held_out += count
        else:
            rehearsed.skipped[reason] += count
    memory = _Memory(has_caps=bool(pinned.spec.limits and pinned.spec.limits.caps))
    cases = [case_of(row, pinned.spec) for row in connection.execute(case_rows(_planned(places)))]
    # By due time, as workers take them.
    cases.sort(key=lambda one: (one.planned_for, one.message_id))
    for start in range(0, len(cases), CHUNK):
        chunk = cases[start : start + CHUNK]
        evidence = memory.joined(gather(connection, chunk, now=at))
        for one in chunk:
            _play(one, evidence, memory, rehearsed, max(at, one.planned_for))
    return rehearsed


class _Memory:
    """What has left in this rehearsal, for the rules about duplicates and caps."""

    def __init__(self, *, has_caps: bool) -> None:
        self._has_caps = has_caps
        self._taken: dict[tuple[int, int, str], list[Contactable]] = {}
        self._recent: dict[tuple[int, str], list[Contactable]] = {}

    def joined(self, evidence: Evidence) -> Evidence:
        """Return the database's evidence with the rehearsal's own."""
        for key, entries in evidence.recent.items():
            known = self._recent.setdefault(key, [])
            ids = {entry.message_id for entry in known}
            # What is on its way elsewhere counts as gone: it will be by then.
            known.extend(replace(entry, in_flight=False) for entry in entries if entry.message_id not in ids)
        return replace(evidence, taken=self._taken, recent=self._recent, converted=set(), touched=set())

    def note(self, one: Case, at: datetime) -> None:
        entry = Contactable(message_id=one.message_id, at_ms=to_ms(at), in_flight=False)
        self._taken.setdefault((one.run_id, one.step, one.key), []).append(entry)
        if self._has_caps:
            self._recent.setdefault((one.contact_id, one.channel), []).append(entry)


def _play(one: Case, evidence: Evidence, memory: _Memory, rehearsed: Rehearsed, at: datetime) -> None:
    verdict = judge(one, evidence, at)
    for _ in range(_MOST_WAITS):
        if not isinstance(verdict, Wait):
            break
        # A worker puts a waiting message back, due when its window opens.
        at = verdict.until
        verdict = judge(one, evidence, at)
    if isinstance(verdict, Skip):
        rehearsed.skipped[verdict.reason.value] += 1
    elif isinstance(verdict, Go):
        memory.note(one, at)
        _count(one, rehearsed, at)
    else:
        rehearsed.skipped[SkipReason.TOO_LATE.value] += 1


def _count(one: Case, rehearsed: Rehearsed, at: datetime) -> None:
    channel = one.channel.value
    rehearsed.messages[channel] += 1
    rehearsed.hours[at.replace(minute=0, second=0, microsecond=0), channel] += 1
    rehearsed.leaving[one.step, at.replace(minute=0, second=0, microsecond=0)] += 1
    rehearsed.first_at = min(rehearsed.first_at or at, at)
    rehearsed.last_at = max(rehearsed.last_at or at, at)
    place = (one.step, one.contact_id)
    if rehearsed.sample is None:
        rehearsed.sample = place
    if one.channel is Channel.SMS:
        rehearsed.texting.setdefault(one.step, []).append((one.contact_id, one.address or ""))


def _places() -> FromClause:
    place = audience.places().subquery("place")
    state = case(
        (place.c.skip_reason.is_not(None), MessageState.SKIPPED.value),
        (place.c.held_out, MessageState.HELD_OUT.value),
        else_=MessageState.PLANNED.value,
    )
    return select(place, state.label("state")).subquery("places")


def _planned(places: Any) -> FromClause:
    number = func.row_number().over(order_by=(places.c.step, places.c.due_ms, places.c.contact_id))
    query: Select[Any] = select(
        (number + _FIRST_ID).label("id"),
        literal(0, Integer).label("run_id"),
        places.c.step,
        places.c.contact_id,
        places.c.channel,
        type_coerce(places.c.due_ms, Instant).label("planned_for"),
        literal(0, Integer).label("version_id"),
        false().label("cancelled"),
    ).where(places.c.state == MessageState.PLANNED)
    return query.subquery("source")
