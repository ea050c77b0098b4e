"""Consent: the latest word a contact gave for a channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import ColumnElement, exists, func, literal, not_, select

from kernel.settings import Strict
from kernel.vocabulary import Channel, Subject
from segments.scope import Flaw, Scope, Surroundings
from store.tables import consents


class Consent(Strict):
    """Contacts by their consent: granted, withdrawn, or none where the person never said a word."""

    channel: Annotated[Channel, Field(strict=False)]
    status: Literal["granted", "withdrawn", "none"] = "granted"

    def flaws(self, surroundings: Surroundings) -> Iterable[Flaw]:
        """Return that only people consent, where the segment is about accounts."""
        if surroundings.subject is Subject.ACCOUNT:
            hint = "in a segment of accounts write any_contact: {consent: …}"
            yield Flaw(place=(), message="consent is given by contacts, not by accounts", hint=hint)

    def holds(self, scope: Scope) -> ColumnElement[bool]:
        """Return whether the contact's latest word is the one asked for."""
        table = consents.alias()
        word = exists().where(table.c.contact_id == scope.id, table.c.channel == self.channel).correlate(scope.table)
        return not_(word) if self.status == "none" else word.where(table.c.status == self.status)

    def shown(self, scope: Scope) -> dict[str, ColumnElement[Any]]:
        """Return the latest word."""
        table = consents.alias()
        word = (
            select(table.c.status)
            .where(table.c.contact_id == scope.id, table.c.channel == self.channel)
            .correlate(scope.table)
            .scalar_subquery()
        )
        return {"status": func.coalesce(word, literal("none"))}
