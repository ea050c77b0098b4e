"""RFM: the group and scores of the last refresh, the group before, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from sqlalchemy import ColumnElement, and_

from kernel.documents import did_you_mean
from segments.comparisons import Ago, Comparison, Text
from segments.leaves.profiles import Model, ProfileLeaf, found, placed
from segments.scope import Clock, Flaw, Scope, Surroundings
from store.json_values import one_of
from store.tables import profiles

MovedBy = Literal["own_action", "time", "cutoff", "new"]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Groups = Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1, max_length=1000)]
Moves = Annotated[list[MovedBy], BeforeValidator(_listed), Field(min_length=1)]


class Rfm(ProfileLeaf):
    """Buyers by RFM group and by the scores r, f and m, the highest the best.

    Contacts are judged by their account's scores unless `of: contact` asks for their own. Who never bought has
    no score and satisfies no such condition. Several keys must all hold.
    """

    model: ClassVar[Model] = "rfm"

    segment: Groups | None = None
    r: Comparison | None = None
    f: Comparison | None = None
    m: Comparison | None = None
    previous: Groups | None = Field(default=None, description="The group before the present one.")
    since: Ago | None = Field(default=None, description="How long ago the present group was entered.")
    moved_by: Moves | None = Field(default=None, description="What led to the present group.")

    def flaws(self, surroundings: Surroundings) -> Iterator[Flaw]:
        """Yield an empty condition, unknown groups, borders that are no scores, a contact's scores of an account."""
        yield from super().flaws(surroundings)
        if not self.model_fields_set - {"of"}:
            yield Flaw(place=(), message="rfm asks nothing", hint="add segment, r, f, m, previous, since or moved_by")
        for key, words in (("segment", self.segment), ("previous", self.previous)):
            for index, word in enumerate(words or ()):
                if word not in surroundings.rfm_groups:
                    message = f"{word!r} is not a group of the workspace's RFM map"
                    yield Flaw(place=(key, index), message=message, hint=did_you_mean(word, surroundings.rfm_groups))
        best = surroundings.rfm_scores
        for axis, borders in self._axes():
            yield from borders.whole_number_flaws(f"the score {axis}", place=(axis,))
            for operator, value in borders.borders():
                if isinstance(value, int) and not 1 <= value <= best:
                    message = f"{operator}: scores go from 1 to {best}, got {value}"
                    yield Flaw(place=(axis, operator), message=message)

    def _axes(self) -> Iterator[tuple[str, Comparison]]:
        return placed({"r": self.r, "f": self.f, "m": self.m})

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether there is a score and it is as asked."""
        columns = profiles.c
        parts: list[ColumnElement[bool]] = [columns.rfm_segment.is_not(None)]
        parts.extend(borders.holds_for(columns[axis]) for axis, borders in self._axes())
        for words, column in (
            (self.segment, columns.rfm_segment),
            (self.previous, columns.previous_rfm_segment),
            (self.moved_by, columns.rfm_moved_by),
        ):
            if words is not None:
                parts.append(one_of(column, list(words)))
        if self.since is not None:
            parts.append(self.since.lies_in(scope, columns.rfm_since))
        return found(and_(*parts))

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return group and scores, and what else is asked for; NULL where there are none."""
        columns = profiles.c
        shown = {"segment": columns.rfm_segment, "r": columns.r, "f": columns.f, "m": columns.m}
        if self.previous is not None:
            shown["previous"] = columns.previous_rfm_segment
        if self.since is not None:
            shown["since"] = columns.rfm_since
        if self.moved_by is not None:
            shown["moved_by"] = columns.rfm_moved_by
        return {name: self.value(scope, column) for name, column in shown.items()}

    def clocks(self, scope: Scope) -> Iterable[Clock]:
        """Return when the present group reaches the age that is asked for."""
        return self.clock(scope, profiles.c.rfm_since, self.since)
