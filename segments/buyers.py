"""What each account or contact bought before an instant: one aggregate query over the covering index."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import chain

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    type_coerce,
)

from kernel.clock import to_ms
from kernel.errors import ConfigError
from kernel.vocabulary import OrderKind, Subject
from segments.rfm import Behaviour, Ints
from store.tables import accounts, contacts, orders

DAY_MS = 86_400_000


def subject_column(subject: Subject) -> Column[int]:
    """Return the column of `orders` that names the subject."""
    return orders.c.account_id if subject is Subject.ACCOUNT else orders.c.contact_id


def counted(table: FromClause, as_of: datetime) -> ColumnElement[bool]:
    """Return the condition that an order stood at the instant: placed before it, and not cancelled before it.

    A cancellation at or after the instant is not known yet, so it does not leak into the past.
    """
    return and_(table.c.ordered_at < as_of, or_(table.c.cancelled_at.is_(None), table.c.cancelled_at >= as_of))


def buyers(subject: Subject, *, as_of: datetime, window: timedelta | None, gross: bool) -> Select[int, int, int, int]:
    """Return the query of everyone who has bought: columns id, last_ms, frequency, money_minor.

    Only orders of kind `order` count and refresh recency. Money is net over all kinds, or gross over orders only.

    Args:
        subject: Whose orders: the account's or the contact's own.
        as_of: Only what happened before it counts.
        window: Only orders at most this long before `as_of` count; None counts all.
        gross: Sum what was ordered, leaving returns aside, as published notebooks do.
    """
    own = subject_column(subject)
    is_order = orders.c.kind == OrderKind.ORDER
    money = case((is_order, orders.c.gross_minor), else_=literal(0)) if gross else orders.c.net_minor
    frequency = func.count(case((is_order, 1)))
    query = (
        select(
            own.label("id"),
            func.max(case((is_order, type_coerce(orders.c.ordered_at, BigInteger)))).label("last_ms"),
            frequency.label("frequency"),
            cast(func.sum(money), BigInteger).label("money_minor"),
        )
        .where(own.is_not(None), counted(orders, as_of))
        .group_by(own)
        .having(frequency > 0)
    )
    return query.where(orders.c.ordered_at >= as_of - window) if window else query


def read_behaviour(
    connection: Connection, query: Select[int, int, int, int], *, as_of: datetime
) -> tuple[Ints, Behaviour]:
    """Run a query made by `buyers`; return ids and what they did, in the order of the ids."""
    flat = np.fromiter(chain.from_iterable(connection.execute(query)), dtype=np.int64)
    table = flat.reshape(-1, 4)
    table = table[np.argsort(table[:, 0], kind="stable")]
    behaviour = Behaviour(
        recency_days=(to_ms(as_of) - table[:, 1]) // DAY_MS, frequency=table[:, 2], monetary=table[:, 3]
    )
    return table[:, 0], behaviour


def in_external_order(connection: Connection, subject: Subject, ids: Ints) -> Ints:
    """Return the positions that put the ids in the order of their external ids, compared by code point."""
    table = accounts if subject is Subject.ACCOUNT else contacts
    names = {row.id: row.external_id for row in connection.execute(select(table.c.id, table.c.external_id))}
    return np.array(sorted(range(len(ids)), key=lambda i: names[int(ids[i])]), dtype=np.int64)


def one_currency(connection: Connection, subject: Subject, *, as_of: datetime, currency: str | None) -> str | None:
    """Return the one currency of the orders before the instant; None where there are no orders.

    Args:
        connection: An open connection.
        subject: Orders that name no such subject are left aside.
        as_of: Later orders are left aside.
        currency: The one it must be; None asks only that there be no second.

    Raises:
        ConfigError: orders in another currency; money of different currencies is never added.
    """
    stands = (subject_column(subject).is_not(None), counted(orders, as_of))
    wanted = currency or connection.execute(select(orders.c.currency).where(*stands).limit(1)).scalar_one_or_none()
    if wanted is None:
        return None
    # Asked of all orders first: a plain pass over the table, many times faster than by way of an index.
    if not connection.execute(select(exists().where(orders.c.currency != wanted))).scalar_one():
        return wanted
    other = connection.execute(
        select(func.count(), func.min(orders.c.currency), func.min(orders.c.external_id)).where(
            *stands, orders.c.currency != wanted
        )
    ).one()
    if other[0]:
        raise ConfigError(
            f"{other[0]:,} order(s) are not in {wanted}, among them {other[2]!r} ({other[1]} is one currency found); "
            f"RFM never adds different currencies: import these orders converted to {wanted}, "
            "or set `currency` in carillon.yaml to theirs"
        )
    return wanted
