"""RFM scores for a plan, without writing them: a temporary table that stands before the real one.

Firing refreshes scores that are old. A plan may write nothing, yet must see what firing will see; so it scores in
memory and puts the result into a temporary table of the same name, which both databases look up first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import Column, Connection, MetaData, Table

from kernel.settings import Settings
from kernel.vocabulary import RFM_SEGMENTS, Subject
from segments.definitions import Definition, subjects_scored
from segments.refresh import last_scored_at
from segments.scoring import Scoring, score
from store.sql import in_slices
from store.tables import rfm_scores

SCORES_MAX_AGE = timedelta(hours=1)
"""RFM scores older than this are computed again before a run that asks for them."""


@contextmanager
def scores_as_of(
    connection: Connection, settings: Settings, definitions: Mapping[str, Definition], *, at: datetime
) -> Iterator[None]:
    """Make `rfm_scores` on this connection what it will be when a run with these segments fires at an instant."""
    asked = subjects_scored(definitions)
    stale = {subject for subject in asked if _is_old(last_scored_at(connection, subject), at)}
    if not stale:
        yield
        return
    # Both subjects go into the shadow, the fresh one as it stands: the table hides the real one entirely.
    kept = [row._asdict() for row in connection.execute(rfm_scores.select()) if row.subject not in stale]
    rows = [
        *kept,
        *(
            row
            for subject in stale
            for row in _rows(score(connection, settings.rfm, subject=subject, as_of=at, currency=settings.currency))
        ),
    ]
    columns = [Column(column.name, column.type, primary_key=column.primary_key) for column in rfm_scores.columns]
    shadow = Table(rfm_scores.name, MetaData(), *columns, prefixes=["TEMPORARY"])
    shadow.create(connection, checkfirst=False)
    for slice_ in in_slices(rows, 1000):
        connection.execute(shadow.insert(), list(slice_))
    yield
    # Found before the real table by both databases, so this is the shadow.
    shadow.drop(connection, checkfirst=False)


def _is_old(scored_at: datetime | None, at: datetime) -> bool:
    return scored_at is None or scored_at < at - SCORES_MAX_AGE


def _rows(scoring: Scoring) -> Iterator[dict[str, object]]:
    did, scores = scoring.behaviour, scoring.scores
    arrays = (scoring.ids, scores.r, scores.f, scores.m, scores.group, did.recency_days, did.frequency, did.monetary)
    for subject_id, r, f, m, group, recency_days, frequency, monetary in zip(
        *(a.tolist() for a in arrays), strict=True
    ):
        yield {
            "subject": Subject(scoring.subject).value,
            "subject_id": subject_id,
            "run_id": 0,
            "r": r,
            "f": f,
            "m": m,
            "segment": RFM_SEGMENTS[group],
            "recency_days": recency_days,
            "frequency": frequency,
            "monetary_minor": monetary,
            "since": scoring.as_of,
        }
