"""Clusters computed elsewhere: a CSV file of external ids and labels, taken over under the name of their model."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from kernel.errors import ConfigError, InputError, Problem
from kernel.settings import Settings
from kernel.vocabulary import Subject
from segments.bench import Labels
from segments.models import ModelKind
from segments.scoring import HERE, ProfileRun, refresh_profiles
from store.engine import reading
from store.ingest.bulk import ids_of
from store.tables import accounts, contacts

COLUMNS = ("external_id", "cluster")
LONGEST_LABEL = 60
_NAMED = re.compile(r"[^\s/]{1,60}/[^\s/]{1,60}")
_MOST_TOLD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did: rows of the file, subjects nobody here knows, those who never bought, and the scoring."""

    rows: int
    unknown: int
    without_orders: int
    run: ProfileRun


def import_labels(
    engine: Engine,
    settings: Settings,
    path: Path,
    *,
    named: str,
    subject: Subject,
    now: datetime,
    approved: bool = False,
    root: Path = HERE,
) -> Imported:
    """Take over the labels of a file as the clusters that stand, until others are imported or fitted.

    Who is in the file but has never bought gets no label: there is no profile to keep it on. Buyers who are not in
    the file are assigned to the label whose bearers they are most like.

    Args:
        engine: The database.
        settings: The workspace's.
        path: A CSV file with the columns external_id and cluster.
        named: Name and version of the model the labels come from, as churn/7.
        subject: Whom the external ids are of.
        now: The present instant.
        approved: Take them over even where they move so many buyers that campaigns should wait.
        root: The workspace's folder.

    Raises:
        InputError: the file is wrong; every problem with its line.
        ConfigError: no file, no such name, hardly any labels, or labels that move too many.
    """
    if not _NAMED.fullmatch(named):
        raise ConfigError(f"{named!r} does not name a model and its version; write NAME/VERSION, as --model churn/7")
    wanted = _read(path)
    table = accounts if subject is Subject.ACCOUNT else contacts
    with reading(engine) as connection:
        known = ids_of(connection, table, wanted)
    if not known:
        raise ConfigError(f"{path}: none of its {len(wanted):,} external ids is a known {subject}; is --subject right?")
    ordered = sorted((subject_id, wanted[name]) for name, subject_id in known.items())
    labels = Labels(
        named=named,
        ids=np.array([subject_id for subject_id, _ in ordered], dtype=np.int64),
        labels=tuple(label for _, label in ordered),
        approved=approved,
    )
    kind = ModelKind.CLUSTERS
    run = refresh_profiles(
        engine, settings, subject=subject, now=now, kinds=[kind], refit=[kind], labels=labels, root=root
    )
    labelled = run.models[kind].report["fit"]["rows"]
    return Imported(
        rows=len(wanted), unknown=len(wanted) - len(known), without_orders=len(known) - int(labelled), run=run
    )


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}; save it as CSV in UTF-8") from error
    reader = csv.DictReader(text.splitlines())
    header = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError([_problem(path, 1, f"the columns {' and '.join(missing)} are missing", "name them in line 1")])
    reader.fieldnames = header
    found: dict[str, str] = {}
    problems = []
    for row in reader:
        external_id, label = ((row[name] or "").strip() for name in COLUMNS)
        flaw = _flaw(external_id, label, found)
        if flaw:
            problems.append(_problem(path, reader.line_num, *flaw))
        found[external_id] = label
    if problems:
        raise InputError(_told(problems, path))
    return found


def _flaw(external_id: str, label: str, found: dict[str, str]) -> tuple[str, str] | None:
    if not external_id:
        return "the external_id is empty", "every row needs one"
    if not label:
        return f"{external_id!r} has no cluster", "leave the row out"
    if len(label) > LONGEST_LABEL or not label.isprintable():
        return f"{label[:LONGEST_LABEL]!r} is no label", f"at most {LONGEST_LABEL} printable characters"
    if found.get(external_id, label) != label:
        return f"{external_id!r} is {label!r} here and {found[external_id]!r} before", "keep one of them"
    return None


def _told(problems: list[Problem], path: Path) -> Iterator[Problem]:
    yield from problems[:_MOST_TOLD]
    if len(problems) > _MOST_TOLD:
        yield _problem(path, 0, f"and {len(problems) - _MOST_TOLD} more like these", "")


def _problem(path: Path, line: int, message: str, hint: str) -> Problem:
    return Problem(path=str(path), line=line, column=1 if line else 0, message=message, hint=hint)
