"""Reading a workspace's campaign files: every problem of every file at once, with line and column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigns.checks import Check
from campaigns.schema import CampaignSpec
from kernel.documents import Document, did_you_mean, read_document
from kernel.errors import InputError, Problem
from kernel.settings import Workspace
from segments.definitions import Definition, definition_to_json, load_segments, needed

FOLDER = "campaigns"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCampaign:
    """A campaign file that is right: what it says, where it stands, and every file and segment it uses."""

    name: str
    path: Path
    document: Document
    spec: CampaignSpec
    files: Mapping[str, str]
    segments: Mapping[str, Definition]

    @property
    def definitions(self) -> dict[str, Any]:
        """The segments as plain JSON."""
        return {name: definition_to_json(definition) for name, definition in self.segments.items()}


def load_campaigns(workspace: Workspace, names: Sequence[str] | None = None) -> dict[str, LoadedCampaign]:
    """Return the campaigns of the workspace's files by name, in alphabetical order.

    Args:
        workspace: Where the files are.
        names: Only these; None means all.

    Raises:
        InputError: every problem of all these files, of the segments, and of the names.
    """
    problems: list[Problem] = []
    definitions = _definitions(workspace, problems)
    loaded: dict[str, LoadedCampaign] = {}
    for path in _paths(workspace, names, problems):
        campaign = _load(workspace, path, definitions, problems)
        if campaign is not None:
            loaded[campaign.name] = campaign
    if problems:
        raise InputError(problems)
    return loaded


def campaign_files(workspace: Workspace) -> dict[str, Path]:
    """Return the paths of all campaign files by name, in alphabetical order."""
    return {path.stem: path for path in sorted((workspace.root / FOLDER).glob("*.yaml"))}


def _definitions(workspace: Workspace, problems: list[Problem]) -> dict[str, Definition]:
    try:
        return load_segments(workspace)
    except InputError as error:
        problems.extend(error.problems)
        return {}


def _paths(workspace: Workspace, names: Sequence[str] | None, problems: list[Problem]) -> list[Path]:
    files = campaign_files(workspace)
    problems.extend(
        Problem(path=f"{FOLDER}/{path.name}", line=0, column=0, message="is not read", hint=f"name it {path.stem}.yaml")
        for path in sorted((workspace.root / FOLDER).glob("*.yml"))
    )
    problems.extend(
        Problem(path=FOLDER, line=0, column=0, message=f"there is no {name}.yaml", hint=did_you_mean(name, files))
        for name in names or ()
        if name not in files
    )
    return [path for name, path in files.items() if names is None or name in names]


def _load(
    workspace: Workspace,
    path: Path,
    definitions: Mapping[str, Definition],
    problems: list[Problem],
) -> LoadedCampaign | None:
    try:
        document = read_document(path, shown_as=f"{FOLDER}/{path.name}")
    except InputError as error:
        problems.extend(error.problems)
        return None
    # A segment whose file is wrong is still known: its own problems are told already.
    segments = {file.stem for file in (workspace.root / "segments").glob("*.yaml")}
    check = Check(document, path.stem, workspace, segments=segments)
    found = check.problems()
    spec: CampaignSpec | None = None
    try:
        spec = document.validate(CampaignSpec)
    except InputError as error:
        found = [*error.problems, *found]
    problems.extend(found)
    if spec is None or found:
        return None
    used: dict[str, Definition] = {}
    for name in (*spec.audience.segment, *spec.audience.exclude):
        if name not in definitions:
            return None
        used |= needed(definitions, name)
    return LoadedCampaign(
        name=path.stem,
        path=path,
        document=document,
        spec=spec,
        files=dict(sorted(check.files.items())),
        segments=dict(sorted(used.items())),
    )
