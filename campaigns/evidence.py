"""What the database says that bears on messages about to leave: at most ten queries for a chunk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, func, or_, select, type_coerce

from campaigns.judging import Case, Contactable, Evidence, Slot
from campaigns.schema import Goal
from kernel.clock import to_ms
from kernel.quantities import parse_duration, to_minor
from kernel.vocabulary import ACCEPTED_STATES, Channel, GoalKind, MessageState, OrderKind, TouchKind, Verdict
from store.message_facts import comparable_address
from store.standing import standing
from store.tables import (
    contacts,
    enrollments,
    events,
    messages,
    opportunities,
    opportunity_stages,
    orders,
    runs,
    suppressions,
    touches,
)

_GONE = (*ACCEPTED_STATES, MessageState.IN_DOUBT)
"""In doubt counts as sent here: the person may well have it."""
_ON_ITS_WAY = (MessageState.CLAIMED, MessageState.SENDING)


def gather(connection: Connection, cases: Sequence[Case], *, now: datetime) -> Evidence:
    """Return the evidence for the cases, as of now; messages of the chunk itself are no evidence."""
    return Evidence(
        suppressed=_suppressed(connection, cases, now),
        converted=_converted(connection, cases, now),
        touched=_touched(connection, cases),
        taken=_taken(connection, cases),
        recent=_recent(connection, cases, now),
    )


def _suppressed(connection: Connection, cases: Sequence[Case], now: datetime) -> set[tuple[str, str]]:
    keys = sorted({case.key for case in cases if case.key})
    if not keys:
        return set()
    query = select(suppressions.c.channel, suppressions.c.address).where(
        suppressions.c.channel.in_(list(Channel)), suppressions.c.address.in_(keys), standing(now)
    )
    return {(channel, address) for channel, address in connection.execute(query)}


def _taken(connection: Connection, cases: Sequence[Case]) -> dict[Slot, list[Contactable]]:
    """Return messages of the same run, step and address that are gone or on their way.

    In two questions: who shares an address (mostly nobody), and only then what they were sent. Together in one, a
    database may start at the wrong end and read a whole run for every chunk.
    """
    own = {case.message_id for case in cases}
    taken: dict[Slot, list[Contactable]] = defaultdict(list)
    for channel in Channel:
        sharing = _sharing(connection, channel, {case.key for case in cases if case.channel is channel and case.key})
        if not sharing:
            continue
        query = (
            _movements()
            .add_columns(messages.c.run_id, messages.c.step, messages.c.contact_id)
            .where(
                messages.c.contact_id.in_(sharing.keys()),
                messages.c.run_id.in_({case.run_id for case in cases}),
                messages.c.channel == channel,
                messages.c.state.in_((*_GONE, *_ON_ITS_WAY)),
            )
        )
        for row in connection.execute(query):
            if row.id not in own:
                taken[row.run_id, row.step, sharing[row.contact_id]].append(_contactable(row))
    return dict(taken)


def _sharing(connection: Connection, channel: Channel, keys: set[str]) -> dict[int, str]:
    """Return the contacts that share one of the addresses with another contact, with the address's comparable form."""
    if not keys:
        return {}
    column: ColumnElement[Any] = contacts.c.phone if channel is Channel.SMS else func.lower(contacts.c.email)
    holders: dict[str, list[int]] = defaultdict(list)
    query = select(contacts.c.id, column.label("address")).where(column.in_(sorted(keys)))
    for contact_id, address in connection.execute(query):
        holders[comparable_address(channel, address)].append(contact_id)
    return {contact: address for address, found in holders.items() if len(found) > 1 for contact in found}


def _recent(connection: Connection, cases: Sequence[Case], now: datetime) -> dict[tuple[int, str], list[Contactable]]:
    """Return messages to the same contacts within the longest cap."""
    lengths = [parse_duration(cap.within) for case in cases if case.spec.limits for cap in case.spec.limits.caps]
    if not lengths:
        return {}
    own = {case.message_id for case in cases}
    since = to_ms(now - max(lengths))
    moved = or_(
        messages.c.state.in_(_ON_ITS_WAY),
        messages.c.state.in_(_GONE) & (type_coerce(messages.c.sent_at, BigInteger) > since),
    )
    query = (
        _movements()
        .add_columns(messages.c.contact_id, messages.c.channel)
        .where(messages.c.contact_id.in_({case.contact_id for case in cases}), moved)
    )
    recent: dict[tuple[int, str], list[Contactable]] = defaultdict(list)
    for row in connection.execute(query):
        if row.id not in own:
            recent[row.contact_id, row.channel].append(_contactable(row))
    return dict(recent)


def _movements() -> Select[Any]:
    return select(messages.c.id, messages.c.state, type_coerce(messages.c.sent_at, BigInteger).label("at_ms"))


def _contactable(row: Any) -> Contactable:
    return Contactable(message_id=row.id, at_ms=row.at_ms or 0, in_flight=row.state in _ON_ITS_WAY)


def _touched(connection: Connection, cases: Sequence[Case]) -> set[int]:
    """Return messages whose step is not for who clicked or opened an earlier one."""
    asking = {case.message_id: case for case in cases if _kinds(case)}
    if not asking:
        return set()
    query = (
        select(messages.c.run_id, messages.c.contact_id, messages.c.step, touches.c.kind)
        .join(touches, touches.c.message_id == messages.c.id)
        .where(
            messages.c.contact_id.in_({case.contact_id for case in asking.values()}),
            messages.c.run_id.in_({case.run_id for case in asking.values()}),
            touches.c.verdict == Verdict.HUMAN,
        )
        .distinct()
    )
    seen: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    for run_id, contact_id, step, kind in connection.execute(query):
        seen[run_id, contact_id].append((step, kind))
    return {
        message_id
        for message_id, case in asking.items()
        if any(step < case.step and kind in _kinds(case) for step, kind in seen[case.run_id, case.contact_id])
    }


def _kinds(case: Case) -> set[str]:
    words = case.spec.steps[case.step - 1].skip_if
    # Who clicked has seen the message, whether or not the picture was loaded.
    kinds = {"clicked": {TouchKind.CLICK}, "opened": {TouchKind.OPEN, TouchKind.CLICK}, "converted": set[TouchKind]()}
    return {kind.value for word in words for kind in kinds[word]}


# --- conversions -------------------------------------------------------------------------------------------


def _converted(connection: Connection, cases: Sequence[Case], now: datetime) -> set[int]:
    """Return messages whose step is not for who has met the goal since the run fired; any colleague counts."""
    asking = [case for case in cases if case.spec.goal and "converted" in case.spec.steps[case.step - 1].skip_if]
    if not asking:
        return set()
    places = _places(connection, asking)
    # A rehearsed message has no row yet, and nobody can have answered it.
    asking = [case for case in asking if case.message_id in places]
    found: set[int] = set()
    for kind in GoalKind:
        of_kind = [case for case in asking if case.spec.goal and case.spec.goal.kind is kind]
        if of_kind:
            facts = _Facts(connection, kind, [places[case.message_id] for case in of_kind], now)
            found |= {
                case.message_id
                for case in of_kind
                if case.spec.goal and facts.meet(case.spec.goal, places[case.message_id])
            }
    return found


_Place = tuple[int | None, int, int]
"""Account, contact, and the instant the run fired, in milliseconds."""


def _places(connection: Connection, cases: Sequence[Case]) -> dict[int, _Place]:
    query = (
        select(messages.c.id, enrollments.c.account_id, messages.c.contact_id, type_coerce(runs.c.fired_at, BigInteger))
        .join(enrollments, enrollments.c.id == messages.c.enrollment_id)
        .join(runs, runs.c.id == messages.c.run_id)
        .where(messages.c.id.in_([case.message_id for case in cases]))
    )
    return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query)}


class _Facts:
    """What accounts and contacts did that a kind of goal is about, each with its instant."""

    def __init__(self, connection: Connection, kind: GoalKind, places: Iterable[_Place], now: datetime) -> None:
        known = list(places)
        accounts_ = {account for account, _, _ in known if account is not None}
        alone = {contact for account, contact, _ in known if account is None}
        since, until = min(fired for _, _, fired in known), to_ms(now)
        columns, query, at = _FACTS[kind]()
        self._by: dict[tuple[str, int], list[Any]] = defaultdict(list)
        query = query.where(
            type_coerce(at, BigInteger) >= since,
            type_coerce(at, BigInteger) <= until,
            or_(columns["account"].in_(accounts_), columns["contact"].in_(alone)),
        )
        for row in connection.execute(query):
            self._by["account", row.account_id].append(row)
            self._by["contact", row.contact_id].append(row)

    def meet(self, goal: Goal, place: _Place) -> bool:
        account, contact, fired_ms = place
        rows = self._by[("account", account) if account is not None else ("contact", contact)]
        return any(row.at_ms >= fired_ms and _meets(goal, row) for row in rows)


def _meets(goal: Goal, row: Any) -> bool:
    if goal.kind is GoalKind.ORDER:
        least = Decimal(goal.order.min_value) if goal.order and goal.order.min_value else Decimal(0)
        return bool(row.value_minor >= to_minor(least, row.subject))
    return bool(row.subject == (goal.opportunity_stage or goal.event))


_Query = tuple[dict[str, ColumnElement[Any]], Select[Any], ColumnElement[Any]]


def _order_facts() -> _Query:
    query = _facts(orders, orders.c.currency, orders.c.ordered_at, orders.c.net_minor).where(
        orders.c.kind == OrderKind.ORDER, orders.c.cancelled_at.is_(None)
    )
    return {"account": orders.c.account_id, "contact": orders.c.contact_id}, query, orders.c.ordered_at


def _stage_facts() -> _Query:
    stages = opportunity_stages
    query = _facts(opportunities, stages.c.stage, stages.c.entered_at, opportunities.c.value_minor).join(
        stages, stages.c.opportunity_id == opportunities.c.id
    )
    return {"account": opportunities.c.account_id, "contact": opportunities.c.contact_id}, query, stages.c.entered_at


def _event_facts() -> _Query:
    query = _facts(events, events.c.name, events.c.at, events.c.value_minor)
    return {"account": events.c.account_id, "contact": events.c.contact_id}, query, events.c.at


def _facts(table: Any, subject: ColumnElement[Any], at: ColumnElement[Any], value: ColumnElement[Any]) -> Select[Any]:
    return select(
        table.c.account_id,
        table.c.contact_id,
        subject.label("subject"),
        value.label("value_minor"),
        type_coerce(at, BigInteger).label("at_ms"),
    ).select_from(table)


_FACTS: dict[GoalKind, Callable[[], _Query]] = {
    GoalKind.ORDER: _order_facts,
    GoalKind.OPPORTUNITY_STAGE: _stage_facts,
    GoalKind.EVENT: _event_facts,
}
