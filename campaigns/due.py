"""Which runs are due: follows from each campaign's trigger and the `runs` table, never from a scheduler's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from campaigns.calendar import fire_times, next_fire_time
from campaigns.schema import CampaignSpec
from campaigns.versions import spec_from_json
from kernel.vocabulary import CampaignState
from store.tables import campaign_versions, campaigns, runs

CATCH_UP_GRACE = timedelta(minutes=5)
"""A slot younger than this is not missed, only late: a restart takes no longer."""
MOST_SLOTS = 1000
"""Missed slots recorded after a long downtime; older ones are left out."""
_EVER = timedelta(days=365 * 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What a campaign's clock asks for now: slots to fire, and slots to record as missed, each in order."""

    fire: tuple[datetime, ...] = ()
    miss: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A campaign's trigger and what is known of its past. `fired` are the instants of its runs that matter."""

    campaign_id: int
    name: str
    version_id: int
    spec: CampaignSpec
    applied_at: datetime
    last_slot: datetime | None

    def slots(self, now: datetime) -> Slots:
        """Return what is due now."""
        return sorted_out(self.spec, self._open_slots(now), now)

    def next_slot(self, now: datetime) -> datetime | None:
        """Return the next slot that will fire; not after now where one is due at once; None where none is to come."""
        due = self.slots(now).fire
        if due:
            return due[-1]
        coming = next_fire_time(self.spec.schedule, "UTC", now)
        return coming if coming is not None and coming != self.last_slot else None

    def _open_slots(self, now: datetime) -> list[datetime]:
        if self.spec.schedule.at is None:
            after = max(self.applied_at, self.last_slot or self.applied_at)
            return fire_times(self.spec.schedule, "UTC", after, now)
        if self.last_slot is None:
            # Its time has come, also where it came before the file was applied.
            return fire_times(self.spec.schedule, "UTC", now - _EVER, now)
        # A campaign that has run already runs again only for a time that was still ahead when it was applied:
        # mending a typing error in a past `at` must not send everything twice.
        return fire_times(self.spec.schedule, "UTC", max(self.applied_at, self.last_slot), now)


def sorted_out(spec: CampaignSpec, slots: Sequence[datetime], now: datetime) -> Slots:
    """Return which of the passed slots fire and which are missed, by the campaign's catch_up."""
    recent = list(slots[-MOST_SLOTS:])
    if spec.schedule.catch_up == "all":
        return Slots(fire=tuple(recent))
    if spec.schedule.catch_up == "skip":
        fresh = [slot for slot in recent if now - slot <= CATCH_UP_GRACE]
        return Slots(fire=tuple(fresh), miss=tuple(slot for slot in recent if slot not in fresh))
    return Slots(fire=tuple(recent[-1:]), miss=tuple(recent[:-1]))


def triggers(connection: Connection, names: Sequence[str] | None = None) -> list[Trigger]:
    """Return the triggers of active, applied campaigns, by name; all of them, or only those named."""
    last = (
        select(runs.c.campaign_id, func.max(runs.c.scheduled_for).label("slot")).group_by(runs.c.campaign_id).subquery()
    )
    query = (
        select(
            campaigns.c.id,
            campaigns.c.name,
            campaigns.c.version_id,
            campaign_versions.c.spec,
            campaign_versions.c.applied_at,
            last.c.slot,
        )
        .join(campaign_versions, campaign_versions.c.id == campaigns.c.version_id)
        .join(last, last.c.campaign_id == campaigns.c.id, isouter=True)
        .where(campaigns.c.state == CampaignState.ACTIVE)
        .order_by(campaigns.c.name)
    )
    if names is not None:
        query = query.where(campaigns.c.name.in_(names))
    return [
        Trigger(
            campaign_id=row.id,
            name=row.name,
            version_id=row.version_id,
            spec=spec_from_json(row.spec),
            applied_at=row.applied_at,
            last_slot=row.slot,
        )
        for row in connection.execute(query)
    ]


def next_slot(connection: Connection, name: str, *, now: datetime) -> datetime | None:
    """Return when an active campaign runs next; not after now where that is at once; None where never."""
    return next((trigger.next_slot(now) for trigger in triggers(connection, [name])), None)
