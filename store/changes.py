"""Whom new facts touched: noted in the transaction that brings the facts, read by the next refresh of segments.

One row per batch, with all its ids. A row stays until a refresh of all segments that saw it has written all it led to,
so that a refresh killed half-way is repaired by the next one. A refresh of some segments takes no note away: it leaves
one that says which notes they have made use of. Where nobody refreshes, imports merge the notes every so often.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Table, delete, insert, select

from kernel.vocabulary import Subject
from store.ingest.bulk import among, among_given
from store.tables import accounts, changes, contacts, messages, products

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PRODUCT = "product"
_PROFILES = {subject: f"{subject}_profiles" for subject in Subject}
"""What `changes.subject` says where a row speaks of products, or of the profiles of everyone."""
_USED = "used_by_"
"""And where it holds the ids of notes that a segment has made use of: this, with the segment's id after it."""
_MOST_IDS = 100_000
MERGED_EVERY = 200
"""After how many new notes those there are get merged."""

Owners = Mapping[str, set[int | None]]
"""Ids of accounts, contacts and products, by the word for them; None among them stands for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is noted: `rows` are the ids of the notes, the others ids of subjects and products, ascending.

    `profiles` names the subjects of whom any profile may have moved. `used` tells by segment which notes it has made
    use of.
    """

    rows: list[int]
    accounts: NDArray[np.int64]
    contacts: NDArray[np.int64]
    products: NDArray[np.int64]
    profiles: frozenset[Subject]
    used: Mapping[int, frozenset[int]] = field(default_factory=dict)
    _notes: tuple[Row[Any], ...] = ()

    def but(self, rows: Collection[int]) -> Changes:
        """Return what is noted in other notes than these."""
        return _changes([note for note in self._notes if note.id not in rows], self.used)


def touch(connection: Connection, subject: Subject, ids: Iterable[int | None], *, merge: bool = True) -> list[int]:
    """Note that facts about these accounts or contacts changed; return the notes. None stands for nobody.

    To be called in the transaction that writes the facts: facts seen without their note would be overlooked. Senders,
    who note something with every chunk, leave merging to others: it takes the ids of all that was noted lately.
    """
    return _note(connection, subject, ids, merge=merge)


def touch_products(connection: Connection, ids: Iterable[int | None]) -> None:
    """Note that these products, or how many there are of them, changed: it concerns whoever bought them."""
    _note(connection, _PRODUCT, ids)


def touch_profiles(connection: Connection, subject: Subject) -> int:
    """Note that any profile of this kind of subject may move; return the note."""
    return _insert(connection, _PROFILES[subject], b"")


def owners(connection: Connection, table: Table, ids: Iterable[int]) -> Owners:
    """Return whom rows are about: accounts and contacts themselves, or those that facts or contacts belong to."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    if table is accounts or table is products:
        return {Subject.ACCOUNT if table is accounts else _PRODUCT: set(wanted)}
    if "account_id" not in table.c:
        return {}
    columns = [table.c.account_id] if table is contacts else [table.c.account_id, table.c.contact_id]
    rows = connection.execute(select(*columns).where(among(connection, table.c.id, wanted)).distinct()).all()
    people = set(wanted) if table is contacts else {row[1] for row in rows}
    return {Subject.ACCOUNT: {row[0] for row in rows}, Subject.CONTACT: people}


def touch_owners(connection: Connection, *parts: Owners) -> None:
    """Note whom rows are about, or were before they changed; one note for each kind."""
    for word in sorted({word for part in parts for word in part}):
        _note(connection, word, {one for part in parts for one in part.get(word, ())})


def touch_recipients(connection: Connection, message_ids: Sequence[int]) -> None:
    """Note the contacts that messages were made for. Their accounts follow by who belongs to whom."""
    if message_ids:
        found = connection.execute(_RECIPIENTS, {"message_ids": message_ids})
        touch(connection, Subject.CONTACT, found.scalars().all())


_RECIPIENTS = select(messages.c.contact_id).where(among_given(messages.c.id, "message_ids"))


def read_changes(connection: Connection) -> Changes:
    """Return everything noted and not yet taken away."""
    notes, used = _read(connection)
    return _changes(notes, used)


def keep_used(connection: Connection, segment_ids: Iterable[int], rows: Collection[int]) -> None:
    """Keep that these segments have made use of these notes, for later refreshes of them; and merge the notes."""
    for segment_id in segment_ids:
        _insert(connection, f"{_USED}{segment_id}", _packed(rows))
    merge_changes(connection)


def forget_changes(connection: Connection, rows: Sequence[int]) -> None:
    """Take away notes that a refresh of all segments has used; those that came in since stay.

    What segments have made use of is taken away with them, but for what is said of notes that stay.
    """
    _, used = _read(connection)
    gone = set(rows)
    if gone:
        connection.execute(delete(changes).where(among(connection, changes.c.id, sorted(gone))))
    _rewrite_used(connection, {segment: known - gone for segment, known in used.items()})


def merge_changes(connection: Connection) -> None:
    """Make of the notes few: one, or one for each hundred thousand ids, of those that the same segments have used.

    Whoever works on a note at the same time keeps it (a note too many costs a question). New rows are written before
    the old ones go, so that SQLite never gives an id a second time while somebody still means the note it had.
    """
    notes, used = _read(connection, only_free=True)
    groups: dict[tuple[str, frozenset[int]], list[Row[Any]]] = {}
    for note in notes:
        users = frozenset(segment for segment, known in used.items() if note.id in known)
        groups.setdefault((note.subject, users), []).append(note)
    claims = {segment: set(known) for segment, known in used.items()}
    gone: set[int] = set()
    for (word, users), group in groups.items():
        ids = _united(group)
        if len(group) <= max(1, -(-len(ids) // _MOST_IDS)):
            continue
        new = _insert_ids(connection, word, ids.tolist()) if len(ids) else [_insert(connection, word, b"")]
        gone |= {note.id for note in group}
        for segment in users:
            claims[segment] |= set(new)
    if gone:
        connection.execute(delete(changes).where(among(connection, changes.c.id, sorted(gone))))
    _rewrite_used(connection, {segment: frozenset(known - gone) for segment, known in claims.items()})


def _read(connection: Connection, *, only_free: bool = False) -> tuple[list[Row[Any]], dict[int, frozenset[int]]]:
    """Return the notes, and by segment which of them it has used; `only_free`: of notes those nobody else takes."""
    query = select(changes.c.id, changes.c.subject, changes.c.subject_ids).order_by(changes.c.id)
    marks = connection.execute(query.where(changes.c.subject.startswith(_USED))).all()
    notes = query.where(changes.c.subject.not_like(f"{_USED}%"))
    rows: list[Row[Any]] = [*connection.execute(notes.with_for_update(skip_locked=True) if only_free else notes)]
    there = {row.id for row in rows}
    used: dict[int, frozenset[int]] = {}
    for mark in marks:
        segment = int(mark.subject.removeprefix(_USED))
        known = frozenset(_unpacked(mark.subject_ids).tolist())
        used[segment] = used.get(segment, frozenset()) | (known if only_free else known & there)
    return rows, used


def _rewrite_used(connection: Connection, used: Mapping[int, Collection[int]]) -> None:
    """Put one row for each segment in the place of all there are; none where it has used nothing."""
    query = select(changes.c.id).where(changes.c.subject.startswith(_USED))
    old = connection.execute(query.with_for_update(skip_locked=True)).scalars().all()
    for segment, rows in used.items():
        if rows:
            _insert(connection, f"{_USED}{segment}", _packed(rows))
    if old:
        connection.execute(delete(changes).where(among(connection, changes.c.id, list(old))))


def _changes(notes: Sequence[Row[Any]], used: Mapping[int, frozenset[int]]) -> Changes:
    def all_of(word: str) -> NDArray[np.int64]:
        return _united([note for note in notes if note.subject == word])

    words = {note.subject for note in notes}
    return Changes(
        rows=[note.id for note in notes],
        accounts=all_of(Subject.ACCOUNT),
        contacts=all_of(Subject.CONTACT),
        products=all_of(_PRODUCT),
        profiles=frozenset(subject for subject, word in _PROFILES.items() if word in words),
        used=used,
        _notes=tuple(notes),
    )


def _united(notes: Sequence[Row[Any]]) -> NDArray[np.int64]:
    import numpy as np  # Here and below: whoever only writes notes, as a sending worker does, goes without it.

    nobody = np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate([nobody, *(_unpacked(note.subject_ids) for note in notes)]))


def _packed(ids: Collection[int]) -> bytes:
    return struct.pack(f"<{len(ids)}q", *sorted(ids))


def _unpacked(packed: bytes) -> NDArray[np.int64]:
    import numpy as np

    return np.frombuffer(packed, dtype="<i8").astype(np.int64)


def _note(connection: Connection, subject: str, ids: Iterable[int | None], *, merge: bool = True) -> list[int]:
    rows = _insert_ids(connection, subject, sorted({one for one in ids if one is not None}))
    if merge and any(row % MERGED_EVERY == 0 for row in rows):
        merge_changes(connection)
    return rows


def _insert_ids(connection: Connection, word: str, ids: Sequence[int]) -> list[int]:
    parts = (ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS))
    return [_insert(connection, word, _packed(part)) for part in parts]


def _insert(connection: Connection, word: str, packed: bytes) -> int:
    row: int = connection.execute(_INSERT, {"subject": word, "subject_ids": packed}).scalar_one()
    return row


_INSERT = insert(changes).returning(changes.c.id)
