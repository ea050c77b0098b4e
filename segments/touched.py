"""Whose answers may have changed since a segment was last refreshed: by new facts, by time, or by their relatives.

A superset is enough, since everyone named here is asked anew; leaving somebody out is the one mistake there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import BigInteger, Connection, Table, select, type_coerce
from sqlalchemy.sql.visitors import iterate

from kernel.clock import to_ms
from kernel.vocabulary import Subject
from segments.compiler import scope_of
from segments.conditions import Condition
from segments.definitions import Definition
from segments.kinship import NOBODY, Kinship, read_ids, united
from segments.leaves.attribute import Attribute
from segments.purchases import Ints
from segments.relations import ACCOUNT
from segments.scope import Clock, Scope
from store.columns import read_columns
from store.ingest.bulk import among
from store.tables import order_lines, orders

_MILLISECOND = timedelta(milliseconds=1)


class Touched:
    """Answers whose membership must be looked at again.

    Args:
        connection: An open connection.
        definitions: At least the segments asked for and all they refer to.
        facts: Accounts and contacts that facts were noted of.
        now: The present instant.
        currency: The workspace's.
    """

    def __init__(
        self,
        connection: Connection,
        definitions: Mapping[str, Definition],
        *,
        facts: Mapping[Subject, Ints],
        now: datetime,
        currency: str,
    ) -> None:
        self._connection = connection
        self._definitions = definitions
        self._facts = facts
        self._now = now
        self._currency = currency
        self._kinship = Kinship(connection)
        self._crossed: dict[Any, Ints] = {}

    def of(self, name: str, since: datetime) -> Ints:
        """Return the subjects of a segment that may have entered or left it since an instant, ascending."""
        scope = scope_of(self._definitions, name, as_of=self._now, currency=self._currency)
        own = self._facts[scope.subject]
        return united(own, self._of(self._definitions[name].where, scope, since))

    def _of(self, condition: Condition, scope: Scope, since: datetime) -> Ints:
        related = condition.related(scope)
        if related is not None:
            inner = self._of(cast("Condition", related.condition), related.scope, since)
            return self._askers(related.relation, inner, scope.subject)
        if condition.leaf is not None:
            return united(self._by_facts(condition, scope.subject), *self._by_time(condition, scope, since))
        return united(*(self._of(part, scope, since) for _, part in condition.parts()))

    def _by_facts(self, condition: Condition, subject: Subject) -> Ints:
        firms = self._facts[Subject.ACCOUNT]
        for _ in range(_hops(condition)):
            firms = united(firms, self._kinship.children_of(firms))
        return united(self._facts[subject], self._kinship.whose(Subject.ACCOUNT, firms, subject))

    def _by_time(self, condition: Condition, scope: Scope, since: datetime) -> list[Ints]:
        if condition.leaf is None:
            return []
        return [
            self._kinship.whose(clock.whose, self.crossed(clock, since), scope.subject)
            for clock in condition.leaf.clocks(scope)
        ]

    def crossed(self, clock: Clock, since: datetime) -> Ints:
        """Return the keys of rows for which the clock passed between the instant and now."""
        first, last = sorted((since, self._now))
        found = [NOBODY]
        for after in clock.after:
            lowest, highest = to_ms(first - after - _MILLISECOND), to_ms(last - after + _MILLISECOND)
            at = type_coerce(clock.at, BigInteger)
            query = (
                select(clock.key)
                .select_from(clock.source)
                .where(clock.where, at >= lowest, at <= highest, clock.key.is_not(None))
                .distinct()
            )
            compiled = query.compile(dialect=self._connection.dialect)
            asked = (str(compiled), tuple(sorted((name, str(value)) for name, value in compiled.params.items())))
            if asked not in self._crossed:
                self._crossed[asked] = united(read_ids(self._connection, query))
            found.append(self._crossed[asked])
        return united(*found)

    def _askers(self, relation: str, inner: Ints, subject: Subject) -> Ints:
        """Return whose answer may change where those they ask may answer otherwise, or are other ones than before."""
        if relation == "":
            return inner
        firms, kinship = self._facts[Subject.ACCOUNT], self._kinship
        if relation == ACCOUNT:
            return united(self._facts[subject], kinship.contacts_of(inner))
        if relation in ("any_contact", "any_colleague"):
            askers = kinship.accounts_of(inner)
        elif relation == "parent":
            askers = kinship.children_of(inner)
        elif relation == "any_child":
            askers = kinship.parents_of(inner)
        else:
            askers = kinship.children_of(united(firms, kinship.parents_of(united(firms, inner))))
        return united(self._facts[subject], kinship.whose(Subject.ACCOUNT, united(firms, askers), subject))


def _hops(condition: Condition) -> int:
    """Return how many parents up an attribute stands."""
    return condition.leaf.name.split(".").count("parent") if isinstance(condition.leaf, Attribute) else 0


def buyers_of(connection: Connection, products: Ints) -> dict[Subject, Ints]:
    """Return the accounts and contacts that ever ordered one of these products."""
    query = (
        select(orders.c.account_id, orders.c.contact_id)
        .join(order_lines, order_lines.c.order_id == orders.c.id)
        .where(among(connection, order_lines.c.product_id, products.tolist()))
        .distinct()
    )
    found = read_columns(connection, query)
    return {Subject.ACCOUNT: united(found["account_id"]), Subject.CONTACT: united(found["contact_id"])}


def tables_read(definitions: Mapping[str, Definition], name: str, *, now: datetime, currency: str) -> frozenset[str]:
    """Return the names of the tables a segment and all it refers to are answered from."""
    return frozenset(_tables(definitions[name].where, scope_of(definitions, name, as_of=now, currency=currency)))


def _tables(condition: Condition, scope: Scope) -> set[str]:
    related = condition.related(scope)
    if related is not None:
        return _tables(cast("Condition", related.condition), related.scope)
    if condition.leaf is not None:
        return {one.name for one in iterate(condition.leaf.holds(scope)) if isinstance(one, Table)}
    return {table for _, part in condition.parts() for table in _tables(part, scope)}
