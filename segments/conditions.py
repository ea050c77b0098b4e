"""The tree of a segment's question: `all`, `any`, `not`, `any_contact`, and one field per kind of leaf.

`Condition` is the one table of the language: a new leaf is a model in `segments/leaves/` and a line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, model_validator
from sqlalchemy import ColumnElement, and_, not_, or_, select

from kernel.settings import Strict
from kernel.vocabulary import Subject
from segments.leaves.attribute import Attribute
from segments.leaves.basics import Everyone, NeverBought, Reference
from segments.leaves.consent import Consent
from segments.leaves.events import Events
from segments.leaves.orders import Orders
from segments.leaves.rfm import Rfm
from segments.scope import Flaw, Leaf, Place, Scope, Surroundings, sure

Conditions = Annotated[list["Condition"], Field(min_length=1, max_length=200)]
BRANCHES = ("all", "any", "not", "any_contact")


class Condition(Strict):
    """One question about an account or a contact: exactly one of these keys."""

    all_: Conditions | None = Field(default=None, alias="all", description="Every one of these holds.")
    any_: Conditions | None = Field(default=None, alias="any", description="At least one of these holds.")
    not_: Condition | None = Field(default=None, alias="not", description="This does not hold.")
    any_contact: Condition | None = Field(default=None, description="This holds for some contact of the account.")
    attribute: Attribute | None = None
    orders: Orders | None = None
    rfm: Rfm | None = None
    consent: Consent | None = None
    events: Events | None = None
    segment: Reference | None = None
    never_bought: NeverBought | None = None
    everyone: Everyone | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Condition:
        keys = sorted(field.strip("_") if field != "any_contact" else field for field in self.model_fields_set)
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
        one = self.not_ or self.any_contact
        return [((self.key,), one)] if one else []

    def references(self) -> Iterator[tuple[Place, str]]:
        """Yield place and name of every segment referred to."""
        if self.segment is not None:
            yield (self.key,), self.segment.root
        for place, part in self.parts():
            for below, name in part.references():
                yield (*place, *below), name

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
        below = replace(surroundings, subject=Subject.CONTACT) if self.any_contact else surroundings
        for place, part in self.parts():
            for flaw in part.flaws(below):
                yield replace(flaw, place=(*place, *flaw.place))

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return the condition as SQL over the scope's subjects: true or false, never NULL."""
        if self.leaf is not None:
            return self.leaf.holds(scope)
        if self.any_contact is not None:
            return some_contact(self.any_contact, scope)
        parts = [part.holds(scope) for _, part in self.parts()]
        if self.not_ is not None:
            return not_(parts[0])
        return or_(*parts) if self.any_ is not None else and_(*parts)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the actual values a leaf judges by; none for a branch."""
        return self.leaf.shown(scope) if self.leaf is not None else {}


def some_contact(condition: Condition, scope: Scope) -> ColumnElement[bool]:
    """Return whether some contact of the subject's account satisfies the condition; its own contact may be the one."""
    inner = scope.about(Subject.CONTACT)
    account = inner.table.c.account_id
    found = select(account).where(account.is_not(None), condition.holds(inner))
    return sure(scope.id_of("account").in_(found))


LEAVES = tuple(
    field.alias or name for name, field in Condition.model_fields.items() if (field.alias or name) not in BRANCHES
)
"""The key of every leaf, in the order of the table."""
