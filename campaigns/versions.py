"""Applied versions: a campaign as it was when applied, with every file and segment it uses. Runs are pinned to one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from campaigns.schema import CampaignSpec
from kernel.errors import ConfigError
from kernel.ids import digest
from kernel.settings import Settings
from store.tables import campaign_versions, campaigns

if TYPE_CHECKING:
    from campaigns.loading import LoadedCampaign
    from segments.definitions import Definition


@dataclass(frozen=True, kw_only=True)
class PinnedCampaign:
    """One applied version, read back; nothing in the workspace's files changes it.

    `spec` has every default of the workspace written out; `files` are templates by path within templates/;
    `definitions` are the segments as plain JSON.
    """

    campaign_id: int
    name: str
    version_id: int
    number: int
    spec: CampaignSpec
    files: dict[str, str]
    definitions: Mapping[str, Any]

    @cached_property
    def segments(self) -> dict[str, Definition]:
        """The segments; read when first asked for, since whoever sends never asks and needs no segment language."""
        from segments.definitions import definition_from_json

        return {name: definition_from_json(definition) for name, definition in self.definitions.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a version would hold, as plain JSON, and its digest."""

    spec: dict[str, Any]
    files: dict[str, str]
    segments: dict[str, Any]

    @property
    def digest(self) -> str:
        """A digest over everything the campaign uses."""
        return digest(_canonical(self.spec), _canonical(self.files), _canonical(self.segments))


def content_of(campaign: LoadedCampaign, settings: Settings) -> Content:
    """Return what applying a campaign would pin."""
    return Content(
        spec=campaign.spec.resolved(settings).model_dump(mode="json", by_alias=True, exclude_none=True),
        files=dict(campaign.files),
        segments=campaign.definitions,
    )


def pin(campaign: LoadedCampaign, settings: Settings) -> PinnedCampaign:
    """Return a campaign file as if it were applied; its ids are 0."""
    return PinnedCampaign(
        campaign_id=0,
        name=campaign.name,
        version_id=0,
        number=0,
        spec=campaign.spec.resolved(settings),
        files=dict(campaign.files),
        definitions=campaign.definitions,
    )


def load_version(connection: Connection, version_id: int) -> PinnedCampaign:
    """Return an applied version.

    Raises:
        ConfigError: there is none with this id.
    """
    row = connection.execute(
        select(campaign_versions, campaigns.c.name)
        .join(campaigns, campaigns.c.id == campaign_versions.c.campaign_id)
        .where(campaign_versions.c.id == version_id)
    ).one_or_none()
    if row is None:
        raise ConfigError(f"the database has no campaign version {version_id}")
    return PinnedCampaign(
        campaign_id=row.campaign_id,
        name=row.name,
        version_id=row.id,
        number=row.number,
        spec=spec_from_json(row.spec),
        files=dict(row.files),
        definitions=row.segments,
    )


def load_specs(connection: Connection, version_ids: set[int]) -> dict[int, CampaignSpec]:
    """Return the specs of several versions by id, in one query and without their files."""
    rows = connection.execute(
        select(campaign_versions.c.id, campaign_versions.c.spec).where(campaign_versions.c.id.in_(sorted(version_ids)))
    )
    return {row.id: spec_from_json(row.spec) for row in rows}


def load_content(connection: Connection, version_id: int) -> Content:
    """Return what a version holds as plain JSON, to compare files with."""
    row = connection.execute(select(campaign_versions).where(campaign_versions.c.id == version_id)).one()
    return Content(spec=row.spec, files=row.files, segments=row.segments)


def spec_from_json(spec: Mapping[str, Any]) -> CampaignSpec:
    """Return the spec kept in `campaign_versions.spec`; parsed once per process, since versions never change."""
    return _parsed(_canonical(spec))


@lru_cache(maxsize=512)
def _parsed(text: str) -> CampaignSpec:
    return CampaignSpec.model_validate_json(text)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def differences(old: Content, new: Content) -> list[str]:
    """Return what changed, one line each: keys of the file, templates, segments, in this order."""
    before, after = _flat(old.spec), _flat(new.spec)
    lines = [
        f"{key}: {_shown(before.get(key))} → {_shown(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return [*lines, *_changed("template", old.files, new.files), *_changed("segment", old.segments, new.segments)]


def _changed(word: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    def became(name: str) -> str:
        if name not in old:
            return "added"
        return "changed" if name in new else "dropped"

    return [
        f"{word} {name} {became(name)}" for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    items: list[tuple[str, Any]]
    if isinstance(value, dict):
        items = [(f"{prefix}.{key}" if prefix else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        items = [(f"{prefix}[{index + 1}]", inner) for index, inner in enumerate(value)]
    else:
        return {prefix: value}
    return {key: leaf for name, inner in items for key, leaf in _flat(inner, name).items()}


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def store_version(connection: Connection, *, campaign_id: int, number: int, content: Content, now: datetime) -> int:
    """Insert a version and return its id; the caller points the campaign at it."""
    inserted = connection.execute(
        campaign_versions.insert()
        .values(
            campaign_id=campaign_id,
            number=number,
            digest=content.digest,
            spec=content.spec,
            files=content.files,
            segments=content.segments,
            applied_at=now,
        )
        .returning(campaign_versions.c.id)
    )
    return int(inserted.scalar_one())
