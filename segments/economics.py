"""What a new customer costs and is worth: CAC per channel and period, CLV:CAC, payback and return on the spend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Connection, func, literal, select, type_coerce

from kernel.clock import from_ms, to_ms
from kernel.errors import ConfigError
from kernel.quantities import format_minor
from kernel.vocabulary import OrderKind, Subject
from segments import formulas
from segments.buyers import counted
from segments.formulas import Figure
from segments.purchases import DAY_MS, Ints
from store.json_values import json_text
from store.tables import accounts, orders, profiles, spend

NO_CHANNEL = "(none)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPeriod:
    """One channel in one period. Money in minor units; a figure is a number or the reason why there is none.

    `new_customers` are accounts whose first order ever lies in the period, moved on by the lag. `contribution_minor` is
    margin × their net revenue so far, `clv_minor` that plus what lifetime models expect, both summed over them;
    `clv_known` says for how many of them a model says anything.
    """

    channel: str
    starts_at: datetime
    ends_at: datetime
    cost_minor: int
    new_customers: int
    contribution_minor: int
    clv_minor: int
    clv_known: int
    cac_minor: Figure
    clv_to_cac: Figure
    roi_to_date: Figure
    payback_months: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics:
    """Every channel and period there is spend for, and all together; `notes` say what was left out."""

    as_of: datetime
    currency: str
    lag_days: int
    margin: float
    rows: list[ChannelPeriod]
    total: ChannelPeriod | None
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the report under its stable keys."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Customers:
    """One position per account that ever bought; `expected_minor` is NaN where no model says anything."""

    first_ms: Ints
    net_minor: Ints
    expected_minor: NDArray[np.float64]
    channel: NDArray[np.object_]


def economics(
    connection: Connection,
    *,
    as_of: datetime,
    currency: str,
    margin: float,
    channel_attribute: str = "channel",
    lag: timedelta = timedelta(0),
) -> Economics:
    """Return what the imported spend won, channel by channel and period by period.

    An account belongs to the channel that its attribute names; who has none counts for no channel, and is told.

    Args:
        connection: An open connection.
        as_of: Orders and spend at or after it are unknown.
        currency: The workspace's, of all spend.
        margin: Share of revenue that is contribution: the same base for CLV, return and payback.
        channel_attribute: Key of the accounts' attributes that names the channel they came by.
        lag: The cost of a period is held against the new customers of so much later: the sales cycle.

    Raises:
        ConfigError: spend in another currency, below nothing, or none imported; a lag below nothing.
    """
    if lag < timedelta(0):
        raise ConfigError(f"a lag of {lag.days} days: customers come after the cost that wins them; write --lag 30d")
    costs = list(
        connection.execute(select(spend).where(spend.c.starts_at < as_of).order_by(spend.c.channel, spend.c.starts_at))
    )
    if not costs:
        raise ConfigError("there is no spend to set against new customers: import a source of kind spend")
    foreign = next((row for row in costs if row.currency != currency), None)
    if foreign is not None:
        raise ConfigError(
            f"spend of {foreign.channel!r} from {foreign.starts_at:%Y-%m-%d} is in {foreign.currency}, not {currency}: "
            "import it converted; money of different currencies is never added"
        )
    negative = next((row for row in costs if row.amount_minor < 0), None)
    if negative is not None:
        raise ConfigError(
            f"spend of {negative.channel!r} from {negative.starts_at:%Y-%m-%d} is below nothing "
            f"({format_minor(negative.amount_minor, currency)}): import that channel and start again with what was "
            "spent, refunds taken off"
        )
    customers = _customers(connection, as_of=as_of, channel_attribute=channel_attribute)
    months = 30.4375 * DAY_MS

    def figures(
        channel: str, start: datetime, end: datetime, cost_minor: int, mine: NDArray[np.bool_]
    ) -> ChannelPeriod:
        count = int(mine.sum())
        contribution = round(margin * int(customers.net_minor[mine].sum()))
        expected = customers.expected_minor[mine]
        clv = contribution + round(float(np.nansum(expected)))
        cac = formulas.acquisition_cost(cost_minor, count)
        lived_months = float((to_ms(as_of) - customers.first_ms[mine]).sum()) / months
        monthly = contribution / lived_months if lived_months > 0 else 0.0
        return ChannelPeriod(
            channel=channel,
            starts_at=start,
            ends_at=end,
            cost_minor=cost_minor,
            new_customers=count,
            contribution_minor=contribution,
            clv_minor=clv,
            clv_known=int(np.isfinite(expected).sum()),
            cac_minor=cac,
            clv_to_cac=cac if cac.value is None else formulas.value_to_cost(clv / count, cac.value),
            roi_to_date=formulas.roi(contribution, cost_minor),
            payback_months=cac if cac.value is None else formulas.payback_months(cac.value, monthly),
        )

    shift = to_ms(as_of) - to_ms(as_of - lag)
    rows, covered = [], np.zeros(len(customers.first_ms), dtype=bool)
    for row in costs:
        mine = (
            (customers.channel == row.channel)
            & (customers.first_ms >= to_ms(row.starts_at) + shift)
            & (customers.first_ms < to_ms(row.ends_at) + shift)
        )
        covered |= mine
        rows.append(figures(row.channel, row.starts_at, row.ends_at, row.amount_minor, mine))
    start, end = min(row.starts_at for row in costs), max(row.ends_at for row in costs)
    total = figures("all", start, end, sum(row.amount_minor for row in costs), covered)
    within = (customers.first_ms >= to_ms(start) + shift) & (customers.first_ms < to_ms(end) + shift)
    return Economics(
        as_of=as_of,
        currency=currency,
        lag_days=round(lag / timedelta(days=1)),
        margin=margin,
        rows=rows,
        total=total,
        notes=list(_notes(customers, within & ~covered, channel_attribute, rows, shift, to_ms(as_of))),
    )


def _customers(connection: Connection, *, as_of: datetime, channel_attribute: str) -> _Customers:
    at = type_coerce(orders.c.ordered_at, BigInteger)
    first = func.min(at).filter(orders.c.kind == OrderKind.ORDER)
    bought = (
        select(orders.c.account_id, first.label("first_ms"), func.sum(orders.c.net_minor).label("net_minor"))
        .where(orders.c.account_id.is_not(None), counted(orders, as_of))
        .group_by(orders.c.account_id)
        .having(first.is_not(None))
        .subquery()
    )
    query = (
        select(
            bought.c.first_ms,
            bought.c.net_minor,
            profiles.c.clv_minor,
            func.coalesce(json_text(accounts.c.attributes, [channel_attribute]), literal(NO_CHANNEL)),
        )
        .join(accounts, accounts.c.id == bought.c.account_id)
        .join(
            profiles,
            (profiles.c.subject == Subject.ACCOUNT) & (profiles.c.subject_id == bought.c.account_id),
            isouter=True,
        )
    )
    rows = list(connection.execute(query))
    return _Customers(
        first_ms=np.array([row[0] for row in rows], dtype=np.int64),
        net_minor=np.array([int(row[1]) for row in rows], dtype=np.int64),
        expected_minor=np.array([np.nan if row[2] is None else row[2] for row in rows], dtype=np.float64),
        channel=np.array([row[3] for row in rows], dtype=object),
    )


def _notes(
    customers: _Customers,
    unclaimed: NDArray[np.bool_],
    attribute: str,
    rows: Iterable[ChannelPeriod],
    shift_ms: int,
    as_of_ms: int,
) -> Iterable[str]:
    """Yield in words what the figures leave out."""
    if unclaimed.any():
        words = sorted({str(word) for word in customers.channel[unclaimed]})
        shown = ", ".join(words[:5]) + (", …" if len(words) > 5 else "")
        yield (
            f"{int(unclaimed.sum())} new customers of these periods belong to no channel with spend then ({shown}): "
            f"accounts name theirs in attributes.{attribute}"
        )
    open_ = [row for row in rows if to_ms(row.ends_at) + shift_ms > as_of_ms]
    if open_:
        yield f"{len(open_)} period(s) last beyond {from_ms(as_of_ms):%Y-%m-%d}: their CAC falls as customers come in"
    known = sum(row.clv_known for row in rows)
    if not known:
        yield "no lifetime model says what is to come, so CLV is contribution so far: run `carillon lifetime fit`"
