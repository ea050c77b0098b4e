"""Bringing segments up to date: whom new facts or time touched is asked anew; everyone only where that must be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Row, func, select, update

from kernel.errors import CarillonError
from kernel.ids import digest
from kernel.settings import Workspace
from kernel.vocabulary import Subject
from segments.definitions import Definition, chosen, definition_to_json, load_segments, needed
from segments.evaluation import evaluate
from segments.freshness import profiles_needed, profiles_stand, rfm_clocks
from segments.kinship import NOBODY, Kinship, united
from segments.leaves.membership import Membership
from segments.purchases import Ints
from segments.scoring import not_before, refresh_profiles
from segments.snapshots import drop_stays, present_members, write_stays
from segments.touched import Touched, buyers_of, tables_read
from store.changes import Changes, forget_changes, keep_used, read_changes
from store.columns import reading_widely
from store.engine import reading
from store.guard import Writer, alone
from store.sql import insert_into
from store.tables import accounts, contacts, segments

Progress = Callable[[str, int, int], None]
"""Called with what is being done now, how many steps are done, and how many there are."""

LOCK = "segments"
PATIENCE_S = 120.0
"""How long a refresh that a person asked for waits for another one."""
LONGEST_GAP = timedelta(days=3)
"""After a longer pause everyone is asked: by then time has passed by too many subjects to look for each."""
LARGEST_SHARE = 0.1
"""Of all subjects: where more are touched, one pass over everybody is faster than looking each up."""
SHARED_EVERY = timedelta(minutes=15)
"""How long a refresh without hurry leaves segments alone for which everyone must be asked."""
_SHARED = frozenset({"stock_levels"})
"""What is answered from everybody's facts: how long stock lasts depends on what all customers buy."""


class RefreshRunning(CarillonError):
    """Another process is refreshing segments; what this one wanted is done by it, or by the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a refresh did to one segment.

    `changed` tells whether its definition, or one it refers to, differs from the last refresh's; `asked` how many
    subjects were looked at, None where everyone was.
    """

    name: str
    subject: Subject
    size: int
    joined: int
    left: int
    changed: bool
    asked: int | None


def refresh(
    engine: Engine,
    workspace: Workspace,
    names: Sequence[str] | None = None,
    *,
    now: datetime,
    progress: Progress | None = None,
    full: bool = False,
    patience_s: float = PATIENCE_S,
    unhurried: bool = False,
) -> list[Refreshed]:
    """Bring segments and the profiles they read up to `now`, and keep entering and leaving as rows.

    Only subjects are asked of whom facts were noted, or for whom an instant passed that their segments ask about,
    or whose relatives are such; everyone where the definition changed or the last refresh is long ago. The answer is
    the same either way. A refresh of all segments also ends the stays in segments whose file is gone.

    Args:
        engine: The database.
        workspace: Where the segment files stand; the currency; how profiles are computed.
        names: Which segments; None refreshes all.
        now: The present instant. Where profiles or segments are of a later one already, that is taken.
        progress: Told how far it is.
        full: Ask everyone, whatever is known.
        patience_s: How long to wait for another refresh to end.
        unhurried: Leave segments alone that can only be answered by asking everyone, until some minutes have passed
            since their last refresh; they are not among those returned.

    Raises:
        InputError: a segment file is wrong.
        ConfigError: an unknown name, or orders in another currency than the workspace's where scores are needed.
        RefreshRunning: another refresh did not end in time.
    """
    definitions = load_segments(workspace)
    wanted = chosen(definitions, names)
    with alone(engine, LOCK, patience_s=patience_s) as writer:
        if writer is None:
            raise RefreshRunning("another refresh of segments is running; try again once it has ended")
        run = _Run(engine, writer, workspace, definitions, wanted, now, progress, full, unhurried)
        refreshed = run.do()
        if names is None:
            _forget(writer, engine, definitions, run.now)
            with writer() as connection:
                forget_changes(connection, run.used)
        else:
            run.keep_used()
    return refreshed


class _Run:
    """One refresh, alone with the lock, as of `now`. `used` are the notes of changes that it made use of."""

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        workspace: Workspace,
        definitions: Mapping[str, Definition],
        wanted: Sequence[str],
        now: datetime,
        progress: Progress | None,
        full: bool,
        unhurried: bool,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._settings = workspace.settings
        self._root = workspace.root
        self._definitions = definitions
        self._wanted = wanted
        self.now = now
        self._progress = progress
        self._full = full
        self._unhurried = unhurried
        self._currency = workspace.settings.currency
        self._tables = {name: tables_read(definitions, name, now=now, currency=self._currency) for name in wanted}
        self._known: dict[str, Row[Any]] = {}
        self._noted: dict[frozenset[int], Changes] = {}
        self._facts: dict[frozenset[int], dict[Subject, Ints]] = {}
        self._moved: dict[Subject, Ints] = {}
        self._used_before: dict[str, frozenset[int]] = {}
        self._dropped: set[str] = set()
        self._done = self._steps = 0
        self.used: list[int] = []

    def do(self) -> list[Refreshed]:
        """Refresh all that is wanted; in the order of the names."""
        scored = [name for name in self._wanted if "profiles" in self._tables[name]]
        with reading(self._engine) as connection:
            self.now = not_before(connection, self.now)
            noted = read_changes(connection)
            self._known = {row.name: row for row in connection.execute(select(segments))}
            self._used_before = {name: self._used_by(name, noted) for name in self._wanted}
            # What all that read profiles have used is in the profiles already.
            in_profiles = frozenset(noted.rows).intersection(*(self._used_before[name] for name in scored))
            for rows in {in_profiles, *self._used_before.values()}:
                self._noted[rows] = noted.but(rows)
                self._facts[rows] = self._touched_by_facts(connection, self._noted[rows])
        self.used = noted.rows
        # Before any is left alone: the notes go with this refresh, and profiles must have followed them by then.
        subjects = profiles_needed(self._definitions, self._wanted)
        since = self._since(scored)
        self._wanted = [name for name in self._wanted if not self._left_alone(name)]
        waves = _waves(self._definitions, self._wanted)
        self._steps = len(subjects) + len(waves) + len(self._wanted)
        self._refresh_profiles(subjects, self._facts[in_profiles], since)
        refreshed = [one for wave in waves for one in self._wave(wave)]
        self._tell("done")
        return sorted(refreshed, key=lambda one: one.name)

    def keep_used(self) -> None:
        """Keep what was made use of by those refreshed: the notes stay for the others."""
        with self._writer() as connection:
            ids = connection.execute(select(segments.c.id).where(segments.c.name.in_(self._wanted))).scalars().all()
            keep_used(connection, ids, self.used)

    # --- whom to ask ---

    def _used_by(self, name: str, noted: Changes) -> frozenset[int]:
        """Return the notes that a segment, as it is defined now, has made use of."""
        row = self._known.get(name)
        return noted.used.get(row.id, frozenset()) if row is not None and self._is_same(name) else frozenset()

    def _is_same(self, name: str) -> bool:
        """Tell whether a segment was refreshed as it is defined now."""
        row = self._known.get(name)
        if row is None or row.refreshed_at is None or row.subject != self._definitions[name].subject:
            return False
        return bool(row.digest == deep_digest(self._definitions, name, self._currency))

    def _touched_by_facts(self, connection: Connection, noted: Changes) -> dict[Subject, Ints]:
        kinship = Kinship(connection)
        firms = united(noted.accounts, kinship.accounts_of(noted.contacts))  # Whose messages are their contacts'.
        facts = {Subject.ACCOUNT: firms, Subject.CONTACT: noted.contacts}
        if len(noted.products) and any("products" in tables for tables in self._tables.values()):
            buyers = buyers_of(connection, noted.products)
            facts = {subject: united(ids, buyers[subject]) for subject, ids in facts.items()}
        if self._settings.rfm.rollup != "none":
            # A profile is that of the whole family, so a fact of one is a fact of all.
            facts[Subject.ACCOUNT] = kinship.family_of(facts[Subject.ACCOUNT])
        return facts

    def _refresh_profiles(
        self, subjects: Mapping[Subject, frozenset[str]], facts: Mapping[Subject, Ints], since: datetime | None
    ) -> None:
        """Compute the profiles that segments read: of those touched, or of all where that is due."""
        settings, root = self._settings, self._root
        for subject, kinds in sorted(subjects.items()):
            self._tell(f"profiles of {subject}s")
            with reading(self._engine) as connection:
                some = since is not None and not self._full
                some = some and profiles_stand(connection, settings, subject, kinds, now=self.now, root=root)
                only = self._touched_profiles(connection, subject, facts, since) if some and since else None
            if only is None or len(only):
                run = refresh_profiles(
                    self._engine, settings, subject=subject, now=self.now, kinds=kinds, only=only, root=root
                )
                self._moved[subject] = run.changed
                self.used += run.notes

    def _touched_profiles(
        self, connection: Connection, subject: Subject, facts: Mapping[Subject, Ints], since: datetime
    ) -> Ints:
        clocks = rfm_clocks(connection, self._settings, subject)
        touched = Touched(connection, self._definitions, facts=facts, now=self.now, currency=self._currency)
        ids = united(facts[subject], *(touched.crossed(clock, since) for clock in clocks))
        if self._settings.rfm.rollup != "none" and subject is Subject.ACCOUNT:
            return Kinship(connection).family_of(ids)
        return ids

    def _since(self, scored: Sequence[str]) -> datetime | None:
        """Return since when profiles must be looked at, for segments that read them; None: from the beginning.

        That is the oldest refresh of one of them; and the beginning where one is new, or another than it was: nobody
        may have read profiles until now.
        """
        if not all(self._is_same(name) for name in scored):
            return None
        return min((self._known[name].refreshed_at for name in scored), default=None)

    def _in_full(self, name: str) -> bool:
        """Tell whether everyone must be asked, because of what a segment reads or how it stands."""
        if self._full or not self._is_same(name):
            return True
        gap = self.now - self._known[name].refreshed_at
        if gap > LONGEST_GAP or _members_asked(self._definitions, name) & self._dropped:
            return True
        tables = self._tables[name]
        return bool(tables & _SHARED) or ("profiles" in tables and bool(self._noted[self._used_before[name]].profiles))

    def _left_alone(self, name: str) -> bool:
        """Tell whether the segment, though everyone would have to be asked, was asked not long ago."""
        row = self._known.get(name)
        lately = row is not None and row.refreshed_at is not None and self.now - row.refreshed_at < SHARED_EVERY
        return self._unhurried and not self._full and lately and bool(self._tables[name] & _SHARED)

    def _asked(self, connection: Connection, names: Sequence[str]) -> dict[str, Ints | None]:
        """Return for each segment whom to ask; None for everyone."""
        found: dict[tuple[frozenset[int], bool], Touched] = {}
        asked: dict[str, Ints | None] = {}
        for name in names:
            subject, key = self._definitions[name].subject, (self._used_before[name], "profiles" in self._tables[name])
            if key not in found:
                found[key] = self._touched(connection, *key)
            ids = None if self._in_full(name) else found[key].of(name, self._known[name].refreshed_at)
            many = ids is not None and len(ids) > LARGEST_SHARE * _population(connection, subject)
            asked[name] = None if many else ids
        return asked

    def _touched(self, connection: Connection, used: frozenset[int], scored: bool) -> Touched:
        """Return who is touched by what is noted but in those notes; and, where scored, by moves of profiles."""
        facts: Mapping[Subject, Ints] = self._facts[used]
        if scored:
            facts = {subject: united(ids, self._moved.get(subject, NOBODY)) for subject, ids in facts.items()}
        return Touched(connection, self._definitions, facts=facts, now=self.now, currency=self._currency)

    # --- asking and writing ---

    def _wave(self, names: Sequence[str]) -> list[Refreshed]:
        self._tell(f"asking {len(names)} segment{'s' * (len(names) != 1)}")
        ids = {name: self._entered_in_table(name) for name in names}
        moves: dict[str, tuple[Ints, Ints, int | None]] = {}
        with reading_widely(self._engine) as connection:
            asked = self._asked(connection, names)
            for group in ([name for name in names if asked[name] is None], [n for n in names if asked[n] is not None]):
                only = {name: found for name in group if (found := asked[name]) is not None}
                present = evaluate(
                    connection,
                    self._definitions,
                    group,
                    as_of=self.now,
                    currency=self._currency,
                    only=only or None,
                )
                for name in group:
                    now_in = present.pop(name)
                    before = present_members(connection, ids[name], only=only.get(name))
                    entered = np.setdiff1d(now_in, before, assume_unique=True)
                    left = np.setdiff1d(before, now_in, assume_unique=True)
                    moves[name] = (entered, left, None if name in only else len(now_in))
        return [self._written(name, ids[name], *moves.pop(name), asked=asked[name]) for name in names]

    def _entered_in_table(self, name: str) -> int:
        """Return the segment's id. Until its first refresh has ended it has no digest."""
        definition = self._definitions[name]
        with self._writer() as connection:
            values = {"name": name, "subject": definition.subject, "definition": {}, "digest": "", "size": 0}
            connection.execute(insert_into(connection, segments).values(**values).on_conflict_do_nothing())
            row = connection.execute(select(segments.c.id, segments.c.subject).where(segments.c.name == name)).one()
        if row.subject != definition.subject:
            # First the stays: killed between the slices, the next refresh finds the old subject, and goes on.
            drop_stays(self._writer, row.id)
            self._dropped.add(name)
            values = {"subject": definition.subject, "digest": "", "refreshed_at": None}
            with self._writer() as connection:
                connection.execute(update(segments).where(segments.c.id == row.id).values(**values))
        return int(row.id)

    def _written(
        self, name: str, segment_id: int, entered: Ints, left: Ints, size: int | None, *, asked: Ints | None
    ) -> Refreshed:
        self._tell(name)
        definition = self._definitions[name]
        row = self._known.get(name)
        new = deep_digest(self._definitions, name, self._currency)
        write_stays(self._writer, segment_id, entered=entered, left=left, at=self.now)
        values = {"definition": definition_to_json(definition), "digest": new, "refreshed_at": self.now}
        with self._writer() as connection:
            statement = update(segments).where(segments.c.id == segment_id).values(**values)
            if size is not None:
                statement = statement.values(size=size)
            held = connection.execute(statement.returning(segments.c.size)).scalar_one()
        return Refreshed(
            name=name,
            subject=definition.subject,
            size=held,
            joined=len(entered),
            left=len(left),
            changed=row is None or row.digest != new,
            asked=None if asked is None else len(asked),
        )

    def _tell(self, what: str) -> None:
        if self._progress:
            self._progress(what, self._done, self._steps)
        self._done += 1


def deep_digest(definitions: Mapping[str, Definition], name: str, currency: str) -> str:
    """Return a hash that changes with the meaning of a segment or of any it refers to."""
    reached = {key: definition_to_json(one) for key, one in needed(definitions, name).items()}
    return digest(name, currency, json.dumps(reached, sort_keys=True))


def _population(connection: Connection, subject: Subject) -> int:
    """Return about how many accounts or contacts there are, without counting them."""
    table = accounts if subject is Subject.ACCOUNT else contacts
    return connection.execute(select(func.max(table.c.id))).scalar_one() or 0


def _forget(writer: Writer, engine: Engine, definitions: Mapping[str, Definition], now: datetime) -> None:
    """End the stays in segments whose file is gone. What was is kept, for whoever looks back."""
    with reading(engine) as connection:
        gone = select(segments).where(segments.c.name.not_in(list(definitions)), segments.c.digest != "")
        rows = connection.execute(gone).all()
        inside = {row.id: present_members(connection, row.id) for row in rows}
    for row in rows:
        at = max(now, row.refreshed_at or now)
        write_stays(writer, row.id, entered=NOBODY, left=inside[row.id], at=at)
        with writer() as connection:
            values = {"digest": "", "size": 0, "refreshed_at": at}
            connection.execute(update(segments).where(segments.c.id == row.id).values(**values))


def _waves(definitions: Mapping[str, Definition], names: Sequence[str]) -> list[list[str]]:
    """Return the names in groups to be refreshed one after the other: who asks for membership comes after it.

    Where segments ask for each other's membership in a circle, each sees the others as they were before.
    """
    waves: list[list[str]] = []
    waiting = list(names)
    while waiting:
        ready = [name for name in waiting if not (_members_asked(definitions, name) - {name}) & set(waiting)] or waiting
        waves.append(ready)
        waiting = [name for name in waiting if name not in ready]
    return waves


def _members_asked(definitions: Mapping[str, Definition], name: str) -> set[str]:
    """Return the segments whose snapshots a segment is answered from."""
    leaves = (leaf for one in needed(definitions, name).values() for leaf in one.where.leaves())
    return {leaf.segment for leaf in leaves if isinstance(leaf, Membership)}
