"""Counting a campaign's rows: a handful of grouped queries, whatever the size and whatever they are grouped by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, distinct, func, literal_column, select

from kernel.vocabulary import ACCEPTED_STATES, Channel, MessageEventKind, MessageState, TouchKind, Verdict
from reports.terms import Terms, load_terms
from store.tables import conversions, enrollments, message_events, messages, runs, touches


class Dimension(StrEnum):
    """What figures are broken down by. Each message belongs to exactly one value of each."""

    RUN = "run"
    STEP = "step"
    VARIANT = "variant"
    SEGMENT = "segment"
    RFM_SEGMENT = "rfm_segment"


_COLUMN: dict[Dimension, ColumnElement[Any]] = {
    Dimension.RUN: runs.c.id,
    Dimension.STEP: messages.c.step,
    Dimension.VARIANT: enrollments.c.variant,
    Dimension.SEGMENT: enrollments.c.segment,
    Dimension.RFM_SEGMENT: enrollments.c.rfm_segment,
}


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts that add up: of one value of a dimension, or of several together.

    `places` is what the audience should come to, enrollments × steps; it is known for runs only. Costs are exact,
    in minor units for the gateways' charges and in major units for the campaign's own figures.
    """

    states: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    revenue_minor: Counter[str] = field(default_factory=Counter)
    charged_micro: int = 0
    cost: Decimal = Decimal(0)
    has_goal: bool = False

    def add(self, other: Tally) -> None:
        """Add another tally's counts to this one."""
        for mine, theirs in (
            (self.states, other.states),
            (self.skipped, other.skipped),
            (self.failures, other.failures),
            (self.counts, other.counts),
            (self.revenue_minor, other.revenue_minor),
        ):
            mine.update(theirs)
        self.charged_micro += other.charged_micro
        self.cost += other.cost
        self.has_goal = self.has_goal or other.has_goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which messages are counted: those of one campaign, of one run, or both conditions together."""

    campaign_id: int | None = None
    run_id: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions on `runs`."""
        found: list[ColumnElement[bool]] = []
        if self.campaign_id is not None:
            found.append(runs.c.campaign_id == self.campaign_id)
        if self.run_id is not None:
            found.append(runs.c.id == self.run_id)
        return found


def tally(connection: Connection, scope: Scope, by: Dimension) -> dict[Any, Tally]:
    """Return the counts of each value of the dimension that has messages or people."""
    counted: defaultdict[Any, Tally] = defaultdict(Tally)
    terms = load_terms(
        connection, connection.execute(select(runs.c.version_id).where(*scope.conditions()).distinct()).scalars()
    )
    key = _COLUMN[by].label("key")
    _count_messages(connection, scope, key, counted, terms)
    _count_people(connection, scope, by, counted, terms)
    _count_touches(connection, scope, key, counted)
    _count_events(connection, scope, key, counted)
    _count_conversions(connection, scope, key, counted)
    return dict(counted)


def _joined(query: Select[Any], scope: Scope) -> Select[Any]:
    return (
        query.join(enrollments, enrollments.c.id == messages.c.enrollment_id)
        .join(runs, runs.c.id == messages.c.run_id)
        .where(*scope.conditions())
    )


def _count_messages(
    connection: Connection, scope: Scope, key: Any, counted: defaultdict[Any, Tally], terms: Mapping[int, Terms]
) -> None:
    kinds = (key, runs.c.version_id, messages.c.channel, messages.c.state, messages.c.reason)
    unpriced = case((messages.c.cost_micro.is_(None), func.coalesce(messages.c.parts, literal_column("1"))), else_=0)
    sums = (func.sum(messages.c.cost_micro).label("charged"), func.sum(unpriced).label("unpriced_parts"))
    query = select(*kinds, func.count().label("n"), *sums).select_from(messages)
    query = _joined(query, scope).group_by(*kinds)
    for row in connection.execute(query):
        into = counted[row.key]
        into.states[row.state] += row.n
        into.has_goal = into.has_goal or terms[row.version_id].goal is not None
        if row.state == MessageState.SKIPPED:
            into.skipped[row.reason or "unknown"] += row.n
        elif row.state == MessageState.FAILED:
            into.failures[row.reason or "unknown"] += row.n
        elif row.state in ACCEPTED_STATES:
            into.charged_micro += int(row.charged or 0)
            if row.channel == Channel.EMAIL and row.state != MessageState.BOUNCED:
                into.counts["delivered_email"] += row.n
            cost = terms[row.version_id].cost
            into.cost += cost.per_email * row.n if row.channel == Channel.EMAIL else cost.per_sms * row.unpriced_parts


def _count_people(
    connection: Connection, scope: Scope, by: Dimension, counted: defaultdict[Any, Tally], terms: Mapping[int, Terms]
) -> None:
    if by is Dimension.STEP:  # A step has one message for each enrollment.
        for into in counted.values():
            into.counts["people"] = into.states.total()
        return
    key = _COLUMN[by].label("key")
    query = (
        select(key, func.count().label("n"))
        .select_from(enrollments)
        .join(runs, runs.c.id == enrollments.c.run_id)
        .where(*scope.conditions())
        .group_by(key)
    )
    for row in connection.execute(query):
        counted[row.key].counts["people"] = row.n
    if by is Dimension.RUN:
        for run in connection.execute(select(runs.c.id, runs.c.version_id).where(*scope.conditions())):
            into = counted[run.id]
            into.counts["places"] = into.counts["people"] * len(terms[run.version_id].steps)
            into.cost += terms[run.version_id].cost.fixed if into.counts["people"] else 0


def _messages_where(condition: ColumnElement[bool], name: str) -> ColumnElement[int]:
    return func.count(distinct(case((condition, messages.c.id)))).label(name)


def _hits_where(condition: ColumnElement[bool], name: str) -> ColumnElement[int]:
    return func.count(case((condition, touches.c.id))).label(name)


def _count_touches(connection: Connection, scope: Scope, key: Any, counted: defaultdict[Any, Tally]) -> None:
    opens, clicks = touches.c.kind == TouchKind.OPEN, touches.c.kind == TouchKind.CLICK
    machine = touches.c.verdict == Verdict.MACHINE
    columns = (
        _messages_where(opens & ~machine, "opened"),
        _messages_where(clicks & (touches.c.verdict == Verdict.HUMAN), "clicked"),
        _messages_where(opens, "opened_raw"),
        _messages_where(clicks, "clicked_raw"),
        _hits_where(opens & machine, "machine_opens"),
        _hits_where(clicks & machine, "machine_clicks"),
    )
    query = select(key, *columns).select_from(messages).join(touches, touches.c.message_id == messages.c.id)
    _add_counts(connection, _joined(query, scope).group_by(key), counted)


def _count_events(connection: Connection, scope: Scope, key: Any, counted: defaultdict[Any, Tally]) -> None:
    kind = message_events.c.kind
    columns = (
        _messages_where(kind == MessageEventKind.UNSUBSCRIBED, "unsubscribed"),
        _messages_where(kind == MessageEventKind.REPLIED, "replied"),
    )
    query = (
        select(key, *columns).select_from(messages).join(message_events, message_events.c.message_id == messages.c.id)
    )
    _add_counts(connection, _joined(query, scope).group_by(key), counted)


def _count_conversions(connection: Connection, scope: Scope, key: Any, counted: defaultdict[Any, Tally]) -> None:
    currency = conversions.c.currency
    query = (
        select(key, currency, func.count().label("n"), func.sum(conversions.c.value_minor).label("value"))
        .select_from(messages)
        .join(conversions, conversions.c.message_id == messages.c.id)
    )
    for row in connection.execute(_joined(query, scope).group_by(key, currency)):
        into = counted[row.key]
        into.counts["converted"] += row.n
        if row.currency:
            into.revenue_minor[row.currency] += int(row.value)


def _add_counts(connection: Connection, query: Select[Any], counted: defaultdict[Any, Tally]) -> None:
    for row in connection.execute(query).mappings():
        counts = counted[row["key"]].counts
        for name, number in row.items():
            if name != "key":
                counts[name] += number
