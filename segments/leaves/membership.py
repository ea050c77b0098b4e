"""Membership by the snapshots of another segment: now, on a day, since when; who entered and who left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

from pydantic import Field, model_validator
from sqlalchemy import ColumnElement, and_, func, or_, select, type_coerce

from kernel.documents import did_you_mean
from kernel.fields import DurationText, Name, Strict
from kernel.quantities import parse_duration
from kernel.vocabulary import Subject
from segments.comparisons import DateText
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings
from store.tables import segment_members, segments

_MILLISECOND = timedelta(milliseconds=1)


class Membership(OnRows, Strict):
    """Who is, was or has become a member of a segment by its snapshots; with no key but `segment`: is one now.

    A segment that was never refreshed has no members. Several keys must all hold, not necessarily of one stay. A
    contact is a member of a segment of accounts through its account.
    """

    segment: Name
    on: DateText | None = Field(default=None, description="Was a member at the end of this day.")
    entered_within: DurationText | None = Field(default=None, description="Became a member at most this long ago.")
    left_within: DurationText | None = Field(default=None, description="Ceased to be one at most this long ago.")
    for_at_least: DurationText | None = Field(default=None, description="Is a member, and has been for this long.")

    @model_validator(mode="after")
    def _not_both(self) -> Membership:
        if self.for_at_least is not None and self.on is not None:
            raise ValueError("give either on or for_at_least: one asks about then, the other about now")
        return self

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return that the segment is unknown, or about contacts where this one is about accounts."""
        subject = surroundings.segments.get(self.segment)
        if subject is None:
            hint = did_you_mean(self.segment, surroundings.segments)
            yield Flaw(place=("segment",), message=f"unknown segment {self.segment!r}", hint=hint)
        elif subject is Subject.CONTACT and surroundings.subject is Subject.ACCOUNT:
            message = f"segment {self.segment!r} is about contacts, this one about accounts"
            yield Flaw(place=("segment",), message=message, hint="write any_contact: {membership: …}")

    def rows(self, scope: Scope) -> Rows:
        """Return every stay in the segment that had begun by now."""
        key, whose = segment_members.c.subject_id, scope.find(self.segment).subject
        where = and_(self._mine(whose), segment_members.c.valid_from <= scope.as_of)
        return Rows(name=f"membership/{self.segment}", source=segment_members, key=key, whose=whose, where=where)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether there are stays as asked."""
        return and_(*(func.count().filter(stay) > 0 for stay in self._stays(scope)))

    def _stays(self, scope: Scope) -> Iterator[ColumnElement[bool]]:
        begun, ended = segment_members.c.valid_from, segment_members.c.valid_to
        if self.on is not None:
            moment = min(scope.after(date.fromisoformat(self.on)) - _MILLISECOND, scope.as_of)
            yield and_(begun <= moment, or_(ended.is_(None), ended > moment))
        if self.entered_within is not None:
            yield begun >= scope.as_of - parse_duration(self.entered_within)
        if self.left_within is not None:
            yield and_(ended <= scope.as_of, ended >= scope.as_of - parse_duration(self.left_within))
        if self.for_at_least is not None:
            yield and_(_present(scope.as_of), begun <= scope.as_of - parse_duration(self.for_at_least))
        if not any((self.on, self.entered_within, self.left_within, self.for_at_least)):
            yield _present(scope.as_of)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return when the subject entered last, and whether it is a member."""
        entered = type_coerce(func.max(segment_members.c.valid_from), segment_members.c.valid_from.type)
        present = func.count().filter(_present(scope.as_of)) > 0
        return {"member": self.asked(scope, present), "entered_at": self.asked(scope, entered)}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when stays begin, end, or reach the ages that are asked for."""
        spans = [parse_duration(text) for text in (self.entered_within, self.left_within, self.for_at_least) if text]
        key, whose = segment_members.c.subject_id, scope.find(self.segment).subject
        after = tuple(sorted({timedelta(0), *spans}))
        for at in (segment_members.c.valid_from, segment_members.c.valid_to):
            where = and_(self._mine(whose), at.is_not(None))
            yield Clock(source=segment_members, key=key, whose=whose, at=at, where=where, after=after)

    def _mine(self, whose: Subject) -> ColumnElement[bool]:
        mine = select(segments.c.id).where(segments.c.name == self.segment, segments.c.subject == whose)
        return segment_members.c.segment_id == mine.scalar_subquery()


def _present(moment: datetime) -> ColumnElement[bool]:
    ended = segment_members.c.valid_to
    return or_(ended.is_(None), ended > moment)
