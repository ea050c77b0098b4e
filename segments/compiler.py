"""From segments to SQL: one SELECT of ids, every value a bound parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, select

from kernel.documents import did_you_mean
from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments.definitions import Definition
from segments.scope import Scope, subjects, sure


def members(definitions: Mapping[str, Definition], name: str, *, as_of: datetime, currency: str) -> Select[int]:
    """Return the query of a segment's members: one column `id`, of accounts or of contacts.

    Other segments it refers to are answered in place, by their definitions. RFM groups are those of the last
    refresh of scores; orders and events are those before `as_of`.

    Args:
        definitions: At least the segment and all it refers to.
        name: Which segment.
        as_of: Aware instant; windows are measured back from it.
        currency: The workspace's, in whose major units the files give money.

    Raises:
        ConfigError: the segment, or one it refers to, is not among the definitions.
    """
    scope = scope_of(definitions, name, as_of=as_of, currency=currency)
    return select(scope.id.label("id")).where(definitions[name].where.holds(scope))


def scope_of(definitions: Mapping[str, Definition], name: str, *, as_of: datetime, currency: str) -> Scope:
    """Return the scope in which a segment's condition is asked. Raises ConfigError like `members`."""

    def inline(other: str, asking: Scope) -> ColumnElement[bool]:
        return _inlined(_known(definitions, other), asking)

    definition = _known(definitions, name)
    return Scope(
        subject=definition.subject,
        table=subjects(definition.subject),
        as_of=as_of,
        currency=currency,
        zone=ZoneInfo(definition.timezone),
        inline=inline,
        path=(name,),
    )


def _inlined(definition: Definition, asking: Scope) -> ColumnElement[bool]:
    if definition.name in asking.path:
        raise ConfigError(f"segments refer to each other in a circle: {' → '.join([*asking.path, definition.name])}")
    scope = replace(asking, zone=ZoneInfo(definition.timezone), path=(*asking.path, definition.name))
    if definition.subject is asking.subject:
        return definition.where.holds(scope)
    if definition.subject is Subject.CONTACT:
        raise ConfigError(f"segment {definition.name!r} is about contacts and cannot pick accounts")
    inner = scope.about(Subject.ACCOUNT)
    return sure(asking.id_of("account").in_(select(inner.id).where(definition.where.holds(inner))))


def _known(definitions: Mapping[str, Definition], name: str) -> Definition:
    if name not in definitions:
        raise ConfigError(f"unknown segment {name!r} ({did_you_mean(name, definitions)})")
    return definitions[name]
