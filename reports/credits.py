"""The statements that find, for each order, stage or event, the touch that earns its credit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
    union_all,
    values,
)

from kernel.quantities import to_minor
from kernel.vocabulary import ACCEPTED_STATES, GoalKind, OrderKind, TouchKind, Verdict
from reports.terms import Goal
from store.tables import enrollments, events, messages, opportunities, opportunity_stages, orders, runs, touches

SENT_TOUCH = "sent"
"""The kind by which being sent the message counts as a touch, for messages that carry neither pixel nor link."""

_TOUCH_BITS = {TouchKind.OPEN.value: 1, TouchKind.CLICK.value: 2, SENT_TOUCH: 4}


def winners(connection: Connection, goals: Mapping[int, Goal], now_ms: int) -> Iterator[Select[Any]]:
    """Yield one SELECT for each kind of goal in use; its rows have the columns of `conversions`, `at` in milliseconds.

    Args:
        connection: Asked for the currencies orders came in.
        goals: The goal of each version that has fired.
        now_ms: What lies after this instant is not seen.
    """
    for kind in GoalKind:
        of_kind = {version_id: goal for version_id, goal in goals.items() if goal.kind is kind}
        if of_kind:
            touched = _touched(_goal_rows(of_kind), of_kind)
            yield _SELECTS[kind](connection, of_kind, touched, now_ms)


def _ms(instant: Any) -> Any:
    return type_coerce(instant, BigInteger)


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def _goal_rows(goals: Mapping[int, Goal]) -> CTE:
    """Return the goals as a table: version, subject, window in milliseconds, kinds of touch as bits."""
    rows = [
        (version_id, goal.subject, _milliseconds(goal.within), sum(_TOUCH_BITS.get(kind, 0) for kind in goal.touches))
        for version_id, goal in sorted(goals.items())
    ]
    columns = (
        column("version_id", BigInteger),
        column("subject", Text),
        column("within_ms", BigInteger),
        column("kinds", BigInteger),
    )
    return values(*columns, name="goal_rows").data(rows).cte("goals")


def _touched(goals: CTE, of_kind: Mapping[int, Goal]) -> CTE:
    """Return every touch that may earn a credit, with whom it was and how long it lasts.

    Machines never earn credit. An open whose maker is unknown does, since most mail clients hide it; a click does
    only when a person made it.
    """
    bit = case((touches.c.kind == TouchKind.OPEN, 1), (touches.c.kind == TouchKind.CLICK, 2), else_=0)
    person = case(
        (touches.c.kind == TouchKind.OPEN, touches.c.verdict != Verdict.MACHINE),
        else_=touches.c.verdict == Verdict.HUMAN,
    )
    hits = _of_messages(goals, touches.c.id, _ms(touches.c.at)).where(
        touches.c.message_id == messages.c.id, _kinds(goals).op("&")(bit) != 0, person
    )
    if not any(SENT_TOUCH in goal.touches for goal in of_kind.values()):
        return hits.cte("touched")
    sendings = _of_messages(goals, type_coerce(null(), BigInteger), _ms(messages.c.sent_at)).where(
        _kinds(goals).op("&")(literal_column(str(_TOUCH_BITS[SENT_TOUCH]))) != 0,
        messages.c.state.in_(ACCEPTED_STATES),
        messages.c.sent_at.is_not(None),
    )
    return union_all(hits, sendings).cte("touched")


def _kinds(goals: CTE) -> Any:
    """Return the goal's bits, 0 for versions without a goal of this kind.

    The goals are joined from outside on purpose: SQLite has no statistics on them, takes an inner join for the best
    place to start, and reads every touch once for each goal.
    """
    return func.coalesce(goals.c.kinds, literal_column("0"))


def _of_messages(goals: CTE, touch_id: Any, at: Any) -> Select[Any]:
    return (
        select(
            touch_id.label("touch_id"),
            at.label("touched_ms"),
            (at + goals.c.within_ms).label("until_ms"),
            func.coalesce(_ms(messages.c.sent_at), at).label("sent_ms"),
            messages.c.id.label("message_id"),
            messages.c.contact_id,
            messages.c.run_id,
            runs.c.campaign_id,
            runs.c.version_id,
            enrollments.c.account_id,
            goals.c.subject,
        )
        .join(runs, runs.c.id == messages.c.run_id)
        .join(goals, goals.c.version_id == runs.c.version_id, isouter=True)
        .join(enrollments, enrollments.c.id == messages.c.enrollment_id)
    )


def _meeting(touched: CTE, at: Any, account_id: Any, contact_id: Any) -> Iterator[ColumnElement[bool]]:
    """Yield the two ways in which an outcome meets a touch: by its account, and by the very contact."""
    in_time = and_(at >= touched.c.touched_ms, at <= touched.c.until_ms, at >= touched.c.sent_ms)
    yield and_(account_id == touched.c.account_id, in_time)
    yield and_(
        contact_id == touched.c.contact_id,
        or_(touched.c.account_id.is_(None), account_id.is_(None), account_id != touched.c.account_id),
        in_time,
    )


def _last(candidates: CTE, kind: GoalKind) -> Select[Any]:
    """Pick the latest touch of each outcome; of touches at the same instant the one with the higher id."""
    order = (
        candidates.c.touched_ms.desc(),
        func.coalesce(candidates.c.touch_id, literal_column("0")).desc(),
        candidates.c.message_id.desc(),
    )
    ranked = select(
        candidates, func.row_number().over(partition_by=candidates.c.source_id, order_by=order).label("place")
    ).subquery("ranked")
    return select(
        literal_column(f"'{kind.value}'").label("kind"),
        ranked.c.source_id,
        ranked.c.at,
        ranked.c.account_id,
        ranked.c.value_minor,
        ranked.c.currency,
        ranked.c.campaign_id,
        ranked.c.run_id,
        ranked.c.message_id,
        ranked.c.touch_id,
    ).where(ranked.c.place == 1)


def _credit_columns(touched: CTE) -> tuple[Any, ...]:
    names = ("touched_ms", "touch_id", "message_id", "run_id", "campaign_id", "version_id")
    return tuple(touched.c[name] for name in names)


def _orders(connection: Connection, goals: Mapping[int, Goal], touched: CTE, now_ms: int) -> Select[Any]:
    at = _ms(orders.c.ordered_at)
    met = union_all(
        *(
            select(orders.c.id.label("source_id"), *_credit_columns(touched))
            .join(touched, meeting)
            .where(orders.c.kind == OrderKind.ORDER, _stands(orders, now_ms), at <= now_ms)
            for meeting in _meeting(touched, at, orders.c.account_id, orders.c.contact_id)
        )
    ).cte("met")
    worth = _worth(met, now_ms)
    candidates = select(met, worth.c.at, worth.c.account_id, worth.c.value_minor, worth.c.currency).join(
        worth, worth.c.id == met.c.source_id
    )
    # A wholly returned order is worth nothing and earns none; one that was free from the start may.
    candidates = candidates.where(or_(worth.c.value_minor > 0, worth.c.returned_minor == 0))
    least = _least_values(connection, goals)
    if least is not None:
        candidates = candidates.join(
            least,
            and_(least.c.version_id == met.c.version_id, least.c.currency == worth.c.currency),
            isouter=True,
        ).where(worth.c.value_minor >= func.coalesce(least.c.value_minor, literal_column("0")))
    return _last(candidates.cte("candidates"), GoalKind.ORDER)


def _stands(order: Any, now_ms: int) -> ColumnElement[bool]:
    cancelled: ColumnElement[bool] = or_(order.c.cancelled_at.is_(None), _ms(order.c.cancelled_at) > now_ms)
    return cancelled


def _worth(met: CTE, now_ms: int) -> CTE:
    """Return the met orders with their value after returns, never below 0."""
    ids = select(met.c.source_id).distinct().cte("met_orders")
    returned = _returned(ids, now_ms)
    returned_minor = func.coalesce(returned.c.minor, literal_column("0"))
    value = orders.c.net_minor + returned_minor
    return (
        select(
            orders.c.id,
            _ms(orders.c.ordered_at).label("at"),
            orders.c.account_id,
            orders.c.currency,
            returned_minor.label("returned_minor"),
            case((value > 0, value), else_=0).label("value_minor"),
        )
        .join(ids, ids.c.source_id == orders.c.id)
        .join(returned, returned.c.id == orders.c.id, isouter=True)
        .cte("worth")
    )


def _returned(ids: CTE, now_ms: int) -> CTE:
    """Return what came back of each order, as a negative sum; orders of which nothing came back have no row.

    A return or cancellation that comes as a row of its own names no order, so it is set against the account's last
    order before it in the same currency.
    """
    back, between = orders.alias("back"), orders.alias("between_them")
    an_order_between = (
        exists()
        .where(
            between.c.account_id == orders.c.account_id,
            _ms(between.c.ordered_at) >= _ms(orders.c.ordered_at),
            _ms(between.c.ordered_at) <= _ms(back.c.ordered_at),
            or_(_ms(between.c.ordered_at) > _ms(orders.c.ordered_at), between.c.id > orders.c.id),
            between.c.kind == OrderKind.ORDER,
            between.c.currency == orders.c.currency,
            _stands(between, now_ms),
        )
        .correlate(orders, back)
    )
    return (
        select(orders.c.id, cast(func.sum(back.c.net_minor), BigInteger).label("minor"))
        .join(ids, ids.c.source_id == orders.c.id)
        .join(
            back,
            and_(
                back.c.account_id == orders.c.account_id,
                _ms(back.c.ordered_at) >= _ms(orders.c.ordered_at),
                _ms(back.c.ordered_at) <= now_ms,
                back.c.kind.in_((OrderKind.RETURN, OrderKind.CANCELLATION)),
                back.c.currency == orders.c.currency,
                _stands(back, now_ms),
            ),
        )
        .where(~an_order_between)
        .group_by(orders.c.id)
        .cte("returned")
    )


def _least_values(connection: Connection, goals: Mapping[int, Goal]) -> CTE | None:
    """Return the goals' least values in the minor units of each currency orders came in; None where no goal has one."""
    least = {version_id: goal.min_value for version_id, goal in goals.items() if goal.min_value > 0}
    if not least:
        return None
    since = select(func.min(_ms(runs.c.fired_at))).scalar_subquery()
    currencies = connection.execute(
        select(orders.c.currency).where(_ms(orders.c.ordered_at) >= since).distinct()
    ).scalars()
    rows = [
        (version_id, currency, to_minor(value, currency))
        for currency in sorted(currencies)
        for version_id, value in sorted(least.items())
    ]
    if not rows:
        return None
    columns = (column("version_id", BigInteger), column("currency", Text), column("value_minor", BigInteger))
    return values(*columns, name="least_rows").data(rows).cte("least")


def _stages(_connection: Connection, _goals: Mapping[int, Goal], touched: CTE, now_ms: int) -> Select[Any]:
    entered, earlier = opportunity_stages.c.entered_at, opportunity_stages.alias("earlier")
    # An opportunity that enters the stage again is the same success.
    first = ~exists().where(
        earlier.c.opportunity_id == opportunity_stages.c.opportunity_id,
        earlier.c.stage == opportunity_stages.c.stage,
        or_(
            _ms(earlier.c.entered_at) < _ms(entered),
            and_(_ms(earlier.c.entered_at) == _ms(entered), earlier.c.id < opportunity_stages.c.id),
        ),
    )
    found = (
        select(
            opportunity_stages.c.id.label("source_id"),
            *_credit_columns(touched),
            _ms(entered).label("at"),
            opportunities.c.account_id,
            func.coalesce(opportunities.c.value_minor, literal_column("0")).label("value_minor"),
            func.coalesce(opportunities.c.currency, literal_column("''")).label("currency"),
        )
        .join(opportunities, opportunities.c.id == opportunity_stages.c.opportunity_id)
        .join(touched, and_(touched.c.subject == opportunity_stages.c.stage, meeting))
        .where(_ms(entered) <= now_ms, first)
        for meeting in _meeting(touched, _ms(entered), opportunities.c.account_id, opportunities.c.contact_id)
    )
    return _last(union_all(*found).cte("candidates"), GoalKind.OPPORTUNITY_STAGE)


def _events(_connection: Connection, _goals: Mapping[int, Goal], touched: CTE, now_ms: int) -> Select[Any]:
    at = _ms(events.c.at)
    found = (
        select(
            events.c.id.label("source_id"),
            *_credit_columns(touched),
            at.label("at"),
            events.c.account_id,
            func.coalesce(events.c.value_minor, literal_column("0")).label("value_minor"),
            func.coalesce(events.c.currency, literal_column("''")).label("currency"),
        )
        .join(touched, and_(touched.c.subject == events.c.name, meeting))
        .where(at <= now_ms)
        for meeting in _meeting(touched, at, events.c.account_id, events.c.contact_id)
    )
    return _last(union_all(*found).cte("candidates"), GoalKind.EVENT)


_SELECTS = {GoalKind.ORDER: _orders, GoalKind.OPPORTUNITY_STAGE: _stages, GoalKind.EVENT: _events}
