"""From segments to SQL: one SELECT of ids, every value a bound parameter."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Select, select

from kernel.documents import did_you_mean
from kernel.errors import ConfigError
from segments.conditions import MAX_DEPTH
from segments.definitions import Definition, depth
from segments.scope import Referred, Scope, subjects


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

    def find(other: str) -> Referred:
        found = _known(definitions, other)
        return Referred(subject=found.subject, zone=ZoneInfo(found.timezone), where=found.where)

    definition = _known(definitions, name)
    if depth(definitions, name) > MAX_DEPTH:
        raise ConfigError(
            f"segment {name!r}: conditions nest deeper than {MAX_DEPTH} levels, those of segments it names counted in"
        )
    return Scope(
        subject=definition.subject,
        table=subjects(definition.subject),
        as_of=as_of,
        currency=currency,
        zone=ZoneInfo(definition.timezone),
        find=find,
        path=(name,),
    )


def _known(definitions: Mapping[str, Definition], name: str) -> Definition:
    if name not in definitions:
        raise ConfigError(f"unknown segment {name!r} ({did_you_mean(name, definitions)})")
    return definitions[name]
