"""What would happen, in people: the same audience, places and rules as firing and sending, with nothing written.

The audience is expanded into temporary tables by the very code that firing uses. Those belong to this connection
alone: nobody else sees them, no table of the database changes, and on SQLite no write lock is taken (a rolled-back
transaction would give the same numbers, but would hold up every worker for as long as the plan takes).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, func, select

from campaigns import audience
from campaigns.affording import Affordable, about_budgets, affordable
from campaigns.applying import Change, Standing, standing_of
from campaigns.checks import warnings
from campaigns.due import Trigger, triggers
from campaigns.estimating import Estimate, estimate
from campaigns.loading import LoadedCampaign, load_campaigns
from campaigns.pace import Pace, about_paces, paces
from campaigns.preflight import Finding, preflight
from campaigns.rehearsal import Rehearsed, rehearse
from campaigns.rendering import Rendered, Renderer
from campaigns.shadow_scores import scores_as_of
from campaigns.sms_forecast import TextForecast, forecast_texts
from campaigns.sms_remarks import about_texts
from campaigns.versions import PinnedCampaign, content_of, pin
from kernel.documents import did_you_mean
from kernel.errors import CarillonError
from kernel.settings import Workspace
from kernel.vocabulary import CampaignState, SkipReason
from segments.compiler import members
from store.engine import reading
from store.tables import contacts, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What applying a campaign and leaving it to itself would do in its next run.

    `audience` counts places (people × steps), like the books: audience = messages + skipped + held_out.
    `run_at` is None where no run is to come; then all figures are 0. `per_day` holds days of the workspace's zone.
    """

    name: str
    state: Change
    changes: tuple[str, ...] = ()
    run_at: datetime | None = None
    fires_at: datetime | None = None
    audience: int = 0
    people: int = 0
    messages: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    held_out: int = 0
    per_day: dict[str, dict[str, int]] = field(default_factory=dict)
    first_send_at: datetime | None = None
    last_send_at: datetime | None = None
    estimate: Estimate = field(default_factory=Estimate)
    texts: tuple[TextForecast, ...] = ()
    pace: tuple[Pace, ...] = ()
    budgets: tuple[Affordable, ...] = ()
    segments: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    sample: Rendered | None = None
    preflight: tuple[Finding, ...] = ()


def plan(engine: Engine, workspace: Workspace, names: Sequence[str] | None, *, now: datetime) -> list[Plan]:
    """Return what the files would do if they were applied now. Writes nothing.

    Raises:
        InputError: every problem of these files.
    """
    loaded = load_campaigns(workspace, names)
    plans = []
    for campaign in loaded.values():
        with reading(engine) as connection:
            plans.append(_plan(connection, workspace, campaign, now))
    return plans


def _plan(connection: Connection, workspace: Workspace, campaign: LoadedCampaign, now: datetime) -> Plan:
    pinned = pin(campaign, workspace.settings)
    standing = standing_of(connection, campaign.name)
    state, changes = standing.compared(content_of(campaign, workspace.settings))
    notes = [str(problem) for problem in warnings(campaign.document, campaign.spec, workspace, now=now)]
    if standing.state is not CampaignState.ACTIVE:
        notes.append(
            f"the campaign is {standing.state}: nothing happens until `carillon campaigns resume {campaign.name}`"
        )
    run_at = _next_run(connection, pinned, standing, state, now)
    if run_at is None:
        notes.append("no run is to come: its time is past and it has run, or its schedule has ended")
        return Plan(name=campaign.name, state=state, changes=changes, warnings=tuple(notes))
    with expanded(connection, workspace, pinned, run_at, max(run_at, now)):
        return _counted(
            connection,
            workspace,
            pinned,
            _Head(campaign.name, standing.campaign_id, state, changes, run_at, max(run_at, now)),
            notes,
        )


@dataclass(frozen=True, slots=True)
class _Head:
    name: str
    campaign_id: int | None
    state: Change
    changes: tuple[str, ...]
    run_at: datetime
    fires_at: datetime


def _counted(
    connection: Connection, workspace: Workspace, pinned: PinnedCampaign, head: _Head, notes: list[str]
) -> Plan:
    rehearsed = rehearse(connection, pinned, at=head.fires_at)
    renderer = Renderer(connection, workspace, pinned, now=head.fires_at)
    texts = forecast_texts(workspace, pinned, rehearsed, renderer)
    sample: Rendered | None = None
    if rehearsed.sample is not None:
        try:
            sample = renderer.render(*rehearsed.sample)
        except CarillonError as error:
            notes.append(f"the sample cannot be rendered: {error}")
    sizes = _sizes(connection, workspace, pinned, head.fires_at)
    notes.extend(_about_people(rehearsed, sizes, head))
    notes.extend(about_texts(workspace, pinned, texts))
    settings = workspace.settings
    pace = paces(connection, settings, pinned, rehearsed)
    budgets = affordable(connection, settings, pinned, head.campaign_id, texts, at=head.fires_at)
    notes.extend(
        (
            *about_paces(settings, pinned, pace, rehearsed.leaving),
            *about_budgets(budgets),
            *_about_roles(connection, pinned),
        )
    )
    return Plan(
        name=head.name,
        state=head.state,
        changes=head.changes,
        run_at=head.run_at,
        fires_at=head.fires_at,
        audience=rehearsed.people * len(pinned.spec.steps),
        people=rehearsed.people,
        messages=dict(sorted(rehearsed.messages.items())),
        skipped=dict(sorted(rehearsed.skipped.items())),
        held_out=rehearsed.held_out,
        per_day=_per_day(rehearsed, ZoneInfo(workspace.settings.timezone)),
        first_send_at=rehearsed.first_at,
        last_send_at=rehearsed.last_at,
        estimate=estimate(workspace, pinned, rehearsed, texts),
        texts=tuple(texts),
        pace=tuple(pace),
        budgets=tuple(budgets),
        segments=sizes,
        warnings=tuple(notes),
        sample=sample,
        preflight=tuple(preflight(connection, workspace, pinned, now=head.fires_at)),
    )


def _next_run(
    connection: Connection, pinned: PinnedCampaign, standing: Standing, state: Change, now: datetime
) -> datetime | None:
    """Return the slot of the next run as if the file were applied now."""
    if state is Change.UNCHANGED and standing.state is CampaignState.ACTIVE:
        return next((trigger.next_slot(now) for trigger in triggers(connection, [pinned.name])), None)
    last = connection.execute(
        select(func.max(runs.c.scheduled_for)).where(runs.c.campaign_id == (standing.campaign_id or 0))
    ).scalar_one()
    trigger = Trigger(campaign_id=0, name=pinned.name, version_id=0, spec=pinned.spec, applied_at=now, last_slot=last)
    return trigger.next_slot(now)


@contextmanager
def expanded(
    connection: Connection, workspace: Workspace, pinned: PinnedCampaign, run_at: datetime, at: datetime
) -> Iterator[None]:
    """Fill the temporary tables with what a run would expand to, for as long as the block lasts."""
    with scores_as_of(connection, workspace.settings, pinned.segments, at=at, root=workspace.root):
        audience.expand(connection, pinned, workspace.settings, scheduled_for=run_at, now=at)
        yield
        audience.drop(connection)


def _sizes(connection: Connection, workspace: Workspace, pinned: PinnedCampaign, at: datetime) -> dict[str, int]:
    currency = workspace.settings.currency
    names = [*pinned.spec.audience.segment, *pinned.spec.audience.exclude]
    queries = {name: members(pinned.segments, name, as_of=at, currency=currency).subquery() for name in names}
    return {
        name: connection.execute(select(func.count()).select_from(query)).scalar_one()
        for name, query in queries.items()
    }


def _per_day(rehearsed: Rehearsed, zone: ZoneInfo) -> dict[str, dict[str, int]]:
    days: dict[str, Counter[str]] = {}
    for (hour, channel), count in sorted(rehearsed.hours.items()):
        days.setdefault(hour.astimezone(zone).date().isoformat(), Counter())[channel] += count
    return {day: dict(sorted(channels.items())) for day, channels in days.items()}


def _about_people(rehearsed: Rehearsed, sizes: dict[str, int], head: _Head) -> Iterator[str]:
    yield from (f"segment {name!r} has no members" for name, size in sizes.items() if not size)
    places = sum(rehearsed.messages.values()) + sum(rehearsed.skipped.values())
    if rehearsed.people and not rehearsed.messages:
        yield "nobody would get anything"
    for reason, words in _LOUD.items():
        count = rehearsed.skipped.get(reason, 0)
        if places and count > places / 2:
            yield f"{count:,} of {places:,} messages would not leave: {words}"
    if rehearsed.last_at is not None and rehearsed.last_at - head.fires_at > timedelta(days=30):
        days = (rehearsed.last_at - head.fires_at).days
        yield f"sending takes {days} days: look at rate, window and waits"


def _about_roles(connection: Connection, pinned: PinnedCampaign) -> Iterator[str]:
    """Yield a warning of each role that nobody has, whatever segment."""
    for role in pinned.spec.audience.roles:
        having = select(contacts.c.id).where(contacts.c.role == role).limit(1)
        if connection.execute(having).first() is None:
            known = connection.execute(select(contacts.c.role).where(contacts.c.role.is_not(None)).distinct()).scalars()
            advice = did_you_mean(role, known)
            yield f"audience.roles: no contact has the role {role!r}" + (f" ({advice})" if advice else "")


_LOUD = {
    SkipReason.NO_CONSENT.value: "there is no consent",
    SkipReason.NO_ADDRESS.value: "there is no address",
    SkipReason.SUPPRESSED.value: "the addresses are suppressed",
    SkipReason.FREQUENCY_CAP.value: "frequency caps are reached",
}
