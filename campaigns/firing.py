"""Firing runs: any number of schedulers may call this every second; each slot fires once.

A run is the row that INSERT … ON CONFLICT DO NOTHING let in; its audience is expanded in the same transaction,
so a run either stands with every one of its places or does not stand at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, and_, case, insert, literal, null, select, update
from sqlalchemy.exc import SQLAlchemyError

from campaigns import audience
from campaigns.canary import canary_wait
from campaigns.due import Slots, Trigger, triggers
from campaigns.guardrails import NOT_YET
from campaigns.shadow_scores import SCORES_MAX_AGE
from campaigns.versions import PinnedCampaign, load_version
from kernel.clock import to_ms
from kernel.errors import CarillonError
from kernel.faultpoints import FaultPoint, faultpoint
from kernel.settings import Settings, Workspace
from kernel.vocabulary import CampaignState, MessageState, RunState
from segments.definitions import needs
from segments.scoring import ensure_scores
from store.engine import reading, writing
from store.ingest.bulk import uncompiled
from store.references import about_to_refer
from store.sql import insert_into
from store.tables import campaigns, enrollments, holdouts, messages, runs

CANNOT_FIRE = "cannot fire:"
_COUNTED = {"preserve_rowcount": True}
"""SQLAlchemy keeps the row count of an INSERT only when asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A run that came about. `people` and `places` are 0 for a slot recorded as missed, or an empty audience."""

    run_id: int
    campaign: str
    scheduled_for: datetime
    state: RunState
    people: int
    places: int


class FiringFailed(CarillonError):
    """Some campaigns could not fire; the others did. The next call tries again."""


def fire_due(engine: Engine, workspace: Workspace, *, now: datetime) -> list[Fired]:
    """Fire every run whose time has come, and record the slots that catch_up leaves out.

    Args:
        engine: The database.
        workspace: For the currency and the settings of models; campaigns come from their applied versions only.
        now: The present instant.

    Returns:
        The runs this call made; none that another scheduler made.

    Raises:
        FiringFailed: after all others have fired, where a campaign could not.
    """
    with reading(engine) as connection:
        due = [(trigger, trigger.slots(now)) for trigger in triggers(connection)]
    fired: list[Fired] = []
    failures: list[str] = []
    for trigger, slots in due:
        if not slots.fire and not slots.miss:
            continue
        try:
            fired.extend(_fire(engine, workspace, trigger, slots, now))
            _note(engine, trigger, "")
        except (CarillonError, SQLAlchemyError) as error:
            failures.append(f"campaign {trigger.name!r} cannot fire: {error}")
            _note(engine, trigger, f"{CANNOT_FIRE} {error}"[:500])
    if failures:
        raise FiringFailed("; ".join(failures))
    return fired


def _note(engine: Engine, trigger: Trigger, words: str) -> None:
    """Keep on the campaign why it cannot fire, for `campaigns list`, `status` and `doctor`; "" takes that back."""
    standing = campaigns.c.state_reason
    changes = standing != words if words else standing.startswith(CANNOT_FIRE, autoescape=True)
    with writing(engine) as connection:
        connection.execute(
            update(campaigns)
            .where(campaigns.c.id == trigger.campaign_id, campaigns.c.state == CampaignState.ACTIVE, changes)
            .values(state_reason=words)
        )


def _fire(engine: Engine, workspace: Workspace, trigger: Trigger, slots: Slots, now: datetime) -> list[Fired]:
    with reading(engine) as connection:
        pinned = load_version(connection, trigger.version_id)
    settings = workspace.settings
    if slots.fire:
        ensure_scores(
            engine, settings, now=now, max_age=SCORES_MAX_AGE, asked=needs(pinned.segments), root=workspace.root
        )
    fired: list[Fired] = []
    for slot in sorted([*slots.fire, *slots.miss]):
        with writing(engine) as connection:
            if slot in slots.miss:
                run = _open_run(connection, pinned, slot, RunState.MISSED, now)
            else:
                run = _fire_slot(connection, pinned, slot, settings, now)
        faultpoint(FaultPoint.AFTER_RUN_COMMIT)
        fired.extend([run] if run else [])
    return fired


def _fire_slot(
    connection: Connection, pinned: PinnedCampaign, slot: datetime, settings: Settings, now: datetime
) -> Fired | None:
    faultpoint(FaultPoint.BEFORE_RUN_INSERT)
    run = _open_run(connection, pinned, slot, RunState.OPEN, now)
    if run is None:
        return None
    faultpoint(FaultPoint.AFTER_RUN_INSERT)
    uncompiled(connection)
    about_to_refer(connection, enrollments, messages)
    audience.expand(connection, pinned, settings, scheduled_for=slot, now=now)
    people = connection.execute(_enroll(run.run_id), execution_options=_COUNTED).rowcount
    faultpoint(FaultPoint.AFTER_ENROLLING)
    places = connection.execute(_write_places(run.run_id, now), execution_options=_COUNTED).rowcount
    connection.execute(_record_holdouts(connection, pinned.campaign_id))
    audience.drop(connection)
    state = RunState.OPEN
    if people and pinned.spec.canary:
        wait_ms = round(canary_wait(pinned.spec).total_seconds() * 1000)
        connection.execute(update(runs).where(runs.c.id == run.run_id).values(canary_wait_ms=wait_ms))
    if not people:
        state = RunState.DONE
        connection.execute(update(runs).where(runs.c.id == run.run_id).values(state=state, finished_at=now))
    faultpoint(FaultPoint.BEFORE_RUN_COMMIT)
    return Fired(run_id=run.run_id, campaign=pinned.name, scheduled_for=slot, state=state, people=people, places=places)


def _open_run(
    connection: Connection, pinned: PinnedCampaign, slot: datetime, state: RunState, now: datetime
) -> Fired | None:
    """Insert the run; None where another scheduler was first, or the campaign was stopped or applied anew since."""
    current = connection.execute(
        select(campaigns.c.id)
        .where(
            campaigns.c.id == pinned.campaign_id,
            campaigns.c.state == CampaignState.ACTIVE,
            campaigns.c.version_id == pinned.version_id,
        )
        .with_for_update()
    ).scalar_one_or_none()
    if current is None:
        return None
    run_id = connection.execute(
        insert_into(connection, runs)
        .values(
            campaign_id=pinned.campaign_id,
            version_id=pinned.version_id,
            scheduled_for=slot,
            state=state,
            fired_at=now,
            finished_at=now if state is RunState.MISSED else None,
        )
        .on_conflict_do_nothing(index_elements=["campaign_id", "scheduled_for"])
        .returning(runs.c.id)
    ).scalar_one_or_none()
    if run_id is None:
        return None
    return Fired(run_id=run_id, campaign=pinned.name, scheduled_for=slot, state=state, people=0, places=0)


def _enroll(run_id: int) -> Any:
    source = audience.audience
    rows = select(
        literal(run_id),
        source.c.contact_id,
        source.c.account_id,
        source.c.segment,
        source.c.rfm_segment,
        source.c.held_out,
        source.c.skip_reason,
    ).order_by(source.c.contact_id)
    columns = ["run_id", "contact_id", "account_id", "segment", "rfm_segment", "held_out", "skip_reason"]
    return insert(enrollments).from_select(columns, rows, include_defaults=False)


def _write_places(run_id: int, now: datetime) -> Any:
    place = audience.places().subquery("place")
    state = case(
        (place.c.skip_reason.is_not(None), MessageState.SKIPPED.value),
        (place.c.held_out, MessageState.HELD_OUT.value),
        else_=MessageState.PLANNED.value,
    )
    rows = (
        select(
            literal(run_id),
            place.c.step,
            enrollments.c.id,
            place.c.contact_id,
            place.c.channel,
            place.c.lane,
            state,
            place.c.skip_reason,
            place.c.due_ms,
            case(
                (and_(place.c.waits, state == MessageState.PLANNED.value), literal(to_ms(NOT_YET), BigInteger)),
                else_=place.c.due_ms,
            ),
            case((state == MessageState.PLANNED.value, null()), else_=literal(to_ms(now), BigInteger)),
        )
        .join(enrollments, and_(enrollments.c.run_id == run_id, enrollments.c.contact_id == place.c.contact_id))
        .order_by(place.c.step, place.c.due_ms, place.c.contact_id)
    )
    columns = [
        "run_id",
        "step",
        "enrollment_id",
        "contact_id",
        "channel",
        "lane",
        "state",
        "reason",
        "planned_for",
        "due_at",
        "ended_at",
    ]
    return insert(messages).from_select(columns, rows, include_defaults=False)


def _record_holdouts(connection: Connection, campaign_id: int) -> Any:
    source = audience.audience
    rows = (
        select(literal(campaign_id), source.c.account_id)
        .where(source.c.held_out, source.c.account_id.is_not(None))
        .distinct()
    )
    return (
        insert_into(connection, holdouts)
        .from_select(["campaign_id", "account_id"], rows, include_defaults=False)
        .on_conflict_do_nothing()
    )
