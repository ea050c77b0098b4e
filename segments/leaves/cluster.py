"""Clusters: the lasting key of a buyer's cluster, the one before, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from sqlalchemy import ColumnElement, and_

from segments.comparisons import Ago, Text
from segments.leaves.profiles import Model, ProfileLeaf, found
from segments.scope import Clock, Flaw, Scope, Surroundings
from store.json_values import one_of
from store.tables import profiles


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Keys = Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1, max_length=1000)]


class Cluster(ProfileLeaf):
    """Buyers by cluster. Several keys must all hold; who has no cluster satisfies no such condition.

    Contacts are judged by their account's cluster unless `of: contact` asks for their own.
    """

    model: ClassVar[Model] = "clusters"

    key: Keys | None = Field(default=None, description="Keys of clusters, as `carillon clusters` shows them.")
    previous: Keys | None = Field(default=None, description="The cluster before the present one.")
    since: Ago | None = Field(default=None, description="How long ago the present cluster was entered.")

    def flaws(self, surroundings: Surroundings) -> Iterator[Flaw]:
        """Yield an empty condition, or a contact's cluster asked of an account."""
        yield from super().flaws(surroundings)
        if not self.model_fields_set - {"of"}:
            yield Flaw(place=(), message="cluster asks nothing", hint="add key, previous or since")

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether there is a cluster and it is as asked."""
        columns = profiles.c
        parts: list[ColumnElement[bool]] = [columns.cluster.is_not(None)]
        if self.key is not None:
            parts.append(one_of(columns.cluster, self.key))
        if self.previous is not None:
            parts.append(one_of(columns.previous_cluster, self.previous))
        if self.since is not None:
            parts.append(self.since.lies_in(scope, columns.cluster_since))
        return found(and_(*parts))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the cluster, the one before and since when."""
        columns = profiles.c
        shown = {"cluster": columns.cluster, "previous": columns.previous_cluster, "since": columns.cluster_since}
        return {name: self.value(scope, column) for name, column in shown.items()}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when the present cluster reaches the age that is asked for."""
        return self.clock(scope, profiles.c.cluster_since, self.since)
