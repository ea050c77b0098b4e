"""Whom new facts touched: noted in the transaction that brings the facts, read by the next refresh of segments.

One row per batch, with all its ids. A row stays until a refresh that saw it has written all it led to, so that a
refresh killed half-way is repaired by the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, delete, select

from kernel.vocabulary import Subject
from store.ingest.bulk import among
from store.sql import insert_into
from store.tables import accounts, changes, contacts, messages, products

_PRODUCT = "product"
_PROFILES = {subject: f"{subject}_profiles" for subject in Subject}
"""What `changes.subject` says where a row speaks of products, or of the profiles of everyone."""
_MOST_IDS = 100_000

Owners = Mapping[str, set[int | None]]
"""Ids of accounts, contacts and products, by the word for them; None among them stands for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is noted: `rows` are the ids of the notes, the others ids of subjects and products, ascending.

    `profiles` names the subjects of whom any profile may have moved.
    """

    rows: list[int]
    accounts: NDArray[np.int64]
    contacts: NDArray[np.int64]
    products: NDArray[np.int64]
    profiles: frozenset[Subject]


def touch(connection: Connection, subject: Subject, ids: Iterable[int | None]) -> None:
    """Note that facts about these accounts or contacts changed. None stands for nobody.

    To be called in the transaction that writes the facts: facts seen without their note would be overlooked.
    """
    _note(connection, subject, ids)


def touch_products(connection: Connection, ids: Iterable[int | None]) -> None:
    """Note that these products, or how many there are of them, changed: it concerns whoever bought them."""
    _note(connection, _PRODUCT, ids)


def touch_profiles(connection: Connection, subject: Subject) -> int:
    """Note that any profile of this kind of subject may move, before all of them are computed anew; return the row."""
    statement = insert_into(connection, changes).values(subject=_PROFILES[subject], subject_ids=b"")
    row: int = connection.execute(statement.returning(changes.c.id)).scalar_one()
    return row


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
        query = select(messages.c.contact_id).where(among(connection, messages.c.id, list(message_ids)))
        touch(connection, Subject.CONTACT, connection.execute(query).scalars().all())


def read_changes(connection: Connection) -> Changes:
    """Return everything noted and not yet taken away."""
    rows = connection.execute(select(changes.c.id, changes.c.subject, changes.c.subject_ids)).all()
    ids: dict[str, list[NDArray[np.int64]]] = {}
    for row in rows:
        ids.setdefault(row.subject, []).append(np.frombuffer(row.subject_ids, dtype="<i8").astype(np.int64))
    nobody = np.zeros(0, dtype=np.int64)

    def all_of(word: str) -> NDArray[np.int64]:
        return np.unique(np.concatenate([nobody, *ids.get(word, [])]))

    return Changes(
        rows=[row.id for row in rows],
        accounts=all_of(Subject.ACCOUNT),
        contacts=all_of(Subject.CONTACT),
        products=all_of(_PRODUCT),
        profiles=frozenset(subject for subject, word in _PROFILES.items() if word in ids),
    )


def forget_changes(connection: Connection, rows: Sequence[int]) -> None:
    """Take away notes that a refresh has used; those that came in since stay."""
    if rows:
        connection.execute(delete(changes).where(among(connection, changes.c.id, list(rows))))


def _note(connection: Connection, subject: str, ids: Iterable[int | None]) -> None:
    wanted = sorted({one for one in ids if one is not None})
    for start in range(0, len(wanted), _MOST_IDS):
        part = wanted[start : start + _MOST_IDS]
        values: dict[str, Any] = {"subject": subject, "subject_ids": struct.pack(f"<{len(part)}q", *part)}
        connection.execute(changes.insert().values(**values))
