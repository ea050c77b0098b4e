"""The RFM table as of a date, for people and programs: computed live, writing nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from kernel.quantities import minor_exponent
from kernel.settings import RfmMapSettings, RfmSettings, Workspace
from kernel.vocabulary import Subject
from segments.figures import origin_of
from segments.rfm_live import score
from segments.rfm_scoring import GAP_UNIT
from store.tables import profiles


@dataclass(frozen=True, slots=True, kw_only=True)
class RfmReport:
    """The groups of the map, best first: n, recency_mean, frequency_mean (orders), monetary_mean (major units).

    Recency is in days, or in own median gaps where it is relative. Means are None where a group is empty. `cutoffs`
    are the borders found, best first; money there in minor units, relative recency in thousandths of the own gap.
    """

    as_of: datetime
    subject: Subject
    settings: RfmSettings
    currency: str
    scored: int
    groups: dict[str, dict[str, float | int | None]]
    cutoffs: dict[str, list[int | None]]
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the report under its stable keys."""
        settings = self.settings
        return {
            "as_of": self.as_of,
            "subject": f"{self.subject}s",
            "scheme": settings.scheme,
            "ties": settings.ties,
            "monetary": settings.monetary,
            "recency": settings.recency,
            "rollup": settings.rollup,
            "map": "own" if isinstance(settings.map, RfmMapSettings) else settings.map,
            "window": settings.window,
            "currency": self.currency,
            "scored": self.scored,
            "groups": self.groups,
            "cutoffs": self.cutoffs,
            "warnings": self.warnings,
        }


def rfm_report(
    connection: Connection, workspace: Workspace, *, subject: Subject, as_of: datetime, **instead: str
) -> RfmReport:
    """Return the RFM table of accounts or contacts as of an instant.

    Args:
        connection: An open connection; nothing is written.
        workspace: Gives the RFM settings and the currency.
        subject: Whom to score.
        as_of: Aware instant; only what happened before it counts.
        instead: Settings that stand in for those of the workspace, as ties="first"; "" leaves one as it is.

    Raises:
        ConfigError: as `segments.rfm_live.score`.
    """
    settings = workspace.settings.rfm
    asked = {name: value for name, value in instead.items() if value}
    if asked:
        settings = RfmSettings.model_validate({**settings.model_dump(), **asked})
    currency = workspace.settings.currency
    with origin_of(workspace.settings, workspace.root) as origin:
        scoring = score(connection, settings, subject=subject, as_of=as_of, origin=origin)
    unit = 10 ** minor_exponent(currency)
    groups = scoring.groups()
    for row in groups.values():
        if row["monetary_mean"] is not None:
            row["monetary_mean"] /= unit
        if row["recency_mean"] is not None and settings.recency == "relative":
            row["recency_mean"] /= GAP_UNIT
    return RfmReport(
        as_of=as_of,
        subject=subject,
        settings=settings,
        currency=currency,
        scored=len(scoring.ids),
        groups=groups,
        cutoffs=scoring.cutoffs.to_json(),
        warnings=scoring.warnings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RfmMoves:
    """Who entered the present group since an instant, counted by where from, where to and why.

    `moves` has the most frequent first; `previous` is None where there was no group before, `group` where there is
    none now (bought, but not within the window). `by` sums them up by reason.
    """

    subject: Subject
    since: datetime
    moves: list[dict[str, Any]]
    by: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the moves under their stable keys."""
        return {"subject": f"{self.subject}s", "since": self.since, "by": self.by, "moves": self.moves}


def rfm_moves(connection: Connection, *, subject: Subject, since: datetime) -> RfmMoves:
    """Return who has changed groups at or after an instant, as the refreshes found it: each subject's latest move."""
    words = (profiles.c.previous_rfm_segment, profiles.c.rfm_segment, profiles.c.rfm_moved_by)
    query = (
        select(*words, func.count().label("n"))
        .where(profiles.c.subject == subject, profiles.c.rfm_since >= since)
        .group_by(*words)
    )
    found = sorted(connection.execute(query), key=lambda row: (-row.n, *(word or "" for word in row[:3])))
    by: Counter[str] = Counter()
    for row in found:
        by[row.rfm_moved_by] += row.n
    moves = [
        {"previous": row.previous_rfm_segment, "group": row.rfm_segment, "moved_by": row.rfm_moved_by, "n": row.n}
        for row in found
    ]
    return RfmMoves(subject=subject, since=since, moves=moves, by=dict(sorted(by.items())))
