"""RFM of accounts or contacts as of any instant: fitted and scored on the spot, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import Connection, select

from kernel.settings import RfmSettings
from kernel.vocabulary import Subject
from segments import rfm, rfm_maps, rfm_scoring
from segments.figures import Origin, read_figures
from segments.purchases import Ints
from segments.rfm import Axes, Behaviour, Cutoffs
from store.tables import accounts, contacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Everyone who has bought, scored as of an instant; one position per subject in `ids` and all arrays.

    `codes` are positions in `names`, the groups of the map.
    """

    subject: Subject
    as_of: datetime
    ids: Ints
    behaviour: Behaviour
    axes: Axes
    codes: Ints
    names: tuple[str, ...]
    cutoffs: Cutoffs
    warnings: list[str]

    def groups(self) -> dict[str, dict[str, float | int | None]]:
        """Return n and the means of each group; money in minor units."""
        return rfm.group_means(self.behaviour, self.codes, self.names)


def score(
    connection: Connection,
    settings: RfmSettings,
    *,
    subject: Subject,
    as_of: datetime,
    currency: str | None = None,
    origin: Origin | None = None,
) -> Scoring:
    """Return the scores as of an instant, from orders before it only, by cut-offs fitted to the same. Writes nothing.

    Who has not bought (within the window, where there is one) has no score. Under a roll-up the subjects are those
    whose children are counted with them.

    Args:
        connection: An open connection.
        settings: Scheme, ties, kind of money, window, thresholds, map.
        subject: Accounts by all their orders, or contacts by the orders that name them.
        as_of: Aware instant; orders and cancellations at or after it are unknown.
        currency: The workspace's; None takes that of the orders, if they have only one.
        origin: Where the orders are, with currency and rates; None: in our own tables, all in that currency.

    Raises:
        ConfigError: orders in another currency, thresholds missing or out of order, or a map that does not fit.
    """
    origin = origin or Origin(currency=currency)
    figures = read_figures(connection, settings, origin, subject=subject, as_of=as_of)
    fitted = rfm_scoring.fit(figures, settings, currency=origin.currency)
    ids, behaviour = figures.purchases.ids[fitted.measured.positions], fitted.measured.behaviour
    if fitted.first is not None:
        order = in_external_order(connection, subject, ids)
        ids, behaviour = ids[order], behaviour.take(order)
        axes = rfm.first_ranks(behaviour)
    else:
        axes = rfm.apply(fitted.model.cutoffs, behaviour)
    return Scoring(
        subject=subject,
        as_of=as_of,
        ids=ids,
        behaviour=behaviour,
        axes=axes,
        codes=rfm_maps.groups(fitted.model.map, axes),
        names=fitted.model.map.names,
        cutoffs=fitted.model.cutoffs,
        warnings=[*figures.notes, *fitted.fit.report["warnings"]],
    )


def in_external_order(connection: Connection, subject: Subject, ids: Ints) -> Ints:
    """Return the positions that put the ids in the order of their external ids, compared by code point."""
    table = accounts if subject is Subject.ACCOUNT else contacts
    names = {row.id: row.external_id for row in connection.execute(select(table.c.id, table.c.external_id))}
    return np.array(sorted(range(len(ids)), key=lambda i: names[int(ids[i])]), dtype=np.int64)
