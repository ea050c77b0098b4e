"""Asking a source of orders, so that every answer is about our ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from sqlalchemy import Connection, Select

from segments.purchases import Ints
from segments.warehouse import LineRows
from store.columns import Columns, read_grouped
from store.ingest.bulk import among

_SLICE = 20_000

Question = Callable[[LineRows], Select[Any]]
"""Makes a query out of orders and their lines: grouped by the subject, which is its first column, `id`."""


class Reader(Protocol):
    """Answers questions as whole numbers, ascending by our ids.

    Texts come as positions of no meaning but that equal ones are equal. `unknown` counts subjects the source knows
    and we do not, `unknown_example` is the external id of one; their rows are left out.
    """

    unknown: int
    unknown_example: str

    def ask(self, question: Question, *, only: Ints | None = None) -> Columns:
        """Return the answer, about everybody or only about some."""


class OwnReader:
    """Asks our own tables."""

    unknown = 0
    unknown_example = ""

    def __init__(self, connection: Connection, lines: LineRows) -> None:
        self._connection = connection
        self._lines = lines
        self._key: Any = lines.rows.key

    def ask(self, question: Question, *, only: Ints | None = None) -> Columns:
        """Return the answer, about everybody or, by slices of their ids, only about some."""
        if only is None:
            return read_grouped(self._connection, question(self._lines), self._key)
        parts = []
        for start in range(0, max(len(only), 1), _SLICE):
            some = among(self._connection, self._key, only[start : start + _SLICE].tolist())
            parts.append(read_grouped(self._connection, question(self._lines.within(some)), self._key, whole=True))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
