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
from kernel.fields import Name, Strict, ZoneName
from kernel.ids import digest
from kernel.settings import RfmSettings, Workspace
from kernel.vocabulary import Subject
from segments.conditions import MAX_DEPTH, Condition, too_deep
from segments.leaves.profiles import Model, ProfileLeaf
from segments.rfm import scores_of
from segments.rfm_maps import GroupMap, map_for
from segments.scope import Surroundings

FOLDER = "segments"
_DEEPEST_JSON = 3 * MAX_DEPTH
"""Of lists and objects inside each other: at_least takes three of them."""
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
            _check_is_file(path, shown)
            _check_file_name(path, shown)
            document = read_document(path, shown_as=shown)
            definitions[path.stem] = _definition(document, path.stem, workspace.settings.timezone)
            documents[path.stem] = document
        except InputError as error:
            problems.extend(error.problems)
            unread.add(path.stem)
    problems.extend(_cross_checks(definitions, documents, unread, _group_map(workspace.settings.rfm)))
    if problems:
        raise InputError(problems)
    return definitions


def definition_to_json(definition: Definition) -> dict[str, Any]:
    """Return the definition as plain JSON data, complete enough to be used without its file."""
    data: dict[str, Any] = definition.model_dump(mode="json", by_alias=True, exclude_none=True)
    return data


def definition_from_json(data: Mapping[str, Any]) -> Definition:
    """Return the definition kept by `definition_to_json`.

    Raises:
        ConfigError: it nests too deep.
    """
    if _nesting(data) > _DEEPEST_JSON:
        raise ConfigError(f"segment {data.get('name', '')!r}: conditions nest deeper than {MAX_DEPTH} levels")
    return Definition.model_validate_json(json.dumps(data))


def _nesting(data: Any) -> int:
    """Return how deep lists and objects stand inside each other; without recursion, whatever the data."""
    levels, layer = 0, [data]
    while layer:
        levels += 1
        nested = [one for one in layer if isinstance(one, list | Mapping)]
        layer = [inner for one in nested for inner in (one if isinstance(one, list) else one.values())]
    return levels


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
    """Return the segment and all those it names, directly or not, by name; those whose snapshots it reads too."""
    found: dict[str, Definition] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = definitions[current]
            where = definitions[current].where
            waiting.extend(other for _, other in (*where.references(), *where.snapshots()))
    return found


def depth(definitions: Mapping[str, Definition], name: str) -> int:
    """Return how many levels of conditions a segment has, those of segments it refers to counted in.

    References that are unknown, or lead in a circle, count for nothing: they are told elsewhere. So does what lies
    beyond twice the limit.
    """
    known: dict[str, int] = {}

    def of_segment(other: str, above: int) -> int:
        if other not in definitions or above > 2 * MAX_DEPTH:
            return 0
        if other not in known:
            known[other] = 0
            known[other] = definitions[other].where.depth(lambda below: of_segment(below, above + 1))
        return known[other]

    return of_segment(name, 0)


def needs(definitions: Mapping[str, Definition]) -> set[tuple[Subject, Model]]:
    """Return which models' figures the segments read, and of whom."""
    return {
        (Subject(leaf.whose), leaf.model)
        for definition in definitions.values()
        for leaf in definition.where.leaves()
        if isinstance(leaf, ProfileLeaf)
    }


def subjects_scored(definitions: Mapping[str, Definition]) -> set[Subject]:
    """Return of whom the segments read any model's figures: accounts, contacts, both or nobody."""
    return {subject for subject, _ in needs(definitions)}


def _group_map(settings: RfmSettings) -> GroupMap:
    return map_for(settings.map, scores_of(settings.scheme, settings.scores))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.y*ml") if not path.name.startswith("."))


def _check_is_file(path: Path, shown: str) -> None:
    """Refuse what stands where a file should: nothing that looks like a segment is passed over without a word."""
    if path.is_file():
        return
    message, hint = "is no file", "move it elsewhere"
    if path.is_dir():
        message, hint = "is a folder, not a file", "put its files into segments/ itself, or rename it"
    elif path.is_symlink():
        message, hint = "is a link to a file that is not there", "correct the link, or delete it"
    raise InputError([Problem(path=shown, line=0, column=0, message=message, hint=hint)])


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
    definitions: Mapping[str, Definition], documents: Mapping[str, Document], unread: set[str], groups: GroupMap
) -> Iterator[Problem]:
    subjects = {name: definition.subject for name, definition in definitions.items()}
    for name, definition in definitions.items():
        surroundings = Surroundings(
            subject=definition.subject, segments=subjects, rfm_groups=groups.names, rfm_scores=groups.scores
        )
        named = (*definition.where.references(), *definition.where.snapshots())
        referred = {("where", *place): other for place, other in named}
        for flaw in definition.where.flaws(surroundings):
            place = ("where", *flaw.place)
            if referred.get(place) not in unread:
                yield documents[name].problem(place, flaw.message, flaw.hint)
    circles = list(_circles(definitions, documents))
    yield from circles
    if not circles:
        yield from _depths(definitions, documents)


def _depths(definitions: Mapping[str, Definition], documents: Mapping[str, Document]) -> Iterator[Problem]:
    """Yield the references of segments that are too deep because of what they refer to."""
    for name, definition in definitions.items():
        own = definition.where.depth(lambda _other: 0)
        if own <= MAX_DEPTH < depth(definitions, name):
            for place, _ in definition.where.references():
                flaw = too_deep()
                message = f"{flaw.message}, those of the segments named counted in"
                yield documents[name].problem(("where", *place), message, flaw.hint)


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
