"""Rows of numbers as one value: packed by the database on the way out, by numpy on the way in.

A row fetched one by one costs a Python object for each of its values, made under the interpreter's lock. So SQLite
writes thousands of rows into one text, PostgreSQL into one string of bytes, and numpy reads either at a stroke; and
numpy writes what PostgreSQL's COPY reads in its binary format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Boolean, ColumnElement, Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeEngine, UserDefinedType

NULL_INT = int(np.iinfo(np.int64).min)
"""Stands in columns of whole numbers where the database has NULL; in columns of floats it is NaN."""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NUMBERS = {"BIGINT": ">i8", "INTEGER": ">i4", "SMALLINT": ">i2", "FLOAT": ">f8", "DOUBLE PRECISION": ">f8"}


def is_float(column: ColumnElement[Any]) -> bool:
    """Return whether a column's values are floats by their SQL type."""
    return isinstance(column.type, Float)


class NumberList(UserDefinedType[Any]):
    """What `number_list` gives, in a form of each database's own."""

    cache_ok = True


class number_list(FunctionElement[Any]):  # noqa: N801 - reads as an SQL function
    """An aggregate: the whole numbers of a group one after the other, NULLs left out; NULL where there are none.

    Only `read_grouped` knows how to read it.
    """

    type: TypeEngine[Any] = NumberList()
    inherit_cache = True


@compiles(number_list, "sqlite")
def _sqlite_list(element: number_list, compiler: SQLCompiler, **kw: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **kw)})"


@compiles(number_list, "postgresql")
def _postgresql_list(element: number_list, compiler: SQLCompiler, **kw: Any) -> str:
    return f"string_agg(int8send(CAST({compiler.process(element.clauses, **kw)} AS BIGINT)), ''::bytea)"


class packed_rows(FunctionElement[Any]):  # noqa: N801 - reads as an SQL function
    """An aggregate: all rows in one value, each a fixed number of numbers; NULL where there are no rows."""

    type: TypeEngine[Any] = NullType()
    inherit_cache = True


class joined_lists(FunctionElement[Any]):  # noqa: N801 - reads as an SQL function
    """An aggregate: the lists made by `number_list` one after the other."""

    type: TypeEngine[Any] = NullType()
    inherit_cache = True


@compiles(packed_rows, "sqlite")
def _sqlite_rows(element: packed_rows, compiler: SQLCompiler, **kw: Any) -> str:
    parts = [f"coalesce({compiler.process(clause, **kw)}, {NULL_INT})" for clause in element.clauses]
    line = " || ',' || ".join(parts)
    return f"group_concat({line})"


@compiles(packed_rows, "postgresql")
def _postgresql_rows(element: packed_rows, compiler: SQLCompiler, **kw: Any) -> str:
    parts = []
    for clause in element.clauses:
        text = compiler.process(clause, **kw)
        if is_float(clause):
            parts.append(f"float8send(coalesce(CAST({text} AS DOUBLE PRECISION), 'NaN'))")
        else:
            whole = f"{text}::int" if isinstance(clause.type, Boolean) else text
            parts.append(f"int8send(coalesce(CAST({whole} AS BIGINT), {NULL_INT}))")
    return f"string_agg({' || '.join(parts)}, ''::bytea)"


@compiles(joined_lists, "sqlite")
def _sqlite_joined(element: joined_lists, compiler: SQLCompiler, **kw: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **kw)})"


@compiles(joined_lists, "postgresql")
def _postgresql_joined(element: joined_lists, compiler: SQLCompiler, **kw: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **kw)}, ''::bytea)"


def unpacked(value: str | bytes | memoryview | None) -> NDArray[np.int64]:
    """Return the numbers of a packed value: a text of decimals from SQLite, 64-bit big-endian from PostgreSQL.

    Floats among them come as their bits.
    """
    if value is None:
        return np.zeros(0, dtype=np.int64)
    if isinstance(value, str):
        return np.fromstring(value, sep=",", dtype=np.int64)
    return np.frombuffer(value, dtype=">i8").astype(np.int64)


def copied(columns: Sequence[NDArray[Any] | Sequence[Any]], types: Sequence[str]) -> bytes:
    """Return rows in the binary format of PostgreSQL's COPY.

    Args:
        columns: Arrays of numbers, NULL_INT and NaN for NULL, or lists of texts and None; all of one length.
        types: The SQL type of each: an integer, a float or TEXT.

    Raises:
        TypeError: a type this does not write.

    Source:
        PostgreSQL documentation, COPY, "Binary Format".
    """
    rows = len(columns[0])
    fields = [np.full((rows, 2), np.frombuffer(len(columns).to_bytes(2, "big"), np.uint8), dtype=np.uint8)]
    kept = [np.ones((rows, 2), dtype=np.bool_)]
    for column, kind in zip(columns, types, strict=True):
        if kind == "TEXT":
            value, width, present = _texts(column)
        elif kind in _NUMBERS:
            value, width, present = _numbers(column, _NUMBERS[kind])
        else:
            raise TypeError(f"columns of type {kind} are not written in bulk")
        length = np.where(present, width, -1).astype(">i4")
        fields += [length.view(np.uint8).reshape(rows, 4), value]
        kept += [np.ones((rows, 4), dtype=np.bool_), _first(value.shape[1], np.where(present, width, 0))]
    body: bytes = np.hstack(fields)[np.hstack(kept)].tobytes()
    return _SIGNATURE + body + _TRAILER


def _first(width: int, lengths: NDArray[Any]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.arange(width) < lengths[:, None]
    return mask


def _numbers(
    column: NDArray[Any] | Sequence[Any], form: str
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.bool_]]:
    values = np.asarray(column)
    present = ~np.isnan(values) if values.dtype.kind == "f" else values != NULL_INT
    target = np.dtype(form)
    if form.endswith("i4") and present.any() and np.abs(values[present]).max() > np.iinfo(np.int32).max:
        raise OverflowError(f"{np.abs(values[present]).max()} does not fit into 32 bits")
    written = np.where(present, values, 0).astype(target)
    return (
        written.view(np.uint8).reshape(len(values), target.itemsize),
        np.full(len(values), target.itemsize),
        present,
    )


def _texts(column: Any) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.bool_]]:
    encoded = [None if text is None else text.encode() for text in column]
    width = np.array([0 if text is None else len(text) for text in encoded])
    longest = max(1, int(width.max(initial=0)))
    table = np.array([text or b"" for text in encoded], dtype=f"S{longest}")
    present = np.array([text is not None for text in encoded])
    return table.view(np.uint8).reshape(len(encoded), longest), width, present
