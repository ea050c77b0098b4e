"""Segment files: read strictly, all problems of all files at once; and their JSON form, as campaigns pin them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from kernel.documents import Document, did_you_mean, read_document
from kernel.errors import ConfigError, InputError, Problem
from kernel.ids import digest
from kernel.settings import Name, Strict, Workspace, ZoneName
from kernel.vocabulary import Subject
from segments.conditions import Condition
from segments.leaves.rfm import Rfm
from segments.scope import Surroundings

FOLDER = "segments"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class SegmentFile(Strict):
    """What segments/<name>.yaml says: a named, saved question about accounts or contacts."""

    description: str = ""
    subject: Annotated[Subject, Field(strict=False)] = Field(description="Who is asked about: account or contact.")
    where: Condition


class Definition(SegmentFile):
    """A segment file with its name, and the zone in which the days it names are read."""

    name: Name
    timezone: ZoneName = "UTC"


def load_segments(workspace: Workspace) -> dict[str, Definition]:
    """Return the workspace's segments by name.

    Raises:
        InputError: every problem of every file: not YAML, unknown keys, wrong values, unknown or mismatched segments,
            circles of references.
    """
    definitions: dict[str, Definition] = {}
    documents: dict[str, Document] = {}
    problems: list[Problem] = []
    unread: set[str] = set()
    for path in _files(workspace.root / FOLDER):
        shown = f"{FOLDER}/{path.name}"
        try:
            _check_file_name(path, shown)
            document = read_document(path, shown_as=shown)
            definitions[path.stem] = _definition(document, path.stem, workspace.settings.timezone)
            documents[path.stem] = document
        except InputError as error:
            problems.extend(error.problems)
            unread.add(path.stem)
    problems.extend(_cross_checks(definitions, documents, unread))
    if problems:
        raise InputError(problems)
    return definitions


def definition_to_json(definition: Definition) -> dict[str, Any]:
    """Return the definition as plain JSON data, complete enough to be used without its file."""
    data: dict[str, Any] = definition.model_dump(mode="json", by_alias=True, exclude_none=True)
    return data


def definition_from_json(data: Mapping[str, Any]) -> Definition:
    """Return the definition kept by `definition_to_json`."""
    return Definition.model_validate_json(json.dumps(data))


def definition_digest(definition: Definition) -> str:
    """Return a hash that changes with the definition's meaning."""
    return digest(json.dumps(definition_to_json(definition), sort_keys=True))


def chosen(definitions: Mapping[str, Definition], names: Sequence[str] | None) -> list[str]:
    """Return the names in the order of the alphabet; None chooses all.

    Raises:
        ConfigError: a name that is no segment.
    """
    for name in names or ():
        if name not in definitions:
            raise ConfigError(
                f"there is no segment {name!r} ({did_you_mean(name, definitions) or 'there are none yet'})"
            )
    return sorted(set(definitions if names is None else names))


def needed(definitions: Mapping[str, Definition], name: str) -> dict[str, Definition]:
    """Return the segment and all those it refers to, directly or not, by name."""
    found: dict[str, Definition] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = definitions[current]
            waiting.extend(reference for _, reference in definitions[current].where.references())
    return found


def subjects_scored(definitions: Mapping[str, Definition]) -> set[Subject]:
    """Return whose RFM scores the segments read: accounts', contacts', both or nobody's."""
    return {
        Subject(leaf.whose)
        for definition in definitions.values()
        for leaf in definition.where.leaves()
        if isinstance(leaf, Rfm)
    }


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.y*ml") if path.is_file() and not path.name.startswith("."))


def _check_file_name(path: Path, shown: str) -> None:
    if path.suffix != ".yaml":
        raise InputError(
            [Problem(path=shown, line=0, column=0, message="segment files end in .yaml", hint="rename it")]
        )
    if not _NAME.fullmatch(path.stem):
        message = f"{path.stem!r} is not a name for a segment"
        hint = "use small letters, digits, - and _, starting with a letter"
        raise InputError([Problem(path=shown, line=0, column=0, message=message, hint=hint)])


def _definition(document: Document, name: str, timezone: str) -> Definition:
    file = document.validate(SegmentFile)
    return Definition(
        name=name, timezone=timezone, description=file.description, subject=file.subject, where=file.where
    )


def _cross_checks(
    definitions: Mapping[str, Definition], documents: Mapping[str, Document], unread: set[str]
) -> Iterator[Problem]:
    subjects = {name: definition.subject for name, definition in definitions.items()}
    for name, definition in definitions.items():
        surroundings = Surroundings(subject=definition.subject, segments=subjects)
        referred = {("where", *place): other for place, other in definition.where.references()}
        for flaw in definition.where.flaws(surroundings):
            place = ("where", *flaw.place)
            if referred.get(place) not in unread:
                yield documents[name].problem(place, flaw.message, flaw.hint)
    yield from _circles(definitions, documents)


def _circles(definitions: Mapping[str, Definition], documents: Mapping[str, Document]) -> Iterator[Problem]:
    for name, definition in definitions.items():
        for place, reference in definition.where.references():
            way = _way(definitions, reference, name)
            if way:
                message = f"segments refer to each other in a circle: {' → '.join([name, *way])}"
                yield documents[name].problem(("where", *place), message, "one of them must do without the other")


def _way(definitions: Mapping[str, Definition], start: str, goal: str) -> list[str]:
    """Return the shortest way along references from `start` to `goal`, both included, or an empty list."""
    ways = {start: [start]} if start in definitions else {}
    waiting = list(ways)
    while waiting:
        current = waiting.pop(0)
        if current == goal:
            return ways[current]
        for _, following in definitions[current].where.references():
            if following in definitions and following not in ways:
                ways[following] = [*ways[current], following]
                waiting.append(following)
    return []
