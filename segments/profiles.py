"""Profile rows: what is held of the buyers now, what differs from it, and writing that in short transactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Table,
    case,
    cast,
    delete,
    func,
    literal,
    select,
    type_coerce,
)

from kernel.vocabulary import Subject
from segments.purchases import DAY_MS, Floats, Ints
from segments.rfm_moves import MovedBy
from store.columns import NULL_INT, insert_columns, merge_columns, read_columns
from store.engine import writing
from store.ingest.bulk import among
from store.tables import profiles

Column = Ints | Floats

KEYS = ("subject", "subject_id")
FACTS = (
    *("scored_as", "first_order_at", "last_order_at", "orders", "days", "net_minor", "returned_minor"),
    *("median_gap_days", "products"),
)
RFM = ("rfm_model_id", "r", "f", "m", "frequency", "monetary_minor", "rfm_segment")
CLUSTERS = ("cluster_model_id", "cluster")
LIFETIME = (*("lifetime_model_id", "p_alive", "expected_orders", "order_value_minor", "clv_minor", "next_order_at"),)
_RFM_PAST = ("previous_rfm_segment", "rfm_since", "rfm_moved_by")
_CLUSTER_PAST = ("previous_cluster", "cluster_since")
_NOT_COMPARED = ("p_alive", "expected_orders", "order_value_minor")
"""Predictions differ only where the instant of the next order does, the value of orders, or the model."""
_WORDS = ("rfm_segment", "previous_rfm_segment", "rfm_moved_by", "cluster", "previous_cluster")
_DELETE_SLICE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """All words that columns of text may hold; the columns here are their positions, NULL_INT for none."""

    groups: tuple[str, ...]
    clusters: tuple[str, ...]

    def of(self, column: str) -> tuple[str, ...]:
        """Return the words of a column."""
        if column == "rfm_moved_by":
            return tuple(MovedBy)
        return self.clusters if column.endswith("cluster") else self.groups

    def position(self, column: str, words: Sequence[str]) -> Ints:
        """Return the positions of words among those of a column; every one must be there."""
        places = {word: place for place, word in enumerate(self.of(column))}
        return np.array([places[word] for word in words], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Profiles as columns, ascending by id: whole numbers (NULL_INT: none), floats (NaN: none), words by position."""

    ids: Ints
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What must be written: `rows` made or changed, `gone` deleted; `first` where nothing was held before."""

    rows: Rows
    gone: Ints
    first: bool

    @property
    def ids(self) -> Ints:
        """Everybody whose profile is not what it was."""
        return np.sort(np.concatenate([self.rows.ids, self.gone])) if len(self.gone) else self.rows.ids


def read_held(connection: Connection, subject: Subject, words: Words, *, only: Ints | None = None) -> Rows:
    """Return the profiles as they are, of everybody or of some."""
    every = (*FACTS, *RFM, *_RFM_PAST, *CLUSTERS, *_CLUSTER_PAST, *LIFETIME)
    names = [name for name in every if name not in _NOT_COMPARED]
    query = select(profiles.c.subject_id, *(_as_number(name, words).label(name) for name in names))
    query = query.where(profiles.c.subject == subject)
    if only is not None:
        query = query.where(among(connection, profiles.c.subject_id, only.tolist()))
    # Whole numbers only: a million rows of them are read several times as fast as rows with floats among them.
    columns = read_columns(connection, query)
    columns["median_gap_days"] = _from_ms(columns["median_gap_days"])
    order = np.argsort(columns["subject_id"], kind="stable")
    if not (order[:-1] < order[1:]).all():
        columns = {name: column[order] for name, column in columns.items()}
    return Rows(ids=columns.pop("subject_id"), columns=columns)


def places(held: Rows, ids: Ints) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where each of the ids is held, and whether it is; the place means nothing where it is not."""
    at = np.searchsorted(held.ids, ids)
    at = np.minimum(at, max(len(held) - 1, 0))
    known = held.ids[at] == ids if len(held) else np.zeros(len(ids), dtype=np.bool_)
    return at, known


def difference(held: Rows, fresh: Rows, *, now_ms: int, asked: Ints | None = None) -> Difference:
    """Return what must be written so that the rows held become the fresh ones.

    Fresh columns that are absent stay as they are held. Who changes group or cluster keeps the latest different one
    as the previous, and gets `now_ms` as since when; who stays keeps both. `rfm_moved_by` comes with the fresh rows
    and counts where the group changed.

    Args:
        held: Of everybody, or of those asked about.
        fresh: Who is a buyer now, with all columns of the models applied.
        now_ms: As of when.
        asked: Whose fresh rows these are; None: everybody's. Who is held and asked about, but not fresh, is gone.
    """
    at, known = places(held, fresh.ids)
    columns = {**fresh.columns}
    if "rfm_segment" in columns:
        moved = _moved(held, at, known, columns, "rfm_segment", "previous_rfm_segment", "rfm_since", now_ms)
        columns["rfm_moved_by"] = np.where(moved, columns["rfm_moved_by"], _held(held, at, known, "rfm_moved_by"))
    if "cluster" in columns:
        _moved(held, at, known, columns, "cluster", "previous_cluster", "cluster_since", now_ms)
    same = known.copy()
    for name, column in columns.items():
        if name in _NOT_COMPARED:
            continue
        old, new = held.columns[name][at[known]], column[known]
        if column.dtype.kind == "f":
            same[known] &= (np.abs(old - new) * DAY_MS < 1) | (np.isnan(old) & np.isnan(new))
        else:
            same[known] &= old == new
    changed = np.flatnonzero(~same)
    gone = np.setdiff1d(held.ids, fresh.ids, assume_unique=True)
    if asked is not None:
        gone = np.intersect1d(gone, asked)
    rows = Rows(ids=fresh.ids[changed], columns={name: column[changed] for name, column in columns.items()})
    return Difference(rows=rows, gone=gone, first=not len(held) and asked is None)


def write(engine: Engine, subject: Subject, changes: Difference, words: Words, *, now_ms: int) -> None:
    """Bring the table to the fresh rows, in short transactions in the order of ids: sending never waits for long."""
    if len(changes.rows):
        columns = as_columns(subject, changes.rows, words, now_ms=now_ms)
        if not changes.first:
            merge_columns(engine, profiles, KEYS, columns)
        else:
            _insert_first(engine, columns)
    for start in range(0, len(changes.gone), _DELETE_SLICE):
        with writing(engine) as connection:
            connection.execute(deletion(connection, profiles, subject, changes.gone[start : start + _DELETE_SLICE]))


def _insert_first(engine: Engine, columns: dict[str, Any]) -> None:
    """Append the rows, which is faster than merging them; unless another process makes the first profiles too."""
    try:
        insert_columns(engine, profiles, columns)
    except engine.dialect.loaded_dbapi.IntegrityError:  # The driver's own: columns go past SQLAlchemy.
        merge_columns(engine, profiles, KEYS, columns)


def deletion(connection: Connection, table: Table, subject: Subject, ids: Ints) -> Delete:
    """Return the statement that takes these profiles away, from the table or from a copy of it."""
    mine = among(connection, table.c.subject_id, ids.tolist())
    return delete(table).where(table.c.subject == subject, mine)


def as_columns(subject: Subject, rows: Rows, words: Words, *, now_ms: int) -> dict[str, Any]:
    """Return all columns of the table that the rows have, as they are written: words as text."""
    columns: dict[str, Any] = {
        "subject": [subject.value] * len(rows),
        "subject_id": rows.ids,
        "scored_at": np.full(len(rows), now_ms, dtype=np.int64),
    }
    for name, column in rows.columns.items():
        columns[name] = _as_text(column, words.of(name)) if name in _WORDS else column
    return columns


def as_rows(columns: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return what `as_columns` gave as rows of plain values."""
    plain = []
    for column in columns.values():
        if isinstance(column, list):
            plain.append(column)
        else:
            missing = np.isnan(column) if column.dtype.kind == "f" else column == NULL_INT
            values = column.astype(object)
            values[missing] = None
            plain.append(values.tolist())
    return list(zip(*plain, strict=True))


def _as_text(column: Column, words: Iterable[str]) -> list[str | None]:
    table = np.array([*(str(word) for word in words), None], dtype=object)
    found: list[str | None] = table[np.where(column < 0, -1, column).astype(np.intp)].tolist()
    return found


def _as_number(name: str, words: Words) -> ColumnElement[Any]:
    column = profiles.c[name]
    if name in _WORDS:
        known: Mapping[Any, Any] = {word: place for place, word in enumerate(words.of(name))}
        number = case(known, value=column) if known else literal(None)
        return type_coerce(number, BigInteger)
    if name == "median_gap_days":
        return cast(func.round(column * DAY_MS), BigInteger)
    return type_coerce(column, BigInteger) if name.endswith(("_at", "_since")) else column


def _from_ms(gaps_ms: Ints) -> Floats:
    return np.where(gaps_ms == NULL_INT, np.nan, gaps_ms / DAY_MS)


def _held(held: Rows, at: NDArray[np.intp], known: NDArray[np.bool_], name: str) -> Ints:
    """Return a column of what is held in the order of the fresh rows; NULL_INT where nothing is."""
    if not len(held):
        return np.full(len(at), NULL_INT, dtype=np.int64)
    return np.where(known, held.columns[name][at], NULL_INT).astype(np.int64, copy=False)


def _moved(
    held: Rows,
    at: NDArray[np.intp],
    known: NDArray[np.bool_],
    columns: dict[str, Column],
    name: str,
    previous: str,
    since: str,
    now_ms: int,
) -> NDArray[np.bool_]:
    """Add previous and since to the columns; return who changed."""
    old, new = _held(held, at, known, name), columns[name]
    moved: NDArray[np.bool_] = old != new
    earlier = _held(held, at, known, previous)
    earlier = np.where(moved & (old != NULL_INT), old, earlier)
    columns[previous] = np.where(earlier == new, NULL_INT, earlier)
    columns[since] = np.where(moved, now_ms, _held(held, at, known, since))
    return moved
