"""What each account or contact bought before an instant, from wherever the orders are.

Where orders are in our own tables, sums come from the database and the instants of a subject's orders as one list,
from which numpy finds the rest: first and last, distinct days, the median gap. An engine elsewhere finds all that by
itself, so that one row per subject travels. Both give the same whole numbers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, Select, exists, func, select

from kernel.clock import to_ms
from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments import order_sums
from segments.instants import distinct_days, in_days, timing, twice_median_gap
from segments.order_readers import OwnReader, Reader
from segments.portable import LONG_AGO_DAYS
from segments.purchases import DAY_MS, Floats, Ints, Purchases
from segments.rates import Rates
from segments.rollup import NO_FAMILIES, Families, Level, read_families
from segments.warehouse import STORE, LineRows, OrdersSource, counted
from store.columns import NULL_INT, Columns
from store.tables import order_lines, orders

__all__ = ["DAY_MS", "Bought", "Extra", "counted", "one_currency", "read_purchases", "subject_column"]

Extra = Literal["gaps", "margin", "products"]

_MONEY = ("net_minor", "gross_minor", "returned_minor", "window_net_minor", "window_gross_minor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """Purchases, and beside them what was asked for; one position per buyer in all arrays but the last two.

    `window_*` are within the window, all in all where there is none. The rest is None where it was not asked for:
    `margin_minor` is net less cost of the lines within the window, `uncosted` the lines left out of it because their
    cost is unknown; `products` counts distinct products ordered, NULL_INT where no lines are known;
    `median_gap_days` lies between days with an order, NaN below three of them.

    `subject_ids`, ascending, are all who are scored, `units` the positions of what they are scored as: with roll-up
    children have the position of the account above them.

    `unknown` counts subjects the source knows and we do not, `unknown_example` is one of their external ids.
    """

    purchases: Purchases
    window_orders: Ints
    window_net_minor: Ints
    window_gross_minor: Ints
    margin_minor: Ints | None
    uncosted: int
    products: Ints | None
    median_gap_days: Floats | None
    subject_ids: Ints
    units: NDArray[np.intp]
    unknown: int
    unknown_example: str

    def __len__(self) -> int:
        return len(self.purchases)


def subject_column(subject: Subject) -> Column[int]:
    """Return the column of `orders` that names the subject."""
    return orders.c.account_id if subject is Subject.ACCOUNT else orders.c.contact_id


def read_purchases(
    connection: Connection,
    subject: Subject,
    *,
    as_of: datetime,
    source: OrdersSource = STORE,
    rollup: Level = "none",
    only: Ints | None = None,
    window: timedelta | None = None,
    extras: Collection[Extra] = (),
    currency: str | None = None,
    rates: Rates | None = None,
) -> Bought:
    """Return what everyone with an order bought before an instant, ascending by id.

    Only orders of kind `order` count and refresh recency; money is net over all kinds. An order cancelled before the
    instant counts for nothing, one cancelled later for all. The fastest with a connection of `reading_widely`.

    Args:
        connection: To our own database; nothing is written.
        subject: Whose orders: the account's or the contact's own.
        as_of: Only what happened before it counts.
        source: Where the orders are.
        rollup: Whether accounts are scored together with those above them.
        only: Ids of subjects; only they, with the accounts they are scored together with, are read.
        window: For `window_*` and margins: at most this long before `as_of`.
        extras: What else to read.
        currency: The workspace's; None takes that of any order, and asks that there be no second.
        rates: Converts orders in other currencies, each subject's of one UTC day together.

    Raises:
        ConfigError: orders in a currency that cannot be converted, accounts in a circle, a source that does not
            answer or does not know what was asked for.
    """
    families = read_families(connection, rollup) if subject is Subject.ACCOUNT else NO_FAMILIES
    everyone = None if only is None else families.everyone_of(np.unique(families.head_of(only)))
    since_ms = None if window is None else to_ms(as_of - window)
    lines = source.lines(subject, as_of)
    with source.opened(connection) as there:
        reader: Reader = OwnReader(there, lines) if source.own else _elsewhere(there, lines, connection, subject)
        reading = _Reading(
            there=there, reader=reader, lines=lines, families=families, only=everyone, since_ms=since_ms, own=source.own
        )
        sums = reading.sums(currency, rates, gaps="gaps" in extras)
        margin, uncosted = reading.margin(sums["id"]) if "margin" in extras else (None, 0)
        products = reading.products(sums["id"]) if "products" in extras else None
    ids = sums["id"]
    subject_ids = families.everyone_of(ids)
    return Bought(
        purchases=Purchases(
            ids=ids,
            **{
                name: sums[name]
                for name in ("first_ms", "last_ms", "orders", "days", "net_minor", "gross_minor", "returned_minor")
            },
        ),
        window_orders=sums["window_orders"],
        window_net_minor=sums["window_net_minor"],
        window_gross_minor=sums["window_gross_minor"],
        margin_minor=margin,
        uncosted=uncosted,
        products=products,
        median_gap_days=in_days(sums["twice_gap"], sums["days"]) if "gaps" in extras else None,
        subject_ids=subject_ids,
        units=np.searchsorted(ids, families.head_of(subject_ids)),
        unknown=reader.unknown,
        unknown_example=reader.unknown_example,
    )


def _elsewhere(there: Connection, lines: LineRows, connection: Connection, subject: Subject) -> Reader:
    from segments.reader_elsewhere import ReaderElsewhere

    return ReaderElsewhere(there, lines, connection, subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """Questions to one source as of one instant; answers come per account that others are scored as."""

    there: Connection
    reader: Reader
    lines: LineRows
    families: Families
    only: Ints | None
    since_ms: int | None
    own: bool

    def sums(self, currency: str | None, rates: Rates | None, *, gaps: bool) -> Columns:
        """Return all columns of purchases, and of the window, of those with an order."""
        home = currency or self._any_currency()
        query = order_sums.listed if self.own else order_sums.added
        found = self.reader.ask(
            lambda lines: query(lines.rows, since_ms=self.since_ms, home=home, convert=rates is not None),
            only=self.only,
        )
        if home is not None and "foreign" in found and found["foreign"].any():
            self._convert(found, home, rates)
        found = self._listed(found) if self.own else self._added(found, gaps=gaps)
        for name in ("orders", "net_minor", "gross_minor"):
            found.setdefault(f"window_{name}", found[name])
        buyers = found["orders"] > 0
        return {name: column[buyers] for name, column in found.items()} if not buyers.all() else found

    def margin(self, ids: Ints) -> tuple[Ints, int]:
        """Return the margin of each account or contact, and how many lines were left out of it."""
        if self.lines.cost_minor is None:
            raise ConfigError("the warehouse tells no cost; name its column in warehouse.columns, or score net money")
        found = self.reader.ask(lambda lines: order_sums.margins(lines, since_ms=self.since_ms), only=self.only)
        found = self._by_head(found)
        uncosted = int(found["uncosted"].sum())
        return _placed(found["id"], found["margin_minor"], ids, otherwise=0), uncosted

    def products(self, ids: Ints) -> Ints:
        """Return how many products each bought, NULL_INT where none is known."""
        if self.lines.product is None or self._without_lines():
            return np.full(len(ids), NULL_INT)
        found = self.reader.ask(order_sums.assortment, only=self.only)
        counts = _placed(found["id"], found["products"], ids, otherwise=NULL_INT)
        family = self._in_families()
        if len(family):
            each = self.reader.ask(order_sums.bought, only=family)
            pairs = np.unique(np.stack([self.families.head_of(each["id"]), each["product"]], axis=1), axis=0)
            heads, together = np.unique(pairs[:, 0], return_counts=True)
            place = np.isin(ids, heads)
            counts[place] = _placed(heads, together, ids[place], otherwise=NULL_INT)
        return counts

    def _without_lines(self) -> bool:
        """Return whether our own orders have no lines at all, which to find out by joining them takes long."""
        return self.own and self.there.execute(select(order_lines.c.order_id).limit(1)).first() is None

    def _any_currency(self) -> str | None:
        rows = self.lines.rows
        if rows.currency is None:
            return None
        query = select(rows.currency).select_from(rows.source).where(rows.where).limit(1)
        found = self.there.execute(query).scalar_one_or_none()
        return None if found is None else str(found)

    def _convert(self, found: Columns, home: str, rates: Rates | None) -> None:
        """Add the money in other currencies to the sums, converted per subject and UTC day."""
        rows = self.lines.rows
        others = self.there.execute(order_sums.currencies(rows, home)).all()
        if rates is None:
            raise ConfigError(_mixed(home, [(str(row[0]), int(row[1]), str(row[2])) for row in others]))
        for code in (str(row[0]) for row in others):

            def question(lines: LineRows, code: str = code) -> Select[Any]:
                return order_sums.foreign(lines.rows, code, since_ms=self.since_ms)

            money = self.reader.ask(question, only=self.only)
            place = np.searchsorted(found["id"], money["id"])
            for name in _MONEY:
                if name in money:
                    converted = rates.convert(code, money["day"] - LONG_AGO_DAYS, money[name])
                    np.add.at(found[name], place, converted)

    def _listed(self, found: Columns) -> Columns:
        """Return the columns with what follows from the instants in place of these."""
        at, counts = found.pop("at"), found.pop("at_count")
        found["orders"] = counts
        if self.since_ms is not None:
            whose = np.repeat(np.arange(len(counts)), counts)
            found["window_orders"] = np.bincount(whose[at >= self.since_ms], minlength=len(counts))
        lists = {"at": at}
        found = self._by_head(found, lists)
        some = found["orders"] > 0
        times = timing(lists["at"], found["orders"][some])
        for name in ("first_ms", "last_ms", "days", "twice_gap"):
            found[name] = np.zeros(len(some), np.int64)
            found[name][some] = getattr(times, name)
        return found

    def _added(self, found: Columns, *, gaps: bool) -> Columns:
        """Return the columns with those of families brought together and, where wanted, gaps."""
        if gaps:
            gap = self.reader.ask(lambda lines: order_sums.gaps(lines.rows), only=self.only)
            found["twice_gap"] = _placed(gap["id"], gap["twice_gap"], found["id"], otherwise=0)
        family = self._in_families()
        found = self._by_head(found)
        if len(family):
            # Days of different members may be the same ones: these are counted anew, day by day.
            each = self.reader.ask(lambda lines: order_sums.days(lines.rows), only=family)
            heads, position = np.unique(self.families.head_of(each["id"]), return_inverse=True)
            whose, day = distinct_days(position, each["day"])
            place = np.searchsorted(found["id"], heads)
            found["days"][place] = np.bincount(whose, minlength=len(heads))
            if gaps:
                found["twice_gap"][place] = twice_median_gap(whose, day, len(heads))
        return found

    def _in_families(self) -> Ints:
        """Return the accounts that are scored together with others and are asked about."""
        family = np.union1d(self.families.members, self.families.heads)
        return family if self.only is None else np.intersect1d(family, self.only)

    def _by_head(self, found: Columns, lists: Columns | None = None) -> Columns:
        """Return the columns with all accounts that are scored as one added up; `lists` are put in their order."""
        if not len(self.families.members):
            return found
        heads = self.families.head_of(found["id"])
        order = np.argsort(heads, kind="stable")
        ids, starts = np.unique(heads[order], return_index=True)
        if lists:
            lists["at"] = lists["at"][_moved(found["orders"], order)]
        together = {"id": ids}
        for name, column in found.items():
            if name == "id" or not len(ids):
                continue
            how = np.minimum if name == "first_ms" else np.maximum if name == "last_ms" else np.add
            values = column[order]
            if name == "first_ms":
                values = np.where(values == NULL_INT, np.iinfo(np.int64).max, values)
            together[name] = how.reduceat(values, starts)
        return together if len(ids) else found


def _moved(lengths: Ints, order: NDArray[np.intp]) -> Ints:
    """Return the positions of the numbers in lists, side by side, once the lists are put in another order."""
    starts = np.cumsum(lengths) - lengths
    new = lengths[order]
    within = np.arange(int(new.sum())) - np.repeat(np.cumsum(new) - new, new)
    positions: Ints = np.repeat(starts[order], new) + within
    return positions


def _placed(keys: Ints, values: Ints, wanted: Ints, *, otherwise: int) -> Ints:
    """Return the value of each wanted key among ascending ones, or `otherwise`."""
    found = np.full(len(wanted), otherwise)
    if len(keys):
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        known = keys[place] == wanted
        found[known] = values[place[known]]
    return found


def _mixed(home: str, others: list[tuple[str, int, str]]) -> str:
    number = sum(count for _, count, _ in others)
    code, _, example = others[0]
    return (
        f"{number:,} order(s) are not in {home}, among them {example!r} ({code} is one currency found); "
        f"different currencies are never added: give a rates file (`rates: rates.csv` in carillon.yaml, with a line "
        f"like 2026-01-01,{code},1.25), import these orders converted to {home}, or set `currency` to theirs"
    )


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
