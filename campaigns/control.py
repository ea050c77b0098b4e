"""Listing, pausing, resuming and cancelling campaigns; finding and closing runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, Select, exists, func, select, update

from campaigns.due import triggers
from campaigns.guardrails import GUARDRAIL
from campaigns.versions import PinnedCampaign, load_version
from kernel.documents import did_you_mean
from kernel.errors import CarillonError
from kernel.vocabulary import CampaignState, MessageState, RunState, SkipReason
from store.engine import reading, writing
from store.states import is_pending, is_planned
from store.tables import campaign_versions, campaigns, enrollments, messages, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRow:
    """A campaign as listings show it. `next_run_at` at or before now means: at once; None: no run is to come."""

    id: int
    name: str
    state: CampaignState
    state_reason: str
    version: int | None
    applied_at: datetime | None
    runs: int
    last_run_at: datetime | None
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as listings show it."""

    id: int
    campaign_id: int
    campaign: str
    version: int
    version_id: int
    scheduled_for: datetime
    state: RunState
    fired_at: datetime
    finished_at: datetime | None
    people: int

    @property
    def name(self) -> str:
        """How commands name it: campaign@slot."""
        return f"{self.campaign}@{self.scheduled_for:%Y-%m-%dT%H:%M:%SZ}"

    @property
    def note(self) -> str:
        """What is odd about it, in words; "" for an ordinary run."""
        if self.state is RunState.MISSED:
            return "left out: its time passed while no scheduler ran or the campaign was paused (schedule.catch_up)"
        return "" if self.people else "its audience was empty"


def list_campaigns(connection: Connection, *, now: datetime) -> list[CampaignRow]:
    """Return every applied campaign by name."""
    return _campaigns(connection, None, now)


def find_campaign(connection: Connection, name: str, *, now: datetime) -> CampaignRow:
    """Return an applied campaign.

    Raises:
        CarillonError: it was never applied.
    """
    found = _campaigns(connection, name, now)
    if not found:
        known = connection.execute(select(campaigns.c.name)).scalars().all()
        raise CarillonError(
            f"no campaign {name!r} is applied ({did_you_mean(name, known) or f'apply it with `carillon apply {name}`'})"
        )
    return found[0]


def _campaigns(connection: Connection, name: str | None, now: datetime) -> list[CampaignRow]:
    coming = {
        trigger.name: trigger.next_slot(now) for trigger in triggers(connection, None if name is None else [name])
    }
    fired = (
        select(runs.c.campaign_id, func.count().label("runs"), func.max(runs.c.scheduled_for).label("last"))
        .where(runs.c.state != RunState.MISSED)
        .group_by(runs.c.campaign_id)
        .subquery("fired")
    )
    query = (
        select(campaigns, campaign_versions.c.number, campaign_versions.c.applied_at, fired.c.runs, fired.c.last)
        .join(campaign_versions, campaign_versions.c.id == campaigns.c.version_id, isouter=True)
        .join(fired, fired.c.campaign_id == campaigns.c.id, isouter=True)
        .order_by(campaigns.c.name)
    )
    if name is not None:
        query = query.where(campaigns.c.name == name)
    return [
        CampaignRow(
            id=row.id,
            name=row.name,
            state=CampaignState(row.state),
            state_reason=row.state_reason,
            version=row.number,
            applied_at=row.applied_at,
            runs=row.runs or 0,
            last_run_at=row.last,
            next_run_at=coming.get(row.name),
        )
        for row in connection.execute(query)
    ]


# --- changing the state ------------------------------------------------------------------------------------


def pause(engine: Engine, name: str, *, now: datetime, reason: str = "") -> CampaignRow:
    """Stop firing and sending until `resume`; nothing is lost meanwhile.

    Raises:
        CarillonError: it was never applied, or is cancelled.
    """
    return _change(
        engine, name, CampaignState.PAUSED, frm=[CampaignState.ACTIVE, CampaignState.PAUSED], now=now, reason=reason
    )


def resume(engine: Engine, name: str, *, now: datetime) -> CampaignRow:
    """Take a paused or cancelled campaign up again. What a cancellation skipped stays skipped.

    One that a guardrail paused is counted from now on.

    Raises:
        CarillonError: it was never applied.
    """
    with writing(engine) as connection:
        # A breach that somebody has looked at does not pause it again: what was sent before counts no more.
        connection.execute(
            update(campaigns)
            .where(campaigns.c.name == name, campaigns.c.state_reason.startswith(GUARDRAIL, autoescape=True))
            .values(watched_from=now)
        )
    return _change(engine, name, CampaignState.ACTIVE, frm=list(CampaignState), now=now, reason="")


def cancel(engine: Engine, name: str, *, now: datetime, reason: str = "") -> int:
    """End a campaign: what is planned is skipped (cancelled). Returns how many messages that were.

    Messages already in a worker's hands are looked at once more before they leave, and skipped then.

    Raises:
        CarillonError: it was never applied.
    """
    campaign = _change(engine, name, CampaignState.CANCELLED, frm=list(CampaignState), now=now, reason=reason)
    with writing(engine) as connection:
        connection.execute(
            update(runs)
            .where(runs.c.campaign_id == campaign.id, runs.c.state == RunState.OPEN)
            .values(state=RunState.CANCELLED)
        )
        skipped = _skip_planned_of_cancelled(connection, now)
        _finish(connection, RunState.CANCELLED, now)
    return skipped


def _skip_planned_of_cancelled(connection: Connection, now: datetime) -> int:
    """Skip what is planned in cancelled runs, also what came back from a gateway since."""
    unfinished = select(runs.c.id).where(runs.c.state == RunState.CANCELLED, runs.c.finished_at.is_(None))
    skipped = connection.execute(
        update(messages)
        .where(messages.c.run_id.in_(unfinished), is_planned())
        .values(state=MessageState.SKIPPED, reason=SkipReason.CANCELLED, ended_at=now)
    )
    return skipped.rowcount


def _change(
    engine: Engine, name: str, to: CampaignState, *, frm: Sequence[CampaignState], now: datetime, reason: str
) -> CampaignRow:
    with writing(engine) as connection:
        campaign = find_campaign(connection, name, now=now)
        if campaign.state not in frm:
            raise CarillonError(
                f"campaign {name!r} is {campaign.state} and cannot be {to}; resume it first with "
                f"`carillon campaigns resume {name}`"
            )
        connection.execute(
            update(campaigns).where(campaigns.c.id == campaign.id).values(state=to, state_reason=reason, updated_at=now)
        )
        return find_campaign(connection, name, now=now)


def close_finished_runs(engine: Engine, now: datetime) -> int:
    """Close runs of which every message has ended; returns how many. Cheap where there is nothing to close."""
    unfinished = (RunState.OPEN, RunState.CANCELLED)
    with reading(engine) as connection:
        query = select(runs.c.id).where(runs.c.state.in_(unfinished), runs.c.finished_at.is_(None), ~_pending())
        cancelled = select(runs.c.id).where(runs.c.state == RunState.CANCELLED, runs.c.finished_at.is_(None))
        if not (connection.execute(query.limit(1)).first() or connection.execute(cancelled.limit(1)).first()):
            return 0
    with writing(engine) as connection:
        _skip_planned_of_cancelled(connection, now)
        return _finish(connection, RunState.OPEN, now) + _finish(connection, RunState.CANCELLED, now)


def _pending() -> ColumnElement[bool]:
    return exists().where(messages.c.run_id == runs.c.id, is_pending())


def _finish(connection: Connection, state: RunState, now: datetime) -> int:
    ended = select(runs.c.id).where(runs.c.state == state, runs.c.finished_at.is_(None), ~_pending())
    locked = list(connection.execute(ended.order_by(runs.c.id).with_for_update()).scalars())
    # Asked again now that they are locked: a message in doubt may have been planned again meanwhile.
    closed = connection.execute(
        update(runs)
        .where(runs.c.id.in_(locked), ~_pending())
        .values(state=RunState.DONE if state is RunState.OPEN else state, finished_at=now)
    )
    return closed.rowcount


# --- runs --------------------------------------------------------------------------------------------------


def list_runs(connection: Connection, *, campaign: str | None = None, limit: int = 50) -> list[RunRow]:
    """Return runs, the latest first; all, or those of a campaign."""
    query = _runs().order_by(runs.c.scheduled_for.desc(), runs.c.id.desc()).limit(limit)
    if campaign is not None:
        query = query.where(campaigns.c.name == campaign)
    return _run_rows(connection, query)


def find_run(connection: Connection, word: str) -> RunRow:
    """Return the run that a word names: its id, `campaign@slot`, or `campaign` for its latest.

    Raises:
        CarillonError: there is none.
    """
    query = _runs().order_by(runs.c.scheduled_for.desc()).limit(1)
    name, at, slot = word.partition("@")
    if word.isascii() and word.isdigit():
        query = query.where(runs.c.id == int(word))
    elif at:
        query = query.where(campaigns.c.name == name, runs.c.scheduled_for == _slot(word, slot))
    else:
        # A missed slot is no run anybody asks for, as long as there is a real one.
        query = query.where(campaigns.c.name == word).order_by(None)
        query = query.order_by(runs.c.state == RunState.MISSED, runs.c.scheduled_for.desc())
    found = _run_rows(connection, query)
    if not found:
        known = connection.execute(select(campaigns.c.name)).scalars().all()
        hint = did_you_mean(name, known) if name not in known else "`carillon runs list` shows all"
        raise CarillonError(f"there is no run {word!r}" + (f" ({hint})" if hint else ""))
    return found[0]


def _slot(word: str, slot: str) -> datetime:
    try:
        instant = datetime.fromisoformat(slot)
    except ValueError:
        raise CarillonError(f"{word!r} names no run; write campaign@2026-12-01T09:00:00Z") from None
    return instant if instant.utcoffset() is not None else instant.replace(tzinfo=UTC)


def _runs() -> Select[tuple[object, ...]]:
    people = select(func.count()).where(enrollments.c.run_id == runs.c.id).scalar_subquery()
    return (
        select(runs, campaigns.c.name, campaign_versions.c.number, people.label("people"))
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .join(campaign_versions, campaign_versions.c.id == runs.c.version_id)
    )


def _run_rows(connection: Connection, query: Select[tuple[object, ...]]) -> list[RunRow]:
    return [
        RunRow(
            id=row.id,
            campaign_id=row.campaign_id,
            campaign=row.name,
            version=row.number,
            version_id=row.version_id,
            scheduled_for=row.scheduled_for,
            state=RunState(row.state),
            fired_at=row.fired_at,
            finished_at=row.finished_at,
            people=row.people,
        )
        for row in connection.execute(query)
    ]


def applied_version(connection: Connection, campaign: CampaignRow) -> PinnedCampaign:
    """Return the applied version of a campaign.

    Raises:
        CarillonError: it has none.
    """
    version_id = connection.execute(select(campaigns.c.version_id).where(campaigns.c.id == campaign.id)).scalar_one()
    if version_id is None:
        raise CarillonError(
            f"campaign {campaign.name!r} has no applied version; apply it with `carillon apply {campaign.name}`"
        )
    return load_version(connection, version_id)
