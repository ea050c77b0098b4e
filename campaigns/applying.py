"""Applying campaign files: from then on, and not before, they decide what runs do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, func, select, update

from campaigns.checks import warnings
from campaigns.due import next_slot
from campaigns.loading import LoadedCampaign, load_campaigns
from campaigns.versions import Content, content_of, differences, load_content, store_version
from kernel.errors import Problem
from kernel.settings import Settings, Workspace
from kernel.vocabulary import CampaignState
from store.engine import writing
from store.sql import insert_into
from store.tables import campaign_versions, campaigns


class Change(StrEnum):
    """How a file stands to the applied version."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What applying one file did. `next_run_at` is None where no run is to come; at or before now: at once."""

    name: str
    change: Change
    version: int
    changes: tuple[str, ...]
    state: CampaignState
    next_run_at: datetime | None
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a campaign stands in the database; `campaign_id` is None where it was never applied."""

    campaign_id: int | None
    state: CampaignState
    version_id: int | None
    number: int
    content: Content | None

    def compared(self, content: Content) -> tuple[Change, tuple[str, ...]]:
        """Return whether a file's content differs from the applied version, and in what."""
        if self.content is None:
            return Change.NEW, ()
        if self.content.digest == content.digest:
            return Change.UNCHANGED, ()
        return Change.CHANGED, tuple(differences(self.content, content))


def apply(engine: Engine, workspace: Workspace, names: Sequence[str] | None, *, now: datetime) -> list[Applied]:
    """Apply campaign files: store a new version of each that differs from its applied one.

    Nothing is written unless every file is right. Runs that have fired keep the version they were fired with.

    Args:
        engine: The database.
        workspace: The files.
        names: Only these campaigns; None means all.
        now: The present instant; firing times before it are past.

    Raises:
        InputError: every problem of these files.
    """
    loaded = load_campaigns(workspace, names)
    with writing(engine) as connection:
        return [_apply(connection, campaign, workspace, now) for campaign in loaded.values()]


def _apply(connection: Connection, campaign: LoadedCampaign, workspace: Workspace, now: datetime) -> Applied:
    settings: Settings = workspace.settings
    _insert_campaign(connection, campaign.name, now)
    standing = standing_of(connection, campaign.name)
    content = content_of(campaign, settings)
    change, changes = standing.compared(content)
    number = standing.number
    if change is not Change.UNCHANGED and standing.campaign_id is not None:
        number += 1
        version_id = store_version(
            connection, campaign_id=standing.campaign_id, number=number, content=content, now=now
        )
        connection.execute(
            update(campaigns)
            .where(campaigns.c.id == standing.campaign_id)
            .values(version_id=version_id, updated_at=now)
        )
    active = standing.state is CampaignState.ACTIVE
    return Applied(
        name=campaign.name,
        change=change,
        version=number,
        changes=changes,
        state=standing.state,
        next_run_at=next_slot(connection, campaign.name, now=now) if active else None,
        warnings=tuple(warnings(campaign.document, campaign.spec, workspace, now=now)),
    )


def _insert_campaign(connection: Connection, name: str, now: datetime) -> None:
    connection.execute(
        insert_into(connection, campaigns)
        .values(name=name, state=CampaignState.ACTIVE, created_at=now, updated_at=now)
        .on_conflict_do_nothing(index_elements=["name"])
    )
    # Two people who apply at once take turns here, so that version numbers never collide.
    connection.execute(select(campaigns.c.id).where(campaigns.c.name == name).with_for_update())


def standing_of(connection: Connection, name: str) -> Standing:
    """Return how the campaign of a name stands in the database."""
    row = connection.execute(
        select(campaigns.c.id, campaigns.c.state, campaigns.c.version_id).where(campaigns.c.name == name)
    ).one_or_none()
    if row is None:
        return Standing(campaign_id=None, state=CampaignState.ACTIVE, version_id=None, number=0, content=None)
    number = connection.execute(
        select(func.coalesce(func.max(campaign_versions.c.number), 0)).where(campaign_versions.c.campaign_id == row.id)
    ).scalar_one()
    return Standing(
        campaign_id=row.id,
        state=CampaignState(row.state),
        version_id=row.version_id,
        number=number,
        content=None if row.version_id is None else load_content(connection, row.version_id),
    )
