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
from segments.scoring import refresh_profiles
from segments.snapshots import drop_stays, present_members, write_stays
from segments.touched import Touched, buyers_of, tables_read
from store.changes import Changes, forget_changes, read_changes, touch_profiles
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
        now: The present instant.
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
            _forget(writer, engine, definitions, now)
            with writer() as connection:
                forget_changes(connection, run.used)
    return refreshed


class _Run:
    """One refresh, alone with the lock. `used` are the notes of changes that it made use of."""

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
        self._now = now
        self._progress = progress
        self._full = full
        self._unhurried = unhurried
        self._currency = workspace.settings.currency
        self._tables = {name: tables_read(definitions, name, now=now, currency=self._currency) for name in wanted}
        self._known: dict[str, Row[Any]] = {}
        self._facts: dict[Subject, Ints] = {}
        self._moved: dict[Subject, Ints] = {}
        self._moved_before = False
        self._dropped: set[str] = set()
        self._done = self._steps = 0
        self.used: list[int] = []

    def do(self) -> list[Refreshed]:
        """Refresh all that is wanted; in the order of the names."""
        with reading(self._engine) as connection:
            noted = read_changes(connection)
            self._known = {row.name: row for row in connection.execute(select(segments))}
            self._facts = self._touched_by_facts(connection, noted)
        self.used = noted.rows
        self._moved_before = bool(noted.profiles)
        self._wanted = [name for name in self._wanted if not self._left_alone(name)]
        waves = _waves(self._definitions, self._wanted)
        subjects = profiles_needed(self._definitions, self._wanted)
        self._steps = len(subjects) + len(waves) + len(self._wanted)
        self._refresh_profiles(subjects, noted)
        refreshed = [one for wave in waves for one in self._wave(wave)]
        self._tell("done")
        return sorted(refreshed, key=lambda one: one.name)

    # --- whom to ask ---

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

    def _refresh_profiles(self, subjects: Mapping[Subject, frozenset[str]], noted: Changes) -> None:
        """Compute the profiles that segments read: of those touched, or of all where that is due."""
        since = self._since()
        for subject, kinds in sorted(subjects.items()):
            self._tell(f"profiles of {subject}s")
            with reading(self._engine) as connection:
                some = since is not None and not self._full and subject not in noted.profiles
                some = some and profiles_stand(connection, self._settings, subject, kinds, now=self._now)
                only = self._touched_profiles(connection, subject, since) if some and since else None
            if only is None:
                # Noted before the first profile is written: killed from here on, the next refresh asks everyone.
                with self._writer() as connection:
                    self.used.append(touch_profiles(connection, subject))
            if only is None or len(only):
                run = refresh_profiles(
                    self._engine,
                    self._settings,
                    subject=subject,
                    now=self._now,
                    kinds=kinds,
                    only=only,
                    root=self._root,
                    note=False,
                )
                self._moved[subject] = run.changed

    def _touched_profiles(self, connection: Connection, subject: Subject, since: datetime) -> Ints:
        clocks = rfm_clocks(connection, self._settings, subject)
        touched = Touched(connection, self._definitions, facts=self._facts, now=self._now, currency=self._currency)
        ids = united(self._facts[subject], *(touched.crossed(clock, since) for clock in clocks))
        if self._settings.rfm.rollup != "none" and subject is Subject.ACCOUNT:
            return Kinship(connection).family_of(ids)
        return ids

    def _since(self) -> datetime | None:
        """Return since when profiles must be looked at: the oldest refresh of a segment; None: from the beginning."""
        instants = [self._known[name].refreshed_at if name in self._known else None for name in self._wanted]
        known = [instant for instant in instants if instant is not None]
        return min(known, default=None) if len(known) == len(instants) else None

    def _in_full(self, name: str) -> bool:
        """Tell whether everyone must be asked, because of what a segment reads or how it stands."""
        row = self._known.get(name)
        if self._full or row is None or row.refreshed_at is None or row.subject != self._definitions[name].subject:
            return True
        if row.digest != deep_digest(self._definitions, name, self._currency):
            return True
        if self._now - row.refreshed_at > LONGEST_GAP or _members_asked(self._definitions, name) & self._dropped:
            return True
        tables = self._tables[name]
        return bool(tables & _SHARED) or (self._moved_before and "profiles" in tables)

    def _left_alone(self, name: str) -> bool:
        """Tell whether the segment, though everyone would have to be asked, was asked not long ago."""
        row = self._known.get(name)
        lately = row is not None and row.refreshed_at is not None and self._now - row.refreshed_at < SHARED_EVERY
        return self._unhurried and not self._full and lately and bool(self._tables[name] & _SHARED)

    def _asked(self, connection: Connection, names: Sequence[str]) -> dict[str, Ints | None]:
        """Return for each segment whom to ask; None for everyone."""
        moved = {subject: united(ids, self._moved.get(subject, NOBODY)) for subject, ids in self._facts.items()}
        plain, scored = (
            Touched(connection, self._definitions, facts=facts, now=self._now, currency=self._currency)
            for facts in (self._facts, moved)
        )
        asked: dict[str, Ints | None] = {}
        for name in names:
            subject = self._definitions[name].subject
            touched = scored if "profiles" in self._tables[name] else plain
            ids = None if self._in_full(name) else touched.of(name, self._known[name].refreshed_at)
            many = ids is not None and len(ids) > LARGEST_SHARE * _population(connection, subject)
            asked[name] = None if many else ids
        return asked

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
                    as_of=self._now,
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
                values = {"subject": definition.subject, "digest": "", "refreshed_at": None}
                connection.execute(update(segments).where(segments.c.id == row.id).values(**values))
        if row.subject != definition.subject:
            drop_stays(self._writer, row.id)
            self._dropped.add(name)
        return int(row.id)

    def _written(
        self, name: str, segment_id: int, entered: Ints, left: Ints, size: int | None, *, asked: Ints | None
    ) -> Refreshed:
        self._tell(name)
        definition = self._definitions[name]
        row = self._known.get(name)
        # Never before the last refresh, whatever the clock of this machine says: stays do not overlap.
        at = max(self._now, row.refreshed_at) if row is not None and row.refreshed_at else self._now
        new = deep_digest(self._definitions, name, self._currency)
        write_stays(self._writer, segment_id, entered=entered, left=left, at=at)
        values = {"definition": definition_to_json(definition), "digest": new, "refreshed_at": at}
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
