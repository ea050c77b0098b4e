"""Segments held against each other: who entered and left between two instants, two segments, how several overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, FromClause, and_, func, or_, select

from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments.definitions import Definition
from segments.evaluation import evaluate
from store.sql import in_slices
from store.tables import accounts, contacts, profiles, segment_members, segments

Ints = NDArray[np.int64]
OTHERWISE = "other"
"""The reason of who entered or left without having changed the RFM group in the same time."""
_SLICE = 10_000
_BLOCK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Who entered and left a segment between two instants, by external id in their order.

    A stay that began and ended in between is in neither list: it counts in `passed_through`. `reasons` are the numbers
    behind `entered` and `left` by reason, where asked for. `notes` say what the snapshots cannot tell.
    """

    name: str
    subject: Subject
    since: datetime
    until: datetime
    size_before: int
    size_after: int
    entered: list[str]
    left: list[str]
    passed_through: int
    reasons: dict[str, dict[str, int]] | None = None
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the answer under its stable keys."""
        return {
            "name": self.name,
            "subject": self.subject,
            "from": self.since,
            "to": self.until,
            "size_before": self.size_before,
            "size_after": self.size_after,
            "stayed": self.size_before - len(self.left),
            "entered": self.entered,
            "left": self.left,
            "passed_through": self.passed_through,
            "reasons": self.reasons,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two segments as of one instant: who is in one of them only, by external id, and how many are in both."""

    first: str
    second: str
    subject: Subject
    as_of: datetime
    only_first: list[str]
    only_second: list[str]
    both: int

    def as_json(self) -> dict[str, Any]:
        """Return the answer under its stable keys."""
        return {
            "first": self.first,
            "second": self.second,
            "subject": self.subject,
            "as_of": self.as_of,
            "size_first": len(self.only_first) + self.both,
            "size_second": len(self.only_second) + self.both,
            "both": self.both,
            "jaccard": jaccard(self.both, len(self.only_first) + self.both, len(self.only_second) + self.both),
            "only_first": self.only_first,
            "only_second": self.only_second,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How segments of one kind of subject overlap: `counts[i][j]` are in both i and j, the sizes on the diagonal."""

    names: tuple[str, ...]
    subject: Subject
    as_of: datetime
    counts: tuple[tuple[int, ...], ...]
    in_any: int

    def share(self, row: int, column: int) -> float | None:
        """Return the share of segment `row` that is in segment `column` too; None where `row` is empty."""
        size = self.counts[row][row]
        return self.counts[row][column] / size if size else None

    def jaccard(self, row: int, column: int) -> float | None:
        """Return how many are in both, of those in either; None where both are empty."""
        return jaccard(self.counts[row][column], self.counts[row][row], self.counts[column][column])

    def as_json(self) -> dict[str, Any]:
        """Return the answer under its stable keys; matrices have a row per segment, in the order of `segments`."""
        places = range(len(self.names))
        return {
            "subject": self.subject,
            "as_of": self.as_of,
            "segments": list(self.names),
            "sizes": [self.counts[place][place] for place in places],
            "in_any": self.in_any,
            "counts": [list(row) for row in self.counts],
            "shares": [[self.share(row, column) for column in places] for row in places],
            "jaccard": [[self.jaccard(row, column) for column in places] for row in places],
        }


def jaccard(both: int, first: int, second: int) -> float | None:
    """Return the size of the intersection over that of the union, in [0, 1]; None where both sets are empty."""
    union = first + second - both
    return both / union if union else None


def diff_in_time(
    connection: Connection,
    definitions: Mapping[str, Definition],
    name: str,
    *,
    since: datetime,
    until: datetime,
    by_reason: bool = False,
) -> Moves:
    """Return who entered and left between two instants, by the stays that refreshes kept.

    A member at an instant is who entered at or before it and left after it, or not at all.

    Args:
        connection: Reads only.
        definitions: At least the segment.
        name: Which segment.
        since: Aware instant, before `until`.
        until: Aware instant.
        by_reason: Count why, where a change of the RFM group between the two instants explains it.

    Raises:
        ConfigError: the segment was never refreshed, or `since` is not before `until`.
    """
    if since >= until:
        raise ConfigError(f"--from ({since:%Y-%m-%d %H:%M}) must be before --to ({until:%Y-%m-%d %H:%M})")
    subject = definitions[name].subject
    remedy = f"run `carillon segments refresh {name}`"
    row = connection.execute(select(segments).where(segments.c.name == name)).one_or_none()
    if row is None:
        raise ConfigError(f"segment {name!r} was never refreshed, so its past is unknown: {remedy}")
    if row.subject != subject:
        raise ConfigError(f"segment {name!r} was about {row.subject}s when it was last refreshed: {remedy}")
    before, after = _at(since), _at(until)
    mine = segment_members.c.segment_id == row.id
    entered = _once(connection, and_(mine, after), and_(mine, before))
    left = _once(connection, and_(mine, before), and_(mine, after))
    passing = and_(mine, segment_members.c.valid_from > since, segment_members.c.valid_to <= until)
    visitors = _once(connection, passing, and_(mine, or_(before, after)))
    return Moves(
        name=name,
        subject=subject,
        since=since,
        until=until,
        size_before=_number(connection, and_(mine, before)),
        size_after=_number(connection, and_(mine, after)),
        entered=external_ids(connection, subject, entered),
        left=external_ids(connection, subject, left),
        passed_through=len(visitors),
        reasons=_reasons(connection, subject, entered, left, since=since, until=until) if by_reason else None,
        notes=_notes(connection, row, since=since, until=until),
    )


def diff_of_two(
    connection: Connection,
    definitions: Mapping[str, Definition],
    first: str,
    second: str,
    *,
    now: datetime,
    currency: str,
) -> Pair:
    """Return who is in only one of two segments, both computed as of now.

    Raises:
        ConfigError: one is about accounts and the other about contacts.
    """
    subject = _common_subject(definitions, [first, second])
    found = _ids_of(connection, definitions, [first, second], now=now, currency=currency)
    ids, others = found[first], found[second]
    return Pair(
        first=first,
        second=second,
        subject=subject,
        as_of=now,
        only_first=external_ids(connection, subject, np.setdiff1d(ids, others, assume_unique=True).tolist()),
        only_second=external_ids(connection, subject, np.setdiff1d(others, ids, assume_unique=True).tolist()),
        both=len(np.intersect1d(ids, others, assume_unique=True)),
    )


def overlap(
    connection: Connection, definitions: Mapping[str, Definition], names: Sequence[str], *, now: datetime, currency: str
) -> Overlap:
    """Return how the segments overlap, all computed as of now, in the order of `names`.

    Raises:
        ConfigError: fewer than two different names, or some are about accounts and others about contacts.
    """
    distinct = tuple(dict.fromkeys(names))
    if len(distinct) < 2:
        raise ConfigError("an overlap needs two segments or more; name them, or leave the names out to compare all")
    subject = _common_subject(definitions, distinct)
    found = _ids_of(connection, definitions, distinct, now=now, currency=currency)
    counts, in_any = overlap_counts([found[name] for name in distinct])
    return Overlap(
        names=distinct,
        subject=subject,
        as_of=now,
        counts=tuple(tuple(row) for row in counts.tolist()),
        in_any=in_any,
    )


def overlap_counts(sets: Sequence[Ints]) -> tuple[Ints, int]:
    """Return the matrix of how many ids each two sets share, and the number of different ids in all of them.

    Args:
        sets: Arrays of distinct ids, in any order.
    """
    everyone = np.sort(np.concatenate(sets)) if sets else np.empty(0, np.int64)
    # Not np.unique, which hashes: ten times slower than sorting at some millions of ids.
    universe = everyone[np.append(True, everyone[1:] != everyone[:-1])] if len(everyone) else everyone
    places = [np.searchsorted(universe, np.sort(one)) for one in sets]
    counts = np.zeros((len(sets), len(sets)))
    # Block by block: a whole matrix of a million subjects and forty segments would take 160 MB for nothing.
    for start in range(0, len(universe), _BLOCK):
        block = np.zeros((len(sets), min(_BLOCK, len(universe) - start)), np.float32)
        for row, place in enumerate(places):
            low, high = np.searchsorted(place, [start, start + block.shape[1]])
            block[row, place[low:high] - start] = 1
        counts += block @ block.T  # Whole numbers up to 65,536 are exact in 32-bit floats.
    return counts.astype(np.int64), len(universe)


def external_ids(connection: Connection, subject: Subject, ids: Sequence[int]) -> list[str]:
    """Return the external ids of accounts or contacts, in the order of the alphabet."""
    table: FromClause = accounts if subject is Subject.ACCOUNT else contacts
    found: list[str] = []
    for some in in_slices(ids, _SLICE):
        found.extend(connection.execute(select(table.c.external_id).where(table.c.id.in_(some))).scalars())
    return sorted(found)


def _ids_of(
    connection: Connection, definitions: Mapping[str, Definition], names: Sequence[str], *, now: datetime, currency: str
) -> dict[str, Ints]:
    return evaluate(connection, definitions, names, as_of=now, currency=currency)


def _common_subject(definitions: Mapping[str, Definition], names: Sequence[str]) -> Subject:
    about = {name: definitions[name].subject for name in names}
    if len(set(about.values())) > 1:
        told = ", ".join(f"{name} about {subject}s" for name, subject in about.items())
        raise ConfigError(
            f"accounts cannot be held against contacts: {told}. Write a segment of contacts with "
            "`segment: NAME` in it, which picks the contacts of those accounts, and compare that"
        )
    return next(iter(about.values()))


def _at(instant: datetime) -> ColumnElement[bool]:
    stays = segment_members.c
    return and_(stays.valid_from <= instant, or_(stays.valid_to.is_(None), stays.valid_to > instant))


def _once(connection: Connection, these: ColumnElement[bool], not_these: ColumnElement[bool]) -> list[int]:
    """Return the subjects with a stay of one kind and none of the other."""
    subject_id = segment_members.c.subject_id
    query = select(subject_id).where(these).except_(select(subject_id).where(not_these))
    return sorted(connection.execute(query).scalars())


def _number(connection: Connection, these: ColumnElement[bool]) -> int:
    query = select(func.count(segment_members.c.subject_id.distinct())).where(these)
    return int(connection.execute(query).scalar_one())


def _reasons(
    connection: Connection, subject: Subject, entered: list[int], left: list[int], *, since: datetime, until: datetime
) -> dict[str, dict[str, int]]:
    return {
        "entered": _counted_reasons(connection, subject, entered, since=since, until=until),
        "left": _counted_reasons(connection, subject, left, since=since, until=until),
    }


def _counted_reasons(
    connection: Connection, subject: Subject, ids: list[int], *, since: datetime, until: datetime
) -> dict[str, int]:
    """Count who changed the RFM group between the instants by what moved them; contacts by their account's."""
    table, key = (accounts, accounts.c.id) if subject is Subject.ACCOUNT else (contacts, contacts.c.account_id)
    profile = and_(profiles.c.subject == Subject.ACCOUNT, profiles.c.subject_id == key)
    then = and_(profiles.c.rfm_since > since, profiles.c.rfm_since <= until)
    counts: dict[str, int] = {}
    for some in in_slices(ids, _SLICE):
        query = select(profiles.c.rfm_moved_by, func.count()).select_from(table.join(profiles, profile))
        query = query.where(table.c.id.in_(some), then, profiles.c.rfm_moved_by.is_not(None))
        for reason, number in connection.execute(query.group_by(profiles.c.rfm_moved_by)):
            counts[reason] = counts.get(reason, 0) + number
    unexplained = len(ids) - sum(counts.values())
    return dict(sorted(counts.items())) | ({OTHERWISE: unexplained} if unexplained else {})


def _notes(connection: Connection, row: Any, *, since: datetime, until: datetime) -> list[str]:
    notes = []
    first = connection.execute(
        select(func.min(segment_members.c.valid_from)).where(segment_members.c.segment_id == row.id)
    ).scalar_one()
    if first is None:
        notes.append("nobody has ever been in it")
    elif first > since:
        notes.append(f"the first member known entered at {first:%Y-%m-%d %H:%M} UTC: before that it counts as empty")
    if row.refreshed_at and row.refreshed_at < until:
        notes.append(f"last refreshed at {row.refreshed_at:%Y-%m-%d %H:%M} UTC: nothing is known of later")
    return notes
