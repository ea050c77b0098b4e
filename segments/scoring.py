"""RFM scores of the database's accounts or contacts: computed as of any instant, and kept as the current ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, case, delete, select, true

from kernel.clock import to_ms
from kernel.errors import ConfigError
from kernel.quantities import parse_duration, to_minor
from kernel.settings import RfmSettings
from kernel.vocabulary import RFM_SEGMENTS, Subject
from segments import rfm
from segments.buyers import buyers, in_external_order, one_currency, read_behaviour
from segments.rfm import Behaviour, Ints, Scores, Thresholds
from segments.staging import staged
from store.engine import reading, writing
from store.sql import in_slices, insert_into
from store.tables import rfm_runs, rfm_scores

_VALUES = ("run_id", "r", "f", "m", "segment", "recency_days", "frequency", "monetary_minor")
_COLUMNS = ("subject", "subject_id", *_VALUES, "since")
_DELETE_SLICE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Everyone who has bought, scored as of an instant; one position per subject in `ids` and all arrays.

    `currency` is that of the money; None where there are no orders.
    """

    subject: Subject
    as_of: datetime
    ids: Ints
    behaviour: Behaviour
    scores: Scores
    cutoffs: dict[str, list[int | None]]
    warnings: list[str]
    currency: str | None

    def groups(self) -> dict[str, dict[str, float | int | None]]:
        """Return n and the means of each of the ten groups; money in minor units."""
        return rfm.group_means(self.behaviour, self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class RfmRun:
    """What a refresh of the current scores did. `written` counts rows made or changed, `removed` rows deleted."""

    run_id: int
    subject: Subject
    as_of: datetime
    scored: int
    written: int
    removed: int
    warnings: list[str]


def score(
    connection: Connection,
    settings: RfmSettings,
    *,
    subject: Subject,
    as_of: datetime,
    currency: str | None = None,
) -> Scoring:
    """Return the scores as of an instant, from orders before it only. Writes nothing.

    Who has not bought (within the window, where there is one) has no score.

    Args:
        connection: An open connection.
        settings: Scheme, ties, kind of money, window, thresholds.
        subject: Accounts by all their orders, or contacts by the orders that name them.
        as_of: Aware instant; orders and cancellations at or after it are unknown.
        currency: The workspace's; None takes that of the orders, if they have only one.

    Raises:
        ConfigError: orders in another currency, or thresholds missing or out of order.
    """
    currency = one_currency(connection, subject, as_of=as_of, currency=currency)
    window = parse_duration(settings.window) if settings.window else None
    query = buyers(subject, as_of=as_of, window=window, gross=settings.monetary == "gross")
    ids, behaviour = read_behaviour(connection, query, as_of=as_of)
    warnings: list[str] = []
    if settings.scheme == "thresholds":
        scores = rfm.by_thresholds(behaviour, _thresholds(settings, currency or "EUR"))
    else:
        warnings = rfm.quintile_warnings(behaviour, f"{subject}s")
        if settings.ties == "first":
            ids, behaviour = _reordered(ids, behaviour, in_external_order(connection, subject, ids))
            scores = rfm.by_first_rank(behaviour)
            warnings.append("ties: first parts equal customers by their ids; only to compare with published tables")
        else:
            scores = rfm.by_stable_rank(behaviour)
    return Scoring(
        subject=subject,
        as_of=as_of,
        ids=ids,
        behaviour=behaviour,
        scores=scores,
        cutoffs=rfm.cutoffs(behaviour, scores),
        warnings=warnings,
        currency=currency,
    )


def refresh_scores(
    engine: Engine, settings: RfmSettings, *, subject: Subject, now: datetime, currency: str | None = None
) -> RfmRun:
    """Bring the current scores to `now` and keep a record of the run with its cut-offs.

    Only rows that differ are written. Who changes groups keeps the old one as `previous_segment` and gets `now`
    as `since`; who stays keeps both. Who no longer counts as a buyer (all orders cancelled) loses the row.

    Raises:
        ConfigError: as `score`.
    """
    with reading(engine) as connection:
        fresh = score(connection, settings, subject=subject, as_of=now, currency=currency)
        changed, removed = _differences(connection, fresh)
    with writing(engine) as connection:
        run_id = _record(connection, settings, fresh)
        _merge(connection, _rows(fresh, changed, run_id))
        for gone in in_slices(removed.tolist(), _DELETE_SLICE):
            connection.execute(
                delete(rfm_scores).where(rfm_scores.c.subject == subject, rfm_scores.c.subject_id.in_(gone))
            )
    return RfmRun(
        run_id=run_id,
        subject=subject,
        as_of=now,
        scored=len(fresh.ids),
        written=len(changed),
        removed=len(removed),
        warnings=fresh.warnings,
    )


def _thresholds(settings: RfmSettings, currency: str) -> Thresholds:
    lists = {"recency_days": settings.recency_days, "orders": settings.orders, "money": settings.money}
    for name, values in lists.items():
        if not values or len(values) != 4:
            raise ConfigError(f"carillon.yaml: rfm.{name} must list four borders, best first, for scheme: thresholds")
        if list(values) != sorted(values, reverse=name != "recency_days"):
            direction = "rise" if name == "recency_days" else "fall"
            raise ConfigError(
                f"carillon.yaml: rfm.{name} must {direction}, from the border of 5 to that of 2: {values}"
            )
    return Thresholds(
        recency_days=settings.recency_days or [],
        orders=settings.orders or [],
        money_minor=[to_minor(amount, currency) for amount in settings.money or []],
    )


def _reordered(ids: Ints, behaviour: Behaviour, order: Ints) -> tuple[Ints, Behaviour]:
    return ids[order], Behaviour(
        recency_days=behaviour.recency_days[order],
        frequency=behaviour.frequency[order],
        monetary=behaviour.monetary[order],
    )


def _differences(connection: Connection, fresh: Scoring) -> tuple[Ints, Ints]:
    """Return the positions in `fresh` whose row is missing or differs, by id, and the ids whose row must go."""
    held = connection.execute(
        select(
            rfm_scores.c.subject_id,
            rfm_scores.c.r,
            rfm_scores.c.f,
            rfm_scores.c.m,
            case({word: i for i, word in enumerate(RFM_SEGMENTS)}, value=rfm_scores.c.segment, else_=-1),
            rfm_scores.c.recency_days,
            rfm_scores.c.frequency,
            rfm_scores.c.monetary_minor,
        ).where(rfm_scores.c.subject == fresh.subject)
    )
    old = np.fromiter((value for row in held for value in row), dtype=np.int64).reshape(-1, 8)
    old = old[np.argsort(old[:, 0])]
    by_id = np.argsort(fresh.ids)
    new = np.column_stack([fresh.ids, *_columns(fresh)])[by_id]
    place = np.searchsorted(old[:, 0], new[:, 0])
    known = place < len(old)
    known[known] = old[place[known], 0] == new[known, 0]
    same = known.copy()
    same[known] = (old[place[known]] == new[known]).all(axis=1)
    return by_id[~same], np.setdiff1d(old[:, 0], new[:, 0])


def _columns(fresh: Scoring) -> tuple[Ints, ...]:
    scores, did = fresh.scores, fresh.behaviour
    return scores.r, scores.f, scores.m, scores.group, did.recency_days, did.frequency, did.monetary


def _rows(fresh: Scoring, positions: Ints, run_id: int) -> list[tuple[Any, ...]]:
    """Return the rows at the positions, in the order of `_COLUMNS`."""
    columns = [column[positions].tolist() for column in (fresh.ids, *_columns(fresh))]
    subject, since = fresh.subject.value, to_ms(fresh.as_of)
    return [
        (subject, subject_id, run_id, r, f, m, RFM_SEGMENTS[group], recency_days, frequency, monetary, since)
        for subject_id, r, f, m, group, recency_days, frequency, monetary in zip(*columns, strict=True)
    ]


def _record(connection: Connection, settings: RfmSettings, fresh: Scoring) -> int:
    statement = rfm_runs.insert().values(
        subject=fresh.subject,
        as_of=fresh.as_of,
        computed_at=fresh.as_of,
        options=options(settings),
        cutoffs=fresh.cutoffs,
        warnings=fresh.warnings,
        scored=len(fresh.ids),
    )
    return int(connection.execute(statement.returning(rfm_runs.c.id)).scalar_one())


def options(settings: RfmSettings) -> dict[str, Any]:
    """Return the settings as kept with a run."""
    return settings.model_dump(mode="json", exclude_none=True)


def _merge(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Make or change the current scores; which group was held before is the database's word, not this process's."""
    if not rows:
        return
    with staged(connection, rfm_scores, _COLUMNS, rows) as fresh:
        statement = insert_into(connection, rfm_scores)
        new = statement.excluded
        moved = rfm_scores.c.segment != new.segment
        # In the order of ids, so that two refreshes at once wait for each other and never lock each other out.
        query = select(*fresh.c).where(true()).order_by(fresh.c.subject_id)
        connection.execute(
            statement.from_select(list(_COLUMNS), query).on_conflict_do_update(
                index_elements=["subject", "subject_id"],
                set_={
                    **{name: new[name] for name in _VALUES},
                    "previous_segment": case((moved, rfm_scores.c.segment), else_=rfm_scores.c.previous_segment),
                    "since": case((moved, new.since), else_=rfm_scores.c.since),
                },
            )
        )
