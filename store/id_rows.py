"""Any number of ids as rows of a statement, with one bound parameter: many times faster than a row each."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Connection, Integer, bindparam, cast, func, literal
from sqlalchemy.sql import column


def id_rows(connection: Connection, ids: Sequence[int]) -> ColumnElement[int]:
    """Return a column of these ids, one row for each, to be selected from."""
    if connection.dialect.name == "postgresql":
        array = bindparam(None, list(ids), type_=ARRAY(BigInteger))
        return func.unnest(array, type_=BigInteger).column_valued("given")
    given = func.json_each(literal(json.dumps(list(ids)))).table_valued(column("value", Integer))
    return cast(given.c.value, Integer)
