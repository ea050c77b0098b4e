"""Yes and no of many questions in one pass: each answer is one bit of a whole number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, ColumnElement, Connection, FromClause, Select, case, false, literal, select

from segments.aggregates import Aggregates, Taken
from segments.kinship import holding
from segments.purchases import Ints
from segments.scope import Rows
from store.columns import read_grouped
from store.ingest.bulk import among

_BITS = 60
"""Questions per number: below 63, so that no sum of bits overflows or turns negative."""
_SLICE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Answers by key, ascending; who has no key has those of `otherwise`. One array of `flags` for 60 questions."""

    keys: Ints
    flags: list[Ints]
    otherwise: list[int]

    def of(self, targets: Ints) -> list[Ints]:
        """Return the flags of each target, in the order of the targets."""
        pairs = zip(self.flags, self.otherwise, strict=True)
        return [holding(self.keys, flags, targets, otherwise=otherwise) for flags, otherwise in pairs]


def answer(flags: Sequence[Ints], question: int) -> NDArray[np.bool_]:
    """Return the answers to one question out of arrays of flags."""
    answers: NDArray[np.bool_] = (flags[question // _BITS] & (1 << question % _BITS)) != 0
    return answers


def answer_columns(
    connection: Connection, table: FromClause, tests: Sequence[ColumnElement[bool]], *, only: Ints | None
) -> Pass:
    """Answer questions about a table's own columns, of everyone in it or of some ids."""
    packed = _packed(tests)
    query = select(table.c.id.label("key"), *packed).select_from(table)
    parts = [query] if only is None else [query.where(part) for part in _slices(connection, table.c.id, only)]
    return _passed(connection, parts, [0] * len(packed), table.c.id, whole=only is not None)


def answer_rows(connection: Connection, rows: Rows, tests: Sequence[ColumnElement[bool]], *, only: Ints | None) -> Pass:
    """Answer questions over each subject's rows, of everyone or of some ids."""
    aggregates = Aggregates(rows.where, connection.dialect)
    found = [aggregates.taken_out_of(test) for test in tests]
    grouped = select(rows.key.label("key"), *aggregates.columns).select_from(rows.source)
    grouped = grouped.where(rows.where, rows.key.is_not(None)).group_by(rows.key)
    nothing = select(literal(0).label("key"), *aggregates.columns).select_from(rows.source).where(false())
    otherwise = list(connection.execute(_Flags(nothing, found).query).one()[1:])
    asked = _Flags(grouped, found)
    # Read by its own `where`, so that a range of keys chooses rows before they are grouped.
    everyone = [cast("Select[Any]", asked)]
    parts = everyone if only is None else [asked.where(part) for part in _slices(connection, rows.key, only)]
    return _passed(connection, parts, otherwise, rows.key, whole=only is not None)


class _Flags:
    """Tests over a query of aggregates by key, to be read as a query whose conditions are about the rows themselves."""

    def __init__(self, grouped: Select[Any], tests: Sequence[Taken]) -> None:
        self._grouped = grouped
        self._tests = tests

    @property
    def query(self) -> Select[Any]:
        """The key and the packed answers."""
        inner = self._grouped.subquery("aggregated")
        return select(inner.c.key, *_packed([test.over(inner) for test in self._tests]))

    def where(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        """Return the query over fewer rows."""
        return _Flags(self._grouped.where(*conditions), self._tests).query

    def subquery(self) -> FromClause:
        """Return the query as a table."""
        return self.query.subquery()


def _slices(connection: Connection, key: Any, only: Ints) -> list[ColumnElement[bool]]:
    """Return conditions that together choose the ids; at least one."""
    starts = range(0, len(only), _SLICE) or [0]
    return [among(connection, key, only[start : start + _SLICE].tolist()) for start in starts]


def _packed(tests: Sequence[ColumnElement[bool]]) -> list[ColumnElement[int]]:
    """Return whole numbers with one bit for each test."""
    columns: list[ColumnElement[int]] = []
    for start in range(0, len(tests), _BITS):
        part = enumerate(tests[start : start + _BITS])
        bits = [case((test, literal(1 << at, BigInteger)), else_=literal(0, BigInteger)) for at, test in part]
        total: Any = bits[0]
        for bit in bits[1:]:
            total = total + bit
        columns.append(total.label(f"flags_{start}"))
    return columns


def _passed(
    connection: Connection,
    queries: Sequence[Select[Any]],
    otherwise: list[int],
    key: ColumnElement[Any],
    *,
    whole: bool,
) -> Pass:
    parts = [read_grouped(connection, query, key, whole=whole) for query in queries]
    keys, *flags = (np.concatenate([part[name] for part in parts]) for name in parts[0])
    return Pass(keys=keys, flags=flags, otherwise=otherwise)
