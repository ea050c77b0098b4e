"""Who belongs to whom: contacts to accounts, accounts to their parents, as arrays of ids."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, FromClause, Select, select

from kernel.vocabulary import Subject
from segments.purchases import Ints
from store.columns import NULL_INT, read_columns, read_grouped
from store.ingest.bulk import among
from store.tables import accounts, contacts

NOBODY: Ints = np.zeros(0, dtype=np.int64)
NO_ID = NULL_INT
"""Stands in arrays of ids where there is none: the account of a contact without one, the parent of a top account."""
_SLICE = 20_000


def united(*parts: Ints) -> Ints:
    """Return the ids that occur in any of the arrays, ascending, each once, without `NO_ID`."""
    ids: Ints = np.unique(np.concatenate([NOBODY, *parts]))
    return np.asarray(ids[ids != NO_ID], dtype=np.int64)


def holding(keys: Ints, values: NDArray[Any], wanted: Ints, *, otherwise: Any) -> NDArray[Any]:
    """Return for each wanted id the value at its place among the ascending keys; `otherwise` where it is not there."""
    if len(keys) == len(wanted) and np.array_equal(keys, wanted):
        return values
    found = np.full(len(wanted), otherwise, dtype=values.dtype)
    if len(keys):
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        known = keys[place] == wanted
        found[known] = values[place[known]]
    return found


def read_ids(connection: Connection, query: Select[Any]) -> Ints:
    """Return the one column of a query of ids, in no promised order; NULL as `NO_ID`."""
    (ids,) = read_columns(connection, query).values()
    return cast("Ints", ids)


class Kinship:
    """Looks up relatives in the database, for any number of ids; each question is asked once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[str, bytes], Ints] = {}

    def accounts_of(self, contact_ids: Ints) -> Ints:
        """Return the accounts these contacts belong to."""
        return self._step("accounts_of", contacts, contacts.c.id, contacts.c.account_id, contact_ids)

    def contacts_of(self, account_ids: Ints) -> Ints:
        """Return the contacts of these accounts."""
        return self._step("contacts_of", contacts, contacts.c.account_id, contacts.c.id, account_ids)

    def parents_of(self, account_ids: Ints) -> Ints:
        """Return the accounts these belong to."""
        return self._step("parents_of", accounts, accounts.c.id, accounts.c.parent_id, account_ids)

    def children_of(self, account_ids: Ints) -> Ints:
        """Return the accounts that belong to these."""
        return self._step("children_of", accounts, accounts.c.parent_id, accounts.c.id, account_ids)

    def siblings_of(self, account_ids: Ints) -> Ints:
        """Return the accounts with a parent in common with these, themselves among them."""
        return self.children_of(self.parents_of(account_ids))

    def family_of(self, account_ids: Ints) -> Ints:
        """Return the accounts with everyone above and below them."""
        family = account_ids
        while True:
            wider = united(family, self.parents_of(family), self.children_of(family))
            if len(wider) == len(family):
                return wider
            family = wider

    def relatives(self, relation: str, account_ids: Ints) -> Ints:
        """Return whom a relation leads to, from the subjects' own accounts."""
        if relation in ("any_contact", "any_colleague"):
            return self.contacts_of(account_ids)
        if relation == "parent":
            return self.parents_of(account_ids)
        if relation == "any_child":
            return self.children_of(account_ids)
        return self.siblings_of(account_ids) if relation == "any_sibling" else account_ids

    def whose(self, subject: Subject, ids: Ints, wanted: Subject) -> Ints:
        """Return the ids themselves, or the accounts of contacts, or the contacts of accounts."""
        if subject is wanted:
            return ids
        return self.contacts_of(ids) if wanted is Subject.CONTACT else self.accounts_of(ids)

    def column(self, table: Any, wanted: Any, ids: Ints) -> Ints:
        """Return a column's ids at some rows, in the order of the ascending ids; `NO_ID` where it is NULL."""
        parts = [NOBODY]
        for start in range(0, len(ids), _SLICE):
            mine = ids[start : start + _SLICE]
            part = among(self._connection, table.c.id, mine.tolist())
            query = select(table.c.id, wanted.label("wanted")).where(part)
            found = read_grouped(self._connection, query, table.c.id, whole=True)
            parts.append(holding(found["id"], found["wanted"], mine, otherwise=NO_ID))
        return np.concatenate(parts)

    def _step(self, word: str, table: FromClause, given: Any, wanted: Any, ids: Ints) -> Ints:
        key = (word, ids.tobytes())
        if key not in self._known:
            found = [NOBODY]
            for start in range(0, len(ids), _SLICE):
                part = among(self._connection, given, ids[start : start + _SLICE].tolist())
                found.append(read_ids(self._connection, select(wanted).select_from(table).where(part)))
            self._known[key] = united(*found)
        return self._known[key]
