"""Opportunities: deals by stage, by time in the stage and by value, as they stood before now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from sqlalchemy import BigInteger, ColumnElement, and_, cast, exists, func, literal, not_, or_, true, type_coerce

from kernel.clock import to_ms
from kernel.vocabulary import Subject
from segments.buyers import DAY_MS
from segments.comparisons import Comparison, Text
from segments.scope import Clock, Flaw, OnRows, Rows, Scope, Surroundings, Whose, sure
from store.json_values import one_of
from store.tables import opportunities, opportunity_stages

Measure = Literal["count", "sum"]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stages = Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1, max_length=1000)]


class Opportunities(OnRows, Comparison):
    """How many opportunities there are of this kind, or what they are worth together; without a border, one or more.

    An opportunity stands in the stage it entered last before now. Its value is the one last imported, in major units
    of the workspace's currency; one of another currency, or of no value, satisfies no border of `value` and adds
    nothing to `sum`.
    """

    measure: Measure = "count"
    stage: Stages | None = Field(default=None, description="Only those in one of these stages.")
    not_stage: Stages | None = Field(default=None, description="Only those in none of these stages.")
    days_in_stage: Comparison | None = Field(default=None, description="Whole days since the stage was entered.")
    value: Comparison | None = Field(default=None, description="What one opportunity is worth.")
    of: Whose | None = Field(default=None, description="Whose opportunities; default: the subject's own.")

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return borders that do not fit, or a contact's opportunities asked of an account."""
        if surroundings.subject is Subject.ACCOUNT and self.of == "contact":
            yield Flaw(place=("of",), message="of: in a segment of accounts write any_contact: {opportunities: …}")
        if self.measure == "sum":
            yield from self.money_flaws()
        elif any(self.borders()):
            yield from self.whole_number_flaws("a count")
        if self.days_in_stage is not None:
            yield from self.days_in_stage.whole_number_flaws("days_in_stage", place=("days_in_stage",))
        if self.value is not None:
            yield from self.value.money_flaws(place=("value",))

    def rows(self, scope: Scope) -> Rows:
        """Return each opportunity with the stage it stood in before now."""
        whose, key = self._key(scope)
        later = opportunity_stages.alias("later_stages")
        followed = exists().where(
            later.c.opportunity_id == opportunity_stages.c.opportunity_id,
            later.c.entered_at < scope.as_of,
            or_(
                later.c.entered_at > opportunity_stages.c.entered_at,
                and_(later.c.entered_at == opportunity_stages.c.entered_at, later.c.id > opportunity_stages.c.id),
            ),
        )
        stands = and_(opportunity_stages.c.entered_at < scope.as_of, not_(followed.correlate(opportunity_stages)))
        where = and_(key.is_not(None), stands)
        return Rows(name=f"opportunities/{whose}", source=_SOURCE, key=key, whose=whose, where=where)

    def test(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the measure lies within the borders."""
        value = self._value(scope)
        if self.measure == "sum":
            return sure(self.holds_for_money(value, scope.currency))
        return sure(self.holds_for(value)) if any(self.borders()) else value >= 1

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the measure; money in minor units."""
        name = "sum_minor" if self.measure == "sum" else "count"
        return {name: self.asked(scope, self._value(scope))}

    def clocks(self, scope: Scope) -> Iterator[Clock]:
        """Yield when a stage reaches the age asked for, or ceases to be in the future."""
        whose, key = self._key(scope)
        ages = self.days_in_stage.days_after() if self.days_in_stage else ()
        after = (timedelta(0), *ages)
        at = opportunity_stages.c.entered_at
        yield Clock(source=_SOURCE, key=key, whose=whose, at=at, where=key.is_not(None), after=after)

    def _key(self, scope: Scope) -> tuple[Subject, ColumnElement[Any]]:
        whose = Subject(self.of or scope.subject)
        return whose, opportunities.c.account_id if whose is Subject.ACCOUNT else opportunities.c.contact_id

    def _counts(self, scope: Scope) -> ColumnElement[bool]:
        stage = opportunity_stages.c.stage
        parts: list[ColumnElement[bool]] = [true()]
        if self.stage is not None:
            parts.append(one_of(stage, self.stage))
        if self.not_stage is not None:
            parts.append(not_(one_of(stage, self.not_stage)))
        if self.days_in_stage is not None:
            entered = type_coerce(opportunity_stages.c.entered_at, BigInteger)
            parts.append(self.days_in_stage.holds_for((literal(to_ms(scope.as_of), BigInteger) - entered) // DAY_MS))
        if self.value is not None:
            parts.append(self.value.holds_for_money(opportunities.c.value_minor, scope.currency))
        if self.value is not None or self.measure == "sum":
            parts.append(opportunities.c.currency == scope.currency)
        return and_(*parts)

    def _value(self, scope: Scope) -> ColumnElement[Any]:
        counts = self._counts(scope)
        if self.measure == "count":
            return func.count(opportunities.c.id).filter(counts)
        return cast(func.coalesce(func.sum(opportunities.c.value_minor).filter(counts), 0), BigInteger)


_SOURCE = opportunity_stages.join(opportunities, opportunities.c.id == opportunity_stages.c.opportunity_id)
