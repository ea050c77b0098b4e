"""Engagement: what was sent to people by e-mail and SMS, and what they did with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    and_,
    distinct,
    exists,
    func,
    literal,
    not_,
    select,
    true,
    type_coerce,
)

from kernel.clock import to_ms
from kernel.fields import Name
from kernel.vocabulary import ACCEPTED_STATES, Channel, MessageEventKind, Subject, TouchKind, Verdict
from segments.buyers import DAY_MS
from segments.comparisons import Comparison, Period
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings, Whose, sure
from store.json_values import one_of
from store.tables import campaigns, contacts, message_events, messages, runs, touches

Did = Literal["sent", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed", "replied"]
Measure = Literal["count", "days_since_first", "days_since_last"]
BOUNCES = (
    MessageEventKind.BOUNCED,
    MessageEventKind.SOFT_BOUNCED,
    MessageEventKind.MAILBOX_FULL,
    MessageEventKind.BLOCKED,
    MessageEventKind.UNDELIVERED,
)
"""What makes a message count as bounced, as in the ledger."""
_TOUCHES = {"opened": TouchKind.OPEN, "clicked": TouchKind.CLICK}
_EVENTS = {
    "bounced": BOUNCES,
    "complained": (MessageEventKind.COMPLAINED,),
    "unsubscribed": (MessageEventKind.UNSUBSCRIBED,),
    "replied": (MessageEventKind.REPLIED,),
}


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Engagement(OnRows, Comparison, Period):
    """How many messages something became of; without a border, at least one.

    A message counts once however often it was opened. Opens and clicks are those a person made; `machines: true`
    counts those of scanners and of nobody knows whom as well. An account's messages are those to its contacts.
    """

    did: Did = Field(description="sent, delivered, opened, clicked, bounced, complained, unsubscribed or replied.")
    measure: Measure = Field(default="count", description="count, days_since_first or days_since_last.")
    channel: Annotated[Channel, Field(strict=False)] | None = Field(default=None, description="email or sms.")
    campaign: Annotated[list[Name], BeforeValidator(_listed), Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Only messages of these campaigns."
    )
    machines: StrictBool = Field(default=False, description="true: opens and clicks of machines count too.")
    of: Whose | None = Field(default=None, description="Whose messages; default: the subject's own.")

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return borders that are no counts, machines where none touch, or a contact's messages asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {engagement: …}")
        if self.machines and self.did not in _TOUCHES:
            yield Flaw(place=("machines",), message=f"machines: {self.did} is never a machine's doing; take it out")
        if any(self.borders()) or self.measure != "count":
            yield from self.whole_number_flaws("a count" if self.measure == "count" else self.measure)

    def rows(self, scope: Scope) -> Rows:
        """Return the messages something became of before now, with what it was."""
        whose = self._whose(scope)
        name = f"engagement/{whose}/{self.did}{'/machines' if self.machines else ''}"
        source, key = self._source(whose)
        where = and_(self._kind(scope), self._at < scope.as_of, key.is_not(None))
        return Rows(name=name, source=source, key=key, whose=whose, where=where)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the measure lies within the borders."""
        value = self._value(scope)
        return sure(self.holds_for(value)) if any(self.borders()) else value >= 1

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the measure."""
        return {self.measure: self.asked(scope, self._value(scope))}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when what happened leaves the window, reaches an age, or ceases to be in the future."""
        whose = self._whose(scope)
        source, key = self._source(whose)
        ages = self.days_after() if self.measure != "count" else ()
        after = tuple(sorted({*self.after(), *ages}))
        where = and_(self._kind_ever, self._at.is_not(None), key.is_not(None))
        yield Clock(source=source, key=key, whose=whose, at=self._at, where=where, after=after)
        if self.did == "delivered":
            joined = source.join(message_events, message_events.c.message_id == messages.c.id)
            where = and_(message_events.c.kind.in_(BOUNCES), key.is_not(None))
            yield Clock(source=joined, key=key, whose=whose, at=message_events.c.at, where=where, after=after[:1])

    def _whose(self, scope: Scope) -> Subject:
        return Subject(self.of or scope.subject)

    def _source(self, whose: Subject) -> tuple[FromClause, ColumnElement[Any]]:
        source: FromClause = messages
        if self.did in _TOUCHES:
            source = source.join(touches, touches.c.message_id == messages.c.id)
        elif self.did in _EVENTS:
            source = source.join(message_events, message_events.c.message_id == messages.c.id)
        if whose is Subject.CONTACT:
            return source, messages.c.contact_id
        return source.join(contacts, contacts.c.id == messages.c.contact_id), contacts.c.account_id

    @property
    def _at(self) -> ColumnElement[Any]:
        if self.did in _TOUCHES:
            return touches.c.at
        return message_events.c.at if self.did in _EVENTS else messages.c.sent_at

    @property
    def _kind_ever(self) -> ColumnElement[bool]:
        """Return which rows are what is asked for, whenever it happened."""
        if self.did in _TOUCHES:
            human = true() if self.machines else touches.c.verdict == Verdict.HUMAN
            return and_(touches.c.kind == _TOUCHES[self.did], human)
        if self.did in _EVENTS:
            return message_events.c.kind.in_(_EVENTS[self.did])
        return messages.c.state.in_(ACCEPTED_STATES)

    def _kind(self, scope: Scope) -> ColumnElement[bool]:
        if self.did != "delivered":
            return self._kind_ever
        bounced = exists().where(
            message_events.c.message_id == messages.c.id,
            message_events.c.kind.in_(BOUNCES),
            message_events.c.at < scope.as_of,
        )
        return and_(self._kind_ever, not_(bounced.correlate(messages)))

    def _counts(self, scope: Scope) -> ColumnElement[bool]:
        parts = [self.lies_in(scope, self._at)]
        if self.channel is not None:
            parts.append(messages.c.channel == self.channel)
        if self.campaign is not None:
            named = select(runs.c.id).join(campaigns, campaigns.c.id == runs.c.campaign_id)
            parts.append(messages.c.run_id.in_(named.where(one_of(campaigns.c.name, self.campaign))))
        return and_(*parts)

    def _value(self, scope: Scope) -> ColumnElement[Any]:
        counts = self._counts(scope)
        if self.measure == "count":
            return func.count(distinct(messages.c.id)).filter(counts)
        pick = func.min if self.measure == "days_since_first" else func.max
        now_ms = literal(to_ms(scope.as_of), BigInteger)
        return (now_ms - pick(type_coerce(self._at, BigInteger)).filter(counts)) // DAY_MS
