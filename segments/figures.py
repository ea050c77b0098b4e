"""The figures all models read of the buyers, as of an instant, and who is scored by whose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, literal, select

from kernel.clock import to_ms
from kernel.quantities import parse_duration
from kernel.settings import RfmSettings, Settings
from kernel.vocabulary import Subject
from segments.buyers import Bought, Extra, read_purchases
from segments.purchases import Floats, Ints, Purchases
from segments.rates import Rates, read_rates
from segments.rollup import read_families
from segments.warehouse import STORE, OrdersSource, Warehouse
from store.columns import NULL_INT


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where orders are, the workspace's currency (None: that of the orders), and rates for money in others."""

    source: OrdersSource = STORE
    currency: str | None = None
    rates: Rates | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What models read; one position per scored unit in all arrays but the last three, which are about subjects.

    `window_*` are within the window of the RFM settings, all in all where there is none; `margin_minor` is None
    where money is not scored by margin. `products` is NULL_INT where no lines are known, `median_gap_days` NaN below
    three days with an order. `subject_ids`, ascending, are all who get a profile, `units` their positions, and `asked`
    whom the answer is about, buyers or not; None: everybody. `notes` are sentences about what was left out.
    `costs_known` is False where a margin was asked for and the cost of not one line is known.
    """

    subject: Subject
    as_of: datetime
    purchases: Purchases
    window_orders: Ints
    window_net_minor: Ints
    window_gross_minor: Ints
    margin_minor: Ints | None
    products: Ints
    median_gap_days: Floats
    notes: tuple[str, ...]
    subject_ids: Ints
    units: NDArray[np.intp]
    asked: Ints | None
    costs_known: bool = True

    def __len__(self) -> int:
        return len(self.purchases)

    @property
    def as_of_ms(self) -> int:
        return to_ms(self.as_of)


@contextmanager
def origin_of(settings: Settings, root: Path) -> Iterator[Origin]:
    """Yield where the workspace's orders are; a warehouse is let go of afterwards.

    Args:
        settings: The workspace's.
        root: Its folder, where the relative names of files in carillon.yaml start.

    Raises:
        ConfigError: the rates cannot be read, or the warehouse's URL is wrong.
        InputError: the rates are wrong, by line.
    """
    home = settings.currency
    rates = read_rates(root / settings.rates, home, shown=settings.rates) if settings.rates else None
    if settings.warehouse is None:
        yield Origin(currency=home, rates=rates)
        return
    others = rates.currencies if rates else ()
    warehouse = Warehouse(settings.warehouse, currency=home, others=others, folder=root)
    try:
        yield Origin(source=warehouse, currency=home, rates=rates)
    finally:
        warehouse.close()


def read_figures(
    connection: Connection,
    rfm: RfmSettings,
    origin: Origin,
    *,
    subject: Subject,
    as_of: datetime,
    only: Ints | None = None,
) -> Figures:
    """Return the figures of all buyers, or of those `only` whose ids are given, by what is known before `as_of`.

    With roll-up, `only` means them and all who are scored together with them.

    Raises:
        ConfigError: orders in a currency that cannot be converted, accounts in a circle, a source that does not answer.
    """
    extras: tuple[Extra, ...] = ("gaps", "products")
    bought = read_purchases(
        connection,
        subject,
        as_of=as_of,
        source=origin.source,
        rollup=rfm.rollup,
        only=only,
        window=parse_duration(rfm.window) if rfm.window else None,
        extras=(*extras, "margin") if rfm.monetary == "margin" else extras,
        currency=origin.currency,
        rates=origin.rates,
    )
    size = len(bought)
    none = np.full(size, np.nan)
    return Figures(
        subject=subject,
        as_of=as_of,
        purchases=bought.purchases,
        window_orders=bought.window_orders,
        window_net_minor=bought.window_net_minor,
        window_gross_minor=bought.window_gross_minor,
        margin_minor=bought.margin_minor,
        products=np.full(size, NULL_INT, dtype=np.int64) if bought.products is None else bought.products,
        median_gap_days=none if bought.median_gap_days is None else bought.median_gap_days,
        notes=tuple(_notes(bought, subject)),
        subject_ids=bought.subject_ids,
        units=bought.units,
        asked=None if only is None else _asked(connection, rfm, subject, only, bought),
        costs_known=_costs_known(connection, rfm, origin, bought, subject=subject, as_of=as_of),
    )


def _asked(connection: Connection, rfm: RfmSettings, subject: Subject, only: Ints, bought: Bought) -> Ints:
    if subject is Subject.CONTACT or rfm.rollup == "none":
        return np.union1d(only, bought.subject_ids)
    families = read_families(connection, rfm.rollup)
    return families.everyone_of(np.unique(families.head_of(only)))


def _costs_known(
    connection: Connection, rfm: RfmSettings, origin: Origin, bought: Bought, *, subject: Subject, as_of: datetime
) -> bool:
    """Tell whether the cost of some line within the window is known; asked only where no margin is anything but 0."""
    if bought.margin_minor is None or bought.margin_minor.any():
        return True
    lines = origin.source.lines(subject, as_of)
    known = select(literal(1)).select_from(lines.source).where(lines.rows.where)
    if lines.cost_minor is not None:
        known = known.where(lines.cost_minor.is_not(None))
    if rfm.window:
        known = known.where(lines.rows.at_ms >= to_ms(as_of - parse_duration(rfm.window)))
    with origin.source.opened(connection) as there:
        return there.execute(known.limit(1)).first() is not None


def _notes(bought: Bought, subject: Subject) -> Iterator[str]:
    if bought.unknown:
        yield (
            f"the warehouse has orders of {bought.unknown:,} {subject}s nobody here knows, as "
            f"{bought.unknown_example!r}; import them to have them scored"
        )
    if bought.uncosted:
        yield f"{bought.uncosted:,} order lines have no cost and are left out of the margin; import their cost"
