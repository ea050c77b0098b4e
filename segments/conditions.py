"""The tree of a segment's question: branches, relations to other subjects, and one field per kind of leaf.

`Condition` is the one table of the language: a new leaf is a model in `segments/leaves/` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator
from sqlalchemy import ColumnElement, and_, case, exists, not_, or_, select, true

from kernel.fields import Strict
from kernel.vocabulary import Subject
from segments.impossible import impossible
from segments.leaves.attribute import Attribute, Role
from segments.leaves.basics import Everyone, NeverBought, Reference
from segments.leaves.bucket import Bucket
from segments.leaves.cluster import Cluster
from segments.leaves.consent import Consent
from segments.leaves.engagement import Engagement
from segments.leaves.events import Events
from segments.leaves.lifetime import Cadence, Lifetime
from segments.leaves.membership import Membership
from segments.leaves.opportunities import Opportunities
from segments.leaves.orders import Orders
from segments.leaves.rfm import Rfm
from segments.leaves.stock import Stock
from segments.relations import ACCOUNT, RELATIONS
from segments.scope import Clock, Flaw, Leaf, Place, Question, Scope, Surroundings, Way

Conditions = Annotated[list["Condition"], Field(min_length=1, max_length=200)]
RELATED = tuple(key for key in RELATIONS if key != ACCOUNT)
"""Branches that ask their condition about other subjects."""
BRANCHES = ("all", "any", "not", "at_least", *RELATED)
MAX_DEPTH = 50
"""How deep conditions may nest, those of segments referred to counted in: beyond it nobody understands them."""
_DEEP = 6
"""Beyond this a condition is asked in a statement of its own, in front: SQLite's parser nests only so deep."""
_LEVELS = {"all": 1, "any": 1, "not": 1, "at_least": 3}
_LEVELS_OF_A_RELATION = 3


class AtLeast(Strict):
    """At least so many of these conditions hold."""

    n: int = Field(ge=1)
    of: Conditions

    @model_validator(mode="after")
    def _enough(self) -> AtLeast:
        if self.n > len(self.of):
            raise ValueError(f"at_least {self.n} of {len(self.of)} condition(s) can never hold")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """What a part of a condition asks of other subjects, or of the same ones where a segment is named.

    `scope` is where `condition` is to be asked; `link` tells which rows of `scope.table` are related to a row of the
    asking scope's table, and is true where both are the same table. `relation` is a word of `relations.RELATIONS`,
    or "" for the same subjects.
    """

    relation: str
    condition: Question
    scope: Scope
    link: ColumnElement[Any]


class Condition(Strict):
    """One question about an account or a contact: exactly one of these keys."""

    all_: Conditions | None = Field(default=None, alias="all", description="Every one of these holds.")
    any_: Conditions | None = Field(default=None, alias="any", description="At least one of these holds.")
    not_: Condition | None = Field(default=None, alias="not", description="This does not hold.")
    at_least: AtLeast | None = Field(default=None, description="So many of these hold, or more.")
    any_contact: Condition | None = Field(default=None, description="This holds for some contact of the account.")
    any_colleague: Condition | None = Field(
        default=None, description="This holds for another contact of the same account."
    )
    parent: Condition | None = Field(default=None, description="This holds for the parent account.")
    any_child: Condition | None = Field(
        default=None, description="This holds for some account whose parent is this one."
    )
    any_sibling: Condition | None = Field(
        default=None, description="This holds for some other account of the same parent."
    )
    attribute: Attribute | None = None
    role: Role | None = None
    orders: Orders | None = None
    never_bought: NeverBought | None = None
    events: Events | None = None
    engagement: Engagement | None = None
    opportunities: Opportunities | None = None
    stock: Stock | None = None
    rfm: Rfm | None = None
    cluster: Cluster | None = None
    lifetime: Lifetime | None = None
    cadence: Cadence | None = None
    consent: Consent | None = None
    segment: Reference | None = None
    membership: Membership | None = None
    bucket: Bucket | None = None
    everyone: Everyone | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Condition:
        keys = sorted(field.strip("_") for field in self.model_fields_set)
        if not keys:
            raise ValueError("a condition has one key, this one has none")
        if len(keys) > 1:
            raise ValueError(
                f"a condition has one key, this one has {', '.join(keys)}; put them in a list under all: or any:"
            )
        if getattr(self, next(iter(self.model_fields_set))) is None:
            raise ValueError(f"{keys[0]} says nothing")
        return self

    @property
    def key(self) -> str:
        """The one key, as written in the file."""
        field = next(iter(self.model_fields_set))
        return type(self).model_fields[field].alias or field

    @property
    def leaf(self) -> Leaf | None:
        """The leaf, or None where this is a branch."""
        found: Leaf | None = None if self.key in BRANCHES else getattr(self, self.key)
        return found

    def parts(self) -> list[tuple[Place, Condition]]:
        """Return the conditions directly below, each with its place in the file; none below a leaf."""
        for many in (self.all_, self.any_):
            if many is not None:
                return [((self.key, index), one) for index, one in enumerate(many)]
        if self.at_least is not None:
            return [((self.key, "of", index), one) for index, one in enumerate(self.at_least.of)]
        one = None if self.leaf is not None else getattr(self, "not_" if self.key == "not" else self.key)
        return [((self.key,), one)] if one else []

    def references(self) -> Iterator[tuple[Place, str]]:
        """Yield place and name of every segment referred to."""
        if self.segment is not None:
            yield (self.key,), self.segment.root
        for place, part in self.parts():
            for below, name in part.references():
                yield (*place, *below), name

    def snapshots(self) -> Iterator[tuple[Place, str]]:
        """Yield place and name of every segment whose snapshots are read: best refreshed before this one."""
        if self.membership is not None:
            yield (self.key, "segment"), self.membership.segment
        for place, part in self.parts():
            for below, name in part.snapshots():
                yield (*place, *below), name

    def depth(self, of_segment: Callable[[str], int]) -> int:
        """Return how many levels of conditions there are, this one counted in, and those of segments referred to."""
        below = [part.depth(of_segment) for _, part in self.parts()]
        return 1 + (of_segment(self.segment.root) if self.segment is not None else max(below, default=0))

    def leaves(self) -> Iterator[Leaf]:
        """Yield every leaf of the tree."""
        if self.leaf is not None:
            yield self.leaf
        for _, part in self.parts():
            yield from part.leaves()

    def flaws(self, surroundings: Surroundings) -> Iterator[Flaw]:
        """Yield everything in the tree that does not fit the surroundings."""
        if self.leaf is not None:
            for flaw in self.leaf.flaws(surroundings):
                yield replace(flaw, place=(self.key, *flaw.place))
            if isinstance(self.leaf, BaseModel):
                yield from impossible(self.leaf, (self.key,))
        if self.key == "any_colleague" and surroundings.subject is Subject.ACCOUNT:
            hint = "for some contact of the account write any_contact: …"
            yield Flaw(place=(self.key,), message="accounts have no colleagues, contacts have", hint=hint)
        if surroundings.depth >= MAX_DEPTH:
            yield replace(too_deep(), place=(self.key,))
            return
        below = replace(surroundings, depth=surroundings.depth + 1)
        if self.key in RELATED:
            below = replace(below, subject=RELATIONS[self.key].leads_to)
        for place, part in self.parts():
            for flaw in part.flaws(below):
                yield replace(flaw, place=(*place, *flaw.place))

    def related(self, scope: Scope) -> Related | None:
        """Return whom the condition below is about where those are not simply the scope's subjects.

        That is below any_contact and its like, and below a segment referred to; None for everything else.
        """
        if self.segment is not None:
            return self._referred(self.segment, scope)
        if self.key not in RELATED:
            return None
        relation = RELATIONS[self.key]
        inner = scope.about(relation.leads_to)
        ((_, condition),) = self.parts()
        return Related(relation=self.key, condition=condition, scope=inner, link=relation.link(scope, inner.table))

    def _referred(self, reference: Reference, scope: Scope) -> Related:
        condition, inner = scope.entering(reference.root)
        if inner.table is scope.table:
            return Related(relation="", condition=condition, scope=inner, link=true())
        link = RELATIONS[ACCOUNT].link(scope, inner.table)
        return Related(relation=ACCOUNT, condition=condition, scope=inner, link=link)

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return the condition as SQL over the scope's subjects: true or false, never NULL."""
        if self.segment is None and self.leaf is not None:
            return self.leaf.holds(scope)
        if scope.nesting > _DEEP:
            inner = replace(scope.about(scope.subject), nesting=0)
            ahead = select(inner.id).where(self.holds(inner)).cte()
            # PostgreSQL would fold it back in and ask it anew for every row.
            return scope.id.in_(select(ahead.prefix_with("MATERIALIZED", dialect="postgresql").c.id))
        related = self.related(scope)
        if related is not None:
            return _holds_of(related, scope)
        parts = [part.holds(scope.deeper(_LEVELS[self.key])) for _, part in self.parts()]
        if self.not_ is not None:
            return not_(parts[0])
        if self.at_least is not None:
            first, *others = (case((part, 1), else_=0) for part in parts)
            return sum(others, first) >= self.at_least.n
        return or_(*parts) if self.any_ is not None else and_(*parts)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the actual values a leaf judges by; none for a branch."""
        return self.leaf.shown(scope) if self.leaf is not None else {}

    def clocks(self, scope: Scope) -> Iterator[tuple[Way, Clock]]:
        """Yield the clocks of every leaf, each with the relations that lead to the subjects it is about.

        The first relation of a way leads from the scope's subjects to the next, and so on; a clock's own `whose` then
        says whether its key is that subject, or the account of that contact.
        """
        related = self.related(scope)
        if related is not None:
            for way, clock in related.condition.clocks(related.scope):
                yield ((related.relation, *way) if related.relation else way), clock
            return
        if self.leaf is not None:
            yield from (((), clock) for clock in self.leaf.clocks(scope))
        for _, part in self.parts():
            yield from part.clocks(scope)


def _holds_of(related: Related, scope: Scope) -> ColumnElement[bool]:
    if related.relation == "":
        return related.condition.holds(related.scope)
    inside = related.condition.holds(related.scope.deeper(_LEVELS_OF_A_RELATION))
    return exists().select_from(related.scope.table).where(related.link, inside).correlate(scope.table)


def too_deep() -> Flaw:
    """Return what is wrong with a condition below too many others."""
    hint = "take a part of it into a segment of its own, or say it more simply"
    return Flaw(place=(), message=f"conditions nest deeper than {MAX_DEPTH} levels here", hint=hint)


LEAVES = tuple(
    field.alias or name for name, field in Condition.model_fields.items() if (field.alias or name) not in BRANCHES
)
"""The key of every leaf, in the order of the table."""
