"""The RFM table as of a date, for people and programs: computed live, writing nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kernel.errors import ConfigError
from kernel.quantities import minor_exponent
from kernel.settings import RfmSettings, Workspace
from kernel.vocabulary import Subject
from segments.scoring import score


@dataclass(frozen=True, slots=True, kw_only=True)
class RfmReport:
    """The ten groups, best first: n, recency_mean (days), frequency_mean (orders), monetary_mean (major units).

    Means are None where a group is empty. `cutoffs` are the borders found, best first; money there in minor units.
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
        return {
            "as_of": self.as_of,
            "subject": f"{self.subject}s",
            "scheme": self.settings.scheme,
            "ties": self.settings.ties,
            "monetary": self.settings.monetary,
            "window": self.settings.window,
            "currency": self.currency,
            "scored": self.scored,
            "groups": self.groups,
            "cutoffs": self.cutoffs,
            "warnings": self.warnings,
        }


def rfm_report(
    connection: Connection, workspace: Workspace, *, subject: Subject, as_of: datetime, ties: str
) -> RfmReport:
    """Return the RFM table of accounts or contacts as of an instant.

    Args:
        connection: An open connection; nothing is written.
        workspace: Gives the RFM settings and the currency.
        subject: Whom to score.
        as_of: Aware instant; only what happened before it counts.
        ties: "first" or "stable"; "" leaves it to the settings.

    Raises:
        ConfigError: as `segments.scoring.score`.
    """
    settings = workspace.settings.rfm
    if ties:
        settings = RfmSettings.model_validate({**settings.model_dump(), "ties": ties})
    currency = workspace.settings.currency
    scoring = score(connection, settings, subject=subject, as_of=as_of, currency=currency)
    unit = 10 ** minor_exponent(currency)
    groups = scoring.groups()
    for row in groups.values():
        if row["monetary_mean"] is not None:
            row["monetary_mean"] /= unit
    return RfmReport(
        as_of=as_of,
        subject=subject,
        settings=settings,
        currency=currency,
        scored=len(scoring.ids),
        groups=groups,
        cutoffs=scoring.cutoffs,
        warnings=scoring.warnings,
    )


def parse_as_of(text: str, zone: str) -> datetime:
    """Return the instant a person wrote: a date is its midnight in the zone, a time without an offset is in the zone.

    Raises:
        ConfigError: neither a date nor a time.
    """
    here = ZoneInfo(zone)
    try:
        if len(text) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(text), time(), tzinfo=here)
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a date; write it as 2026-01-31 or 2026-01-31T09:00") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=here)
