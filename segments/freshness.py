"""Which profiles segments read, whether their models still stand, and whose scores time alone has moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import BigInteger, ColumnElement, Connection, func, type_coerce

from kernel.quantities import parse_duration
from kernel.settings import Settings
from kernel.vocabulary import Subject
from segments import models
from segments.buyers import DAY_MS, subject_column
from segments.definitions import Definition, needed, needs
from segments.models import ModelKind
from segments.rfm_scoring import GAP_UNIT, RfmModel
from segments.scope import Clock
from segments.scoring import stale_kinds
from store.tables import orders, profiles

APPLIED_EVERY = timedelta(days=1)
"""How often the frozen models are applied to everyone: the probability to be alive changes with every day."""


def profiles_needed(definitions: Mapping[str, Definition], names: Collection[str]) -> dict[Subject, frozenset[str]]:
    """Return which models' words the segments read, by whom they are about."""
    reached = {key: one for name in names for key, one in needed(definitions, name).items()}
    found: dict[Subject, set[str]] = {}
    for subject, kind in needs(reached):
        found.setdefault(Subject(subject), set()).add(str(kind))
    return {subject: frozenset(kinds) for subject, kinds in found.items()}


def profiles_stand(
    connection: Connection, settings: Settings, subject: Subject, kinds: Collection[str], *, now: datetime, root: Path
) -> bool:
    """Tell whether all the models stand and were applied to everyone not long ago, with what counts beside them now.

    Whether one is to be fitted anew is asked, and told by the scoring, each time it is applied to everyone.
    """
    asked = [(subject, kind) for kind in kinds]
    return not stale_kinds(connection, settings, asked, subject=subject, since=now - APPLIED_EVERY, root=root)


def rfm_clocks(connection: Connection, settings: Settings, subject: Subject) -> list[Clock]:
    """Return when time alone moves RFM scores: orders reach the age of a border, or leave the window."""
    model = models.standing(connection, ModelKind.RFM, subject)
    if model is None or not model.parameters:
        return []
    frozen = RfmModel.from_json(model.parameters)
    borders = [border for border in frozen.cutoffs.recency if border is not None]
    key = subject_column(subject)
    after = {timedelta(0)}
    if settings.rfm.window:
        after.add(parse_duration(settings.rfm.window))
    clocks = []
    if settings.rfm.recency == "days":
        after |= {timedelta(days=day) for border in borders for day in _days(border, settings.rfm.band)}
    else:
        clocks = [
            _relative(subject, border, frozen.usual_gap_days)
            for one in borders
            for border in _days(one, settings.rfm.band)
        ]
    known = key.is_not(None)
    cancelled = orders.c.cancelled_at
    return [
        Clock(source=orders, key=key, whose=subject, at=orders.c.ordered_at, where=known, after=tuple(sorted(after))),
        Clock(source=orders, key=key, whose=subject, at=cancelled, where=known, after=(timedelta(0),)),
        *clocks,
    ]


def _days(border: int, band: float) -> list[int]:
    """Return the values of recency at which a score changes: past the border, and past its band on either side."""
    return sorted({int(border * share) + more for share in (1 - band, 1.0, 1 + band) for more in (0, 1, 2)})


def _relative(subject: Subject, border: int, usual_gap_days: float) -> Clock:
    gap: ColumnElement[float] = func.coalesce(profiles.c.median_gap_days, usual_gap_days)
    last = type_coerce(profiles.c.last_order_at, BigInteger)
    at = last + gap * (border * DAY_MS / GAP_UNIT)
    mine = profiles.c.subject == subject
    return Clock(source=profiles, key=profiles.c.subject_id, whose=subject, at=at, where=mine, after=(timedelta(0),))
