"""Aggregates shared by many questions: each distinct one computed once, and by no more conditions than it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, true
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BooleanClauseList, FunctionFilter, Grouping
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Exists, ScalarSelect, SelectBase
from sqlalchemy.sql.visitors import replacement_traverse

from store.aggregates import first_number, last_number, last_text

_PLAIN = frozenset({"sum", "count", "min", "max", "avg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A test whose aggregates are columns of an inner query, by the names given here."""

    test: ColumnElement[bool]
    names: Mapping[int, str]

    def over(self, inner: FromClause) -> ColumnElement[bool]:
        """Return the test over the inner query's columns."""

        def replaced(element: Any, **_: Any) -> Any:
            name = self.names.get(id(element))
            return inner.c[name] if name is not None else None

        found: ColumnElement[bool] = replacement_traverse(self.test, {}, replaced)
        return found


class Aggregates:
    """The distinct aggregates of any number of tests over the same rows.

    Args:
        where: What holds of all the rows: a filter that says so again says nothing.
        dialect: By whose words equal aggregates are known.
    """

    def __init__(self, where: ColumnElement[bool], dialect: Dialect) -> None:
        self._dialect = dialect
        self._given = {self._words(part) for part in _conjuncts(where)}
        self._names: dict[Any, str] = {}
        self.columns: list[ColumnElement[Any]] = []

    def taken_out_of(self, test: ColumnElement[bool]) -> Taken:
        """Return the test with its aggregates among the columns."""
        names: dict[int, str] = {}
        for aggregate in _outermost(test):
            names[id(aggregate)] = self._name(aggregate)
        return Taken(test=test, names=names)

    def _name(self, aggregate: ColumnElement[Any]) -> str:
        plain = self._without_the_given(aggregate)
        words = self._words(plain)
        if words not in self._names:
            self._names[words] = f"a{len(self._names)}"
            self.columns.append(plain.label(self._names[words]))
        return self._names[words]

    def _without_the_given(self, aggregate: ColumnElement[Any]) -> ColumnElement[Any]:
        if not isinstance(aggregate, FunctionFilter) or aggregate.criterion is None:
            return aggregate
        needed = [part for part in _conjuncts(aggregate.criterion) if self._words(part) not in self._given]
        function: Any = aggregate.func
        filtered: ColumnElement[Any] = function.filter(and_(true(), *needed)) if needed else function
        return filtered

    def _words(self, element: ColumnElement[Any]) -> tuple[str, str]:
        compiled = element.compile(dialect=self._dialect)
        return str(compiled), repr(sorted(compiled.params.items()))


def _conjuncts(condition: Any) -> Iterator[ColumnElement[Any]]:
    if isinstance(condition, Grouping):
        condition = condition.element
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from _conjuncts(part)
    else:
        yield condition


def _outermost(element: Any) -> Iterator[ColumnElement[Any]]:
    """Yield the aggregates of an expression that stand within no other; none of a query within it."""
    plain = isinstance(element, FunctionElement) and getattr(element, "name", "") in _PLAIN
    if plain or isinstance(element, FunctionFilter | first_number | last_number | last_text):
        yield element
    elif not isinstance(element, SelectBase | ScalarSelect | Exists):
        for child in element.get_children():
            yield from _outermost(child)
