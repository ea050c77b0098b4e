"""What `explain` says of the time to come where a segment reads scores: how old they are, and when R is due to fall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import cast

import numpy as np
from sqlalchemy import BigInteger, Connection, select, type_coerce

from kernel.clock import from_ms, to_ms
from kernel.vocabulary import Subject
from segments import models
from segments.conditions import Condition
from segments.definitions import Definition, needed, needs
from segments.kinship import Kinship
from segments.models import Model, ModelKind
from segments.purchases import DAY_MS
from segments.rfm_scoring import RfmModel
from segments.scope import Scope
from store.tables import profiles

_WORDS = {"rfm": "RFM scores", "clusters": "clusters", "lifetime": "lifetime values"}


def foresight(
    connection: Connection,
    definitions: Mapping[str, Definition],
    name: str,
    scope: Scope,
    subject_id: int,
    *,
    now: datetime,
) -> str:
    """Return in sentences what time may change that is not foreseen; "" where the segment reads no scores."""
    asked = sorted(needs(needed(definitions, name)))
    if not asked:
        return ""
    found = [_age(whose, kind, models.standing(connection, ModelKind(kind), whose)) for whose, kind in asked]
    for whose in sorted(set(_own_rfm(definitions[name].where, scope))):
        crossing = _crossing(connection, whose, scope.subject, subject_id, now=now)
        if crossing:
            found.append(crossing)
    return " ".join(found)


def _age(whose: Subject, kind: str, model: Model | None) -> str:
    words = f"The {_WORDS[kind]} of {whose}s"
    at = model.applied_at if model else None
    if at is None:
        return f"{words} were never computed; the first refresh may change the answer."
    return f"{words} are as of the last refresh ({at:%Y-%m-%d %H:%M} UTC) and may change at the next one."


def _own_rfm(condition: Condition, scope: Scope) -> Iterator[Subject]:
    """Yield whose RFM the conditions about the subject itself read; those about relatives are left aside."""
    related = condition.related(scope)
    if related is not None:
        if related.relation == "":
            yield from _own_rfm(cast("Condition", related.condition), related.scope)
        return
    if condition.rfm is not None:
        yield Subject(condition.rfm.whose)
    for _, part in condition.parts():
        yield from _own_rfm(part, scope)


def _crossing(connection: Connection, whose: Subject, subject: Subject, subject_id: int, *, now: datetime) -> str:
    """Return when waiting alone leads past the next border of R; "" where there is none, or it is in own gaps."""
    model = models.standing(connection, ModelKind.RFM, whose)
    if model is None or not model.parameters or model.options.get("recency") == "relative":
        return ""
    ids = Kinship(connection).whose(subject, np.array([subject_id], dtype=np.int64), whose)
    last = type_coerce(profiles.c.last_order_at, BigInteger)
    mine = (profiles.c.subject == whose, profiles.c.subject_id.in_(ids.tolist()), profiles.c.r.is_not(None))
    last_ms = connection.execute(select(last).where(*mine)).scalar_one_or_none()
    if last_ms is None:
        return ""
    borders = RfmModel.from_json(model.parameters).cutoffs.recency
    # Days are whole and a border belongs to the better score: it is passed once a day more has gone by.
    passed = (int(last_ms) + (border + 1) * DAY_MS for border in borders if border is not None)
    ahead = min((at for at in passed if at > to_ms(now)), default=None)
    if ahead is None:
        return f"By waiting alone the score R of the {whose} falls no further."
    return (
        f"Without a new order the {whose} passes the next border of R on {from_ms(ahead):%Y-%m-%d %H:%M} UTC; "
        "the refresh after that may lower R."
    )
