"""Bringing segments up to date: the saved snapshots of their members, and the scores they read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, select, true

from kernel.clock import to_ms
from kernel.settings import RfmSettings, Workspace
from kernel.vocabulary import Subject
from segments.compiler import members
from segments.definitions import (
    Definition,
    chosen,
    definition_digest,
    definition_to_json,
    load_segments,
    needed,
    subjects_scored,
)
from segments.scoring import options, refresh_scores
from segments.staging import staged
from store.engine import reading, writing
from store.sql import in_slices, insert_into
from store.tables import rfm_runs, segment_members, segments

Progress = Callable[[str, int, int], None]
"""Called with what is being done now, how many steps are done, and how many there are."""

_DELETE_SLICE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a refresh did to one segment; `changed` tells whether the definition differs from the last refresh's."""

    name: str
    subject: Subject
    size: int
    joined: int
    left: int
    changed: bool


def refresh(
    engine: Engine,
    workspace: Workspace,
    names: Sequence[str] | None = None,
    *,
    now: datetime,
    progress: Progress | None = None,
) -> list[Refreshed]:
    """Compute segments as of `now` and keep their members. Who stays keeps the instant of joining.

    RFM scores are refreshed first, of those subjects whose scores the segments read. A refresh of all segments
    also forgets the snapshots of segments whose file is gone.

    Raises:
        InputError: a segment file is wrong.
        ConfigError: an unknown name, or orders in another currency than the workspace's where scores are needed.
    """
    definitions = load_segments(workspace)
    wanted = chosen(definitions, names)
    reached = {key: one for name in wanted for key, one in needed(definitions, name).items()}
    scored = sorted(subjects_scored(reached))
    total = len(scored) + len(wanted)
    currency = workspace.settings.currency
    for done, subject in enumerate(scored):
        _tell(progress, f"RFM scores of {subject}s", done, total)
        refresh_scores(engine, workspace.settings.rfm, subject=subject, now=now, currency=currency)
    refreshed = []
    for done, name in enumerate(wanted, start=len(scored)):
        _tell(progress, name, done, total)
        refreshed.append(_refresh_one(engine, definitions, name, now=now, currency=currency))
    if names is None:
        _forget_others(engine, definitions)
    _tell(progress, "done", total, total)
    return refreshed


def ensure_scores(
    engine: Engine,
    settings: RfmSettings,
    *,
    now: datetime,
    max_age: timedelta,
    subjects: Collection[Subject] = (Subject.ACCOUNT,),
    currency: str | None = None,
) -> None:
    """Refresh the RFM scores of the subjects unless they are younger than `max_age` and of the same settings.

    Raises:
        ConfigError: as `segments.scoring.score`.
    """
    for subject in sorted(subjects):
        with reading(engine) as connection:
            fresh = _fresh(connection, settings, subject, since=now - max_age)
        if not fresh:
            refresh_scores(engine, settings, subject=subject, now=now, currency=currency)


def last_scored_at(connection: Connection, subject: Subject) -> datetime | None:
    """Return as of when the current scores of accounts or contacts are; None if there never were any."""
    query = select(rfm_runs.c.as_of).where(rfm_runs.c.subject == subject).order_by(rfm_runs.c.id.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


def _fresh(connection: Connection, settings: RfmSettings, subject: Subject, *, since: datetime) -> bool:
    query = select(rfm_runs).where(rfm_runs.c.subject == subject).order_by(rfm_runs.c.id.desc()).limit(1)
    run = connection.execute(query).one_or_none()
    return run is not None and run.computed_at > since and run.options == options(settings)


def _refresh_one(
    engine: Engine, definitions: Mapping[str, Definition], name: str, *, now: datetime, currency: str
) -> Refreshed:
    definition = definitions[name]
    digest = definition_digest(definition)
    with reading(engine) as connection:
        row = connection.execute(select(segments.c.id, segments.c.digest).where(segments.c.name == name)).one_or_none()
        present = set(connection.execute(members(definitions, name, as_of=now, currency=currency)).scalars())
        before = _members_before(connection, row.id if row else None)
    with writing(engine) as connection:
        segment_id = _upsert_segment(connection, definition, digest, size=len(present), now=now)
        _write_members(connection, segment_id, joined=sorted(present - before), left=sorted(before - present), now=now)
    return Refreshed(
        name=name,
        subject=definition.subject,
        size=len(present),
        joined=len(present - before),
        left=len(before - present),
        changed=row is None or row.digest != digest,
    )


def _members_before(connection: Connection, segment_id: int | None) -> set[int]:
    query = select(segment_members.c.subject_id).where(segment_members.c.segment_id == segment_id)
    return set(connection.execute(query).scalars())


def _upsert_segment(connection: Connection, definition: Definition, digest: str, *, size: int, now: datetime) -> int:
    values = {
        "subject": definition.subject,
        "definition": definition_to_json(definition),
        "digest": digest,
        "refreshed_at": now,
        "size": size,
    }
    statement = insert_into(connection, segments).values(name=definition.name, **values)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_=values).returning(segments.c.id)
    return int(connection.execute(statement).scalar_one())


def _write_members(
    connection: Connection, segment_id: int, *, joined: Sequence[int], left: Sequence[int], now: datetime
) -> None:
    if joined:
        columns = ("segment_id", "subject_id", "since")
        rows = [(segment_id, subject_id, to_ms(now)) for subject_id in joined]
        with staged(connection, segment_members, columns, rows) as fresh:
            query = select(*fresh.c).where(true()).order_by(fresh.c.subject_id)
            insert = insert_into(connection, segment_members).from_select(list(columns), query)
            connection.execute(insert.on_conflict_do_nothing())
    for slice_ in in_slices(left, _DELETE_SLICE):
        mine = segment_members.c.segment_id == segment_id
        connection.execute(delete(segment_members).where(mine, segment_members.c.subject_id.in_(slice_)))


def _forget_others(engine: Engine, definitions: Mapping[str, Definition]) -> None:
    with writing(engine) as connection:
        gone = select(segments.c.id).where(segments.c.name.not_in(list(definitions)))
        connection.execute(delete(segment_members).where(segment_members.c.segment_id.in_(gone)))
        connection.execute(delete(segments).where(segments.c.name.not_in(list(definitions))))


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)
